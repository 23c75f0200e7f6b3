package picture

import (
	"encoding/binary"
	"image"
)

// orientation says how a stored picture is turned to stand upright, by EXIF's numbers: 1 as it is, 2 mirrored, 3 upside
// down, 4 mirrored upside down, and 5 to 8 the same with rows and columns exchanged.
type orientation uint8

const upwards orientation = 1

// transposed reports whether the upright picture's rows are the stored one's columns.
func (o orientation) transposed() bool { return o >= 5 }

// flipsX reports whether the stored x runs against its upright coordinate.
func (o orientation) flipsX() bool { return o == 2 || o == 3 || o == 7 || o == 8 }

// flipsY is flipsX for the stored y.
func (o orientation) flipsY() bool { return o == 3 || o == 4 || o == 6 || o == 7 }

// apply returns the upright size of a stored size, and the other way round.
func (o orientation) apply(size image.Point) image.Point {
	if o.transposed() {
		return image.Pt(size.Y, size.X)
	}
	return size
}

// exifHeader precedes the EXIF block in a JPEG file.
const exifHeader = "Exif\x00\x00"

// readOrientation returns the orientation that an EXIF block (or a TIFF file: they begin alike) gives, upwards when it
// gives none that makes sense. Nothing in the block is trusted.
func readOrientation(block []byte) orientation {
	if len(block) < 8 {
		return upwards
	}
	var order binary.ByteOrder
	switch string(block[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return upwards
	}
	start := int64(order.Uint32(block[4:]))
	if start > int64(len(block))-2 {
		return upwards
	}
	entries := block[start+2:]
	const (
		entrySize      = 12
		tagOrientation = 0x0112
		typeShort      = 3
	)
	for range order.Uint16(block[start:]) {
		if len(entries) < entrySize {
			break
		}
		if order.Uint16(entries) == tagOrientation {
			o := order.Uint16(entries[8:])
			if order.Uint16(entries[2:]) != typeShort || order.Uint32(entries[4:]) != 1 || o < 1 || o > 8 {
				break
			}
			return orientation(o)
		}
		entries = entries[entrySize:]
	}
	return upwards
}
