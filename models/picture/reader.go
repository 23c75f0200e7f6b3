package picture

import (
	"image"
	"image/color"
)

// reader returns a function that reads the given upright columns of row y as 8-bit RGB on white, three bytes a column,
// into dst. The usual types of images are read without a call a pixel; all types give what their At gives.
func (u *upright) reader(columns []int) func(dst []byte, y int) {
	switch m := u.img.(type) {
	case *image.YCbCr:
		return u.readYCbCr(m, columns)
	case *image.Gray:
		return u.readBytes(plane{m.Pix, 1, m.Stride, 1, 1, m.Rect.Min}, columns, func(dst, pix []byte, at []int, row int) {
			for i, x := range at {
				v := pix[row+x]
				dst[3*i], dst[3*i+1], dst[3*i+2] = v, v, v
			}
		})
	case *image.Paletted:
		var palette [256][3]byte
		for i, c := range m.Palette {
			palette[i&0xff][0], palette[i&0xff][1], palette[i&0xff][2] = onWhite(c.RGBA())
		}
		return u.readBytes(plane{m.Pix, 1, m.Stride, 1, 1, m.Rect.Min}, columns, func(dst, pix []byte, at []int, row int) {
			for i, x := range at {
				copy(dst[3*i:], palette[pix[row+x]][:])
			}
		})
	case *image.RGBA:
		return u.readBytes(plane{m.Pix, 4, m.Stride, 1, 1, m.Rect.Min}, columns, func(dst, pix []byte, at []int, row int) {
			for i, x := range at {
				p := pix[row+x : row+x+4 : row+x+4]
				if p[3] == 0xff {
					dst[3*i], dst[3*i+1], dst[3*i+2] = p[0], p[1], p[2]
				} else {
					dst[3*i], dst[3*i+1], dst[3*i+2] = onWhite(color.RGBA{p[0], p[1], p[2], p[3]}.RGBA())
				}
			}
		})
	case *image.NRGBA:
		return u.readBytes(plane{m.Pix, 4, m.Stride, 1, 1, m.Rect.Min}, columns, func(dst, pix []byte, at []int, row int) {
			for i, x := range at {
				p := pix[row+x : row+x+4 : row+x+4]
				if p[3] == 0xff {
					dst[3*i], dst[3*i+1], dst[3*i+2] = p[0], p[1], p[2]
				} else {
					dst[3*i], dst[3*i+1], dst[3*i+2] = onWhite(color.NRGBA{p[0], p[1], p[2], p[3]}.RGBA())
				}
			}
		})
	}
	at := func(x, y int) (r, g, b, a uint32) { return u.img.At(x, y).RGBA() }
	if m, ok := u.img.(image.RGBA64Image); ok { // does not allocate
		at = func(x, y int) (r, g, b, a uint32) { return m.RGBA64At(x, y).RGBA() }
	}
	return func(dst []byte, y int) {
		for i, x := range columns {
			dst[3*i], dst[3*i+1], dst[3*i+2] = onWhite(at(u.stored(x, y)))
		}
	}
}

// plane is where an image keeps samples of one kind.
type plane struct {
	pix    []byte
	step   int // bytes from one sample to the next
	stride int // bytes from one row of samples to the next
	dx, dy int // pixels a sample
	min    image.Point
}

// A sample's place is x(its pixel's x) + y(its pixel's y).
func (p plane) x(x int) int { return (x/p.dx - p.min.X/p.dx) * p.step }
func (p plane) y(y int) int { return (y/p.dy - p.min.Y/p.dy) * p.stride }

// offsets returns the part of a sample's place in p that its upright column decides, for all columns.
func (u *upright) offsets(p plane, columns []int) []int {
	at := make([]int, len(columns))
	for i, x := range columns {
		if sx, sy := u.stored(x, x); u.orientation.transposed() {
			at[i] = p.y(sy)
		} else {
			at[i] = p.x(sx)
		}
	}
	return at
}

// offset returns the part that its upright row decides.
func (u *upright) offset(p plane, y int) int {
	sx, sy := u.stored(y, y)
	if u.orientation.transposed() {
		return p.x(sx)
	}
	return p.y(sy)
}

// readBytes reads an image of one plane: read copies the samples at pix[row+at[i]].
func (u *upright) readBytes(p plane, columns []int, read func(dst, pix []byte, at []int, row int)) func([]byte, int) {
	at := u.offsets(p, columns)
	return func(dst []byte, y int) { read(dst, p.pix, at, u.offset(p, y)) }
}

func (u *upright) readYCbCr(m *image.YCbCr, columns []int) func(dst []byte, y int) {
	dx, dy := subsampling(m.SubsampleRatio)
	luma := plane{m.Y, 1, m.YStride, 1, 1, m.Rect.Min}
	chroma := plane{m.Cb, 1, m.CStride, dx, dy, m.Rect.Min}
	lumaAt, chromaAt := u.offsets(luma, columns), u.offsets(chroma, columns)
	return func(dst []byte, y int) {
		lumaRow, chromaRow := u.offset(luma, y), u.offset(chroma, y)
		dst = dst[:3*len(lumaAt)]
		chromaAt := chromaAt[:len(lumaAt)]
		for i, x := range lumaAt {
			c := chromaRow + chromaAt[i]
			// color.YCbCrToRGB, which the compiler does not inline.
			yy, cb, cr := int32(m.Y[lumaRow+x])*0x10101, int32(m.Cb[c])-128, int32(m.Cr[c])-128
			p := dst[3*i : 3*i+3 : 3*i+3]
			p[0] = clamp16(yy + 91881*cr)
			p[1] = clamp16(yy - 22554*cb - 46802*cr)
			p[2] = clamp16(yy + 116130*cb)
		}
	}
}

// clamp16 returns the whole part of a number with 16 fractional bits, within the bounds of a byte.
func clamp16(v int32) byte {
	if uint32(v)&0xff000000 == 0 {
		return byte(v >> 16)
	}
	return byte(^(v >> 31))
}

// subsampling returns how many pixels share a chroma sample.
func subsampling(ratio image.YCbCrSubsampleRatio) (dx, dy int) {
	switch ratio {
	case image.YCbCrSubsampleRatio422:
		return 2, 1
	case image.YCbCrSubsampleRatio420:
		return 2, 2
	case image.YCbCrSubsampleRatio440:
		return 1, 2
	case image.YCbCrSubsampleRatio411:
		return 4, 1
	case image.YCbCrSubsampleRatio410:
		return 4, 2
	}
	return 1, 1
}
