package main

import (
	"bytes"
	"errors"
	"image"
	"image/png"
	"math/rand/v2"
)

// channels a pixel that a noise picture has.
const channels = 3

// noise is a PNG of about so many bytes: a square of random pixels, which no encoder makes smaller. It is stored without
// compression, so that reading it costs as little as its size allows: what is compared is what carries it.
func noise(size int) ([]byte, error) {
	side := 1
	for (side+1)*(side+1)*channels <= size {
		side++
	}
	random := rand.NewChaCha8([32]byte{})
	img := image.NewNRGBA(image.Rect(0, 0, side, side))
	if _, err := random.Read(img.Pix); err != nil {
		return nil, err
	}
	for i := 3; i < len(img.Pix); i += 4 {
		img.Pix[i] = 0xff // opaque, so that it is stored as three channels
	}
	var b bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.NoCompression}
	if err := encoder.Encode(&b, img); err != nil {
		return nil, err
	}
	if b.Len() < size*9/10 || b.Len() > size*11/10 {
		return nil, errors.New("a noise picture has another size than was asked for")
	}
	return b.Bytes(), nil
}
