// Package wire says what one picture is in TensorFlow Serving's protocol, for a model whose definition says what it is as
// pixels. Who calls a network, and why, it does not know.
package wire

import (
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// Channels of a pixel: networks here see colours.
const Channels = 3

// Item is the type and shape of one picture, without the dimension of the batch. An encoded one is a string by itself.
func Item(in models.Input) (tfserving.DType, []int64) {
	if in.Kind == models.KindEncoded {
		return tfserving.String, nil
	}
	dtype := tfserving.Uint8
	if in.DType == models.DTypeFloat32 {
		dtype = tfserving.Float32
	}
	width, height := int64(in.Width), int64(in.Height)
	if in.Layout == models.LayoutNCHW {
		return dtype, []int64{Channels, height, width}
	}
	return dtype, []int64{height, width, Channels}
}
