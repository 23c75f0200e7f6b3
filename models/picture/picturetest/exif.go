package picturetest

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// EXIF is an EXIF block with the orientation o among other tags.
func EXIF(o int) []byte {
	b := []byte("MM\x00*\x00\x00\x00\x08\x00\x02")
	b = append(b, 0x01, 0x00, 0, 4, 0, 0, 0, 1, 0, 0, 0, 7)       // width
	b = append(b, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, byte(o), 0, 0) // orientation
	return append(b, 0, 0, 0, 0)
}

// WithEXIF returns a JPEG, PNG or lossless WebP file with an EXIF block of orientation o.
func WithEXIF(file []byte, o int) []byte { return WithEXIFBlock(file, EXIF(o)) }

// WithEXIFBlock returns a JPEG, PNG or lossless WebP file with any block in the place of EXIF.
func WithEXIFBlock(file, block []byte) []byte {
	switch {
	case bytes.HasPrefix(file, []byte("\xff\xd8")):
		segment := append([]byte("Exif\x00\x00"), block...)
		return insert(file, 2, append(binary.BigEndian.AppendUint16([]byte{0xff, 0xe1}, uint16(len(segment)+2)), segment...))
	case bytes.HasPrefix(file, []byte("\x89PNG")):
		const afterIHDR = 33
		return insert(file, afterIHDR, pngChunk("eXIf", block))
	case bytes.HasPrefix(file, []byte("RIFF")):
		const hasEXIF = 1 << 3
		vp8x := []byte{hasEXIF, 0, 0, 0, Width - 1, 0, 0, Height - 1, 0, 0}
		riff := append([]byte("WEBP"), riffChunk("VP8X", vp8x)...)
		riff = append(riff, file[12:]...)
		riff = append(riff, riffChunk("EXIF", block)...)
		return riffChunk("RIFF", riff)
	}
	panic("picturetest: no place for EXIF in this format")
}

func insert(file []byte, at int, more []byte) []byte {
	return append(append(bytes.Clone(file[:at]), more...), file[at:]...)
}

func pngChunk(name string, data []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	b = append(append(b, name...), data...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}

func riffChunk(name string, data []byte) []byte {
	b := append(binary.LittleEndian.AppendUint32([]byte(name), uint32(len(data))), data...)
	if len(data)%2 != 0 {
		b = append(b, 0)
	}
	return b
}
