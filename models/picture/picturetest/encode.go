package picturetest

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"image"
	"image/color"
)

// InterlacedPNG encodes a PNG that is sent in seven passes.
func InterlacedPNG(m image.Image) []byte {
	r := m.Bounds()
	var raw bytes.Buffer
	for _, pass := range []struct{ x, y, dx, dy int }{
		{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2},
	} {
		for y := r.Min.Y + pass.y; y < r.Max.Y; y += pass.dy {
			if r.Min.X+pass.x >= r.Max.X {
				break
			}
			raw.WriteByte(0) // unfiltered
			for x := r.Min.X + pass.x; x < r.Max.X; x += pass.dx {
				c := color.NRGBAModel.Convert(m.At(x, y)).(color.NRGBA)
				raw.Write([]byte{c.R, c.G, c.B})
			}
		}
	}
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	_, err := z.Write(raw.Bytes())
	must(err)
	must(z.Close())
	header := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(r.Dx())), uint32(r.Dy()))
	const bits, rgb, interlaced = 8, 2, 1
	b := append([]byte("\x89PNG\r\n\x1a\n"), pngChunk("IHDR", append(header, bits, rgb, 0, 0, interlaced))...)
	b = append(b, pngChunk("IDAT", packed.Bytes())...)
	return append(b, pngChunk("IEND", nil)...)
}

// TIFF encodes an uncompressed RGB TIFF with the orientation tag o.
func TIFF(m image.Image, o int) []byte {
	r := m.Bounds()
	le := binary.LittleEndian
	const start = 8 + 6 // of the pixels: behind the header and the bits of each sample
	pixels := 3 * r.Dx() * r.Dy()
	b := le.AppendUint32([]byte("II*\x00"), uint32(start+pixels))
	b = append(b, 8, 0, 8, 0, 8, 0)
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			c := color.NRGBAModel.Convert(m.At(x, y)).(color.NRGBA)
			b = append(b, c.R, c.G, c.B)
		}
	}
	const short, long = 3, 4
	tags := []struct{ tag, kind, count, value int }{
		{256, long, 1, r.Dx()},
		{257, long, 1, r.Dy()},
		{258, short, 3, 8}, // bits a sample, at byte 8
		{259, short, 1, 1}, // not compressed
		{262, short, 1, 2}, // RGB
		{273, long, 1, start},
		{274, short, 1, o},
		{277, short, 1, 3}, // samples a pixel
		{278, long, 1, r.Dy()},
		{279, long, 1, pixels},
	}
	b = le.AppendUint16(b, uint16(len(tags)))
	for _, t := range tags {
		b = le.AppendUint16(le.AppendUint16(b, uint16(t.tag)), uint16(t.kind))
		b = le.AppendUint32(le.AppendUint32(b, uint32(t.count)), uint32(t.value))
	}
	return append(b, 0, 0, 0, 0)
}

// CMYKJPEG encodes a JPEG in inks, inverted as Adobe writes them. Blocks of 8 x 8 have one colour, that of their first
// pixel.
func CMYKJPEG(m image.Image) []byte {
	return inkJPEG(m, 0, func(c color.CMYK) [4]byte { return [4]byte{255 - c.C, 255 - c.M, 255 - c.Y, 255 - c.K} })
}

// YCCKJPEG is CMYKJPEG with the coloured inks as luma and chroma.
func YCCKJPEG(m image.Image) []byte {
	return inkJPEG(m, 2, func(c color.CMYK) [4]byte {
		y, cb, cr := color.RGBToYCbCr(c.C, c.M, c.Y)
		return [4]byte{y, cb, cr, 255 - c.K}
	})
}

// inkJPEG encodes a baseline JPEG of four channels whose blocks have only their mean.
func inkJPEG(m image.Image, transform byte, samples func(color.CMYK) [4]byte) []byte {
	r := m.Bounds()
	b := []byte{0xff, 0xd8}
	segment := func(marker byte, data ...byte) {
		b = append(binary.BigEndian.AppendUint16(append(b, 0xff, marker), uint16(len(data)+2)), data...)
	}
	segment(0xee, append([]byte("Adobe\x00\x64\x00\x00\x00\x00"), transform)...)
	segment(0xdb, append([]byte{0}, bytes.Repeat([]byte{8}, 64)...)...) // a step of 8: the first coefficient is mean - 128
	segment(0xc0, 8, byte(r.Dy()>>8), byte(r.Dy()), byte(r.Dx()>>8), byte(r.Dx()), 4,
		1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 4, 0x11, 0)
	segment(0xc4, 0x00, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8) // sizes 0 to 8 in 4 bits
	segment(0xc4, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)                         // end of block in 1 bit
	segment(0xda, 4, 1, 0, 2, 0, 3, 0, 4, 0, 0, 63, 0)

	bits, held := uint32(0), 0
	write := func(value uint32, n int) {
		bits, held = bits<<n|value, held+n
		for ; held >= 8; held -= 8 {
			v := byte(bits >> (held - 8))
			if b = append(b, v); v == 0xff {
				b = append(b, 0)
			}
		}
		bits &= 1<<held - 1
	}
	var last [4]int
	for y := r.Min.Y; y < r.Max.Y; y += 8 {
		for x := r.Min.X; x < r.Max.X; x += 8 {
			for i, v := range samples(color.CMYKModel.Convert(m.At(x, y)).(color.CMYK)) {
				difference := int(v) - 128 - last[i]
				last[i] = int(v) - 128
				size, magnitude := 0, max(difference, -difference)
				for magnitude>>size > 0 {
					size++
				}
				if difference < 0 {
					difference += 1<<size - 1
				}
				write(uint32(size), 4)
				write(uint32(difference), size)
				write(0, 1)
			}
		}
	}
	write(0x7f, 7) // fill up
	return append(b, 0xff, 0xd9)
}
