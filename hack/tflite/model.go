// Package tflite reads TensorFlow Lite networks: a flatbuffer in, plain Go values out, checked so far that whoever walks
// the graph can index without looking.
//
// It knows what the file says, not what it is for: neither ONNX nor arithmetic.
package tflite

import "fmt"

// Model is a network: its one subgraph.
type Model struct {
	Tensors   []Tensor
	Operators []Operator // in the order of execution
	Inputs    []int      // indices into Tensors, as are all of an operator's inputs and outputs
	Outputs   []int
}

// Tensor is a value of the graph: a constant when it has Data, otherwise an input or computed by an operator.
type Tensor struct {
	Name       string
	Type       Type
	Shape      []int  // every side is at least 1; empty for a scalar
	Data       []byte // little-endian, row-major, of exactly Shape's size; nil when the value is not a constant. It aliases the file.
	Scales     []float32
	ZeroPoints []int64 // as many as Scales
}

// Elements is the number of values in the tensor.
func (t *Tensor) Elements() int {
	n := 1
	for _, side := range t.Shape {
		n *= side
	}
	return n
}

// Quantization is the scale and the zero point of a tensor that has one of each, that is: real = scale * (code - zero).
func (t *Tensor) Quantization() (scale float32, zero int64, err error) {
	if len(t.Scales) != 1 {
		return 0, 0, fmt.Errorf("tensor %q has %d quantisation scales; want one for the whole tensor", t.Name, len(t.Scales))
	}
	return t.Scales[0], t.ZeroPoints[0], nil
}

// Type is the type of a tensor's elements.
type Type int8

// The element types that are told apart; all others are kept as numbers.
const (
	Float32 Type = 0
	Int32   Type = 2
	Uint8   Type = 3
	Int64   Type = 4
	Int8    Type = 9
)

func (t Type) String() string {
	switch t {
	case Float32:
		return "float32"
	case Int32:
		return "int32"
	case Uint8:
		return "uint8"
	case Int64:
		return "int64"
	case Int8:
		return "int8"
	}
	return fmt.Sprintf("type %d", int8(t))
}

// size is the number of bytes of an element; 0 for a type that is not told apart.
func (t Type) size() int {
	switch t {
	case Float32, Int32:
		return 4
	case Uint8, Int8:
		return 1
	case Int64:
		return 8
	}
	return 0
}

// Operator is a step of the graph.
type Operator struct {
	Code    Code
	Custom  string // the name of a CUSTOM operator
	Inputs  []int  // -1 for an optional input that is not given
	Outputs []int
	Options any // Conv, Pool, Concatenation or Reshape for the operators that have these; nil for every other
}

// Name is the operator's name as TensorFlow Lite writes it.
func (o *Operator) Name() string {
	if o.Code == Custom {
		return fmt.Sprintf("CUSTOM %q", o.Custom)
	}
	return o.Code.String()
}

// Padding says what lies beyond the borders of a window.
type Padding int8

// The two paddings.
const (
	Same  Padding = 0 // as many zeros as it takes for ceil(in / stride) outputs, the odd one after
	Valid Padding = 1 // nothing: windows stay inside
)

// Activation is a function that an operator applies to its own output.
type Activation int8

// The activations that are told apart.
const (
	NoActivation Activation = 0
	ReLU         Activation = 1
	ReLUN1To1    Activation = 2
	ReLU6        Activation = 3
)

func (a Activation) String() string {
	switch a {
	case NoActivation:
		return "none"
	case ReLU:
		return "RELU"
	case ReLUN1To1:
		return "RELU_N1_TO_1"
	case ReLU6:
		return "RELU6"
	}
	return fmt.Sprintf("activation %d", int8(a))
}

// Conv is the options of CONV_2D. Its inputs are the picture [batch, height, width, channels], the weights [outputs,
// height, width, channels] and the bias [outputs].
type Conv struct {
	Padding              Padding
	StrideW, StrideH     int
	DilationW, DilationH int
	Activation           Activation
}

// Pool is the options of AVERAGE_POOL_2D and MAX_POOL_2D.
type Pool struct {
	Padding          Padding
	StrideW, StrideH int
	FilterW, FilterH int
	Activation       Activation
}

// Concatenation is the options of CONCATENATION.
type Concatenation struct {
	Axis       int
	Activation Activation
}

// Reshape is the options of RESHAPE; the output tensor's shape is what counts.
type Reshape struct{}

// Window places a filter of the given size along one side of a picture: the number of outputs and the padding before and
// after. Outputs is 0 when the filter does not fit.
func (p Padding) Window(in, filter, stride, dilation int) (outputs, before, after int) {
	reach := (filter-1)*dilation + 1
	if p == Valid {
		if reach > in {
			return 0, 0, 0
		}
		return (in-reach)/stride + 1, 0, 0
	}
	outputs = (in + stride - 1) / stride
	pad := max((outputs-1)*stride+reach-in, 0)
	return outputs, pad / 2, pad - pad/2
}
