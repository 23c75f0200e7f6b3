package picture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/jpeg"
	"iter"
	"strings"
)

const (
	markerSOF0 = 0xc0 // baseline
	markerRST0 = 0xd0
	markerSOI  = 0xd8
	markerEOI  = 0xd9
	markerSOS  = 0xda
	markerAPP1 = 0xe1
)

// maxScans bounds how often a JPEG may go over its pixels. Encoders need about ten scans for a progressive picture; a
// hostile file of some megabytes could ask for a million.
const maxScans = 64

// jpegSegments yields the segments of a JPEG file that have a length, by marker, passing over what lies between. It ends
// where the file or its sense does.
func jpegSegments(data []byte) iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		for rest := data[2:]; ; {
			i := bytes.IndexByte(rest, 0xff)
			if i < 0 || i+1 >= len(rest) {
				return
			}
			marker := rest[i+1]
			switch {
			case marker == 0xff: // fill
				rest = rest[i+1:]
				continue
			case marker <= 0x01, marker >= markerRST0 && marker <= markerSOI: // without a length, or a byte of a scan
				rest = rest[i+2:]
				continue
			case marker == markerEOI:
				return
			}
			rest = rest[i+2:]
			if len(rest) < 2 {
				return
			}
			size := int(binary.BigEndian.Uint16(rest))
			if size < 2 || size > len(rest) || !yield(marker, rest[2:size]) {
				return
			}
			rest = rest[size:]
		}
	}
}

func jpegEXIF(data []byte) []byte {
	for marker, segment := range jpegSegments(data) {
		if marker == markerSOS {
			break
		}
		if marker == markerAPP1 && strings.HasPrefix(string(segment[:min(len(segment), len(exifHeader))]), exifHeader) {
			return segment[len(exifHeader):]
		}
	}
	return nil
}

func decodeJPEG(data []byte) (image.Image, error) {
	if err := checkScans(data); err != nil {
		return nil, err
	}
	return jpeg.Decode(bytes.NewReader(data))
}

func checkScans(data []byte) error {
	scans := 0
	for marker := range jpegSegments(data) {
		if marker == markerSOS {
			scans++
		}
	}
	if scans > maxScans {
		return fmt.Errorf("%w: the JPEG has %d scans, want at most %d", ErrUnsupported, scans, maxScans)
	}
	return nil
}

// baseline reports whether a JPEG is of the kind that every decoder takes: sequential, 8 bits, grey or three channels.
func baseline(data []byte) bool {
	for marker, segment := range jpegSegments(data) {
		if marker == markerSOS {
			break
		}
		if marker == markerSOF0 {
			return len(segment) >= 6 && segment[0] == 8 && (segment[5] == 1 || segment[5] == 3)
		}
	}
	return false
}

// quality of the JPEG files that are written: no network tells them from the original.
const quality = 95

// EncodeJPEG makes the JPEG file that a network with models.KindEncoded takes of a picture of any format. A baseline JPEG
// that stands upright passes as it is: the same slice, its pixels not decoded. Everything else is decoded and encoded anew.
func EncodeJPEG(data []byte, l Limits) ([]byte, error) {
	h, err := inspect(data, l)
	if err != nil {
		return nil, err
	}
	if h.MediaType == "image/jpeg" && h.orientation == upwards && baseline(data) {
		if err := checkScans(data); err != nil { // whoever decodes it would pay for them
			return nil, err
		}
		return data, nil
	}
	img, err := Decode(data, l)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, uprightOf(img).flat(), &jpeg.Options{Quality: quality}); err != nil {
		return nil, fmt.Errorf("encode JPEG: %w", err)
	}
	return b.Bytes(), nil
}
