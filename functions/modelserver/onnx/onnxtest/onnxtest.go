// Package onnxtest writes small ONNX files, so that tests need no network from elsewhere.
package onnxtest

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
)

// ONNX's numbers of the element types.
const (
	Float32 = 1
	Uint8   = 2
	Int8    = 3
	Int32   = 6
	Int64   = 7
	String  = 8
	Float16 = 10
	Float64 = 11
)

// Free is a dimension of any size.
const Free = -1

// Value is an input or an output of a graph.
type Value struct {
	Name string
	Type int
	Dims []int64
}

// Constant is a float32 or int64 tensor that is part of the file.
type Constant struct {
	Name   string
	Dims   []int64
	Floats []float32
	Ints   []int64
}

// Node is an operation. Attributes are int64, float32 or []int64.
type Node struct {
	Op         string
	Inputs     []string
	Outputs    []string
	Attributes map[string]any
}

// Graph is a network.
type Graph struct {
	Inputs, Outputs []Value
	Constants       []Constant
	Nodes           []Node
}

// Affine is y = x·scale + offset for rows of any number, width wide.
func Affine(width int64, scale, offset float32) Graph {
	return Graph{
		Inputs:    []Value{{"x", Float32, []int64{Free, width}}},
		Outputs:   []Value{{"y", Float32, []int64{Free, width}}},
		Constants: []Constant{{Name: "scale", Floats: []float32{scale}}, {Name: "offset", Floats: []float32{offset}}},
		Nodes: []Node{
			{Op: "Mul", Inputs: []string{"x", "scale"}, Outputs: []string{"scaled"}},
			{Op: "Add", Inputs: []string{"scaled", "offset"}, Outputs: []string{"y"}},
		},
	}
}

// Pixels takes pictures of 2 by 2 grey pixels as uint8 and answers two outputs: the pixels as float32 and their sums.
func Pixels() Graph {
	return Graph{
		Inputs:    []Value{{"pixels", Uint8, []int64{Free, 2, 2}}},
		Outputs:   []Value{{"values", Float32, []int64{Free, 2, 2}}, {"sum", Float32, []int64{Free}}},
		Constants: []Constant{{Name: "axes", Dims: []int64{2}, Ints: []int64{1, 2}}},
		Nodes: []Node{
			{Op: "Cast", Inputs: []string{"pixels"}, Outputs: []string{"values"}, Attributes: map[string]any{"to": int64(Float32)}},
			{Op: "ReduceSum", Inputs: []string{"values", "axes"}, Outputs: []string{"sum"}, Attributes: map[string]any{"keepdims": int64(0)}},
		},
	}
}

// Lookup answers the number at each index of a table: an index outside it makes the run fail, as bad data does.
func Lookup(table ...float32) Graph {
	return Graph{
		Inputs:    []Value{{"index", Int64, []int64{Free}}},
		Outputs:   []Value{{"value", Float32, []int64{Free}}},
		Constants: []Constant{{Name: "table", Dims: []int64{int64(len(table))}, Floats: table}},
		Nodes:     []Node{{Op: "Gather", Inputs: []string{"table", "index"}, Outputs: []string{"value"}}},
	}
}

// Slow multiplies a matrix of side·side with itself again and again, for each row of x. It takes long without much memory.
func Slow(side int64, times int) Graph {
	ones := make([]float32, side*side)
	for i := range ones {
		ones[i] = 1 / float32(side)
	}
	g := Graph{
		Inputs:    []Value{{"x", Float32, []int64{Free, side, side}}},
		Outputs:   []Value{{"y", Float32, []int64{Free, side, side}}},
		Constants: []Constant{{Name: "m", Dims: []int64{side, side}, Floats: ones}},
	}
	last := "x"
	for i := range times {
		next := fmt.Sprintf("step%d", i)
		if i == times-1 {
			next = "y"
		}
		g.Nodes = append(g.Nodes, Node{Op: "MatMul", Inputs: []string{last, "m"}, Outputs: []string{next}})
		last = next
	}
	return g
}

// Bytes returns the graph as an ONNX file.
func (g Graph) Bytes() []byte {
	var graph []byte
	for i, n := range g.Nodes {
		graph = message(graph, 1, n.bytes(i))
	}
	graph = text(graph, 2, "test")
	for _, c := range g.Constants {
		graph = message(graph, 5, c.bytes())
	}
	for _, v := range g.Inputs {
		graph = message(graph, 11, v.bytes())
	}
	for _, v := range g.Outputs {
		graph = message(graph, 12, v.bytes())
	}
	file := number(nil, 1, 8) // IR version
	file = message(file, 7, graph)
	return message(file, 8, number(text(nil, 1, ""), 2, 13)) // opset
}

func (n Node) bytes(i int) []byte {
	var b []byte
	for _, in := range n.Inputs {
		b = text(b, 1, in)
	}
	for _, out := range n.Outputs {
		b = text(b, 2, out)
	}
	b = text(b, 3, fmt.Sprintf("%s_%d", n.Op, i))
	b = text(b, 4, n.Op)
	for name, value := range n.Attributes {
		a := text(nil, 1, name)
		switch v := value.(type) {
		case float32:
			a = protowire.AppendFixed32(protowire.AppendTag(a, 2, protowire.Fixed32Type), math.Float32bits(v))
			a = number(a, 20, 1)
		case int64:
			a = number(number(a, 3, v), 20, 2)
		case []int64:
			for _, x := range v {
				a = number(a, 8, x)
			}
			a = number(a, 20, 7)
		default:
			panic(fmt.Sprintf("attribute %s of type %T", name, value))
		}
		b = message(b, 5, a)
	}
	return b
}

func (c Constant) bytes() []byte {
	var b, raw []byte
	for _, d := range c.Dims {
		b = number(b, 1, d)
	}
	kind := int64(Float32)
	for _, f := range c.Floats {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(f))
	}
	for _, i := range c.Ints {
		kind = Int64
		raw = binary.LittleEndian.AppendUint64(raw, uint64(i))
	}
	b = number(b, 2, kind)
	b = text(b, 8, c.Name)
	return message(b, 9, raw)
}

func (v Value) bytes() []byte {
	var shape []byte
	for i, d := range v.Dims {
		dim := number(nil, 1, d)
		if d == Free {
			dim = text(nil, 2, fmt.Sprintf("d%d", i))
		}
		shape = message(shape, 1, dim)
	}
	tensor := message(number(nil, 1, int64(v.Type)), 2, shape)
	return message(text(nil, 1, v.Name), 2, message(nil, 1, tensor))
}

func message(b []byte, field protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), content)
}

func text(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func number(b []byte, field protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(v))
}

// Publish makes a graph a version of a model in a folder of models, as one should: written under another name, and
// renamed.
func Publish(tb testing.TB, base, name string, version int, g Graph) {
	tb.Helper()
	PublishFile(tb, base, name, version, g.Bytes())
}

// PublishFile is Publish for any content.
func PublishFile(tb testing.TB, base, name string, version int, content []byte) {
	tb.Helper()
	temporary := filepath.Join(base, name, fmt.Sprintf(".%d", version))
	require.NoError(tb, os.MkdirAll(temporary, 0o750))
	require.NoError(tb, os.WriteFile(filepath.Join(temporary, "model.onnx"), content, 0o600))
	require.NoError(tb, os.Rename(temporary, filepath.Join(base, name, strconv.Itoa(version))))
}
