package picture

import (
	"image"
	"math"

	"github.com/ebb-inference/ebb/models"
)

// resampler is a picture being resized, row by row: each of the output's rows is a weighted sum of source rows that were
// resampled horizontally.
type resampler struct {
	read func(dst []byte, y int)
	x, y axis
	raw  []byte      // the columns that x needs of one source row, RGB
	ring [][]float32 // the last source rows resampled horizontally, by their index in y.source modulo the length
	next int         // index in y.source of the first row that is not yet in ring
}

func newResampler(u *upright, in models.Input) *resampler {
	x, y := axes(u.size, in)
	r := &resampler{
		read: u.reader(x.source),
		x:    x, y: y,
		raw:  make([]byte, 3*len(x.source)),
		ring: make([][]float32, y.taps),
	}
	for i := range r.ring {
		r.ring[i] = make([]float32, 3*in.Width)
	}
	return r
}

// row computes row y of the output into dst: RGB, 0 to 255. Rows are asked for in order.
func (r *resampler) row(dst []float32, y int) {
	first := r.y.first[y]
	for r.next = max(r.next, first); r.next < first+r.y.taps; r.next++ {
		r.read(r.raw, r.y.source[r.next])
		r.x.resample(r.ring[r.next%r.y.taps], r.raw)
	}
	weights := r.y.weights[y*r.y.taps:][:r.y.taps]
	if len(weights) == 2 {
		a, b, w := r.ring[first%2][:len(dst)], r.ring[(first+1)%2][:len(dst)], weights[1]
		for i := range dst {
			dst[i] = a[i] + (b[i]-a[i])*w
		}
		return
	}
	clear(dst)
	for k, w := range weights {
		from := r.ring[(first+k)%r.y.taps][:len(dst)]
		for i := range dst {
			dst[i] += w * from[i]
		}
	}
}

// axis says how the samples of one axis of the output come from those of the picture. Output i is the sum of
// weights[i*taps+k] times sample source[first[i]+k].
type axis struct {
	source  []int // coordinates in the picture
	first   []int // does not decrease
	taps    int
	weights []float32
}

// resample computes the outputs of RGB samples.
func (a *axis) resample(dst []float32, raw []byte) {
	if a.taps == 2 {
		for i, first := range a.first {
			w := a.weights[2*i+1]
			p := raw[3*first : 3*first+6 : 3*first+6]
			to := dst[3*i : 3*i+3 : 3*i+3]
			r, g, b := float32(p[0]), float32(p[1]), float32(p[2])
			to[0] = r + (float32(p[3])-r)*w
			to[1] = g + (float32(p[4])-g)*w
			to[2] = b + (float32(p[5])-b)*w
		}
		return
	}
	for i, first := range a.first {
		weights := a.weights[i*a.taps:][:a.taps]
		p := raw[3*first:][:3*len(weights)]
		var r, g, b float32
		for _, w := range weights {
			r += w * float32(p[0])
			g += w * float32(p[1])
			b += w * float32(p[2])
			p = p[3:]
		}
		dst[3*i], dst[3*i+1], dst[3*i+2] = r, g, b
	}
}

// axes returns the axes of a picture of the given size for an input.
func axes(size image.Point, in models.Input) (x, y axis) {
	fromX, width := centralCrop(size.X, in.Resize.CentralFraction)
	fromY, height := centralCrop(size.Y, in.Resize.CentralFraction)
	scaledX, scaledY := in.Width, in.Height
	if side := in.Resize.ShortestSide; side > 0 {
		scaledX, scaledY = side, side
		if width < height {
			scaledY = side * height / width
		} else {
			scaledX = side * width / height
		}
	}
	build := pointAxis
	if in.Resize.Method == models.MethodAntialias {
		build = triangleAxis
	}
	x = build(fromX, width, scaledX, (scaledX-in.Width)/2, in.Width)
	y = build(fromY, height, scaledY, (scaledY-in.Height)/2, in.Height)
	return x, y
}

// centralCrop returns what TensorFlow's central_crop keeps of a side: as much is cut off at either end, rounded down.
func centralCrop(size int, fraction float64) (from, kept int) {
	if fraction > 0 && fraction < 1 {
		from = min(int((float64(size)-float64(size)*fraction)/2), (size-1)/2)
	}
	return from, size - 2*from
}

// pointAxis is TensorFlow's resize_bilinear with align_corners and half_pixel_centers off: output i lies at i*size/scaled,
// between two samples, however many it passes over. The calculation is in float32, as there. Of the scaled outputs it
// gives count, from skip on, of size samples that begin at from.
func pointAxis(from, size, scaled, skip, count int) axis {
	a := axis{
		source:  make([]int, 2*count),
		first:   make([]int, count),
		taps:    2,
		weights: make([]float32, 2*count),
	}
	scale := float32(size) / float32(scaled)
	for i := range count {
		at := float32(i+skip) * scale
		lower := min(int(at), size-1)
		weight := at - float32(lower)
		a.source[2*i], a.source[2*i+1] = from+lower, from+min(lower+1, size-1)
		a.first[i] = 2 * i
		a.weights[2*i], a.weights[2*i+1] = 1-weight, weight
	}
	return a
}

// triangleAxis is Pillow's bilinear filter, and TensorFlow's with antialias: output i is centred at (i+0.5)*size/scaled,
// and a triangle around it that is as wide as two outputs, and at least as two samples, weighs the samples under it.
func triangleAxis(from, size, scaled, skip, count int) axis {
	scale := float64(size) / float64(scaled)
	support := max(scale, 1)
	window := func(i int) (lo, hi int, center float64) {
		center = (float64(i+skip) + 0.5) * scale
		lo = max(int(center-support+0.5), 0)
		hi = min(int(center+support+0.5), size)
		return lo, hi, center
	}
	begin, _, _ := window(0)
	_, end, _ := window(count - 1)
	taps := 0
	for i := range count {
		lo, hi, _ := window(i)
		taps = max(taps, hi-lo)
	}
	a := axis{
		source:  make([]int, end-begin),
		first:   make([]int, count),
		taps:    taps,
		weights: make([]float32, count*taps),
	}
	for k := range a.source {
		a.source[k] = from + begin + k
	}
	exact := make([]float64, taps)
	for i := range count {
		lo, hi, center := window(i)
		sum := 0.0
		for k := range hi - lo {
			exact[k] = max(0, 1-math.Abs((float64(lo+k)+0.5-center)/support))
			sum += exact[k]
		}
		first := min(lo, end-taps) // the windows at the end are narrower; zeros fill them up
		a.first[i] = first - begin
		for k := range hi - lo {
			a.weights[i*taps+lo-first+k] = float32(exact[k] / sum)
		}
	}
	return a
}
