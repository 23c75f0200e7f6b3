package picture

import (
	"image"
	"image/color"
)

// upright is a decoded picture as it shall be seen: turned by its orientation and on white. It turns and blends what is
// read of it, not the whole picture: a network of 299 x 299 needs few of a photo's pixels.
type upright struct {
	img         image.Image
	orientation orientation
	size        image.Point // upright
}

func newUpright(img image.Image, o orientation) *upright {
	return &upright{img: img, orientation: o, size: o.apply(img.Bounds().Size())}
}

// uprightOf takes an image that is not Decode's as it stands.
func uprightOf(img image.Image) *upright {
	if u, ok := img.(*upright); ok {
		return u
	}
	return newUpright(img, upwards)
}

func (u *upright) ColorModel() color.Model { return color.RGBAModel }

func (u *upright) Bounds() image.Rectangle { return image.Rectangle{Max: u.size} }

func (u *upright) At(x, y int) color.Color {
	if !image.Pt(x, y).In(u.Bounds()) {
		return color.RGBA{}
	}
	x, y = u.stored(x, y)
	r, g, b := onWhite(u.img.At(x, y).RGBA())
	return color.RGBA{r, g, b, 0xff}
}

// stored returns where img has an upright pixel. Either result depends on one argument only: x on x and y on y, or when
// transposed x on y and y on x.
func (u *upright) stored(x, y int) (storedX, storedY int) {
	if u.orientation.transposed() {
		x, y = y, x
	}
	r := u.img.Bounds()
	if u.orientation.flipsX() {
		x = r.Dx() - 1 - x
	}
	if u.orientation.flipsY() {
		y = r.Dy() - 1 - y
	}
	return r.Min.X + x, r.Min.Y + y
}

// flat returns the picture as an image that stands as it is stored, opaque, of a type that encoders know.
func (u *upright) flat() image.Image {
	if m, ok := u.img.(*image.YCbCr); ok && u.orientation == upwards {
		return m
	}
	columns := make([]int, u.size.X)
	for x := range columns {
		columns[x] = x
	}
	read := u.reader(columns)
	m := image.NewRGBA(u.Bounds())
	row := make([]byte, 3*u.size.X)
	for y := range u.size.Y {
		read(row, y)
		to := m.Pix[y*m.Stride:]
		for x := range u.size.X {
			to[4*x], to[4*x+1], to[4*x+2], to[4*x+3] = row[3*x], row[3*x+1], row[3*x+2], 0xff
		}
	}
	return m
}

// onWhite puts a premultiplied 16-bit colour, as color.Color.RGBA returns it, on white.
func onWhite(r, g, b, a uint32) (r8, g8, b8 uint8) {
	if a >= 0xffff {
		return uint8(r >> 8), uint8(g >> 8), uint8(b >> 8)
	}
	blend := func(v uint32) uint8 { return uint8((min(v, a) + 0xffff - a + 128) / 257) }
	return blend(r), blend(g), blend(b)
}
