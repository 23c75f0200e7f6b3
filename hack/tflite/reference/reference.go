// Package reference computes quantised TensorFlow Lite networks in plain integer arithmetic, as their file format defines
// it: sums in int32, a fixed-point multiplication back to 8 bits, roundings included. It is slow (seconds a picture) and
// meant to be obviously right: it is what the converted network is checked against, and shares nothing with the converter
// but the reader of the file.
package reference

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ebb-inference/ebb/hack/tflite"
)

// Run computes the network's one output, as codes, from its one input: uint8 codes in the order of the input's shape. It
// knows CONV_2D, AVERAGE_POOL_2D, MAX_POOL_2D, CONCATENATION and RESHAPE of one picture at a time, with a scale for the
// whole of each tensor.
func Run(m *tflite.Model, input []uint8) ([]uint8, error) {
	if len(m.Inputs) != 1 || len(m.Outputs) != 1 {
		return nil, fmt.Errorf("the network has %d inputs and %d outputs; want one of each", len(m.Inputs), len(m.Outputs))
	}
	if want := m.Tensors[m.Inputs[0]].Elements(); len(input) != want {
		return nil, fmt.Errorf("the input has %d codes; want %d", len(input), want)
	}
	values := make([][]uint8, len(m.Tensors))
	values[m.Inputs[0]] = input
	for i, o := range m.Operators {
		out := o.Outputs[0]
		y := &m.Tensors[out]
		x := make([]operand, len(o.Inputs))
		for j, in := range o.Inputs {
			x[j] = operand{&m.Tensors[in], values[in]}
		}
		switch options := o.Options.(type) {
		case tflite.Conv:
			values[out] = conv(x[0], x[1].Tensor, x[2].Tensor, y, options)
		case tflite.Pool:
			if o.Code == tflite.MaxPool2D {
				values[out] = pool(x[0], y, options, slices.Max)
			} else {
				values[out] = pool(x[0], y, options, average)
			}
		case tflite.Concatenation:
			values[out] = concatenate(x, y, options)
		case tflite.Reshape:
			values[out] = x[0].codes // the order of the elements stays
		default:
			return nil, fmt.Errorf("operator %d (%s) is not known", i, o.Name())
		}
	}
	return values[m.Outputs[0]], nil
}

// operand is a tensor with its codes, when it is not a constant.
type operand struct {
	*tflite.Tensor
	codes []uint8
}

// rows calls f for every row, on all CPUs.
func rows(n int, f func(row int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for row := int(next.Add(1)) - 1; row < n; row = int(next.Add(1)) - 1 {
				f(row)
			}
		})
	}
	all.Wait()
}

// conv takes, for every place of the output, the patch of the input under the filter as one vector, in which whatever
// lies beyond the borders is zero, and multiplies it with each output channel's weights.
func conv(x operand, weights, bias, y *tflite.Tensor, o tflite.Conv) []uint8 {
	height, width, channels := x.Shape[1], x.Shape[2], x.Shape[3]
	filterH, filterW := weights.Shape[1], weights.Shape[2]
	outH, outW, outputs := y.Shape[1], y.Shape[2], y.Shape[3]
	_, top, _ := o.Padding.Window(height, filterH, o.StrideH, o.DilationH)
	_, left, _ := o.Padding.Window(width, filterW, o.StrideW, o.DilationW)

	taps := filterH * filterW * channels
	w := centred(weights.Data, weights.ZeroPoints[0])
	in := centred(x.codes, x.ZeroPoints[0])
	m := newMultiplier(float64(x.Scales[0]) * float64(weights.Scales[0]) / float64(y.Scales[0]))
	low, high := bounds(o.Activation, y)
	zero := int32(y.ZeroPoints[0])
	codes := make([]uint8, outH*outW*outputs)

	rows(outH, func(row int) {
		patch := make([]int16, taps)
		for col := range outW {
			clear(patch)
			for fy := range filterH {
				for fx := range filterW {
					iy, ix := row*o.StrideH-top+fy*o.DilationH, col*o.StrideW-left+fx*o.DilationW
					if iy >= 0 && iy < height && ix >= 0 && ix < width {
						copy(patch[(fy*filterW+fx)*channels:], in[(iy*width+ix)*channels:][:channels])
					}
				}
			}
			for c := range outputs {
				sum := dot(patch, w[c*taps:][:taps]) + int32At(bias.Data, c)
				codes[(row*outW+col)*outputs+c] = uint8(min(max(zero+m.apply(sum), low), high))
			}
		}
	})
	return codes
}

// dot is left out of the race detector's sight: it only reads, and would be ten times slower.
//
//go:norace
func dot(a, b []int16) int32 {
	var s0, s1, s2, s3 int32
	for len(a) >= 4 && len(b) >= 4 {
		s0 += int32(a[0]) * int32(b[0])
		s1 += int32(a[1]) * int32(b[1])
		s2 += int32(a[2]) * int32(b[2])
		s3 += int32(a[3]) * int32(b[3])
		a, b = a[4:], b[4:]
	}
	for i := range a {
		s0 += int32(a[i]) * int32(b[i])
	}
	return s0 + s1 + s2 + s3
}

// centred is codes less their zero point.
func centred(codes []uint8, zero int64) []int16 {
	c := make([]int16, len(codes))
	for i, v := range codes {
		c[i] = int16(v) - int16(zero)
	}
	return c
}

func int32At(data []byte, i int) int32 {
	b := data[4*i:]
	return int32(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24)
}

// multiplier is a factor below one as a fraction of 2^31 and a shift to the right, which is how a sum gets back to 8 bits
// without floating point.
type multiplier struct {
	fraction int32
	right    int
}

func newMultiplier(factor float64) multiplier {
	fraction, exponent := math.Frexp(factor)
	f := int64(math.Round(fraction * (1 << 31)))
	if f == 1<<31 {
		f, exponent = f/2, exponent+1
	}
	return multiplier{int32(f), -exponent}
}

// apply is the product, rounded twice: the high half of twice the 64-bit product, halves going up, then the shift, halves
// going away from zero.
func (m multiplier) apply(x int32) int32 {
	left := 0
	right := m.right
	if right < 0 {
		left, right = -right, 0
	}
	product := int64(x<<left) * int64(m.fraction)
	nudge := int64(1) << 30
	if product < 0 {
		nudge = 1 - nudge
	}
	high := (product + nudge) / (1 << 31)
	mask := int64(1)<<right - 1
	threshold := mask >> 1
	if high < 0 {
		threshold++
	}
	result := high >> right
	if high&mask > threshold {
		result++
	}
	return int32(result)
}

// bounds is the least and the greatest code that a fused activation lets through.
func bounds(a tflite.Activation, y *tflite.Tensor) (low, high int32) {
	code := func(value float64) int32 {
		return int32(math.Round(value/float64(y.Scales[0]))) + int32(y.ZeroPoints[0])
	}
	low, high = 0, math.MaxUint8
	switch a {
	case tflite.ReLU:
		low = max(low, code(0))
	case tflite.ReLU6:
		low, high = max(low, code(0)), min(high, code(6))
	case tflite.ReLUN1To1:
		low, high = max(low, code(-1)), min(high, code(1))
	}
	return low, high
}

// pool gives a function all of a channel's codes under the window; those beyond the borders do not count.
func pool(x operand, y *tflite.Tensor, o tflite.Pool, of func(codes []int32) int32) []uint8 {
	height, width, channels := x.Shape[1], x.Shape[2], x.Shape[3]
	outH, outW := y.Shape[1], y.Shape[2]
	_, top, _ := o.Padding.Window(height, o.FilterH, o.StrideH, 1)
	_, left, _ := o.Padding.Window(width, o.FilterW, o.StrideW, 1)
	low, high := bounds(o.Activation, y)
	codes := make([]uint8, outH*outW*channels)
	rows(outH, func(row int) {
		under := make([]int32, 0, o.FilterH*o.FilterW)
		for col := range outW {
			for c := range channels {
				under = under[:0]
				for iy := max(row*o.StrideH-top, 0); iy < min(row*o.StrideH-top+o.FilterH, height); iy++ {
					for ix := max(col*o.StrideW-left, 0); ix < min(col*o.StrideW-left+o.FilterW, width); ix++ {
						under = append(under, int32(x.codes[(iy*width+ix)*channels+c]))
					}
				}
				codes[(row*outW+col)*channels+c] = uint8(min(max(of(under), low), high))
			}
		}
	})
	return codes
}

// average rounds halves up.
func average(codes []int32) int32 {
	sum, n := int32(0), int32(len(codes))
	for _, c := range codes {
		sum += c
	}
	return (sum + n/2) / n
}

// concatenate joins along the channels, the last side, and brings codes to the output's scale.
func concatenate(x []operand, y *tflite.Tensor, o tflite.Concatenation) []uint8 {
	low, high := bounds(o.Activation, y)
	pixels, all := y.Shape[1]*y.Shape[2], y.Shape[3]
	codes := make([]uint8, pixels*all)
	at := 0
	for _, in := range x {
		scale := in.Scales[0] * (1 / y.Scales[0])
		offset := -float32(in.ZeroPoints[0]) * scale
		var table [256]uint8
		for code := range table {
			v := int32(math.Round(float64(float32(code)*scale+offset))) + int32(y.ZeroPoints[0])
			if in.Scales[0] == y.Scales[0] && in.ZeroPoints[0] == y.ZeroPoints[0] {
				v = int32(code)
			}
			table[code] = uint8(min(max(v, low), high))
		}
		channels := in.Shape[3]
		for p := range pixels {
			for c := range channels {
				codes[p*all+at+c] = table[in.codes[p*channels+c]]
			}
		}
		at += channels
	}
	return codes
}
