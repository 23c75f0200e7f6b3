package picture_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/picture"
	"github.com/ebb-inference/ebb/models/picture/picturetest"
)

func seed(f *testing.F) {
	f.Helper()
	for _, s := range picturetest.Samples() {
		f.Add(s.Data)
		f.Add(s.Data[:len(s.Data)/2])
	}
	for _, data := range bombs() {
		f.Add(data)
	}
	f.Add(picturetest.AnimatedWebP())
	f.Add(picturetest.WithEXIF(picturetest.LosslessWebP(), 8))
	f.Add([]byte("<svg/>"))
}

var fuzzLimits = picture.Limits{MaxPixels: 1 << 16, MaxSide: 1 << 12}

func FuzzInspect(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := picture.Inspect(data, fuzzLimits)
		if err != nil {
			require.Zero(t, info)
			require.True(t, errorIsAny(err, picture.ErrNotPicture, picture.ErrUnsupported, picture.ErrTooManyPixels, picture.ErrCorrupt), "%v", err)
			return
		}
		require.Positive(t, info.Width)
		require.Positive(t, info.Height)
		require.LessOrEqual(t, info.Width*info.Height, fuzzLimits.MaxPixels)
	})
}

func FuzzDecode(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		info, inspectErr := picture.Inspect(data, fuzzLimits)
		img, err := picture.Decode(data, fuzzLimits)
		if err != nil {
			require.True(t, errorIsAny(err, picture.ErrNotPicture, picture.ErrUnsupported, picture.ErrTooManyPixels, picture.ErrCorrupt), "%v", err)
			return
		}
		require.NoError(t, inspectErr)
		require.Equal(t, info.Width, img.Bounds().Dx())
		require.Equal(t, info.Height, img.Bounds().Dy())
		for _, method := range []string{models.MethodBilinear, models.MethodAntialias} {
			tensor, err := picture.AppendTensor(nil, img, models.Input{
				DType: models.DTypeUint8, Width: 5, Height: 4, Resize: models.Resize{CentralFraction: 0.875, Method: method},
			})
			require.NoError(t, err)
			require.Len(t, tensor, 60)
		}
		encoded, err := picture.EncodeJPEG(data, fuzzLimits)
		require.NoError(t, err)
		require.NotEmpty(t, encoded)
	})
}
