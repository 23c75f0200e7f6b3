package reference_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	ort "github.com/yalue/onnxruntime_go"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/hack/convert/translate"
	"github.com/ebb-inference/ebb/hack/fetch/assets"
	"github.com/ebb-inference/ebb/hack/tflite"
	"github.com/ebb-inference/ebb/hack/tflite/reference"
	"github.com/ebb-inference/ebb/hack/tflite/tflitetest"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/picture"
)

// These tests hold what ONNX Runtime makes of translated networks against package reference, which knows nothing of
// ONNX. They get Inception v3, ONNX Runtime and the pictures themselves when these are not there yet.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fetcher(t *testing.T) *assets.Fetcher {
	t.Helper()
	f, err := assets.New(assets.Config{Log: os.Stderr})
	require.NoError(t, err)
	return f
}

// session is a network in ONNX Runtime. Its environment is one a process, so tests that use it do not run in parallel.
type session struct {
	*ort.DynamicAdvancedSession
	input ort.Shape // the batch dimension is -1
}

func open(t *testing.T, network []byte) *session {
	t.Helper()
	library, err := fetcher(t).Runtime(t.Context())
	require.NoError(t, err)
	if !ort.IsInitialized() {
		ort.SetSharedLibraryPath(library)
		require.NoError(t, ort.InitializeEnvironment())
		t.Cleanup(func() { require.NoError(t, ort.DestroyEnvironment()) })
	}
	options, err := ort.NewSessionOptions()
	require.NoError(t, err)
	defer func() { require.NoError(t, options.Destroy()) }()
	// As package translate asks for: without VNNI products may saturate.
	require.NoError(t, options.AddSessionConfigEntry("session.x64quantprecision", "1"))
	inputs, outputs, err := ort.GetInputOutputInfoWithONNXData(network)
	require.NoError(t, err)
	require.Len(t, inputs, 1)
	require.Len(t, outputs, 1)
	require.Equal(t, translate.Input, inputs[0].Name)
	require.Equal(t, translate.Output, outputs[0].Name)
	require.EqualValues(t, -1, inputs[0].Dimensions[0])
	require.EqualValues(t, -1, outputs[0].Dimensions[0])
	s, err := ort.NewDynamicAdvancedSessionWithONNXData(network, []string{translate.Input}, []string{translate.Output}, options)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Destroy()) })
	return &session{s, inputs[0].Dimensions}
}

// run is the logits of a batch of pictures, one row each.
func (s *session) run(t *testing.T, pictures ...[]uint8) [][]float32 {
	t.Helper()
	shape := s.input.Clone()
	shape[0] = int64(len(pictures))
	in, err := ort.NewTensor(shape, slices.Concat(pictures...))
	require.NoError(t, err)
	defer func() { require.NoError(t, in.Destroy()) }()
	out := []ort.Value{nil}
	require.NoError(t, s.Run([]ort.Value{in}, out))
	defer func() { require.NoError(t, out[0].Destroy()) }()
	logits := out[0].(*ort.Tensor[float32])
	require.EqualValues(t, len(pictures), logits.GetShape()[0])
	return slices.Collect(slices.Chunk(slices.Clone(logits.GetData()), int(logits.GetShape()[1])))
}

func TestInceptionAgreesWithTheReference(t *testing.T) {
	// ONNX Runtime brings sums back to 8 bits in float32, the reference in fixed point. Where a sum lies next to a half they
	// differ by one step, and 95 convolutions carry that on.
	const (
		maxSteps    = 8    // between two logits, in steps of the output's quantisation
		meanSteps   = 1.25 // on average
		probability = 0.01 // between two sums of probabilities
	)
	var cats, dogs = models.Range{From: 282, To: 286}, models.Range{From: 152, To: 269}

	f := fetcher(t)
	source, err := f.InceptionTFLite(t.Context())
	require.NoError(t, err)
	file, err := os.ReadFile(source)
	require.NoError(t, err)
	network, err := tflite.Parse(file)
	require.NoError(t, err)
	path, err := f.Inception(t.Context())
	require.NoError(t, err)
	converted, err := os.ReadFile(path)
	require.NoError(t, err)
	lines, err := os.ReadFile(filepath.Join(filepath.Dir(path), "labels.txt"))
	require.NoError(t, err)
	labels := strings.Split(strings.TrimSpace(string(lines)), "\n")
	pictures, err := f.Pictures(t.Context())
	require.NoError(t, err)

	output := network.Tensors[network.Outputs[0]]
	require.Equal(t, tflite.Uint8, output.Type)
	require.Equal(t, []int{1, len(labels)}, output.Shape)
	require.InDelta(t, 0.0759750, output.Scales[0], 1e-6)
	require.Equal(t, []int64{53}, output.ZeroPoints)

	cases := []struct {
		file     string
		cat, dog func(p float64) bool
	}{
		{"chelsea.png", likely, unlikely},
		{"dog.jpg", unlikely, likely},
		{"coffee.png", unlikely, unlikely},
	}
	var inputs [][]uint8
	for _, c := range cases {
		inputs = append(inputs, tensor(t, filepath.Join(pictures, c.file)))
	}
	s := open(t, converted)
	got := s.run(t, inputs...)
	for i, c := range cases {
		codes, err := reference.Run(network, inputs[i])
		require.NoError(t, err)
		want := dequantized(codes, output)

		greatest, sum := 0.0, 0.0
		for j := range want {
			steps := math.Abs(float64(got[i][j]-want[j])) / float64(output.Scales[0])
			greatest, sum = max(greatest, steps), sum+steps
		}
		g, w := softmax(got[i]), softmax(want)
		top := argmax(w)
		t.Logf("%s: %s; P(cat) %.4f, by the reference %.4f; P(dog) %.4f, %.4f; logits differ by %.2f steps on average, %.0f at most",
			c.file, labels[top], total(g, cats), total(w, cats), total(g, dogs), total(w, dogs), sum/float64(len(want)), greatest)
		require.Equal(t, top, argmax(g), "top class of %s", c.file)
		require.LessOrEqual(t, greatest, float64(maxSteps)+1e-3, c.file)
		require.LessOrEqual(t, sum/float64(len(want)), meanSteps, c.file)
		for _, p := range [][]float64{g, w} {
			require.True(t, c.cat(total(p, cats)), "%s: P(cat) is %v", c.file, total(p, cats))
			require.True(t, c.dog(total(p, dogs)), "%s: P(dog) is %v", c.file, total(p, dogs))
		}
		require.InDelta(t, total(w, cats), total(g, cats), probability, c.file)
		require.InDelta(t, total(w, dogs), total(g, dogs), probability, c.file)
		require.Equal(t, s.run(t, inputs[i])[0], got[i], "%s alone and in a batch", c.file)
	}
}

func likely(p float64) bool   { return p >= 0.9 }
func unlikely(p float64) bool { return p <= 0.1 }

// tensor prepares a picture as Inception's authors do.
func tensor(t *testing.T, path string) []uint8 {
	t.Helper()
	file, err := os.ReadFile(path)
	require.NoError(t, err)
	img, err := picture.Decode(file, picture.DefaultLimits)
	require.NoError(t, err)
	in, err := picture.AppendTensor(nil, img, models.Input{
		Kind: models.KindTensor, DType: "uint8", Layout: "NHWC", Channels: "RGB", Width: 299, Height: 299,
		Resize: models.Resize{CentralFraction: 0.875, Method: "bilinear"},
	})
	require.NoError(t, err)
	return in
}

func dequantized(codes []uint8, as tflite.Tensor) []float32 {
	values := make([]float32, len(codes))
	for i, c := range codes {
		values[i] = float32(int64(c)-as.ZeroPoints[0]) * as.Scales[0]
	}
	return values
}

func softmax(logits []float32) []float64 {
	p := make([]float64, len(logits))
	sum := 0.0
	for i, l := range logits {
		p[i] = math.Exp(float64(l - slices.Max(logits)))
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

func argmax[T cmp.Ordered](values []T) int { return slices.Index(values, slices.Max(values)) }

func total(p []float64, classes models.Range) (sum float64) {
	for _, v := range p[classes.From : classes.To+1] {
		sum += v
	}
	return sum
}

// Networks of one operator each, with random weights on random pictures, cover what Inception v3 does not use.
func TestOperatorsAgreeWithTheReference(t *testing.T) {
	conv := func(padding tflite.Padding, stride, dilation int, a tflite.Activation) func(n *net) {
		return func(n *net) {
			n.conv(3, 2, 5, tflite.Conv{
				Padding: padding, StrideH: stride, StrideW: 1, DilationH: dilation, DilationW: 1, Activation: a,
			})
		}
	}
	pool := func(code tflite.Code, p tflite.Pool) func(n *net) {
		return func(n *net) { n.pool(code, p) }
	}
	for _, c := range []struct {
		name  string
		add   func(n *net)
		exact bool // otherwise codes may differ by one, where a sum lies next to a half
	}{
		{"convolution", conv(tflite.Valid, 1, 1, 0), false},
		{"convolution with padding", conv(tflite.Same, 1, 1, 0), false},
		{"convolution with stride and odd padding", conv(tflite.Same, 2, 1, 0), false},
		{"convolution with dilation", conv(tflite.Valid, 1, 2, 0), false},
		{"convolution with RELU", conv(tflite.Valid, 1, 1, tflite.ReLU), false},
		{"convolution with RELU6", conv(tflite.Same, 1, 1, tflite.ReLU6), false},
		{"convolution with RELU_N1_TO_1", conv(tflite.Same, 1, 1, tflite.ReLUN1To1), false},
		{"average", pool(tflite.AveragePool2D, tflite.Pool{Padding: tflite.Valid, StrideH: 1, StrideW: 1, FilterH: 3, FilterW: 2}), true},
		{"average with padding", pool(tflite.AveragePool2D, tflite.Pool{Padding: tflite.Same, StrideH: 1, StrideW: 1, FilterH: 3, FilterW: 3}), true},
		{"average with much padding", pool(tflite.AveragePool2D, tflite.Pool{Padding: tflite.Same, StrideH: 1, StrideW: 2, FilterH: 5, FilterW: 4}), true},
		{"average of everything", pool(tflite.AveragePool2D, tflite.Pool{Padding: tflite.Valid, StrideH: 2, StrideW: 2, FilterH: 7, FilterW: 6}), true},
		{"average with RELU6", pool(tflite.AveragePool2D, tflite.Pool{Padding: tflite.Same, StrideH: 1, StrideW: 1, FilterH: 3, FilterW: 3, Activation: tflite.ReLU6}), true},
		{"greatest", pool(tflite.MaxPool2D, tflite.Pool{Padding: tflite.Valid, StrideH: 2, StrideW: 1, FilterH: 3, FilterW: 2}), true},
		{"greatest with padding", pool(tflite.MaxPool2D, tflite.Pool{Padding: tflite.Same, StrideH: 2, StrideW: 2, FilterH: 3, FilterW: 3}), true},
		{"greatest with RELU", pool(tflite.MaxPool2D, tflite.Pool{Padding: tflite.Same, StrideH: 1, StrideW: 1, FilterH: 2, FilterW: 2, Activation: tflite.ReLU}), true},
		{"concatenation of one scale", func(n *net) { n.concat(n.scale, n.scale) }, true},
		{"concatenation of two scales", func(n *net) { n.concat(n.scale, n.scale*1.7) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNet()
			c.add(n)
			n.flatten()
			file := tflitetest.Build(&n.Model)
			network, err := tflite.Parse(file)
			require.NoError(t, err)
			converted, err := translate.Convert(file)
			require.NoError(t, err)
			s := open(t, converted)
			var inputs [][]uint8
			for range 8 {
				in := make([]uint8, network.Tensors[0].Elements())
				for i := range in {
					in[i] = uint8(n.random.UintN(256))
				}
				inputs = append(inputs, in)
			}
			output := network.Tensors[network.Outputs[0]]
			different, values := 0, 0
			for i, got := range s.run(t, inputs...) {
				codes, err := reference.Run(network, inputs[i])
				require.NoError(t, err)
				for j, want := range dequantized(codes, output) {
					steps := math.Abs(float64(got[j]-want)) / float64(output.Scales[0])
					require.LessOrEqual(t, steps, 1.001, "picture %d, value %d", i, j)
					values++
					if steps > 0.001 {
						different++
					}
				}
			}
			if c.exact {
				require.Zero(t, different)
			}
			require.LessOrEqual(t, different, values/50, "values that differ by a step, of %d", values)
		})
	}
}

// net is a network under construction: its last tensor is what the next operator works on.
type net struct {
	tflite.Model
	random *rand.Rand
	scale  float32
}

func newNet() *net {
	n := &net{random: rand.New(rand.NewPCG(7, 11)), scale: 0.043}
	n.Inputs = []int{n.tensor(n.scale, 117, 1, 7, 6, 4)}
	return n
}

// tensor adds one of codes and makes it the last.
func (n *net) tensor(scale float32, zero int64, shape ...int) int {
	n.Tensors = append(n.Tensors, tflite.Tensor{
		Name: fmt.Sprintf("tensor %d", len(n.Tensors)), Type: tflite.Uint8, Shape: shape, Scales: []float32{scale}, ZeroPoints: []int64{zero},
	})
	n.Outputs = []int{len(n.Tensors) - 1}
	return n.Outputs[0]
}

func (n *net) operator(code tflite.Code, options any, output int, inputs ...int) {
	n.Operators = append(n.Operators, tflite.Operator{Code: code, Inputs: inputs, Outputs: []int{output}, Options: options})
}

// conv adds a convolution with random weights.
func (n *net) conv(filterH, filterW, outputs int, o tflite.Conv) {
	x := n.Outputs[0]
	in := n.Tensors[x].Shape
	w := n.tensor(0.009, 121, outputs, filterH, filterW, in[3])
	data := make([]byte, n.Tensors[w].Elements())
	for i := range data {
		data[i] = uint8(n.random.UintN(256))
	}
	n.Tensors[w].Data = data
	b := n.bias(outputs, func(int) int32 { return n.random.Int32N(4000) - 2000 }, n.Tensors[x].Scales[0]*0.009)
	h, _, _ := o.Padding.Window(in[1], filterH, o.StrideH, o.DilationH)
	wd, _, _ := o.Padding.Window(in[2], filterW, o.StrideW, o.DilationW)
	n.operator(tflite.Conv2D, o, n.tensor(0.11, 100, 1, h, wd, outputs), x, w, b)
}

func (n *net) bias(outputs int, value func(i int) int32, scale float32) int {
	var data []byte
	for i := range outputs {
		data = binary.LittleEndian.AppendUint32(data, uint32(value(i)))
	}
	b := n.tensor(scale, 0, outputs)
	n.Tensors[b].Type, n.Tensors[b].Data = tflite.Int32, data
	return b
}

func (n *net) pool(code tflite.Code, p tflite.Pool) {
	x := n.Outputs[0]
	in := n.Tensors[x]
	h, _, _ := p.Padding.Window(in.Shape[1], p.FilterH, p.StrideH, 1)
	w, _, _ := p.Padding.Window(in.Shape[2], p.FilterW, p.StrideW, 1)
	n.operator(code, p, n.tensor(in.Scales[0], in.ZeroPoints[0], 1, h, w, in.Shape[3]), x)
}

// concat joins the last tensor with a pooled one, to a scale.
func (n *net) concat(pooled, joined float32) {
	x := n.Outputs[0]
	n.pool(tflite.MaxPool2D, tflite.Pool{StrideH: 1, StrideW: 1, FilterH: 2, FilterW: 2})
	y := n.Outputs[0]
	n.Tensors[y].Scales = []float32{pooled}
	in := n.Tensors[x].Shape
	n.operator(tflite.Concat, tflite.Concatenation{Axis: 3}, n.tensor(joined, n.Tensors[x].ZeroPoints[0], 1, in[1], in[2], 2*in[3]), x, y, x)
	last := &n.Tensors[n.Outputs[0]]
	last.Shape[3] = 3 * in[3]
}

// flatten makes every value of the last tensor a logit: a filter as big as the picture picks one for each output.
func (n *net) flatten() {
	x := n.Outputs[0]
	in := n.Tensors[x]
	values := in.Elements()
	w := n.tensor(1, 128, values, in.Shape[1], in.Shape[2], in.Shape[3])
	data := slices.Repeat([]byte{128}, values*values)
	for i := range values {
		data[i*values+i] = 129
	}
	n.Tensors[w].Data = data
	b := n.bias(values, func(int) int32 { return 0 }, in.Scales[0])
	pixel := n.tensor(in.Scales[0], in.ZeroPoints[0], 1, 1, 1, values)
	n.operator(tflite.Conv2D, tflite.Conv{Padding: tflite.Valid, StrideH: 1, StrideW: 1, DilationH: 1, DilationW: 1}, pixel, x, w, b)
	n.operator(tflite.ReshapeTo, tflite.Reshape{}, n.tensor(in.Scales[0], in.ZeroPoints[0], 1, values), pixel)
}
