package source

import (
	"bytes"
	"crypto/md5" //nolint:gosec // object stores have it; it is for accidents, as CRC32C is
	"crypto/sha256"
	"hash"
	"hash/crc32"
	"io"
)

// Sum is a checksum that a file must have. The zero value asks for none.
type Sum struct {
	Name string // of the algorithm, for people
	New  func() hash.Hash
	Want []byte
}

// SHA256 is a Sum.
func SHA256(want []byte) Sum { return Sum{"SHA-256", sha256.New, want} }

// MD5 is a Sum.
func MD5(want []byte) Sum { return Sum{"MD5", md5.New, want} }

// CRC32C is a Sum, its four bytes in big-endian order.
func CRC32C(want []byte) Sum {
	return Sum{"CRC32C", func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }, want}
}

// given says whether there is a checksum at all.
func (s Sum) given() bool { return s.New != nil }

// start returns what a file's bytes are written to, to be asked whether they were the right ones.
func (s Sum) start() *sumCheck {
	c := &sumCheck{want: s.Want, seen: io.Discard}
	if s.given() {
		c.hash = s.New()
		c.seen = c.hash
	}
	return c
}

type sumCheck struct {
	want []byte
	hash hash.Hash // nil without a checksum
	seen io.Writer
}

func (c *sumCheck) Write(p []byte) (int, error) { return c.seen.Write(p) }

func (c *sumCheck) right() bool { return c.hash == nil || bytes.Equal(c.hash.Sum(nil), c.want) }
