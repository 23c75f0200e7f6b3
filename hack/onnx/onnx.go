// Package onnx writes ONNX networks: plain Go values in, protobuf bytes out. The same values always make the same bytes.
//
// It knows the file format alone; whether an operator exists, or gets what it wants, is its caller's affair.
package onnx

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// IRVersion is the version of the file format that is written.
const IRVersion = 8

// Type is the type of a tensor's elements.
type Type int32

// The element types.
const (
	Float Type = 1
	Uint8 Type = 2
	Int8  Type = 3
	Int32 Type = 6
	Bool  Type = 9
)

// Model is a network as it stands in a file.
type Model struct {
	Producer string
	Doc      string
	Opsets   []Opset
	Graph    Graph
}

// Opset is a version of a domain's operators; the empty domain is ONNX's own.
type Opset struct {
	Domain  string
	Version int64
}

// Graph is the operators in an order in which they can be executed, the constants and what goes in and out.
type Graph struct {
	Name      string
	Nodes     []Node
	Constants []Tensor
	Inputs    []Value
	Outputs   []Value
}

// Node is one operator. Inputs and Outputs are names of values; an empty name is an optional one that is left out.
type Node struct {
	Name       string
	Domain     string
	Op         string
	Inputs     []string
	Outputs    []string
	Attributes []Attribute
}

// Attribute is an integer when Ints is nil.
type Attribute struct {
	Name string
	Int  int64
	Ints []int64
}

// Tensor is a constant.
type Tensor struct {
	Name string
	Type Type
	Dims []int64 // nil for a scalar
	Data []byte  // little-endian, row-major
}

// Value describes an input or output of the graph.
type Value struct {
	Name string
	Type Type
	Dims []Dim
}

// Dim is the size of a side, or the name of a size that is free.
type Dim struct {
	Size int64
	Name string
}

// FloatScalar is the constant of one float32 without dimensions.
func FloatScalar(name string, v float32) Tensor {
	bits := math.Float32bits(v)
	return Tensor{Name: name, Type: Float, Data: []byte{byte(bits), byte(bits >> 8), byte(bits >> 16), byte(bits >> 24)}}
}

// Int8Scalar is the constant of one int8 without dimensions.
func Int8Scalar(name string, v int8) Tensor {
	return Tensor{Name: name, Type: Int8, Data: []byte{byte(v)}}
}

// Uint8Scalar is the constant of one uint8 without dimensions.
func Uint8Scalar(name string, v uint8) Tensor {
	return Tensor{Name: name, Type: Uint8, Data: []byte{v}}
}

// Marshal writes the file. Field numbers are those of onnx.proto.
func (m *Model) Marshal() []byte {
	size := 1 << 16
	for _, c := range m.Graph.Constants {
		size += len(c.Data) + 256
	}
	b := make([]byte, 0, size)
	b = integer(b, 1, IRVersion)
	b = text(b, 2, m.Producer)
	b = text(b, 6, m.Doc)
	b = message(b, 7, m.Graph.marshal())
	for _, o := range m.Opsets {
		var s []byte
		s = text(s, 1, o.Domain)
		s = integer(s, 2, o.Version)
		b = message(b, 8, s)
	}
	return b
}

func (g *Graph) marshal() []byte {
	var b []byte
	for _, n := range g.Nodes {
		b = message(b, 1, n.marshal())
	}
	b = text(b, 2, g.Name)
	for _, c := range g.Constants {
		b = message(b, 5, c.marshal())
	}
	for _, v := range g.Inputs {
		b = message(b, 11, v.marshal())
	}
	for _, v := range g.Outputs {
		b = message(b, 12, v.marshal())
	}
	return b
}

func (n *Node) marshal() []byte {
	var b []byte
	for _, s := range n.Inputs {
		b = repeatedText(b, 1, s)
	}
	for _, s := range n.Outputs {
		b = repeatedText(b, 2, s)
	}
	b = text(b, 3, n.Name)
	b = text(b, 4, n.Op)
	for _, a := range n.Attributes {
		b = message(b, 5, a.marshal())
	}
	return text(b, 7, n.Domain)
}

// Kinds of attributes.
const (
	attributeInt  = 2
	attributeInts = 7
)

func (a *Attribute) marshal() []byte {
	b := text(nil, 1, a.Name)
	if a.Ints == nil {
		b = integer(b, 3, a.Int)
		return integer(b, 20, attributeInt)
	}
	for _, v := range a.Ints {
		b = integer(b, 8, v)
	}
	return integer(b, 20, attributeInts)
}

func (t *Tensor) marshal() []byte {
	b := make([]byte, 0, len(t.Data)+256)
	for _, d := range t.Dims {
		b = integer(b, 1, d)
	}
	b = integer(b, 2, int64(t.Type))
	b = text(b, 8, t.Name)
	return message(b, 9, t.Data)
}

func (v *Value) marshal() []byte {
	var shape []byte
	for _, d := range v.Dims {
		if d.Name != "" {
			shape = message(shape, 1, text(nil, 2, d.Name))
		} else {
			shape = message(shape, 1, integer(nil, 1, d.Size))
		}
	}
	tensor := integer(nil, 1, int64(v.Type))
	tensor = message(tensor, 2, shape)
	return message(text(nil, 1, v.Name), 2, message(nil, 1, tensor))
}

func integer(b []byte, field protowire.Number, v int64) []byte {
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(v))
}

// text leaves an empty string out, as protobuf does.
func text(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return repeatedText(b, field, s)
}

func repeatedText(b []byte, field protowire.Number, s string) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendString(b, s)
}

func message(b []byte, field protowire.Number, m []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendBytes(b, m)
}
