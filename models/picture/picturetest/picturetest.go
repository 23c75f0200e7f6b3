// Package picturetest makes small valid pictures of every format and variant that package picture takes, for the tests
// of whoever handles pictures. All of them are made, none is a photograph. Its functions panic where an encoder fails,
// which happens to nobody but who changes them.
package picturetest

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math/rand/v2"

	"golang.org/x/image/bmp"
)

// The size of Scene.
const (
	Width  = 64
	Height = 32
)

// The colours of Scene's quarters.
var (
	TopLeft     = color.RGBA{200, 30, 40, 255}
	TopRight    = color.RGBA{20, 60, 210, 255}
	BottomLeft  = color.RGBA{30, 150, 60, 255}
	BottomRight = color.RGBA{240, 210, 70, 255}
)

// Scene is a picture of four plain quarters, of which each tells which way up it is.
func Scene() *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, Width, Height))
	for i, c := range []color.RGBA{TopLeft, TopRight, BottomLeft, BottomRight} {
		at := image.Pt(i%2*Width/2, i/2*Height/2)
		draw.Draw(m, image.Rectangle{at, at.Add(image.Pt(Width/2, Height/2))}, image.NewUniform(c), image.Point{}, draw.Src)
	}
	return m
}

// Photo is a picture with the detail of a photograph: slopes, edges and grain. It is always the same.
func Photo(width, height int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same picture each time
	for y := range height {
		for x := range width {
			slope := 160*x/width + 60*y/height
			if (x/37+y/53)%5 == 0 {
				slope = 220 - slope
			}
			grain := int(random.Uint32() % 24)
			m.SetRGBA(x, y, color.RGBA{byte(slope + grain), byte(slope/2 + grain + 40), byte(230 - slope + grain), 255})
		}
	}
	return m
}

// Faded is Scene with its lower half transparent.
func Faded() *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, Width, Height))
	draw.Draw(m, m.Rect, Scene(), image.Point{}, draw.Src)
	for y := Height / 2; y < Height; y++ {
		for x := range Width {
			m.Pix[m.PixOffset(x, y)+3] = 0
		}
	}
	return m
}

// Stored is how a picture is stored that EXIF's orientation o (1 to 8) turns into m.
func Stored(m image.Image, o int) *image.RGBA {
	r := m.Bounds()
	w, h := r.Dx(), r.Dy()
	size := image.Rect(0, 0, w, h)
	if o >= 5 {
		size = image.Rect(0, 0, h, w)
	}
	stored := image.NewRGBA(size)
	for y := range h {
		for x := range w {
			at := [...]image.Point{
				1: {x, y}, 2: {w - 1 - x, y}, 3: {w - 1 - x, h - 1 - y}, 4: {x, h - 1 - y},
				5: {y, x}, 6: {y, w - 1 - x}, 7: {h - 1 - y, w - 1 - x}, 8: {h - 1 - y, x},
			}[o]
			stored.Set(at.X, at.Y, m.At(r.Min.X+x, r.Min.Y+y))
		}
	}
	return stored
}

// Sample is one encoded picture, Width x Height when it stands upright.
type Sample struct {
	Name        string // what is special about it
	MediaType   string
	Data        []byte
	Transparent bool // it shows Faded; otherwise Scene
	Lossy       bool // its colours differ a little
}

// Samples returns one picture of each format and variant that is to be decoded.
func Samples() []Sample {
	scene, faded := Scene(), Faded()
	s := []Sample{
		{Name: "baseline JPEG", MediaType: "image/jpeg", Data: JPEG(scene), Lossy: true},
		{Name: "progressive JPEG", MediaType: "image/jpeg", Data: bytes.Clone(progressiveJPEG), Lossy: true},
		{Name: "CMYK JPEG", MediaType: "image/jpeg", Data: CMYKJPEG(scene), Lossy: true},
		{Name: "YCCK JPEG", MediaType: "image/jpeg", Data: YCCKJPEG(scene), Lossy: true},
		{Name: "PNG", MediaType: "image/png", Data: PNG(scene)},
		{Name: "PNG with alpha", MediaType: "image/png", Data: PNG(faded), Transparent: true},
		{Name: "16-bit PNG", MediaType: "image/png", Data: PNG16(scene)},
		{Name: "16-bit PNG with alpha", MediaType: "image/png", Data: PNG16(faded), Transparent: true},
		{Name: "paletted PNG", MediaType: "image/png", Data: PNG(Paletted(scene))},
		{Name: "paletted PNG with alpha", MediaType: "image/png", Data: PNG(Paletted(faded)), Transparent: true},
		{Name: "interlaced PNG", MediaType: "image/png", Data: InterlacedPNG(scene)},
		{Name: "GIF", MediaType: "image/gif", Data: GIF(Paletted(scene))},
		{Name: "GIF with transparency", MediaType: "image/gif", Data: GIF(Paletted(faded)), Transparent: true},
		{Name: "GIF of two frames", MediaType: "image/gif", Data: GIF(Paletted(scene), Paletted(faded))},
		{Name: "lossy WebP", MediaType: "image/webp", Data: bytes.Clone(lossyWebP), Lossy: true},
		{Name: "lossless WebP", MediaType: "image/webp", Data: LosslessWebP()},
		{Name: "WebP with alpha", MediaType: "image/webp", Data: bytes.Clone(alphaWebP), Transparent: true, Lossy: true},
		{Name: "BMP", MediaType: "image/bmp", Data: BMP(scene)},
		{Name: "paletted BMP", MediaType: "image/bmp", Data: BMP(Paletted(scene))},
		{Name: "TIFF", MediaType: "image/tiff", Data: TIFF(scene, 1)},
	}
	for o := 1; o <= 8; o++ {
		digit := string(rune('0' + o))
		stored := Stored(scene, o)
		s = append(s,
			Sample{Name: "JPEG of orientation " + digit, MediaType: "image/jpeg", Data: WithEXIF(JPEG(stored), o), Lossy: true},
			Sample{Name: "PNG of orientation " + digit, MediaType: "image/png", Data: WithEXIF(PNG(stored), o)},
			Sample{Name: "TIFF of orientation " + digit, MediaType: "image/tiff", Data: TIFF(stored, o)},
		)
	}
	return s
}

// JPEG encodes a baseline JPEG, grey for an *image.Gray.
func JPEG(m image.Image) []byte {
	var b bytes.Buffer
	must(jpeg.Encode(&b, m, &jpeg.Options{Quality: 90}))
	return b.Bytes()
}

// PNG encodes a PNG of m's type.
func PNG(m image.Image) []byte {
	var b bytes.Buffer
	must(png.Encode(&b, m))
	return b.Bytes()
}

// PNG16 encodes a PNG of 16 bits a channel, with alpha if m is not opaque.
func PNG16(m image.Image) []byte {
	deep := image.NewNRGBA64(m.Bounds())
	draw.Draw(deep, deep.Rect, m, m.Bounds().Min, draw.Src)
	return PNG(deep)
}

// Paletted is m with no colours but Scene's and transparency.
func Paletted(m image.Image) *image.Paletted {
	p := image.NewPaletted(m.Bounds(), color.Palette{TopLeft, TopRight, BottomLeft, BottomRight, color.RGBA{}})
	draw.Draw(p, p.Rect, m, m.Bounds().Min, draw.Src)
	return p
}

// GIF encodes frames, which may cover only a part of the Width x Height that the GIF has.
func GIF(frames ...*image.Paletted) []byte {
	var b bytes.Buffer
	must(gif.EncodeAll(&b, &gif.GIF{
		Image: frames, Delay: make([]int, len(frames)), Config: image.Config{Width: Width, Height: Height},
	}))
	return b.Bytes()
}

// BMP encodes a BMP.
func BMP(m image.Image) []byte {
	var b bytes.Buffer
	must(bmp.Encode(&b, m))
	return b.Bytes()
}

// LosslessWebP is Scene.
func LosslessWebP() []byte { return bytes.Clone(losslessWebP) }

// AnimatedWebP is Scene, twice. It is a valid file, of a kind that is not decoded.
func AnimatedWebP() []byte { return bytes.Clone(animatedWebP) }

func must(err error) {
	if err != nil {
		panic(err)
	}
}
