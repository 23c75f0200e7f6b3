package reply

import (
	"crypto/rand"
	"encoding/base64"
)

// addressPrefix is what RabbitMQ puts before the name of a queue that it names itself. Clients cannot declare a queue with
// this prefix, so whoever holds such an address got it from the broker.
const (
	addressPrefix = "amq.gen-"
	addressRandom = 22 // base64url characters of 16 random bytes
)

// ValidAddress says whether s has the form of a server-named queue: "amq.gen-" and 22 base64url characters. It keeps a
// request from having its answer published to any other queue.
func ValidAddress(s string) bool {
	if len(s) != len(addressPrefix)+addressRandom || s[:len(addressPrefix)] != addressPrefix {
		return false
	}
	for _, c := range []byte(s[len(addressPrefix):]) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// newAddress is a name as the server would give it: unguessable and never the same twice.
func newAddress() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program first
	return addressPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}
