package image

import (
	"encoding/binary"
	"hash"
	"hash/crc32"
	"io"
)

// The parts of gzip (RFC 1952) around stored blocks of deflate (RFC 1951, 3.2.4).
const (
	gzipHeader  = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" // deflate, no name, no time, of no system
	gzipTrailer = 8                                          // CRC-32 and size
	blockHeader = 5                                          // whether it is the last one, size, its complement
	maxBlock    = 1<<16 - 1
)

// storedSize is the size of what store makes of so many bytes.
func storedSize(size int64) int64 {
	blocks := max(1, (size+maxBlock-1)/maxBlock)
	return int64(len(gzipHeader)) + blocks*blockHeader + size + gzipTrailer
}

// store makes gzip without compression of the size bytes that are read from a reader. compress/gzip can do it too, but does
// not promise to do it the same way for ever, and digests depend on it.
func store(from io.Reader, size int64) io.Reader {
	return &storer{from: from, left: size, sum: crc32.NewIEEE(), size: size, out: []byte(gzipHeader)}
}

type storer struct {
	from  io.Reader
	left  int64
	size  int64
	sum   hash.Hash32
	block []byte // where out is in when it is a block
	out   []byte // what is to be read next
	last  bool   // out is all that there is
}

func (s *storer) Read(p []byte) (int, error) {
	if len(s.out) == 0 {
		if s.last {
			return 0, io.EOF
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}

// fill makes the next block, and the trailer after the last one.
func (s *storer) fill() error {
	if s.block == nil {
		s.block = make([]byte, blockHeader+maxBlock+gzipTrailer)
	}
	n := min(s.left, maxBlock)
	data := s.block[blockHeader : blockHeader+n]
	if _, err := io.ReadFull(s.from, data); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	_, _ = s.sum.Write(data) // a hash never fails
	s.left -= n
	s.last = s.left == 0
	s.block[0] = 0
	if s.last {
		s.block[0] = 1
	}
	binary.LittleEndian.PutUint16(s.block[1:], uint16(n))
	binary.LittleEndian.PutUint16(s.block[3:], ^uint16(n))
	s.out = s.block[:blockHeader+n]
	if s.last {
		s.out = binary.LittleEndian.AppendUint32(s.out, s.sum.Sum32())
		s.out = binary.LittleEndian.AppendUint32(s.out, uint32(s.size))
	}
	return nil
}
