package tflite_test

import (
	"math"
	"slices"
	"testing"

	flatbuffers "github.com/google/flatbuffers/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/hack/tflite"
	"github.com/ebb-inference/ebb/hack/tflite/tflitetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network is a small one with every operator that has options.
func network() *tflite.Model {
	codes := func(name string, scale float32, zero int64, shape ...int) tflite.Tensor {
		return tflite.Tensor{Name: name, Type: tflite.Uint8, Shape: shape, Scales: []float32{scale}, ZeroPoints: []int64{zero}}
	}
	weights := codes("weights", 0.25, 3, 2, 1, 1, 2)
	weights.Data = []byte{1, 2, 3, 4}
	return &tflite.Model{
		Inputs:  []int{0},
		Outputs: []int{7},
		Tensors: []tflite.Tensor{
			codes("input", 0.5, 128, 1, 4, 4, 2),
			weights,
			{Name: "bias", Type: tflite.Int32, Shape: []int{2}, Scales: []float32{0.125}, ZeroPoints: []int64{0}, Data: []byte{5, 0, 0, 0, 250, 255, 255, 255}},
			codes("conv", 0.5, 7, 1, 4, 4, 2),
			codes("average", 0.5, 7, 1, 1, 1, 2),
			codes("most", 0.5, 7, 1, 1, 1, 2),
			codes("both", 0.75, 9, 1, 1, 1, 4),
			codes("output", 0.75, 9, 1, 4),
		},
		Operators: []tflite.Operator{
			{Code: tflite.Conv2D, Inputs: []int{0, 1, 2}, Outputs: []int{3}, Options: tflite.Conv{
				Padding: tflite.Valid, StrideW: 1, StrideH: 1, DilationW: 1, DilationH: 2, Activation: tflite.ReLU6,
			}},
			{Code: tflite.AveragePool2D, Inputs: []int{3}, Outputs: []int{4}, Options: tflite.Pool{StrideW: 4, StrideH: 5, FilterW: 2, FilterH: 3}},
			{Code: tflite.MaxPool2D, Inputs: []int{3}, Outputs: []int{5}, Options: tflite.Pool{
				Padding: tflite.Valid, StrideW: 1, StrideH: 1, FilterW: 4, FilterH: 4, Activation: tflite.ReLU,
			}},
			{Code: tflite.Concat, Inputs: []int{4, 5}, Outputs: []int{6}, Options: tflite.Concatenation{Axis: 3, Activation: tflite.ReLUN1To1}},
			{Code: tflite.ReshapeTo, Inputs: []int{6}, Outputs: []int{7}, Options: tflite.Reshape{}},
		},
	}
}

func TestParseReadsWhatTheFileSays(t *testing.T) {
	t.Parallel()
	got, err := tflite.Parse(tflitetest.Build(network()))
	require.NoError(t, err)
	require.Equal(t, network(), got)
}

func TestParseNamesOperatorsOfWhichItKnowsNoOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]tflite.Operator{
		"SOFTMAX":              {Code: tflite.Softmax},
		"builtin operator 147": {Code: 147},
		`CUSTOM "Flux"`:        {Code: tflite.Custom, Custom: "Flux"},
	} {
		m := network()
		o.Inputs, o.Outputs = []int{6}, []int{7}
		m.Operators[4] = o
		got, err := tflite.Parse(tflitetest.Build(m))
		require.NoError(t, err, name)
		require.Equal(t, name, got.Operators[4].Name())
		require.Nil(t, got.Operators[4].Options)
	}
}

func TestParseSaysWhatIsWrongWithAFile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(m *tflite.Model)
		want   string
	}{
		"input that is no tensor":      {func(m *tflite.Model) { m.Inputs[0] = 99 }, "inputs: there is no tensor 99"},
		"output that is no tensor":     {func(m *tflite.Model) { m.Outputs[0] = -1 }, "outputs: there is no tensor -1"},
		"operator on no tensor":        {func(m *tflite.Model) { m.Operators[1].Inputs[0] = 8 }, "operator 1 (AVERAGE_POOL_2D): inputs: there is no tensor 8"},
		"value before it is there":     {func(m *tflite.Model) { m.Operators[0].Inputs[0] = 3 }, "operator 0 (CONV_2D) uses tensor 3 before it is computed"},
		"value computed twice":         {func(m *tflite.Model) { m.Operators[2].Outputs[0] = 4 }, "operator 2 (MAX_POOL_2D) computes tensor 4, which is there already"},
		"constant that is computed":    {func(m *tflite.Model) { m.Operators[2].Outputs[0] = 2 }, "computes tensor 2, which is there already"},
		"output that nothing computes": {func(m *tflite.Model) { m.Operators = m.Operators[:4] }, "nothing computes output tensor 7"},
		"data of another size":         {func(m *tflite.Model) { m.Tensors[1].Data = []byte{1, 2, 3} }, `tensor 1 ("weights"): 3 bytes of data for uint8 [2 1 1 2]`},
		"side of zero":                 {func(m *tflite.Model) { m.Tensors[0].Shape[1] = 0 }, `tensor 0 ("input"): its shape is [1 0 4 2]`},
		"side below zero":              {func(m *tflite.Model) { m.Tensors[0].Shape[1] = -4 }, "its shape is [1 -4 4 2]"},
		"shape that overflows":         {func(m *tflite.Model) { m.Tensors[0].Shape = []int{1 << 24, 1 << 24, 1 << 24, 1 << 24} }, "its shape is [16777216"},
		"too many sides":               {func(m *tflite.Model) { m.Tensors[0].Shape = slices.Repeat([]int{1}, 9) }, "its shape has 9 sides"},
		"scale of zero":                {func(m *tflite.Model) { m.Tensors[0].Scales[0] = 0 }, "its scale is 0"},
		"scale that is no number":      {func(m *tflite.Model) { m.Tensors[0].Scales[0] = float32(math.NaN()) }, "its scale is NaN"},
		"scale without end":            {func(m *tflite.Model) { m.Tensors[0].Scales[0] = float32(math.Inf(1)) }, "its scale is +Inf"},
		"scale without zero point":     {func(m *tflite.Model) { m.Tensors[0].ZeroPoints = nil }, "1 scales but 0 zero points"},
		"stride of zero":               {func(m *tflite.Model) { m.Operators[1].Options = tflite.Pool{StrideH: 1, FilterW: 1, FilterH: 1} }, "operator 1 (AVERAGE_POOL_2D): its stride is 0"},
		"filter of a million": {func(m *tflite.Model) {
			m.Operators[1].Options = tflite.Pool{StrideH: 1, StrideW: 1, FilterW: 1e6, FilterH: 1}
		}, "its filter is 1000000"},
		"padding that does not exist": {func(m *tflite.Model) {
			o := m.Operators[0].Options.(tflite.Conv)
			o.Padding = 2
			m.Operators[0].Options = o
		}, "there is no padding 2"},
		"options of another operator": {func(m *tflite.Model) { m.Operators[0].Options = tflite.Concatenation{} }, "its options are of type 10; want 1"},
		"options that are left out":   {func(m *tflite.Model) { m.Operators[0].Options = nil }, "its options are of type 0; want 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := network()
			c.change(m)
			got, err := tflite.Parse(tflitetest.Build(m))
			require.ErrorIs(t, err, tflite.ErrCorrupt)
			require.ErrorContains(t, err, c.want)
			require.Nil(t, got)
		})
	}
}

func TestParseRefusesWhatIsNoFlatbuffer(t *testing.T) {
	t.Parallel()
	for name, file := range map[string][]byte{
		"nothing":            nil,
		"short":              []byte("TFL3"),
		"another format":     []byte("\x89PNG\r\n\x1a\n and so on"),
		"root beyond end":    []byte("\xff\xff\xff\x7fTFL3"),
		"root of wild table": []byte("\x08\x00\x00\x00TFL3\x01\x00\x00\x80\x00\x00\x00\x00"),
	} {
		_, err := tflite.Parse(file)
		require.ErrorIs(t, err, tflite.ErrCorrupt, name)
	}
}

// Every single byte is damaged in several ways, and every prefix taken: each gives an error or a sound model.
func TestParseSurvivesDamage(t *testing.T) {
	t.Parallel()
	file := tflitetest.Build(network())
	for n := range file {
		parse(t, file[:n])
	}
	for at := range file {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			damaged := slices.Clone(file)
			damaged[at] ^= flip
			parse(t, damaged)
		}
	}
}

// A big name that every tensor leads to must not be copied once a tensor.
func TestParseCostsNoMoreThanTheFile(t *testing.T) {
	t.Parallel()
	b := flatbuffers.NewBuilder(0)
	name := b.CreateByteVector(make([]byte, 1<<20))
	b.StartObject(5)
	b.PrependUOffsetTSlot(3, name, 0)
	tensor := b.EndObject()
	const tensors = 1 << 16
	b.StartVector(4, tensors, 4)
	for range tensors {
		b.PrependUOffsetT(tensor)
	}
	all := b.EndVector(tensors)
	b.StartObject(5)
	b.PrependUOffsetTSlot(0, all, 0)
	subgraph := b.EndObject()
	b.StartVector(4, 1, 4)
	b.PrependUOffsetT(subgraph)
	subgraphs := b.EndVector(1)
	b.StartObject(5)
	b.PrependUOffsetTSlot(2, subgraphs, 0)
	b.FinishWithFileIdentifier(b.EndObject(), []byte("TFL3"))

	_, err := tflite.Parse(b.FinishedBytes()) // which would take 64 GB
	require.ErrorIs(t, err, tflite.ErrCorrupt)
	require.ErrorContains(t, err, "its parts add up to more than the file")
}

func FuzzParse(f *testing.F) {
	f.Add(tflitetest.Build(network()))
	f.Add([]byte("\x08\x00\x00\x00TFL3"))
	f.Fuzz(parse)
}

// parse holds a file that is read to what the package promises of it.
func parse(t *testing.T, file []byte) {
	t.Helper()
	m, err := tflite.Parse(file)
	if err != nil {
		require.ErrorIs(t, err, tflite.ErrCorrupt)
		return
	}
	for _, v := range m.Tensors {
		require.Len(t, v.ZeroPoints, len(v.Scales))
		if v.Data != nil && v.Type == tflite.Uint8 {
			require.Len(t, v.Data, v.Elements())
		}
	}
	for _, o := range m.Operators {
		for _, i := range slices.Concat(o.Inputs, o.Outputs) {
			require.Less(t, i, len(m.Tensors))
		}
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		padding                      tflite.Padding
		in, filter, stride, dilation int
		outputs, before, after       int
	}{
		"valid fits exactly":         {tflite.Valid, 299, 3, 2, 1, 149, 0, 0},
		"valid leaves a rest":        {tflite.Valid, 8, 3, 2, 1, 3, 0, 0},
		"valid does not fit":         {tflite.Valid, 2, 3, 1, 1, 0, 0, 0},
		"valid with dilation":        {tflite.Valid, 9, 3, 1, 3, 3, 0, 0},
		"same pads both sides":       {tflite.Same, 35, 3, 1, 1, 35, 1, 1},
		"same pads one more after":   {tflite.Same, 4, 3, 2, 1, 2, 0, 1},
		"same with nothing to pad":   {tflite.Same, 4, 2, 2, 1, 2, 0, 0},
		"same with a wide stride":    {tflite.Same, 7, 1, 3, 1, 3, 0, 0},
		"same with a filter as wide": {tflite.Same, 2, 5, 1, 1, 2, 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outputs, before, after := c.padding.Window(c.in, c.filter, c.stride, c.dilation)
			require.Equal(t, []int{c.outputs, c.before, c.after}, []int{outputs, before, after})
		})
	}
}
