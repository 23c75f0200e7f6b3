package translate

import (
	"math"
	"slices"

	"github.com/ebb-inference/ebb/hack/onnx"
	"github.com/ebb-inference/ebb/hack/tflite"
)

// window is what convolutions and poolings have in common: a filter that slides over a picture.
type window struct {
	padding              tflite.Padding
	filterH, filterW     int
	strideH, strideW     int
	dilationH, dilationW int
}

// place checks that the window takes a picture of size in to one of size out, and writes it as ONNX has it.
func (w window) place(in, out size) ([]onnx.Attribute, error) {
	h, top, bottom := w.padding.Window(in.height, w.filterH, w.strideH, w.dilationH)
	wd, left, right := w.padding.Window(in.width, w.filterW, w.strideW, w.dilationW)
	if h == 0 || wd == 0 || h != out.height || wd != out.width {
		return nil, unsupported("its window makes %d x %d of %d x %d, but its output is %d x %d",
			h, wd, in.height, in.width, out.height, out.width)
	}
	a := []onnx.Attribute{
		{Name: "kernel_shape", Ints: []int64{int64(w.filterH), int64(w.filterW)}},
		{Name: "strides", Ints: []int64{int64(w.strideH), int64(w.strideW)}},
		{Name: "pads", Ints: []int64{int64(top), int64(left), int64(bottom), int64(right)}},
	}
	if w.dilationH != 1 || w.dilationW != 1 {
		a = append(a, onnx.Attribute{Name: "dilations", Ints: []int64{int64(w.dilationH), int64(w.dilationW)}})
	}
	return a, nil
}

func (t *translator) conv(o *tflite.Operator) error {
	if len(o.Inputs) != 3 || o.Inputs[2] < 0 {
		return unsupported("it has no bias")
	}
	x, err := t.value(o.Inputs[0])
	if err != nil {
		return err
	}
	in, err := t.picture(o.Inputs[0])
	if err != nil {
		return err
	}
	out, err := t.picture(o.Outputs[0])
	if err != nil {
		return err
	}
	weights := &t.source.Tensors[o.Inputs[1]]
	s := weights.Shape
	if weights.Data == nil || len(s) != 4 || s[0] != out.channels || s[3] != in.channels {
		return unsupported("its weights %q have the shape %d; want a constant of %d outputs and %d channels",
			weights.Name, s, out.channels, in.channels)
	}
	w, err := t.quantized(o.Inputs[1])
	if err != nil {
		return err
	}
	bias := &t.source.Tensors[o.Inputs[2]]
	if err := checkBias(bias, out.channels, x.scale, w.scale); err != nil {
		return err
	}
	options := o.Options.(tflite.Conv) // the reader gives every CONV_2D these
	attributes, err := window{
		padding: options.Padding, filterH: s[1], filterW: s[2],
		strideH: options.StrideH, strideW: options.StrideW,
		dilationH: options.DilationH, dilationW: options.DilationW,
	}.place(in, out)
	if err != nil {
		return err
	}

	if t.bring(o.Inputs[1]) {
		t.constants(onnx.FloatScalar(w.scaleName, w.scale), onnx.Int8Scalar(w.zeroName, toSigned(w.zero)), onnx.Tensor{
			Name: w.name, Type: onnx.Int8,
			Dims: []int64{int64(s[0]), int64(s[3]), int64(s[1]), int64(s[2])},
			Data: channelsFirst(weights.Data, s),
		})
	}
	if t.bring(o.Inputs[2]) {
		t.constants(onnx.Tensor{Name: t.name(o.Inputs[2]), Type: onnx.Int32, Dims: []int64{int64(out.channels)}, Data: bias.Data})
	}
	return t.activated(o.Outputs[0], options.Activation, func(y value) onnx.Node {
		return onnx.Node{
			Op:         "QLinearConv",
			Inputs:     slices.Concat(x.args(), w.args(), []string{y.scaleName, y.zeroName, t.name(o.Inputs[2])}),
			Attributes: attributes,
		}
	})
}

// checkBias holds a convolution's bias to what QLinearConv takes for granted: its scale is the product of the others.
func checkBias(bias *tflite.Tensor, channels int, x, w float32) error {
	if bias.Data == nil || bias.Type != tflite.Int32 || len(bias.Shape) != 1 || bias.Shape[0] != channels {
		return unsupported("its bias %q is of %s %d; want a constant of int32 [%d]", bias.Name, bias.Type, bias.Shape, channels)
	}
	scale, zero, err := bias.Quantization()
	if err != nil {
		return unsupported("%w", err)
	}
	product := float64(x) * float64(w)
	if zero != 0 || math.Abs(float64(scale)-product) > 1e-5*product {
		return unsupported("its bias %q has scale %v and zero point %d; want the product of the others, %v, and 0", bias.Name, scale, zero, product)
	}
	return nil
}

// channelsFirst reorders weights from outputs, height, width, channels to outputs, channels, height, width and makes
// their codes signed.
func channelsFirst(data []byte, s []int) []byte {
	outputs, pixels, channels := s[0], s[1]*s[2], s[3]
	to := make([]byte, len(data))
	for o := range outputs {
		from, to := data[o*pixels*channels:], to[o*pixels*channels:]
		for p := range pixels {
			for c := range channels {
				to[c*pixels+p] = byte(toSigned(from[p*channels+c]))
			}
		}
	}
	return to
}

// toSigned is the signed code of a weight.
func toSigned(code uint8) int8 { return int8(int(code) - 128) }

func (t *translator) maxPool(o *tflite.Operator) error {
	x, _, attributes, err := t.pool(o)
	if err != nil {
		return err
	}
	return t.activated(o.Outputs[0], o.Options.(tflite.Pool).Activation, func(value) onnx.Node {
		return onnx.Node{Op: "MaxPool", Inputs: []string{x.name}, Attributes: attributes}
	})
}

// pool is what both poolings need: the value that is pooled and the window. TensorFlow Lite pools codes, so that a
// pooling must not change the quantisation.
func (t *translator) pool(o *tflite.Operator) (x value, w window, attributes []onnx.Attribute, err error) {
	if len(o.Inputs) != 1 {
		return x, w, nil, unsupported("it has %d inputs; want one", len(o.Inputs))
	}
	if x, err = t.value(o.Inputs[0]); err != nil {
		return x, w, nil, err
	}
	q, err := t.codes(o.Outputs[0])
	if err != nil {
		return x, w, nil, err
	}
	if x.quantization != q {
		return x, w, nil, unsupported("its output is quantised otherwise than its input")
	}
	in, err := t.picture(o.Inputs[0])
	if err != nil {
		return x, w, nil, err
	}
	out, err := t.picture(o.Outputs[0])
	if err != nil {
		return x, w, nil, err
	}
	if in.channels != out.channels {
		return x, w, nil, unsupported("it makes %d channels of %d", out.channels, in.channels)
	}
	options := o.Options.(tflite.Pool) // the reader gives every pooling these
	w = window{
		padding: options.Padding, filterH: options.FilterH, filterW: options.FilterW,
		strideH: options.StrideH, strideW: options.StrideW, dilationH: 1, dilationW: 1,
	}
	attributes, err = w.place(in, out)
	return x, w, attributes, err
}

func (t *translator) concat(o *tflite.Operator) error {
	out, err := t.picture(o.Outputs[0])
	if err != nil {
		return err
	}
	options := o.Options.(tflite.Concatenation) // the reader gives every CONCATENATION these
	if options.Axis != 3 && options.Axis != -1 {
		return unsupported("it is along axis %d; want 3, the channels", options.Axis)
	}
	q, err := t.codes(o.Outputs[0])
	if err != nil {
		return err
	}
	var plain, quantized []string
	same, channels := true, 0
	for _, i := range o.Inputs {
		x, err := t.value(i)
		if err != nil {
			return err
		}
		in, err := t.picture(i)
		if err != nil {
			return err
		}
		if in.height != out.height || in.width != out.width {
			return unsupported("it joins %d x %d with %d x %d", in.height, in.width, out.height, out.width)
		}
		channels += in.channels
		same = same && x.quantization == q
		plain = append(plain, x.name)
		quantized = append(quantized, x.args()...)
	}
	if channels != out.channels {
		return unsupported("its inputs have %d channels together, its output %d", channels, out.channels)
	}
	axis := []onnx.Attribute{{Name: "axis", Int: 1}}
	return t.activated(o.Outputs[0], options.Activation, func(y value) onnx.Node {
		if same {
			return onnx.Node{Op: "Concat", Inputs: plain, Attributes: axis}
		}
		return onnx.Node{Domain: microsoft, Op: "QLinearConcat", Inputs: append([]string{y.scaleName, y.zeroName}, quantized...), Attributes: axis}
	})
}

// flatten is the only reshaping that means the same whether channels come first or last: a single pixel to a row.
func (t *translator) flatten(o *tflite.Operator) error {
	if len(o.Inputs) == 0 {
		return unsupported("it has no input")
	}
	x, err := t.value(o.Inputs[0])
	if err != nil {
		return err
	}
	from, to := t.source.Tensors[o.Inputs[0]].Shape, t.source.Tensors[o.Outputs[0]].Shape
	if len(from) != 4 || from[0] != 1 || from[1] != 1 || from[2] != 1 || len(to) != 2 || to[0] != 1 || to[1] != from[3] {
		return unsupported("it makes %d of %d; want [1, channels] of [1, 1, 1, channels]", to, from)
	}
	y, err := t.define(o.Outputs[0])
	if err != nil {
		return err
	}
	if x.quantization != y.quantization {
		return unsupported("its output is quantised otherwise than its input")
	}
	t.add(onnx.Node{Op: "Flatten", Inputs: []string{x.name}, Outputs: []string{y.name}, Attributes: []onnx.Attribute{{Name: "axis", Int: 1}}})
	return nil
}

// activated adds the node that computes a source tensor, and its fused activation where that is more than what the
// codes' own range does already: with a zero point of 0 there is no code below zero that a RELU could take away.
func (t *translator) activated(tensor int, a tflite.Activation, node func(y value) onnx.Node) error {
	y, err := t.define(tensor)
	if err != nil {
		return err
	}
	low, high, err := activationRange(a, y.quantization)
	if err != nil {
		return err
	}
	n := node(y)
	if low == 0 && high == math.MaxUint8 {
		n.Outputs = []string{y.name}
		t.add(n)
		return nil
	}
	raw, lowName, highName := y.name+"/raw", y.name+"/low", y.name+"/high"
	n.Outputs = []string{raw}
	t.add(n)
	t.constants(onnx.Uint8Scalar(lowName, low), onnx.Uint8Scalar(highName, high))
	t.add(onnx.Node{Op: "Clip", Inputs: []string{raw, lowName, highName}, Outputs: []string{y.name}})
	return nil
}

// activationRange is the least and the greatest code that an activation lets through.
func activationRange(a tflite.Activation, q quantization) (low, high uint8, err error) {
	code := func(value float64) uint8 {
		return uint8(min(max(math.Round(value/float64(q.scale))+float64(q.zero), 0), math.MaxUint8))
	}
	switch a {
	case tflite.NoActivation:
		return 0, math.MaxUint8, nil
	case tflite.ReLU:
		return code(0), math.MaxUint8, nil
	case tflite.ReLU6:
		return code(0), code(6), nil
	case tflite.ReLUN1To1:
		return code(-1), code(1), nil
	}
	return 0, 0, unsupported("its fused activation is %s", a)
}
