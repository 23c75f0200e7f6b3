// Package picture turns encoded pictures of any origin into what a network takes: it says what a file is without decoding
// it, decodes it upright and opaque, and resizes it into a tensor as the network's authors did when they evaluated it.
//
// Every file is taken to be hostile. What a file claims is checked against Limits before memory is set aside for it, a
// decoder that panics is an error, and nothing is read but the bytes given. It knows no model, only models.Input.
package picture

import (
	"bytes"
	"errors"
	"fmt"
	"image"
)

// The reasons for which there is no picture. Errors wrap them with what was seen and what would work.
var (
	// ErrNotPicture means that the data is something else: a page, a document, text, nothing.
	ErrNotPicture = errors.New("not a picture")
	// ErrUnsupported means that it is a picture, of a format or a variant that is not decoded here.
	ErrUnsupported = errors.New("unsupported picture")
	// ErrTooManyPixels means that the picture is larger than Limits.
	ErrTooManyPixels = errors.New("picture too large")
	// ErrCorrupt means that the file begins as a picture but is damaged or cut short.
	ErrCorrupt = errors.New("corrupt picture")
)

// Limits bounds the pictures that are taken. Zero fields stand for those of DefaultLimits.
//
// Decoding takes up to 16 bytes of memory a pixel (16 bits a channel, interlaced PNG or compressed TIFF); an ordinary JPEG
// takes 1.5 to 3, a progressive one up to 15.
type Limits struct {
	MaxPixels int // width times height
	MaxSide   int // the longer of both
}

// DefaultLimits takes what cameras and telephones make by default.
var DefaultLimits = Limits{MaxPixels: 25_000_000, MaxSide: 16384}

// Info is what a file says about itself.
type Info struct {
	MediaType string // "image/jpeg" and so on, sniffed from the data
	Width     int    // pixels, upright
	Height    int
}

// Inspect says what data is by its header alone; no pixel is decoded. The size is that of the upright picture. A file that
// passes may still turn out to be corrupt further on.
func Inspect(data []byte, l Limits) (Info, error) {
	h, err := inspect(data, l)
	return h.Info, err
}

// Decode decodes a picture of any supported format: JPEG (baseline, progressive, grey, RGB, and CMYK or YCCK as Adobe
// writes them), PNG, GIF (its first frame), WebP (not animated), BMP and TIFF.
//
// The result stands upright, as the file's orientation tag has it, its bounds begin at 0, 0, and whatever is transparent
// lies on white. AppendTensor reads it quickest of all images.
func Decode(data []byte, l Limits) (image.Image, error) {
	h, err := inspect(data, l)
	if err != nil {
		return nil, err
	}
	var img image.Image
	err = guard(func() error {
		var err error
		img, err = h.format.decode(data)
		return err
	})
	if err != nil {
		return nil, h.format.explain(err)
	}
	if img.Bounds().Size() != h.stored {
		return nil, fmt.Errorf("%w: the header of the %s says %v, its pixels are %v", ErrCorrupt, h.format.name, h.stored, img.Bounds().Size())
	}
	return newUpright(img, h.orientation), nil
}

// header is what inspect finds out.
type header struct {
	Info
	format      *format
	stored      image.Point // size before it is turned upright
	orientation orientation
}

func inspect(data []byte, l Limits) (header, error) {
	f := formatOf(data)
	if f == nil {
		return header{}, refuse(data)
	}
	var size image.Point
	err := guard(func() error {
		if f.refuse != nil {
			if err := f.refuse(data); err != nil {
				return err
			}
		}
		config, err := f.config(bytes.NewReader(data))
		size = image.Pt(config.Width, config.Height)
		return err
	})
	if err != nil {
		return header{}, f.explain(err)
	}
	if err := l.check(size); err != nil {
		return header{}, err
	}
	h := header{format: f, stored: size, orientation: upwards}
	if f.exif != nil {
		h.orientation = readOrientation(f.exif(data))
	}
	size = h.orientation.apply(size)
	h.Info = Info{MediaType: f.mediaType, Width: size.X, Height: size.Y}
	return h, nil
}

func (l Limits) check(size image.Point) error {
	if l.MaxPixels <= 0 {
		l.MaxPixels = DefaultLimits.MaxPixels
	}
	if l.MaxSide <= 0 {
		l.MaxSide = DefaultLimits.MaxSide
	}
	switch {
	case size.X <= 0 || size.Y <= 0:
		return fmt.Errorf("%w: its header says %d x %d pixels", ErrCorrupt, size.X, size.Y)
	case size.X > l.MaxSide || size.Y > l.MaxSide:
		return fmt.Errorf("%w: it has %d x %d pixels, at most %d a side are allowed; make it smaller",
			ErrTooManyPixels, size.X, size.Y, l.MaxSide)
	case size.X > l.MaxPixels/size.Y:
		return fmt.Errorf("%w: it has %d x %d pixels, at most %.4g million in all are allowed; make it smaller",
			ErrTooManyPixels, size.X, size.Y, float64(l.MaxPixels)/1e6)
	}
	return nil
}

// errPanic is a decoder's panic.
var errPanic = errors.New("the decoder gave up")

// guard turns a panic into an error: decoders of hostile files have had their bugs, and one picture must not end the
// process. What a decoder leaves behind is not used.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errPanic, r)
		}
	}()
	return f()
}
