// Package translate turns a quantised TensorFlow Lite network that classifies pictures into an ONNX one.
//
// The result computes on the same 8-bit codes with the same scales. Two things differ from the source: the codes of
// weights are signed, 128 less than the source's, because CPUs multiply unsigned by signed bytes twice as fast as unsigned
// by unsigned ones; and pictures are stored channels first inside, as ONNX has it. Neither is seen outside: the input
// "input" is uint8 [N, height, width, channels] and the output "logits" is float32 [N, classes], dequantised. N, the
// number of pictures, is free.
//
// On x86 CPUs without VNNI such products can saturate: sessions should set ONNX Runtime's session.x64quantprecision to 1,
// which makes it go the slow and exact way on these and changes nothing elsewhere.
package translate

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/ebb-inference/ebb/hack/onnx"
	"github.com/ebb-inference/ebb/hack/tflite"
)

// ErrUnsupported is wrapped by errors about sound networks that use what this package does not translate.
var ErrUnsupported = errors.New("cannot be translated")

// Names of the translated network's input, output and free dimension.
const (
	Input  = "input"
	Output = "logits"
	Batch  = "N"
)

// Producer is what the translated network names as its maker.
const Producer = "ebb"

// Convert translates a TensorFlow Lite file into an ONNX file. The same input always gives the same bytes. Errors wrap
// tflite.ErrCorrupt or ErrUnsupported.
func Convert(file []byte) ([]byte, error) {
	source, err := tflite.Parse(file)
	if err != nil {
		return nil, err
	}
	t := &translator{
		source: source,
		there:  make([]bool, len(source.Tensors)),
	}
	if err := t.graph(); err != nil {
		return nil, err
	}
	m := onnx.Model{
		Producer: Producer,
		Doc:      fmt.Sprintf("Translated from a TensorFlow Lite network with sha256 %x.", sha256.Sum256(file)),
		Opsets:   []onnx.Opset{{Domain: "", Version: 13}, {Domain: microsoft, Version: 1}},
		Graph:    t.target,
	}
	return m.Marshal(), nil
}

// Limits of what is translated. Real networks stay far below; they bound what a small hostile file can cost.
const (
	maxConstants = 1 << 30 // bytes of all constants
	maxPixels    = 1 << 22 // of a picture, or of what a network makes of it
)

// microsoft is the domain of ONNX Runtime's own operators.
const microsoft = "com.microsoft"

type translator struct {
	source *tflite.Model
	target onnx.Graph
	there  []bool // by source tensor: the target has it
	bytes  int    // of all constants
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrUnsupported, fmt.Errorf(format, args...))
}

func (t *translator) graph() error {
	t.target.Name = Producer
	if err := t.input(); err != nil {
		return err
	}
	for i := range t.source.Operators {
		o := &t.source.Operators[i]
		if err := t.operator(o); err != nil {
			return fmt.Errorf("operator %d (%s): %w", i, o.Name(), err)
		}
		if t.bytes > maxConstants {
			return unsupported("its constants take more than %d bytes", maxConstants)
		}
	}
	return t.output()
}

// input takes the picture in as it comes from a decoder and gives it the order that it has inside.
func (t *translator) input() error {
	if len(t.source.Inputs) != 1 {
		return unsupported("it has %d inputs; want one", len(t.source.Inputs))
	}
	in := t.source.Inputs[0]
	s, err := t.picture(in)
	if err != nil {
		return fmt.Errorf("input: %w", err)
	}
	v, err := t.define(in)
	if err != nil {
		return fmt.Errorf("input: %w", err)
	}
	t.target.Inputs = []onnx.Value{{Name: Input, Type: onnx.Uint8, Dims: []onnx.Dim{
		{Name: Batch}, {Size: int64(s.height)}, {Size: int64(s.width)}, {Size: int64(s.channels)},
	}}}
	t.add(onnx.Node{Op: "Transpose", Inputs: []string{Input}, Outputs: []string{v.name},
		Attributes: []onnx.Attribute{{Name: "perm", Ints: []int64{0, 3, 1, 2}}}})
	return nil
}

func (t *translator) output() error {
	if len(t.source.Outputs) != 1 {
		return unsupported("it has %d outputs; want one", len(t.source.Outputs))
	}
	out := t.source.Outputs[0]
	shape := t.source.Tensors[out].Shape
	if len(shape) != 2 || shape[0] != 1 {
		return unsupported("its output has the shape %d; want [1, classes]", shape)
	}
	value, err := t.value(out)
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	t.target.Outputs = []onnx.Value{{Name: Output, Type: onnx.Float, Dims: []onnx.Dim{{Name: Batch}, {Size: int64(shape[1])}}}}
	t.add(onnx.Node{Op: "DequantizeLinear", Inputs: value.args(), Outputs: []string{Output}})
	return nil
}

func (t *translator) operator(o *tflite.Operator) error {
	if len(o.Outputs) != 1 {
		return unsupported("it has %d outputs; want one", len(o.Outputs))
	}
	if slices.Contains(o.Inputs[:min(len(o.Inputs), 2)], -1) {
		return unsupported("it has an input left out")
	}
	switch o.Code {
	case tflite.Conv2D:
		return t.conv(o)
	case tflite.AveragePool2D:
		return t.averagePool(o)
	case tflite.MaxPool2D:
		return t.maxPool(o)
	case tflite.Concat:
		return t.concat(o)
	case tflite.ReshapeTo:
		return t.flatten(o)
	}
	return unsupported("there is no translation of this operator")
}

// add names the node after what it makes.
func (t *translator) add(n onnx.Node) {
	n.Name = n.Op + " " + n.Outputs[0]
	t.target.Nodes = append(t.target.Nodes, n)
}

// name is unique, and tells where in the source a value comes from.
func (t *translator) name(tensor int) string {
	return fmt.Sprintf("%d:%s", tensor, t.source.Tensors[tensor].Name)
}

// quantization is how a tensor's codes, 0 to 255, are to be read: real = scale * (code - zero).
type quantization struct {
	scale float32
	zero  uint8
}

// codes is the quantisation of a tensor of 8-bit codes.
func (t *translator) codes(tensor int) (quantization, error) {
	v := &t.source.Tensors[tensor]
	if v.Type != tflite.Uint8 {
		return quantization{}, unsupported("tensor %q is of %s; want uint8", v.Name, v.Type)
	}
	scale, zero, err := v.Quantization()
	if err != nil {
		return quantization{}, unsupported("%w", err)
	}
	if zero < 0 || zero > math.MaxUint8 {
		return quantization{}, unsupported("tensor %q has the zero point %d; want 0 to 255", v.Name, zero)
	}
	return quantization{scale, uint8(zero)}, nil
}

// value is a quantised value of the target: its name and those of the constants that tell how to read it.
type value struct {
	quantization
	name, scaleName, zeroName string
}

func (v *value) args() []string { return []string{v.name, v.scaleName, v.zeroName} }

// value is the target's value of a source tensor that is the input or was an operator's output.
func (t *translator) value(tensor int) (value, error) {
	if !t.there[tensor] || t.source.Tensors[tensor].Data != nil {
		return value{}, unsupported("tensor %q is a constant; want one that is computed", t.source.Tensors[tensor].Name)
	}
	return t.quantized(tensor)
}

// define brings a source tensor into the target that the caller is about to add an operator for.
func (t *translator) define(tensor int) (value, error) {
	v, err := t.quantized(tensor)
	if err != nil || !t.bring(tensor) {
		return v, err
	}
	t.constants(onnx.FloatScalar(v.scaleName, v.scale), onnx.Uint8Scalar(v.zeroName, v.zero))
	return v, nil
}

// quantized is the target's names of a quantised source tensor.
func (t *translator) quantized(tensor int) (value, error) {
	q, err := t.codes(tensor)
	name := t.name(tensor)
	return value{quantization: q, name: name, scaleName: name + "/scale", zeroName: name + "/zero"}, err
}

// bring notes that the target has a source tensor; it is false when it had before, as weights that are shared.
func (t *translator) bring(tensor int) bool {
	before := t.there[tensor]
	t.there[tensor] = true
	return !before
}

func (t *translator) constants(c ...onnx.Tensor) {
	for i := range c {
		t.bytes += len(c[i].Data)
	}
	t.target.Constants = append(t.target.Constants, c...)
}

// size is the shape of a picture, or of what a network makes of it.
type size struct{ height, width, channels int }

func (t *translator) picture(tensor int) (size, error) {
	s := t.source.Tensors[tensor].Shape
	if len(s) != 4 || s[0] != 1 {
		return size{}, unsupported("tensor %q has the shape %d; want [1, height, width, channels]", t.source.Tensors[tensor].Name, s)
	}
	if s[1]*s[2] > maxPixels {
		return size{}, unsupported("tensor %q has %d x %d pixels; at most %d are", t.source.Tensors[tensor].Name, s[1], s[2], maxPixels)
	}
	return size{s[1], s[2], s[3]}, nil
}
