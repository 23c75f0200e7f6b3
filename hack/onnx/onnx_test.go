package onnx_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/ebb-inference/ebb/hack/onnx"
)

// field is one of a message's, as it stands in the file.
type field struct {
	number protowire.Number
	value  any // uint64, or []byte
}

// read takes a message apart, without knowing more of it than protobuf's own rules.
func read(t *testing.T, b []byte) (fields []field) {
	t.Helper()
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		require.Positive(t, n)
		b = b[n:]
		switch kind {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			require.Positive(t, n)
			fields, b = append(fields, field{number, v}), b[n:]
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			require.Positive(t, n)
			fields, b = append(fields, field{number, v}), b[n:]
		default:
			require.Failf(t, "wire type", "%d", kind)
		}
	}
	return fields
}

// only is the one field of that number.
func only(t *testing.T, fields []field, number protowire.Number) any {
	t.Helper()
	var found []any
	for _, f := range fields {
		if f.number == number {
			found = append(found, f.value)
		}
	}
	require.Len(t, found, 1, "fields with number %d", number)
	return found[0]
}

func model() *onnx.Model {
	return &onnx.Model{
		Producer: "me",
		Doc:      "what it is",
		Opsets:   []onnx.Opset{{Version: 13}},
		Graph: onnx.Graph{
			Name: "g",
			Nodes: []onnx.Node{{
				Name: "first", Domain: "org.example", Op: "Do", Inputs: []string{"x", "", "c"}, Outputs: []string{"y"},
				Attributes: []onnx.Attribute{{Name: "axis", Int: -1}, {Name: "pads", Ints: []int64{0, 300}}},
			}},
			Constants: []onnx.Tensor{onnx.FloatScalar("c", 0.5), {Name: "w", Type: onnx.Int8, Dims: []int64{2, 1}, Data: []byte{7, 0xf9}}},
			Inputs:    []onnx.Value{{Name: "x", Type: onnx.Uint8, Dims: []onnx.Dim{{Name: "N"}, {Size: 299}}}},
			Outputs:   []onnx.Value{{Name: "y", Type: onnx.Float}},
		},
	}
}

func TestFileHoldsTheModelUnderONNXsNumbers(t *testing.T) {
	t.Parallel()
	m := read(t, model().Marshal())
	require.Equal(t, uint64(8), only(t, m, 1))
	require.Equal(t, []byte("me"), only(t, m, 2))
	require.Equal(t, []byte("what it is"), only(t, m, 6))
	require.Equal(t, []field{{2, uint64(13)}}, read(t, only(t, m, 8).([]byte)))

	g := read(t, only(t, m, 7).([]byte))
	require.Equal(t, []byte("g"), only(t, g, 2))
	n := read(t, only(t, g, 1).([]byte))
	require.Equal(t, []field{
		{1, []byte("x")},
		{1, []byte{}},
		{1, []byte("c")},
		{2, []byte("y")},
		{3, []byte("first")},
		{4, []byte("Do")},
	}, n[:6])
	require.Equal(t, []field{{1, []byte("axis")}, {3, ^uint64(0)}, {20, uint64(2)}}, read(t, n[6].value.([]byte)))
	require.Equal(t, []field{{1, []byte("pads")}, {8, uint64(0)}, {8, uint64(300)}, {20, uint64(7)}}, read(t, n[7].value.([]byte)))
	require.Equal(t, field{7, []byte("org.example")}, n[8])

	var constants [][]field
	for _, f := range g {
		if f.number == 5 {
			constants = append(constants, read(t, f.value.([]byte)))
		}
	}
	require.Equal(t, [][]field{
		{{2, uint64(1)}, {8, []byte("c")}, {9, []byte{0, 0, 0, 0x3f}}},
		{{1, uint64(2)}, {1, uint64(1)}, {2, uint64(3)}, {8, []byte("w")}, {9, []byte{7, 0xf9}}},
	}, constants)

	x := read(t, only(t, g, 11).([]byte))
	require.Equal(t, []byte("x"), only(t, x, 1))
	tensor := read(t, only(t, read(t, only(t, x, 2).([]byte)), 1).([]byte))
	require.Equal(t, uint64(2), only(t, tensor, 1))
	shape := read(t, only(t, tensor, 2).([]byte))
	require.Len(t, shape, 2)
	require.Equal(t, []field{{2, []byte("N")}}, read(t, shape[0].value.([]byte)))
	require.Equal(t, []field{{1, uint64(299)}}, read(t, shape[1].value.([]byte)))
	require.Equal(t, []byte("y"), only(t, read(t, only(t, g, 12).([]byte)), 1))
}

func TestSameModelMakesTheSameBytes(t *testing.T) {
	t.Parallel()
	first := model().Marshal()
	require.Equal(t, first, model().Marshal())
}
