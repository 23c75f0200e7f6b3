package tfserving_test

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/ebb-inference/ebb/models/tfserving"
	"github.com/ebb-inference/ebb/models/tfserving/tensorflow"
)

func shape(dims ...int64) *tensorflow.TensorShapeProto {
	s := &tensorflow.TensorShapeProto{}
	for _, d := range dims {
		s.Dim = append(s.Dim, &tensorflow.TensorShapeProto_Dim{Size: d})
	}
	return s
}

func bits32(values ...float32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

func TestTensorSurvivesTheWire(t *testing.T) {
	t.Parallel()
	for name, tensor := range map[string]tfserving.Tensor{
		"matrix of floats":   {DType: tfserving.Float32, Shape: []int64{2, 3}, Data: bits32(1, -2, 3.5, 4, 5, 6)},
		"scalar":             {DType: tfserving.Int64, Shape: []int64{}, Data: []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		"bytes":              {DType: tfserving.Uint8, Shape: []int64{1, 2, 2}, Data: []byte{0, 128, 255, 7}},
		"bools":              {DType: tfserving.Bool, Shape: []int64{3}, Data: []byte{1, 0, 1}},
		"strings":            {DType: tfserving.String, Shape: []int64{2, 1}, Strings: [][]byte{[]byte("a\x00b"), {}}},
		"no rows":            {DType: tfserving.Float32, Shape: []int64{0, 1001}},
		"no strings":         {DType: tfserving.String, Shape: []int64{0}},
		"rank of 254, as TF": {DType: tfserving.Int8, Shape: slices.Repeat([]int64{1}, 254), Data: []byte{9}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.NoError(t, tensor.Validate())
			wire, err := proto.Marshal(tensor.Proto())
			require.NoError(t, err)
			var p tensorflow.TensorProto
			require.NoError(t, proto.Unmarshal(wire, &p))
			got, err := tfserving.FromProto(&p)
			require.NoError(t, err)
			require.Equal(t, tensor.DType, got.DType)
			require.Equal(t, tensor.Shape, got.Shape)
			require.Equal(t, string(tensor.Data), string(got.Data))
			require.Len(t, got.Strings, len(tensor.Strings))
			for i := range tensor.Strings {
				require.Equal(t, string(tensor.Strings[i]), string(got.Strings[i]))
			}
		})
	}
}

func TestTypedFieldsAreRead(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		message *tensorflow.TensorProto
		want    []byte
		floats  []float32
	}{
		"float":             {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_FLOAT, FloatVal: []float32{1, -0.5}}, bits32(1, -0.5), []float32{1, -0.5}},
		"double":            {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_DOUBLE, DoubleVal: []float64{1, 2}}, []byte{0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0x40}, []float32{1, 2}},
		"half":              {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_HALF, HalfVal: []int32{0x3c00, 0xc000}}, []byte{0, 0x3c, 0, 0xc0}, []float32{1, -2}},
		"bfloat16":          {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_BFLOAT16, HalfVal: []int32{0x3f80, 0xc000}}, []byte{0x80, 0x3f, 0, 0xc0}, []float32{1, -2}},
		"int8":              {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_INT8, IntVal: []int32{-128, 127}}, []byte{0x80, 0x7f}, []float32{-128, 127}},
		"uint8":             {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_UINT8, IntVal: []int32{0, 255}}, []byte{0, 255}, []float32{0, 255}},
		"int16":             {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_INT16, IntVal: []int32{-2, 258}}, []byte{0xfe, 0xff, 2, 1}, []float32{-2, 258}},
		"uint16":            {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_UINT16, IntVal: []int32{65535, 258}}, []byte{0xff, 0xff, 2, 1}, []float32{65535, 258}},
		"int32":             {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_INT32, IntVal: []int32{-1, 1}}, []byte{255, 255, 255, 255, 1, 0, 0, 0}, []float32{-1, 1}},
		"int64":             {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_INT64, Int64Val: []int64{-1, 1}}, []byte{255, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0}, []float32{-1, 1}},
		"uint32":            {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_UINT32, Uint32Val: []uint32{1 << 31, 1}}, []byte{0, 0, 0, 0x80, 1, 0, 0, 0}, []float32{1 << 31, 1}},
		"uint64":            {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_UINT64, Uint64Val: []uint64{1 << 63, 1}}, []byte{0, 0, 0, 0, 0, 0, 0, 0x80, 1, 0, 0, 0, 0, 0, 0, 0}, []float32{1 << 63, 1}},
		"bool":              {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_BOOL, BoolVal: []bool{true, false}}, []byte{1, 0}, []float32{1, 0}},
		"one value for all": {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_FLOAT, FloatVal: []float32{7}}, bits32(7, 7), []float32{7, 7}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.message.TensorShape = shape(2, 1)
			got, err := tfserving.FromProto(test.message)
			require.NoError(t, err)
			require.Equal(t, test.want, got.Data)
			floats, err := got.Floats()
			require.NoError(t, err)
			require.Equal(t, test.floats, floats)
		})
	}
}

func TestLastValueFillsTheShape(t *testing.T) {
	t.Parallel()
	got, err := tfserving.FromProto(&tensorflow.TensorProto{
		Dtype: tensorflow.DataType_DT_STRING, TensorShape: shape(2, 2), StringVal: [][]byte{[]byte("a"), []byte("b")},
	})
	require.NoError(t, err)
	require.Equal(t, [][]byte{[]byte("a"), []byte("b"), []byte("b"), []byte("b")}, got.Strings)
	got, err = tfserving.FromProto(&tensorflow.TensorProto{
		Dtype: tensorflow.DataType_DT_FLOAT, TensorShape: shape(4), FloatVal: []float32{1, 2},
	})
	require.NoError(t, err)
	require.Equal(t, bits32(1, 2, 2, 2), got.Data)
}

func TestHalvesWidenExactly(t *testing.T) {
	t.Parallel()
	tensor := tfserving.Tensor{DType: tfserving.Float16, Shape: []int64{8}}
	for _, h := range []uint16{0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x7bff, 0x7c00, 0xfc00} {
		tensor.Data = binary.LittleEndian.AppendUint16(tensor.Data, h)
	}
	got, err := tensor.Floats()
	require.NoError(t, err)
	inf := float32(math.Inf(1))
	require.Equal(t, []float32{0, 0, 0x1p-24, -0x3ffp-24, 0x1p-14, 65504, inf, -inf}, got)
	require.True(t, math.Signbit(float64(got[1])), "minus zero")
	nan, err := tfserving.Tensor{DType: tfserving.Float16, Data: []byte{1, 0x7e}}.Floats()
	require.NoError(t, err)
	require.True(t, math.IsNaN(float64(nan[0])))
}

func TestTensorThatContradictsItselfIsRefused(t *testing.T) {
	t.Parallel()
	float, huge := tensorflow.DataType_DT_FLOAT, int64(1)<<40
	for name, test := range map[string]struct {
		message *tensorflow.TensorProto
		says    string
	}{
		"absent":                     {nil, "absent"},
		"unknown rank":               {&tensorflow.TensorProto{Dtype: float, TensorShape: &tensorflow.TensorShapeProto{UnknownRank: true}}, "rank"},
		"too many dimensions":        {&tensorflow.TensorProto{Dtype: float, TensorShape: shape(make([]int64, 255)...)}, "255 dimensions"},
		"negative dimension":         {&tensorflow.TensorProto{Dtype: float, TensorShape: shape(2, -1), TensorContent: bits32(1)}, "dimension 1 is -1"},
		"two negative dimensions":    {&tensorflow.TensorProto{Dtype: float, TensorShape: shape(-1, -1), TensorContent: bits32(1)}, "negative"},
		"product overflows to zero":  {&tensorflow.TensorProto{Dtype: float, TensorShape: shape(1<<32, 1<<32)}, "more than"},
		"product overflows":          {&tensorflow.TensorProto{Dtype: float, TensorShape: shape(1<<62, 5), FloatVal: []float32{1}}, "more than"},
		"huge beside a zero":         {&tensorflow.TensorProto{Dtype: float, TensorShape: shape(0, huge, huge)}, "more than"},
		"small message, huge tensor": {&tensorflow.TensorProto{Dtype: float, TensorShape: shape(64 << 20), FloatVal: []float32{1}}, "repeating"},
		"small message, many strings": {
			&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_STRING, TensorShape: shape(8 << 20), StringVal: [][]byte{{}}}, "repeating",
		},
		"content too short":         {&tensorflow.TensorProto{Dtype: float, TensorShape: shape(2), TensorContent: bits32(1)}, "4 bytes for shape [2] of DT_FLOAT, which needs 8"},
		"content too long":          {&tensorflow.TensorProto{Dtype: float, TensorShape: shape(1), TensorContent: bits32(1, 2)}, "8 bytes"},
		"content of a scalar":       {&tensorflow.TensorProto{Dtype: float, TensorContent: []byte{1}}, "1 bytes"},
		"no values":                 {&tensorflow.TensorProto{Dtype: float, TensorShape: shape(2)}, "0 values"},
		"too many values":           {&tensorflow.TensorProto{Dtype: float, TensorShape: shape(1), FloatVal: []float32{1, 2}}, "2 values"},
		"too many strings":          {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_STRING, TensorShape: shape(0), StringVal: [][]byte{{}}}, "1 values"},
		"values of another type":    {&tensorflow.TensorProto{Dtype: float, TensorShape: shape(1), DoubleVal: []float64{1}}, "not for type DT_FLOAT"},
		"content and values":        {&tensorflow.TensorProto{Dtype: float, TensorShape: shape(1), TensorContent: bits32(1), FloatVal: []float32{1}}, "both"},
		"strings as content":        {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_STRING, TensorShape: shape(1), TensorContent: []byte("\x01a")}, "Strings"},
		"no type":                   {&tensorflow.TensorProto{TensorShape: shape(1), FloatVal: []float32{1}}, "DT_INVALID is not supported"},
		"type we do not carry":      {&tensorflow.TensorProto{Dtype: 18, TensorShape: shape(1), TensorContent: bits32(1)}, "18 is not supported"},
		"value out of range":        {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_UINT8, TensorShape: shape(2), IntVal: []int32{0, 256}}, "value 1 is 256, out of range for DT_UINT8"},
		"negative unsigned value":   {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_UINT16, TensorShape: shape(1), IntVal: []int32{-1}}, "out of range"},
		"half with more than 16":    {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_HALF, TensorShape: shape(1), HalfVal: []int32{1 << 16}}, "out of range"},
		"bool that is neither":      {&tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_BOOL, TensorShape: shape(2), TensorContent: []byte{1, 2}}, "element 1 of a bool tensor is 2"},
		"dimension that is missing": {&tensorflow.TensorProto{Dtype: float, TensorShape: &tensorflow.TensorShapeProto{Dim: []*tensorflow.TensorShapeProto_Dim{nil}}, FloatVal: []float32{1}}, "1 values for shape [0]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := tfserving.FromProto(test.message)
			require.ErrorIs(t, err, tfserving.ErrTensor)
			require.ErrorContains(t, err, test.says)
		})
	}
}

func TestStringsAreNotNumbers(t *testing.T) {
	t.Parallel()
	_, err := tfserving.Tensor{DType: tfserving.String, Shape: []int64{1}, Strings: [][]byte{[]byte("1")}}.Floats()
	require.ErrorIs(t, err, tfserving.ErrTensor)
	_, err = tfserving.Tensor{DType: tfserving.Float32, Shape: []int64{2}, Data: bits32(1)}.Floats()
	require.ErrorIs(t, err, tfserving.ErrTensor)
	require.ErrorIs(t, tfserving.Tensor{DType: tfserving.Float32, Data: bits32(1), Strings: [][]byte{{}}}.Validate(), tfserving.ErrTensor)
}

// Whatever arrives, FromProto returns either an error or a tensor that is valid, is no larger than the limits say, and
// arrives as the same tensor when it is sent on.
func FuzzFromProto(f *testing.F) {
	for _, p := range []*tensorflow.TensorProto{
		tfserving.Tensor{DType: tfserving.Float32, Shape: []int64{2, 2}, Data: bits32(1, 2, 3, 4)}.Proto(),
		tfserving.Tensor{DType: tfserving.String, Shape: []int64{2}, Strings: [][]byte{[]byte("a"), []byte("b")}}.Proto(),
		{Dtype: tensorflow.DataType_DT_FLOAT, TensorShape: shape(3, 3), FloatVal: []float32{1}},
		{Dtype: tensorflow.DataType_DT_STRING, TensorShape: shape(3), StringVal: [][]byte{[]byte("a")}},
		{Dtype: tensorflow.DataType_DT_UINT8, TensorShape: shape(2), IntVal: []int32{1, 300}},
		{Dtype: tensorflow.DataType_DT_HALF, TensorShape: shape(1), HalfVal: []int32{0x3c00}},
		{Dtype: tensorflow.DataType_DT_INT64, TensorShape: shape(-1, 1<<62), Int64Val: []int64{1}},
		{Dtype: tensorflow.DataType_DT_BOOL, TensorShape: shape(0, 1<<40), BoolVal: []bool{true}},
	} {
		wire, err := proto.Marshal(p)
		require.NoError(f, err)
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		var p tensorflow.TensorProto
		if proto.Unmarshal(wire, &p) != nil {
			return
		}
		tensor, err := tfserving.FromProto(&p)
		if err != nil {
			require.ErrorIs(t, err, tfserving.ErrTensor)
			return
		}
		require.NoError(t, tensor.Validate())
		require.LessOrEqual(t, len(tensor.Data)+24*len(tensor.Strings), 64<<20+24*len(wire))
		again, err := tfserving.FromProto(tensor.Proto())
		require.NoError(t, err)
		require.Equal(t, tensor.DType, again.DType)
		require.Equal(t, tensor.Shape, again.Shape)
		require.Equal(t, string(tensor.Data), string(again.Data))
		require.Len(t, again.Strings, len(tensor.Strings))
		floats, err := tensor.Floats()
		if tensor.DType == tfserving.String {
			require.ErrorIs(t, err, tfserving.ErrTensor)
			return
		}
		require.NoError(t, err)
		require.Len(t, floats, len(tensor.Data)/tensor.DType.Size())
	})
}
