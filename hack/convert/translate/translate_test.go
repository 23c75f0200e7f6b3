package translate_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/hack/convert/translate"
	"github.com/ebb-inference/ebb/hack/tflite"
	"github.com/ebb-inference/ebb/hack/tflite/tflitetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// codes is a tensor of quantised values.
func codes(name string, shape ...int) tflite.Tensor {
	return tflite.Tensor{Name: name, Type: tflite.Uint8, Shape: shape, Scales: []float32{0.5}, ZeroPoints: []int64{10}}
}

// network has every operator that is translated. What it computes is checked where ONNX Runtime is at hand, in
// hack/tflite/reference.
func network() *tflite.Model {
	weights := codes("weights", 2, 1, 1, 2)
	weights.Data = []byte{1, 2, 3, 4}
	return &tflite.Model{
		Inputs:  []int{0},
		Outputs: []int{7},
		Tensors: []tflite.Tensor{
			codes("input", 1, 4, 4, 2),
			weights,
			{Name: "bias", Type: tflite.Int32, Shape: []int{2}, Scales: []float32{0.25}, ZeroPoints: []int64{0}, Data: make([]byte, 8)},
			codes("conv", 1, 4, 4, 2),
			codes("average", 1, 1, 1, 2),
			codes("most", 1, 1, 1, 2),
			codes("both", 1, 1, 1, 4),
			codes("output", 1, 4),
		},
		Operators: []tflite.Operator{
			{Code: tflite.Conv2D, Inputs: []int{0, 1, 2}, Outputs: []int{3}, Options: tflite.Conv{StrideW: 1, StrideH: 1, DilationW: 1, DilationH: 1}},
			{Code: tflite.AveragePool2D, Inputs: []int{3}, Outputs: []int{4}, Options: tflite.Pool{StrideW: 4, StrideH: 4, FilterW: 2, FilterH: 3}},
			{Code: tflite.MaxPool2D, Inputs: []int{3}, Outputs: []int{5}, Options: tflite.Pool{Padding: tflite.Valid, StrideW: 1, StrideH: 1, FilterW: 4, FilterH: 4}},
			{Code: tflite.Concat, Inputs: []int{4, 5}, Outputs: []int{6}, Options: tflite.Concatenation{Axis: 3}},
			{Code: tflite.ReshapeTo, Inputs: []int{6}, Outputs: []int{7}, Options: tflite.Reshape{}},
		},
	}
}

func TestSameFileMakesTheSameBytes(t *testing.T) {
	t.Parallel()
	file := tflitetest.Build(network())
	first, err := translate.Convert(file)
	require.NoError(t, err)
	for range 10 {
		again, err := translate.Convert(file)
		require.NoError(t, err)
		require.Equal(t, first, again)
	}
}

func TestResultTellsItsMakerAndItsSource(t *testing.T) {
	t.Parallel()
	file := tflitetest.Build(network())
	got, err := translate.Convert(file)
	require.NoError(t, err)
	require.True(t, bytes.Contains(got, []byte(translate.Producer)))
	require.True(t, bytes.Contains(got, fmt.Appendf(nil, "sha256 %x", sha256.Sum256(file))))
}

func TestConvertSaysWhatItCannotTranslate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(m *tflite.Model)
		want   string
	}{
		"unknown operator": {
			func(m *tflite.Model) {
				m.Operators[4] = tflite.Operator{Code: tflite.Softmax, Inputs: []int{6}, Outputs: []int{7}}
			},
			"operator 4 (SOFTMAX): cannot be translated: there is no translation of this operator",
		},
		"custom operator": {
			func(m *tflite.Model) {
				m.Operators[4] = tflite.Operator{Code: tflite.Custom, Custom: "Flux", Inputs: []int{6}, Outputs: []int{7}}
			},
			`operator 4 (CUSTOM "Flux")`,
		},
		"two inputs":         {func(m *tflite.Model) { m.Inputs = []int{0, 3}; m.Operators = m.Operators[1:] }, "it has 2 inputs; want one"},
		"two outputs":        {func(m *tflite.Model) { m.Outputs = []int{7, 6} }, "it has 2 outputs; want one"},
		"output of pictures": {func(m *tflite.Model) { m.Outputs = []int{6} }, "its output has the shape [1 1 1 4]; want [1, classes]"},
		"input of floats":    {func(m *tflite.Model) { m.Tensors[0].Type = tflite.Float32 }, `tensor "input" is of float32; want uint8`},
		"signed codes":       {func(m *tflite.Model) { m.Tensors[3].Type = tflite.Int8 }, `tensor "conv" is of int8; want uint8`},
		"output without scale": {
			func(m *tflite.Model) { m.Tensors[7].Scales, m.Tensors[7].ZeroPoints = nil, nil },
			`tensor "output" has 0 quantisation scales`,
		},
		"scale for each channel": {
			func(m *tflite.Model) {
				m.Tensors[1].Scales, m.Tensors[1].ZeroPoints = []float32{1, 2}, []int64{0, 0}
			},
			`tensor "weights" has 2 quantisation scales`,
		},
		"zero point out of range": {func(m *tflite.Model) { m.Tensors[3].ZeroPoints[0] = 256 }, "has the zero point 256; want 0 to 255"},
		"batch of two":            {func(m *tflite.Model) { m.Tensors[0].Shape[0] = 2 }, `tensor "input" has the shape [2 4 4 2]`},
		"convolution without bias": {
			func(m *tflite.Model) { m.Operators[0].Inputs = []int{0, 1} },
			"operator 0 (CONV_2D): cannot be translated: it has no bias",
		},
		"input left out":    {func(m *tflite.Model) { m.Operators[0].Inputs = []int{0, -1, 2} }, "it has an input left out"},
		"no input":          {func(m *tflite.Model) { m.Operators[4].Inputs = nil }, "it has no input"},
		"bias of its own":   {func(m *tflite.Model) { m.Tensors[2].Scales[0] = 0.3 }, `its bias "bias" has scale 0.3`},
		"bias off zero":     {func(m *tflite.Model) { m.Tensors[2].ZeroPoints[0] = 1 }, "zero point 1; want the product"},
		"bias of two sizes": {func(m *tflite.Model) { m.Tensors[2].Shape = []int{1, 2} }, "want a constant of int32 [2]"},
		"computed weights":  {func(m *tflite.Model) { m.Operators[0].Inputs[1] = 0 }, `its weights "input" have the shape`},
		"weights that do not fit": {
			func(m *tflite.Model) { m.Tensors[1].Shape = []int{4, 1, 1, 1} },
			"have the shape [4 1 1 1]; want a constant of 2 outputs and 2 channels",
		},
		"constant picture": {func(m *tflite.Model) { m.Tensors[0].Data = make([]byte, 32); m.Inputs = nil }, "it has 0 inputs"},
		"window that makes another size": {
			func(m *tflite.Model) { m.Tensors[3].Shape = []int{1, 3, 4, 2} },
			"its window makes 4 x 4 of 4 x 4, but its output is 3 x 4",
		},
		"window that does not fit": {
			func(m *tflite.Model) {
				m.Operators[2].Options = tflite.Pool{Padding: tflite.Valid, StrideW: 1, StrideH: 1, FilterW: 5, FilterH: 4}
			},
			"operator 2 (MAX_POOL_2D): cannot be translated: its window makes",
		},
		"pooling that scales": {func(m *tflite.Model) { m.Tensors[4].Scales[0] = 0.7 }, "its output is quantised otherwise than its input"},
		"pooling over too much": {
			func(m *tflite.Model) {
				m.Operators[1].Options = tflite.Pool{StrideW: 4, StrideH: 4, FilterW: 4096, FilterH: 4096}
			},
			"its window of 4096 x 4096 over 2 channels is too big",
		},
		"pooling with many counts": {
			func(m *tflite.Model) {
				m.Tensors[0].Shape, m.Tensors[3].Shape, m.Tensors[4].Shape = []int{1, 99, 99, 2}, []int{1, 99, 99, 2}, []int{1, 99, 99, 2}
				m.Operators[1].Options = tflite.Pool{StrideW: 1, StrideH: 1, FilterW: 31, FilterH: 31}
			},
			"different counts at the borders; at most 32 are",
		},
		"picture of many pixels": {func(m *tflite.Model) { m.Tensors[0].Shape = []int{1, 1 << 14, 1 << 14, 1} }, `tensor "input" has 16384 x 16384 pixels`},
		"constant for a picture": {func(m *tflite.Model) { m.Operators[0].Inputs[0] = 1 }, `tensor "weights" is a constant; want one that is computed`},
		"pooling of channels":    {func(m *tflite.Model) { m.Tensors[4].Shape[3] = 3 }, "it makes 3 channels of 2"},
		"reshaping that scales":  {func(m *tflite.Model) { m.Tensors[7].ZeroPoints[0] = 11 }, "its output is quantised otherwise than its input"},
		"reshaping of pictures": {
			func(m *tflite.Model) {
				m.Operators = m.Operators[:4]
				m.Operators = append(m.Operators, tflite.Operator{Code: tflite.ReshapeTo, Inputs: []int{3}, Outputs: []int{7}})
			},
			"it makes [1 4] of [1 4 4 2]; want [1, channels] of [1, 1, 1, channels]",
		},
		"joining rows":      {func(m *tflite.Model) { m.Operators[3].Options = tflite.Concatenation{Axis: 1} }, "it is along axis 1; want 3, the channels"},
		"joining two sizes": {func(m *tflite.Model) { m.Operators[3].Inputs[0] = 3 }, "it joins 4 x 4 with 1 x 1"},
		"joining to less":   {func(m *tflite.Model) { m.Tensors[6].Shape[3] = 5 }, "its inputs have 4 channels together, its output 5"},
		"unknown activation": {
			func(m *tflite.Model) {
				m.Operators[0].Options = tflite.Conv{StrideW: 1, StrideH: 1, DilationW: 1, DilationH: 1, Activation: 4}
			},
			"its fused activation is activation 4",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := network()
			c.change(m)
			got, err := translate.Convert(tflitetest.Build(m))
			require.ErrorIs(t, err, translate.ErrUnsupported)
			require.ErrorContains(t, err, c.want)
			require.Nil(t, got)
		})
	}
}

func TestConvertRefusesBrokenFiles(t *testing.T) {
	t.Parallel()
	_, err := translate.Convert([]byte("no network"))
	require.ErrorIs(t, err, tflite.ErrCorrupt)
}

// Every damaged byte gives an error of the two kinds or a network, never a panic.
func TestConvertSurvivesDamage(t *testing.T) {
	t.Parallel()
	file := tflitetest.Build(network())
	for at := range file {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			damaged := slices.Clone(file)
			damaged[at] ^= flip
			convert(t, damaged)
		}
	}
}

func FuzzConvert(f *testing.F) {
	f.Add(tflitetest.Build(network()))
	f.Fuzz(convert)
}

func convert(t *testing.T, file []byte) {
	t.Helper()
	got, err := translate.Convert(file)
	if err == nil {
		require.NotEmpty(t, got)
		return
	}
	require.Condition(t, func() bool {
		return isOneOf(err, tflite.ErrCorrupt, translate.ErrUnsupported)
	}, "%v", err)
}

func isOneOf(err error, kinds ...error) bool {
	return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
}
