package picture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"iter"

	"golang.org/x/image/webp"
)

// webpChunks yields the chunks of a WebP file. It ends where the file or its sense does.
func webpChunks(data []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for at := 12; len(data)-at >= 8; {
			id, size := string(data[at:at+4]), int64(binary.LittleEndian.Uint32(data[at+4:]))
			at += 8
			if size > int64(len(data)-at) || !yield(id, data[at:at+int(size)]) {
				return
			}
			at += int(size + size&1)
		}
	}
}

func refuseAnimatedWebP(data []byte) error {
	for id, chunk := range webpChunks(data) {
		const animated = 1 << 1
		if id == "VP8X" && len(chunk) > 0 && chunk[0]&animated != 0 {
			return fmt.Errorf("%w: animated WebP is not decoded; send one of its frames", ErrUnsupported)
		}
		break // it can only be the first
	}
	return nil
}

func webpEXIF(data []byte) []byte {
	for id, chunk := range webpChunks(data) {
		if id == "EXIF" {
			return bytes.TrimPrefix(chunk, []byte(exifHeader)) // some writers keep JPEG's header
		}
	}
	return nil
}

// decodeWebP decodes a WebP file. Lossy WebP has the narrow range of video (luma 16 to 235, chroma 16 to 240), which the
// decoder leaves as it is, while image.YCbCr means JPEG's full range: without stretching it white would be light grey.
func decodeWebP(data []byte) (image.Image, error) {
	img, err := webp.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	switch m := img.(type) {
	case *image.YCbCr:
		stretchRange(m)
	case *image.NYCbCrA:
		stretchRange(&m.YCbCr)
	}
	return img, nil
}

var fullLuma, fullChroma = func() (luma, chroma [256]byte) {
	for i := range 256 {
		luma[i] = clampByte((float64(i)-16)*255/219 + 0.5)
		chroma[i] = clampByte((float64(i)-128)*255/224 + 128.5)
	}
	return luma, chroma
}()

func stretchRange(m *image.YCbCr) {
	for _, plane := range []struct {
		pix   []byte
		table *[256]byte
	}{{m.Y, &fullLuma}, {m.Cb, &fullChroma}, {m.Cr, &fullChroma}} {
		for i, v := range plane.pix {
			plane.pix[i] = plane.table[v]
		}
	}
}

func clampByte(v float64) byte { return byte(min(max(v, 0), 255)) }
