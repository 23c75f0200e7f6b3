package picture_test

import (
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/picture"
	"github.com/ebb-inference/ebb/models/picture/picturetest"
)

// reference computes a tensor's values as its definition says, one output at a time, in float64: RGB, row by row.
func reference(img image.Image, in models.Input) []float64 {
	b := img.Bounds()
	fraction := in.Resize.CentralFraction
	if fraction == 0 {
		fraction = 1
	}
	cutX := int((float64(b.Dx()) - float64(b.Dx())*fraction) / 2)
	cutY := int((float64(b.Dy()) - float64(b.Dy())*fraction) / 2)
	w, h := b.Dx()-2*cutX, b.Dy()-2*cutY
	pixel := func(x, y, c int) float64 { // of what the cut leaves
		p := color.NRGBAModel.Convert(img.At(b.Min.X+cutX+x, b.Min.Y+cutY+y)).(color.NRGBA)
		return float64([3]uint8{p.R, p.G, p.B}[c])
	}
	outW, outH := in.Width, in.Height
	if s := in.Resize.ShortestSide; s > 0 {
		k := float64(s) / float64(min(w, h))
		outW, outH = int(float64(w)*k+1e-9), int(float64(h)*k+1e-9)
	}
	left, top := (outW-in.Width)/2, (outH-in.Height)/2
	var values []float64
	for y := top; y < top+in.Height; y++ {
		for x := left; x < left+in.Width; x++ {
			for c := range 3 {
				if in.Resize.Method == models.MethodAntialias {
					values = append(values, triangle(pixel, c, x, y, w, h, float64(w)/float64(outW), float64(h)/float64(outH)))
				} else {
					values = append(values, between(pixel, c, w, h, float64(x)*float64(w)/float64(outW), float64(y)*float64(h)/float64(outH)))
				}
			}
		}
	}
	return values
}

// between is the value at a point between four pixels.
func between(pixel func(x, y, c int) float64, c, w, h int, atX, atY float64) float64 {
	x, y := int(atX), int(atY)
	fx, fy := atX-float64(x), atY-float64(y)
	x1, y1 := min(x+1, w-1), min(y+1, h-1)
	return (1-fy)*((1-fx)*pixel(x, y, c)+fx*pixel(x1, y, c)) + fy*((1-fx)*pixel(x, y1, c)+fx*pixel(x1, y1, c))
}

// triangle is the mean of all pixels, weighed by their distance from the output's centre.
func triangle(pixel func(x, y, c int) float64, c, x, y, w, h int, scaleX, scaleY float64) float64 {
	weight := func(at, center, scale float64) float64 {
		return max(0, 1-math.Abs(at+0.5-center)/max(scale, 1))
	}
	sum, weights := 0.0, 0.0
	for sy := range h {
		wy := weight(float64(sy), (float64(y)+0.5)*scaleY, scaleY)
		if wy == 0 {
			continue
		}
		for sx := range w {
			if k := wy * weight(float64(sx), (float64(x)+0.5)*scaleX, scaleX); k > 0 {
				sum, weights = sum+k*pixel(sx, sy, c), weights+k
			}
		}
	}
	return sum / weights
}

func noise(w, h int) *image.RGBA {
	random := rand.New(rand.NewPCG(uint64(w), uint64(h)))
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range m.Pix {
		m.Pix[i] = byte(random.Uint32())
		if i%4 == 3 {
			m.Pix[i] = 255
		}
	}
	return m
}

func floats(t *testing.T, data []byte) []float64 {
	t.Helper()
	require.Zero(t, len(data)%4)
	values := make([]float64, len(data)/4)
	for i := range values {
		values[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:])))
	}
	return values
}

func TestResizeAgreesWithItsDefinition(t *testing.T) {
	t.Parallel()
	sizes := []image.Point{{1, 1}, {2, 1}, {1, 7}, {5, 5}, {13, 9}, {64, 48}, {97, 31}, {31, 97}, {200, 3}}
	resizes := []models.Resize{
		{}, {CentralFraction: 0.875}, {CentralFraction: 0.01}, {ShortestSide: 16}, {ShortestSide: 21}, {CentralFraction: 0.5, ShortestSide: 17},
	}
	for _, size := range sizes {
		img := noise(size.X, size.Y)
		for _, method := range []string{models.MethodBilinear, models.MethodAntialias} {
			for _, resize := range resizes {
				resize.Method = method
				in := models.Input{DType: models.DTypeFloat32, Width: 16, Height: 12, Resize: resize}
				t.Run(fmt.Sprintf("%v %s fraction %v side %d", size, method, resize.CentralFraction, resize.ShortestSide), func(t *testing.T) {
					t.Parallel()
					data, err := picture.AppendTensor(nil, img, in)
					require.NoError(t, err)
					require.InDeltaSlice(t, reference(img, in), floats(t, data), 0.01)
				})
			}
		}
	}
}

func TestBilinearIsTensorFlowsLegacy(t *testing.T) {
	t.Parallel()
	// With align_corners and half_pixel_centers off, half the size is every other pixel and nothing of those between, and
	// double the size ends with the last pixel twice.
	row := image.NewGray(image.Rect(0, 0, 4, 1))
	row.Pix = []byte{10, 20, 40, 80}
	tests := []struct {
		width int
		want  []float64
	}{
		{2, []float64{10, 40}},
		{3, []float64{10, 20 + 20.0/3, 40 + 40*2.0/3}}, // at 0, 4/3 and 8/3
		{4, []float64{10, 20, 40, 80}},
		{8, []float64{10, 15, 20, 30, 40, 60, 80, 80}},
	}
	for _, tt := range tests {
		data, err := picture.AppendTensor(nil, row, models.Input{DType: models.DTypeFloat32, Width: tt.width, Height: 1})
		require.NoError(t, err)
		got := floats(t, data)
		for i, want := range tt.want {
			for c := range 3 {
				require.InDelta(t, want, got[3*i+c], 1e-4, "width %d, value %d", tt.width, i)
			}
		}
	}
}

func TestSameSizeIsTheSamePicture(t *testing.T) {
	t.Parallel()
	img := noise(20, 10)
	for _, method := range []string{models.MethodBilinear, models.MethodAntialias} {
		got, err := picture.AppendTensor(nil, img, models.Input{DType: models.DTypeUint8, Width: 20, Height: 10, Resize: models.Resize{Method: method}})
		require.NoError(t, err)
		for i := range 200 {
			require.Equal(t, img.Pix[4*i:4*i+3], got[3*i:3*i+3], method)
		}
	}
}

func TestUint8IsRoundedToTheNearest(t *testing.T) {
	t.Parallel()
	row := image.NewGray(image.Rect(0, 0, 2, 1))
	row.Pix = []byte{10, 11}
	got, err := picture.AppendTensor(nil, row, models.Input{DType: models.DTypeUint8, Width: 8, Height: 1})
	require.NoError(t, err)
	want := []byte{10, 10, 11, 11, 11, 11, 11, 11} // 10, 10.25, 10.5, 10.75, 11 ...
	for i := range want {
		require.Equal(t, want[i], got[3*i], "%d", i)
	}
}

func TestTensorHasTheLayoutAsked(t *testing.T) {
	t.Parallel()
	img := noise(3, 2)
	at := func(x, y, c int) float64 { return float64(img.Pix[img.PixOffset(x, y)+c]) }
	scale, offset := []float32{0.5, 2, 4}, []float32{-1, 0, 100}
	for _, layout := range []string{"", models.LayoutNHWC, models.LayoutNCHW} {
		for _, channels := range []string{"", models.ChannelsRGB, models.ChannelsBGR} {
			for _, dtype := range []string{models.DTypeUint8, models.DTypeFloat32} {
				t.Run(layout+" "+channels+" "+dtype, func(t *testing.T) {
					t.Parallel()
					in := models.Input{DType: dtype, Layout: layout, Channels: channels, Width: 3, Height: 2}
					if dtype == models.DTypeFloat32 {
						in.Scale, in.Offset = scale, offset
					}
					got, err := picture.AppendTensor([]byte("before"), img, in)
					require.NoError(t, err)
					require.Equal(t, "before", string(got[:6]))
					var values []float64
					if dtype == models.DTypeUint8 {
						for _, v := range got[6:] {
							values = append(values, float64(v))
						}
					} else {
						values = floats(t, got[6:])
					}
					require.Len(t, values, 18)
					for y := range 2 {
						for x := range 3 {
							for c := range 3 {
								position := c
								if channels == models.ChannelsBGR {
									position = 2 - c
								}
								i := (y*3+x)*3 + position
								if layout == models.LayoutNCHW {
									i = (position*2+y)*3 + x
								}
								want := at(x, y, c)
								if dtype == models.DTypeFloat32 {
									want = want*float64(scale[c]) + float64(offset[c])
								}
								require.InDelta(t, want, values[i], 1e-4)
							}
						}
					}
				})
			}
		}
	}
}

func TestOneScaleIsForAllChannels(t *testing.T) {
	t.Parallel()
	img := noise(2, 2)
	in := models.Input{DType: models.DTypeFloat32, Width: 2, Height: 2, Scale: []float32{1.0 / 127.5}, Offset: []float32{-1}}
	data, err := picture.AppendTensor(nil, img, in)
	require.NoError(t, err)
	for i, v := range floats(t, data) {
		require.InDelta(t, float64(img.Pix[i/3*4+i%3])/127.5-1, v, 1e-6)
	}
}

// anyImage hides an image's type, so that it is read by At.
type anyImage struct{ image.Image }

func TestAllTypesOfImagesAreReadAsTheirAtSays(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	fill := func(planes ...[]byte) {
		for _, p := range planes {
			for i := range p {
				p[i] = byte(random.Uint32())
			}
		}
	}
	whole := image.Rect(0, 0, 37, 29)
	part := image.Rect(3, 5, 34, 26) // odd, and not at the origin
	images := map[string]image.Image{}
	for _, ratio := range []image.YCbCrSubsampleRatio{
		image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420,
		image.YCbCrSubsampleRatio440, image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410,
	} {
		m := image.NewYCbCr(whole, ratio)
		fill(m.Y, m.Cb, m.Cr)
		images[ratio.String()] = m
	}
	gray, rgba, nrgba := image.NewGray(whole), image.NewRGBA(whole), image.NewNRGBA(whole)
	deep, cmyk, paletted := image.NewNRGBA64(whole), image.NewCMYK(whole), image.NewPaletted(whole, nil)
	fill(gray.Pix, nrgba.Pix, deep.Pix, cmyk.Pix, paletted.Pix)
	for i := range 256 {
		paletted.Palette = append(paletted.Palette, color.NRGBA{byte(i), byte(3 * i), byte(7 * i), byte(255 - i/2)})
	}
	for y := range 29 {
		for x := range 37 {
			rgba.Set(x, y, nrgba.At(x, y))
		}
	}
	for i := 3; i < len(nrgba.Pix); i += 8 {
		nrgba.Pix[i] = 255
	}
	images["Gray"], images["RGBA"], images["NRGBA"] = gray, rgba, nrgba
	images["NRGBA64"], images["CMYK"], images["Paletted"] = deep, cmyk, paletted
	for name, m := range images {
		images[name+", part"] = m.(interface {
			SubImage(image.Rectangle) image.Image
		}).SubImage(part)
	}
	for name, m := range images {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, method := range []string{models.MethodBilinear, models.MethodAntialias} {
				in := models.Input{
					DType: models.DTypeUint8, Width: 11, Height: 23, Resize: models.Resize{CentralFraction: 0.8, Method: method},
				}
				fast, err := picture.AppendTensor(nil, m, in)
				require.NoError(t, err)
				slow, err := picture.AppendTensor(nil, anyImage{m}, in)
				require.NoError(t, err)
				require.Equal(t, slow, fast)
			}
		})
	}
}

func TestTurnedPicturesHaveTheSameTensor(t *testing.T) {
	t.Parallel()
	photo := picturetest.Photo(45, 33)
	for _, method := range []string{models.MethodBilinear, models.MethodAntialias} {
		in := models.Input{DType: models.DTypeUint8, Width: 17, Height: 19, Resize: models.Resize{CentralFraction: 0.875, Method: method}}
		want, err := picture.AppendTensor(nil, photo, in)
		require.NoError(t, err)
		for o := 1; o <= 8; o++ {
			img, err := picture.Decode(picturetest.WithEXIF(picturetest.PNG(picturetest.Stored(photo, o)), o), picture.Limits{})
			require.NoError(t, err)
			got, err := picture.AppendTensor(nil, img, in)
			require.NoError(t, err)
			require.Equal(t, want, got, "orientation %d", o)
		}
	}
}

func TestTurnedJPEGIsReadAsItsAtSays(t *testing.T) {
	t.Parallel()
	photo := picturetest.Photo(45, 33)
	in := models.Input{DType: models.DTypeUint8, Width: 17, Height: 19}
	for o := 1; o <= 8; o++ {
		img, err := picture.Decode(picturetest.WithEXIF(picturetest.JPEG(photo), o), picture.Limits{})
		require.NoError(t, err)
		fast, err := picture.AppendTensor(nil, img, in)
		require.NoError(t, err)
		slow, err := picture.AppendTensor(nil, anyImage{img}, in)
		require.NoError(t, err)
		require.Equal(t, slow, fast, "orientation %d", o)
	}
}

func TestTransparentPixelsAreWhite(t *testing.T) {
	t.Parallel()
	in := models.Input{DType: models.DTypeUint8, Width: 1, Height: 1}
	got, err := picture.AppendTensor(nil, image.NewNRGBA(image.Rect(0, 0, 2, 2)), in)
	require.NoError(t, err)
	require.Equal(t, []byte{255, 255, 255}, got)
	half := image.NewNRGBA(image.Rect(0, 0, 1, 1))
	half.Pix = []byte{100, 0, 200, 128}
	got, err = picture.AppendTensor(nil, half, in)
	require.NoError(t, err)
	require.Equal(t, []byte{177, 127, 227}, got)
}

func TestAppendTensorRefusesWhatIsNoTensor(t *testing.T) {
	t.Parallel()
	valid := models.Input{DType: models.DTypeFloat32, Width: 2, Height: 2}
	tests := []struct {
		name string
		edit func(*models.Input)
		want string
	}{
		{"encoded", func(in *models.Input) { in.Kind = models.KindEncoded }, `input kind "encoded" takes no tensor`},
		{"no dtype", func(in *models.Input) { in.DType = "" }, `input dtype "", want uint8 or float32`},
		{"no width", func(in *models.Input) { in.Width = 0 }, "input of 0 x 2 pixels"},
		{"negative height", func(in *models.Input) { in.Height = -1 }, "input of 2 x -1 pixels"},
		{"shortest side", func(in *models.Input) { in.Resize.ShortestSide = 1 }, "shortest side 1, want at least that of 2 x 2"},
		{"two scales", func(in *models.Input) { in.Scale = []float32{1, 2} }, "2 scales and 0 offsets, want 1 or 3"},
	}
	for _, tt := range tests {
		in := valid
		tt.edit(&in)
		_, err := picture.AppendTensor(nil, noise(2, 2), in)
		require.ErrorContains(t, err, tt.want, tt.name)
	}
	_, err := picture.AppendTensor(nil, image.NewGray(image.Rectangle{}), valid)
	require.ErrorContains(t, err, "an image of 0 x 0 pixels has no tensor")
}

func BenchmarkAppendTensor(b *testing.B) {
	img, err := picture.Decode(picturetest.JPEG(picturetest.Photo(1000, 1000)), picture.Limits{})
	require.NoError(b, err)
	for _, method := range []string{models.MethodBilinear, models.MethodAntialias} {
		for _, dtype := range []string{models.DTypeUint8, models.DTypeFloat32} {
			b.Run(method+" "+dtype, func(b *testing.B) {
				in := models.Input{
					DType: dtype, Width: 299, Height: 299, Resize: models.Resize{CentralFraction: 0.875, Method: method},
				}
				var data []byte
				b.ReportAllocs()
				for b.Loop() {
					if data, err = picture.AppendTensor(data[:0], img, in); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
