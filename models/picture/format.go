package picture

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	"golang.org/x/image/webp"
)

// format is one kind of file that is decoded.
type format struct {
	name      string
	mediaType string
	magic     []string // how it begins; ? stands for any byte
	refuse    func(data []byte) error
	config    func(io.Reader) (image.Config, error)
	decode    func(data []byte) (image.Image, error)
	exif      func(data []byte) []byte // the EXIF block in it, nil when there is none
}

var formats = []format{
	{
		name: "JPEG", mediaType: "image/jpeg", magic: []string{"\xff\xd8\xff"},
		config: jpeg.DecodeConfig, decode: decodeJPEG, exif: jpegEXIF,
	}, {
		name: "PNG", mediaType: "image/png", magic: []string{"\x89PNG\r\n\x1a\n"},
		config: png.DecodeConfig, decode: reading(png.Decode), exif: pngEXIF,
	}, {
		name: "GIF", mediaType: "image/gif", magic: []string{"GIF87a", "GIF89a"},
		config: gif.DecodeConfig, decode: decodeGIF,
	}, {
		name: "WebP", mediaType: "image/webp", magic: []string{"RIFF????WEBP"}, refuse: refuseAnimatedWebP,
		config: webp.DecodeConfig, decode: decodeWebP, exif: webpEXIF,
	}, {
		name: "BMP", mediaType: "image/bmp",
		// The size of the header that follows tells a bitmap from text that begins with "BM".
		magic:  []string{"BM????????????\x28\x00\x00\x00", "BM????????????\x6c\x00\x00\x00", "BM????????????\x7c\x00\x00\x00"},
		config: bmp.DecodeConfig, decode: reading(bmp.Decode),
	}, {
		name: "TIFF", mediaType: "image/tiff", magic: []string{"II*\x00", "MM\x00*"},
		config: tiff.DecodeConfig, decode: reading(tiff.Decode), exif: func(data []byte) []byte { return data },
	},
}

// supported is the end of every message about what is not.
const supported = "JPEG, PNG, GIF, WebP, BMP and TIFF work"

func formatOf(data []byte) *format {
	for i := range formats {
		for _, magic := range formats[i].magic {
			if begins(data, magic) {
				return &formats[i]
			}
		}
	}
	return nil
}

// begins reports whether data begins with magic, in which ? stands for any byte.
func begins(data []byte, magic string) bool {
	if len(data) < len(magic) {
		return false
	}
	for i := range len(magic) {
		if magic[i] != '?' && magic[i] != data[i] {
			return false
		}
	}
	return true
}

func reading(decode func(io.Reader) (image.Image, error)) func([]byte) (image.Image, error) {
	return func(data []byte) (image.Image, error) { return decode(bytes.NewReader(data)) }
}

// explain wraps a decoder's error with the reason that it amounts to.
func (f *format) explain(err error) error {
	var (
		inJPEG jpeg.UnsupportedError
		inPNG  png.UnsupportedError
		inTIFF tiff.UnsupportedError
	)
	switch {
	case errors.Is(err, ErrUnsupported), errors.Is(err, ErrCorrupt):
		return err
	case errors.As(err, &inJPEG), errors.As(err, &inPNG), errors.As(err, &inTIFF), errors.Is(err, bmp.ErrUnsupported):
		return fmt.Errorf("%w: this kind of %s is not decoded (%w); save it as an ordinary JPEG or PNG", ErrUnsupported, f.name, err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fmt.Errorf("%w: the %s is cut short", ErrCorrupt, f.name)
	}
	return fmt.Errorf("%w: the %s is damaged: %w", ErrCorrupt, f.name, err)
}

// decodeGIF decodes the first frame, which may cover only a part of the picture; the rest is white.
func decodeGIF(data []byte) (image.Image, error) {
	config, err := gif.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	frame, err := gif.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	whole := image.Rect(0, 0, config.Width, config.Height)
	if frame.Bounds() == whole {
		return frame, nil
	}
	canvas := image.NewRGBA(whole)
	draw.Draw(canvas, whole, image.White, image.Point{}, draw.Src)
	draw.Draw(canvas, frame.Bounds(), frame, frame.Bounds().Min, draw.Over)
	return canvas, nil
}
