package translate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/ebb-inference/ebb/hack/onnx"
	"github.com/ebb-inference/ebb/hack/tflite"
)

// Limits of an average. Four times the sum of an area's codes has to fit into an int32.
const (
	maxArea    = 1 << 16
	maxWeights = 1 << 26
	maxCounts  = 32
)

// averagePool makes of an average what it is: a sum, by a depthwise convolution, over a count. ONNX Runtime's own
// QLinearAveragePool converts every code to float32 and back, which took a fifth of Inception v3's time.
//
// Padding does not count, so that windows at the borders have lower counts than others. There is one convolution for each
// count, and each place chooses its own. Weights of 4 and a bias of 1 make it (4 sum + 1) / (4 count): that lifts halves,
// which TensorFlow Lite rounds up, over the half, and nothing else.
func (t *translator) averagePool(o *tflite.Operator) error {
	x, w, attributes, err := t.pool(o)
	if err != nil {
		return err
	}
	in, err := t.picture(o.Inputs[0])
	if err != nil {
		return err
	}
	if area := w.filterH * w.filterW; area > maxArea || area > maxWeights/in.channels {
		return unsupported("its window of %d x %d over %d channels is too big", w.filterH, w.filterW, in.channels)
	}
	counts, height, width := w.counts(in)
	different := slices.Compact(slices.Sorted(slices.Values(counts)))
	if len(different) > maxCounts {
		return unsupported("its window of %d x %d has %d different counts at the borders; at most %d are", w.filterH, w.filterW, len(different), maxCounts)
	}
	name := t.name(o.Outputs[0])
	weights, zero, bias := name+"/weights", name+"/weights/zero", name+"/bias"
	t.constants(
		onnx.Tensor{
			Name: weights, Type: onnx.Int8, Dims: []int64{int64(in.channels), 1, int64(w.filterH), int64(w.filterW)},
			Data: bytes.Repeat([]byte{4}, in.channels*w.filterH*w.filterW),
		},
		onnx.Int8Scalar(zero, 0),
		onnx.Tensor{
			Name: bias, Type: onnx.Int32, Dims: []int64{int64(in.channels)},
			Data: bytes.Repeat(binary.LittleEndian.AppendUint32(nil, 1), in.channels),
		},
	)
	attributes = append(attributes, onnx.Attribute{Name: "group", Int: int64(in.channels)})

	var last onnx.Node
	for i, count := range different {
		this := fmt.Sprintf("%s/over-%d", name, count)
		t.constants(onnx.FloatScalar(this+"/scale", 1/float32(4*count)))
		n := onnx.Node{
			Op:         "QLinearConv",
			Inputs:     slices.Concat(x.args(), []string{weights, this + "/scale", zero, x.scaleName, x.zeroName, bias}),
			Outputs:    []string{this},
			Attributes: attributes,
		}
		if i > 0 {
			t.add(n)
			mask := make([]byte, len(counts))
			for place, c := range counts {
				if c == count {
					mask[place] = 1
				}
			}
			t.constants(onnx.Tensor{Name: this + "/places", Type: onnx.Bool, Dims: []int64{1, 1, int64(height), int64(width)}, Data: mask})
			n = onnx.Node{
				Op:      "Where",
				Inputs:  []string{this + "/places", this, last.Outputs[0]},
				Outputs: []string{this + "/chosen"},
			}
		}
		if i < len(different)-1 {
			t.add(n)
		}
		last = n
	}
	return t.activated(o.Outputs[0], o.Options.(tflite.Pool).Activation, func(value) onnx.Node { return last })
}

// counts is how many places of the input each place of the output, row by row, sees through the window, and the output's
// size.
func (w window) counts(in size) (counts []int, height, width int) {
	rows := inside(w.padding, in.height, w.filterH, w.strideH)
	cols := inside(w.padding, in.width, w.filterW, w.strideW)
	for _, r := range rows {
		for _, c := range cols {
			counts = append(counts, r*c)
		}
	}
	return counts, len(rows), len(cols)
}

// inside is how many places along one side lie under the filter and inside the borders.
func inside(p tflite.Padding, in, filter, stride int) []int {
	outputs, before, _ := p.Window(in, filter, stride, 1)
	n := make([]int, outputs)
	for i := range n {
		start := i*stride - before
		n[i] = min(start+filter, in) - max(start, 0)
	}
	return n
}
