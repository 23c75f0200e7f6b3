package reply

import (
	"crypto/rand"
	"encoding/base64"
	"strings"

	"github.com/google/uuid"
)

// addressPrefix is what RabbitMQ puts before the name of a queue that it names itself. Clients cannot declare a queue with
// this prefix, so whoever holds such an address got it from the broker.
const (
	addressPrefix = "amq.gen-"
	addressRandom = 22 // base64url characters of 16 random bytes
)

// mailboxPrefix and a request's id make the address of its mailbox.
const mailboxPrefix = "ebb.mailbox."

// ValidAddress says whether s has the form of a reply address: the name of a server-named queue, "amq.gen-" and 22 base64url
// characters, or that of a mailbox. It keeps a request from having its answer published to any other queue.
func ValidAddress(s string) bool {
	if _, ok := MailboxID(s); ok {
		return true
	}
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

// MailboxAddress is the reply address of the mailbox of the request with this id.
func MailboxAddress(id string) string { return mailboxPrefix + id }

// MailboxID is the id of the request whose mailbox has the address s. False says that s is the address of none.
func MailboxID(s string) (id string, ok bool) {
	id, ok = strings.CutPrefix(s, mailboxPrefix)
	return id, ok && ValidMailboxID(id)
}

// ValidMailboxID says whether a mailbox can be that of a request with this id: a UUID of 36 lower-case characters.
func ValidMailboxID(id string) bool {
	u, err := uuid.Parse(id)
	return err == nil && u.String() == id
}

// newAddress is a name as the server would give it: unguessable and never the same twice.
func newAddress() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program first
	return addressPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}
