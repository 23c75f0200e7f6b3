package reference

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/hack/tflite"
)

// codes is a tensor of one channel.
func codes(scale float32, zero int64, height, width int, data ...byte) tflite.Tensor {
	return tflite.Tensor{Type: tflite.Uint8, Shape: []int{1, height, width, 1}, Scales: []float32{scale}, ZeroPoints: []int64{zero}, Data: data}
}

// one is a network of one operator on one input, with constants after that and the output last.
func one(o tflite.Operator, tensors ...tflite.Tensor) *tflite.Model {
	last := len(tensors) - 1
	for i := range last {
		o.Inputs = append(o.Inputs, i)
	}
	o.Outputs = []int{last}
	return &tflite.Model{Tensors: tensors, Operators: []tflite.Operator{o}, Inputs: []int{0}, Outputs: []int{last}}
}

// All of these were computed with pencil and paper.
func TestRun(t *testing.T) {
	t.Parallel()
	// Less their zero points: 0 10 20 30 in the picture, 0 1 2 4 in the filter.
	picture := codes(0.5, 10, 2, 2)
	filter := codes(0.5, 1, 2, 2, 1, 2, 3, 5)
	bias := tflite.Tensor{Type: tflite.Int32, Shape: []int{1}, Data: []byte{6, 0, 0, 0}}
	conv := func(padding tflite.Padding, a tflite.Activation) tflite.Operator {
		return tflite.Operator{Code: tflite.Conv2D, Options: tflite.Conv{Padding: padding, StrideW: 1, StrideH: 1, DilationW: 1, DilationH: 1, Activation: a}}
	}
	pool := func(code tflite.Code, padding tflite.Padding) tflite.Operator {
		return tflite.Operator{Code: code, Options: tflite.Pool{Padding: padding, StrideW: 1, StrideH: 1, FilterW: 2, FilterH: 2}}
	}
	concat := tflite.Operator{Code: tflite.Concat, Options: tflite.Concatenation{Axis: 3}}

	for name, c := range map[string]struct {
		network *tflite.Model
		input   []uint8
		want    []uint8
	}{
		// 3 + (0*0 + 10*1 + 20*2 + 30*4 + 6) / 4
		"convolution": {
			one(conv(tflite.Valid, 0), picture, filter, bias, codes(1, 3, 1, 1)),
			[]uint8{10, 20, 30, 40},
			[]uint8{47},
		},
		// Beyond the borders there is nothing: 3 + 66/4, 3 + 36/4, 3 + 6/4, halves going up.
		"convolution with padding": {
			one(conv(tflite.Same, 0), picture, filter, bias, codes(1, 3, 2, 2)),
			[]uint8{10, 20, 30, 40},
			[]uint8{47, 20, 12, 5},
		},
		// 30 + (0*0 - 10*1 - 5*2 + 0*4 + 6) / 4 = 30 - 3.5, halves going away from zero.
		"convolution below zero": {
			one(conv(tflite.Valid, 0), picture, filter, bias, codes(1, 30, 1, 1)),
			[]uint8{10, 0, 5, 10},
			[]uint8{26},
		},
		"convolution out of range": {
			one(conv(tflite.Valid, 0), picture, filter, bias, codes(1, 220, 1, 1)),
			[]uint8{10, 20, 30, 40},
			[]uint8{255},
		},
		"RELU takes away what is below zero": {
			one(conv(tflite.Valid, tflite.ReLU), picture, filter, bias, codes(1, 30, 1, 1)),
			[]uint8{10, 0, 5, 10},
			[]uint8{30},
		},
		"RELU6 takes away what is above six": {
			one(conv(tflite.Valid, tflite.ReLU6), picture, filter, bias, codes(1, 30, 1, 1)),
			[]uint8{10, 20, 30, 40},
			[]uint8{36},
		},
		"RELU_N1_TO_1 takes away what is above one": {
			one(conv(tflite.Valid, tflite.ReLUN1To1), picture, filter, bias, codes(1, 30, 1, 1)),
			[]uint8{10, 20, 30, 40},
			[]uint8{31},
		},
		"average with padding, which does not count": {
			one(pool(tflite.AveragePool2D, tflite.Same), picture, codes(0.5, 10, 2, 2)),
			[]uint8{10, 20, 30, 40},
			[]uint8{25, 30, 35, 40},
		},
		"average, halves going up": {
			one(pool(tflite.AveragePool2D, tflite.Same), picture, codes(0.5, 10, 2, 2)),
			[]uint8{1, 2, 1, 1},
			[]uint8{1, 2, 1, 1},
		},
		"greatest": {
			one(pool(tflite.MaxPool2D, tflite.Valid), picture, codes(0.5, 10, 1, 1)),
			[]uint8{10, 200, 30, 40},
			[]uint8{200},
		},
		"concatenation of one scale": {
			one(concat, codes(1, 100, 1, 2), codes(1, 100, 1, 2)),
			[]uint8{77, 0},
			[]uint8{77, 0},
		},
		// 100 + (13 - 8) / 4, 100 + (10 - 8) / 4, 100 + (0 - 8) / 4.
		"concatenation to another scale": {
			one(concat, codes(0.25, 8, 1, 3), codes(1, 100, 1, 3)),
			[]uint8{13, 10, 0},
			[]uint8{101, 101, 98},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Run(c.network, c.input)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

func TestRunNamesOperatorsThatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	_, err := Run(one(tflite.Operator{Code: tflite.Softmax}, codes(1, 0, 1, 1), codes(1, 0, 1, 1)), []uint8{1})
	require.EqualError(t, err, "operator 0 (SOFTMAX) is not known")
}

func TestRunRefusesInputOfAnotherSize(t *testing.T) {
	t.Parallel()
	_, err := Run(one(tflite.Operator{Code: tflite.ReshapeTo, Options: tflite.Reshape{}}, codes(1, 0, 1, 1), codes(1, 0, 1, 1)), []uint8{1, 2})
	require.EqualError(t, err, "the input has 2 codes; want 1")
}

// The fixed-point product is rounded twice: to a number with a few bits too many, then to an integer.
func TestMultiplierRoundsTwice(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		factor := math.Exp(random.Float64()*12 - 11)
		x := random.Int32N(1<<20) - 1<<19
		product := factor * float64(x)
		if math.Abs(product) > 1<<30 {
			continue
		}
		m := newMultiplier(factor)
		require.InDelta(t, product, float64(m.apply(x)), 0.5+math.Exp2(float64(-m.right-1))+1e-3, "%v * %d", factor, x)
	}
	for _, c := range []struct {
		factor  float64
		x, want int32
	}{{0.5, 5, 3}, {0.5, -5, -2}, {0.25, 6, 2}, {0.25, -6, -2}, {1, 7, 7}, {3, 7, 21}, {1 - 1e-12, 1000, 1000}} {
		require.Equal(t, c.want, newMultiplier(c.factor).apply(c.x), "%v * %d", c.factor, c.x)
	}
}
