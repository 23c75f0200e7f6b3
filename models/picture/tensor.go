package picture

import (
	"encoding/binary"
	"fmt"
	"image"
	"math"
	"slices"

	"github.com/ebb-inference/ebb/models"
)

// AppendTensor appends the tensor of one picture to dst: in.Height x in.Width x 3 values (or 3 x in.Height x in.Width with
// NCHW), little-endian, row-major, without the batch dimension. Empty fields of in have the defaults of models.Parse.
//
// First the centre is cut out (in.Resize.CentralFraction), then the picture is resized, then Width x Height is cut out of
// the centre when in.Resize.ShortestSide is set; the longer side and the position of the cut are rounded down. Samples are
// summed in float32. For uint8 they are rounded to the nearest, halves up; for float32 they are not rounded but scaled
// and offset. Of pixels with more than 8 bits a channel the upper 8 count; transparent ones lie on white.
func AppendTensor(dst []byte, img image.Image, in models.Input) ([]byte, error) {
	if err := checkInput(in); err != nil {
		return nil, err
	}
	u := uprightOf(img)
	if u.size.X <= 0 || u.size.Y <= 0 {
		return nil, fmt.Errorf("picture: an image of %d x %d pixels has no tensor", u.size.X, u.size.Y)
	}
	w := newWriter(in)
	from := len(dst)
	dst = slices.Grow(dst, w.size)[:from+w.size]
	r := newResampler(u, in)
	row := make([]float32, 3*in.Width)
	for y := range in.Height {
		r.row(row, y)
		w.row(dst[from:], row, y)
	}
	return dst, nil
}

// checkInput refuses what models.Parse refuses, for the fields that are used here.
func checkInput(in models.Input) error {
	switch {
	case in.Kind != "" && in.Kind != models.KindTensor:
		return fmt.Errorf("picture: input kind %q takes no tensor", in.Kind)
	case in.DType != models.DTypeUint8 && in.DType != models.DTypeFloat32:
		return fmt.Errorf("picture: input dtype %q, want uint8 or float32", in.DType)
	case in.Width <= 0 || in.Height <= 0:
		return fmt.Errorf("picture: input of %d x %d pixels", in.Width, in.Height)
	case in.Resize.ShortestSide != 0 && in.Resize.ShortestSide < max(in.Width, in.Height):
		return fmt.Errorf("picture: shortest side %d, want at least that of %d x %d", in.Resize.ShortestSide, in.Width, in.Height)
	case !normal(in.Scale) || !normal(in.Offset):
		return fmt.Errorf("picture: %d scales and %d offsets, want 1 or 3", len(in.Scale), len(in.Offset))
	}
	return nil
}

func normal(values []float32) bool { return len(values) <= 1 || len(values) == 3 }

// writer puts rows of RGB values where and how the tensor has them.
type writer struct {
	size          int    // bytes of the tensor
	channel       [3]int // bytes to the first value of red, green and blue
	stepX, stepY  int    // bytes from a value to that of the next pixel, and of the next row
	float         bool
	scale, offset [3]float32 // of red, green and blue
}

func newWriter(in models.Input) *writer {
	w := &writer{float: in.DType == models.DTypeFloat32}
	value := 1
	if w.float {
		value = 4
	}
	w.size = in.Width * in.Height * 3 * value
	betweenChannels := value
	w.stepX = 3 * value
	if in.Layout == models.LayoutNCHW {
		betweenChannels = in.Width * in.Height * value
		w.stepX = value
	}
	w.stepY = in.Width * w.stepX
	for c := range 3 {
		position := c
		if in.Channels == models.ChannelsBGR {
			position = 2 - c
		}
		w.channel[c] = position * betweenChannels
		w.scale[c], w.offset[c] = ofChannel(in.Scale, c, 1), ofChannel(in.Offset, c, 0)
	}
	return w
}

// ofChannel returns a channel's value of none, one for all or one each.
func ofChannel(values []float32, c int, otherwise float32) float32 {
	switch len(values) {
	case 0:
		return otherwise
	case 1:
		return values[0]
	}
	return values[c]
}

func (w *writer) row(tensor []byte, rgb []float32, y int) {
	for c := range 3 {
		at := w.channel[c] + y*w.stepY
		if !w.float {
			for i := c; i < len(rgb); i += 3 {
				tensor[at] = byte(rgb[i] + 0.5)
				at += w.stepX
			}
			continue
		}
		scale, offset := w.scale[c], w.offset[c]
		for i := c; i < len(rgb); i += 3 {
			binary.LittleEndian.PutUint32(tensor[at:], math.Float32bits(rgb[i]*scale+offset))
			at += w.stepX
		}
	}
}
