package onnx_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/functions/modelserver/onnx"
	"github.com/ebb-inference/ebb/functions/modelserver/onnx/onnxtest"
	"github.com/ebb-inference/ebb/models/store"
	"github.com/ebb-inference/ebb/models/tfserving"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ store.Loader[*onnx.Network] = (*onnx.Loader)(nil)

// load makes a folder with a graph and loads it.
func load(t *testing.T, g onnxtest.Graph, o onnx.Options) *onnx.Network {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "model.onnx"), g.Bytes(), 0o600))
	n, err := onnxtest.Loader(t, o).Load(t.Context(), dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	require.NoError(t, n.Warm(t.Context()))
	return n
}

func floats(shape []int64, values ...float32) tfserving.Tensor {
	t := tfserving.Tensor{DType: tfserving.Float32, Shape: shape}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(v))
	}
	return t
}

func ints(values ...int64) tfserving.Tensor {
	t := tfserving.Tensor{DType: tfserving.Int64, Shape: []int64{int64(len(values))}}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint64(t.Data, uint64(v))
	}
	return t
}

// predict runs one input under a name and returns an output's shape and numbers.
func predict(t *testing.T, n *onnx.Network, input string, x tfserving.Tensor, output string) ([]int64, []float32) {
	t.Helper()
	out, _, err := n.Predict(t.Context(), map[string]tfserving.Tensor{input: x}, []string{output})
	require.NoError(t, err)
	require.Len(t, out, 1)
	values, err := out[output].Floats()
	require.NoError(t, err)
	return out[output].Shape, values
}

func TestABatchOfAnySizeIsAnsweredItemByItem(t *testing.T) {
	t.Parallel()
	n := load(t, onnxtest.Affine(2, 2, 1), onnx.Options{})
	for _, items := range []int{1, 2, 7, 64} {
		x := make([]float32, 2*items)
		want := make([]float32, 2*items)
		for i := range x {
			x[i] = float32(i)
			want[i] = float32(i)*2 + 1
		}
		shape, y := predict(t, n, "x", floats([]int64{int64(items), 2}, x...), "y")
		require.Equal(t, []int64{int64(items), 2}, shape)
		require.Equal(t, want, y)
	}
}

func TestTheSignatureIsReadFromTheFile(t *testing.T) {
	t.Parallel()
	n := load(t, onnxtest.Pixels(), onnx.Options{})
	require.Equal(t, tfserving.Signature{
		Method: "tensorflow/serving/predict",
		Inputs: map[string]tfserving.TensorInfo{
			"pixels": {Name: "pixels", DType: tfserving.Uint8, Shape: []int64{-1, 2, 2}},
		},
		Outputs: map[string]tfserving.TensorInfo{
			"values": {Name: "values", DType: tfserving.Float32, Shape: []int64{-1, 2, 2}},
			"sum":    {Name: "sum", DType: tfserving.Float32, Shape: []int64{-1}},
		},
	}, n.Signature())
}

func TestOutputsAreThoseThatAreAskedFor(t *testing.T) {
	t.Parallel()
	n := load(t, onnxtest.Pixels(), onnx.Options{})
	in := map[string]tfserving.Tensor{
		"pixels": {DType: tfserving.Uint8, Shape: []int64{2, 2, 2}, Data: []byte{1, 2, 3, 4, 250, 251, 252, 253}},
	}
	all, _, err := n.Predict(t.Context(), in, nil)
	require.NoError(t, err)
	require.Len(t, all, 2)
	values, err := all["values"].Floats()
	require.NoError(t, err)
	require.Equal(t, []float32{1, 2, 3, 4, 250, 251, 252, 253}, values)
	sums, err := all["sum"].Floats()
	require.NoError(t, err)
	require.Equal(t, []float32{10, 1006}, sums)

	one, _, err := n.Predict(t.Context(), in, []string{"sum"})
	require.NoError(t, err)
	require.Len(t, one, 1)
	require.Equal(t, all["sum"], one["sum"])
}

func TestEveryElementTypeIsCarried(t *testing.T) {
	t.Parallel()
	half := []byte{0x00, 0x3c, 0x00, 0xc0} // 1 and -2
	for _, c := range []struct {
		element int
		d       tfserving.DType
		data    []byte
	}{
		{onnxtest.Uint8, tfserving.Uint8, []byte{1, 255}},
		{onnxtest.Int8, tfserving.Int8, []byte{1, 255}},
		{onnxtest.Int32, tfserving.Int32, []byte{1, 0, 0, 0, 255, 255, 255, 255}},
		{onnxtest.Int64, tfserving.Int64, []byte{1, 0, 0, 0, 0, 0, 0, 0, 254, 255, 255, 255, 255, 255, 255, 255}},
		{onnxtest.Float32, tfserving.Float32, []byte{0, 0, 128, 63, 0, 0, 0, 192}},
		{onnxtest.Float64, tfserving.Float64, []byte{0, 0, 0, 0, 0, 0, 240, 63, 0, 0, 0, 0, 0, 0, 0, 192}},
		{onnxtest.Float16, tfserving.Float16, half},
	} {
		t.Run(c.d.String(), func(t *testing.T) {
			t.Parallel()
			g := onnxtest.Graph{
				Inputs:  []onnxtest.Value{{Name: "x", Type: c.element, Dims: []int64{onnxtest.Free}}},
				Outputs: []onnxtest.Value{{Name: "y", Type: c.element, Dims: []int64{onnxtest.Free}}},
				Nodes:   []onnxtest.Node{{Op: "Identity", Inputs: []string{"x"}, Outputs: []string{"y"}}},
			}
			want := c.data
			outDType := c.d
			if c.d == tfserving.Float16 { // can be asked, but not answered
				g.Outputs[0].Type = onnxtest.Float32
				g.Nodes[0] = onnxtest.Node{Op: "Cast", Inputs: []string{"x"}, Outputs: []string{"y"}, Attributes: map[string]any{"to": int64(onnxtest.Float32)}}
				want = floats(nil, 1, -2).Data
				outDType = tfserving.Float32
			}
			n := load(t, g, onnx.Options{})
			unaligned := append([]byte{0}, c.data...)[1:]
			out, _, err := n.Predict(t.Context(), map[string]tfserving.Tensor{"x": {DType: c.d, Shape: []int64{2}, Data: unaligned}}, nil)
			require.NoError(t, err)
			require.Equal(t, tfserving.Tensor{DType: outDType, Shape: []int64{2}, Data: want}, out["y"])
		})
	}
}

func TestANetworkForOneItemAnswersBatches(t *testing.T) {
	t.Parallel()
	g := onnxtest.Affine(2, 10, 0)
	g.Inputs[0].Dims[0], g.Outputs[0].Dims[0] = 1, 1
	n := load(t, g, onnx.Options{MaxBatch: 4})
	require.Equal(t, []int64{-1, 2}, n.Signature().Inputs["x"].Shape)
	require.Equal(t, []int64{-1, 2}, n.Signature().Outputs["y"].Shape)
	shape, y := predict(t, n, "x", floats([]int64{3, 2}, 1, 2, 3, 4, 5, 6), "y")
	require.Equal(t, []int64{3, 2}, shape)
	require.Equal(t, []float32{10, 20, 30, 40, 50, 60}, y)
	shape, y = predict(t, n, "x", floats([]int64{1, 2}, 7, 8), "y")
	require.Equal(t, []int64{1, 2}, shape)
	require.Equal(t, []float32{70, 80}, y)
	_, _, err := n.Predict(t.Context(), map[string]tfserving.Tensor{"x": floats([]int64{5, 2}, make([]float32, 10)...)}, nil)
	require.ErrorContains(t, err, `input "x" has 5 items, at most 4`)
}

func TestInputsThatDoNotFitAreNamed(t *testing.T) {
	t.Parallel()
	n := load(t, onnxtest.Affine(3, 1, 0), onnx.Options{MaxBatch: 8})
	good := floats([]int64{1, 3}, 1, 2, 3)
	for _, c := range []struct {
		name    string
		inputs  map[string]tfserving.Tensor
		outputs []string
		why     string
	}{
		{"none", nil, nil, `input "x" is missing, the inputs are ["x"]`},
		{"another name", map[string]tfserving.Tensor{"z": good}, nil, `there is no input "z", the inputs are ["x"]`},
		{"one more", map[string]tfserving.Tensor{"x": good, "z": good}, nil, `there is no input "z"`},
		{"type", map[string]tfserving.Tensor{"x": {DType: tfserving.Uint8, Shape: []int64{1, 3}, Data: []byte{1, 2, 3}}}, nil, `input "x" is of type DT_UINT8, expected DT_FLOAT`},
		{"rank", map[string]tfserving.Tensor{"x": floats([]int64{3}, 1, 2, 3)}, nil, `input "x" has shape [3], expected [-1 3]`},
		{"size", map[string]tfserving.Tensor{"x": floats([]int64{1, 2}, 1, 2)}, nil, `input "x" has shape [1 2], expected [-1 3]`},
		{"empty", map[string]tfserving.Tensor{"x": floats([]int64{0, 3})}, nil, `input "x" has shape [0 3], expected [-1 3]`},
		{"negative", map[string]tfserving.Tensor{"x": floats([]int64{-1, 3}, 1, 2, 3)}, nil, `has shape [-1 3]`},
		{"too many items", map[string]tfserving.Tensor{"x": floats([]int64{9, 3}, make([]float32, 27)...)}, nil, `input "x" has 9 items, at most 8`},
		{"enormous", map[string]tfserving.Tensor{"x": floats([]int64{math.MaxInt64, 3}, 1)}, nil, `at most 8`},
		{"too little data", map[string]tfserving.Tensor{"x": floats([]int64{2, 3}, 1, 2, 3)}, nil, "12 bytes for shape [2 3]"},
		{"output", map[string]tfserving.Tensor{"x": good}, []string{"logits"}, `there is no output "logits", the outputs are ["y"]`},
	} {
		_, _, err := n.Predict(t.Context(), c.inputs, c.outputs)
		require.ErrorIs(t, err, tfserving.ErrInvalid, c.name)
		require.ErrorContains(t, err, c.why, c.name)
	}
	_, y := predict(t, n, "x", good, "y")
	require.Equal(t, []float32{1, 2, 3}, y, "it works as before")
}

func TestDataThatTheNetworkCannotComputeWithIsTheCallersMistake(t *testing.T) {
	t.Parallel()
	n := load(t, onnxtest.Lookup(5, 6, 7), onnx.Options{})
	_, _, err := n.Predict(t.Context(), map[string]tfserving.Tensor{"index": ints(0, 3)}, nil)
	require.ErrorIs(t, err, tfserving.ErrInvalid)
	require.ErrorContains(t, err, "Gather")
	_, value := predict(t, n, "index", ints(2, 0), "value")
	require.Equal(t, []float32{7, 5}, value)
}

func TestFilesThatCannotBeServedAreRefused(t *testing.T) {
	t.Parallel()
	loader := onnxtest.Loader(t, onnx.Options{})
	affine := onnxtest.Affine(2, 2, 1).Bytes()
	strings := onnxtest.Graph{
		Inputs:  []onnxtest.Value{{Name: "x", Type: onnxtest.String, Dims: []int64{onnxtest.Free}}},
		Outputs: []onnxtest.Value{{Name: "y", Type: onnxtest.String, Dims: []int64{onnxtest.Free}}},
		Nodes:   []onnxtest.Node{{Op: "Identity", Inputs: []string{"x"}, Outputs: []string{"y"}}},
	}
	scalar := onnxtest.Affine(2, 2, 1)
	scalar.Inputs[0].Dims, scalar.Outputs[0].Dims = nil, nil
	halves := onnxtest.Affine(2, 2, 1)
	halves.Outputs[0].Type = onnxtest.Float16
	halves.Nodes[1].Outputs[0] = "full"
	halves.Nodes = append(halves.Nodes, onnxtest.Node{Op: "Cast", Inputs: []string{"full"}, Outputs: []string{"y"}, Attributes: map[string]any{"to": int64(onnxtest.Float16)}})
	for _, c := range []struct {
		name  string
		files map[string][]byte
		why   string
	}{
		{"no file", nil, "there is no .onnx file"},
		{"a file that is still being copied", map[string][]byte{".model.onnx.part": affine}, "there is no .onnx file"},
		{"two files", map[string][]byte{"a.onnx": affine, "b.onnx": affine}, "there are 2 .onnx files"},
		{"half a file", map[string][]byte{"model.onnx": affine[:len(affine)/2]}, "model.onnx"},
		{"an empty file", map[string][]byte{"model.onnx": {}}, "model.onnx"},
		{"not a network", map[string][]byte{"model.onnx": []byte("<html>not found</html>")}, "model.onnx"},
		{"strings", map[string][]byte{"model.onnx": strings.Bytes()}, `input "x": elements of type`},
		{"a scalar", map[string][]byte{"model.onnx": scalar.Bytes()}, `input "x": it has no dimensions`},
		{"an answer in halves", map[string][]byte{"model.onnx": halves.Bytes()}, `add a Cast`},
	} {
		dir := t.TempDir()
		for name, content := range c.files {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
		}
		_, err := loader.Load(t.Context(), dir)
		require.ErrorContains(t, err, c.why, c.name)
	}
	dir := t.TempDir()
	for _, name := range []string{"model.onnx", "other.onnx"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), affine, 0o600))
	}
	n, err := loader.Load(t.Context(), dir)
	require.NoError(t, err, "model.onnx is preferred")
	require.NoError(t, n.Close())
}

func TestACallThatNobodyWaitsForAnyMoreIsNotRun(t *testing.T) {
	t.Parallel()
	n := load(t, onnxtest.Affine(1, 1, 0), onnx.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := n.Predict(ctx, map[string]tfserving.Tensor{"x": floats([]int64{1, 1}, 1)}, nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestACallIsBrokenOffWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	const side = 256
	n := load(t, onnxtest.Slow(side, 400), onnx.Options{Sessions: 1}) // many seconds, if it were not broken off
	x := map[string]tfserving.Tensor{"x": {DType: tfserving.Float32, Shape: []int64{64, side, side}, Data: make([]byte, 64*side*side*4)}}
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan error)
	go func() {
		_, _, err := n.Predict(ctx, x, nil)
		running <- err
	}()
	// The second call can only be waiting for its turn, or be about to.
	waiting, stopWaiting := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stopWaiting()
	_, _, err := n.Predict(waiting, x, nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	cancel()
	require.ErrorIs(t, <-running, context.Canceled)
}

func TestManyCallsAtOnceGetTheirOwnAnswers(t *testing.T) {
	t.Parallel()
	n := load(t, onnxtest.Affine(1, 2, 1), onnx.Options{Sessions: 3})
	var wg sync.WaitGroup
	errs := make(chan error, 16)
	for worker := range 16 {
		wg.Go(func() {
			for i := range 200 {
				v := float32(worker*1000 + i)
				out, _, err := n.Predict(t.Context(), map[string]tfserving.Tensor{"x": floats([]int64{1, 1}, v)}, nil)
				if err != nil {
					errs <- err
					return
				}
				if y, err := out["y"].Floats(); err != nil || len(y) != 1 || y[0] != v*2+1 {
					errs <- fmt.Errorf("x = %v: got %v (%w)", v, y, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	require.NoError(t, <-errs)
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	_, err := onnx.NewLoader(onnx.Options{Sessions: -1})
	require.ErrorContains(t, err, "must not be negative")
}
