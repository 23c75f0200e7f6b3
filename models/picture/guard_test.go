package picture

import (
	"image"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDecoderThatPanicsMeansCorrupt(t *testing.T) {
	t.Parallel()
	f := &formats[0]
	err := guard(func() error {
		var m image.YCbCr
		_ = m.Y[len(m.Y)]
		return nil
	})
	require.ErrorIs(t, err, errPanic)
	err = f.explain(err)
	require.ErrorIs(t, err, ErrCorrupt)
	require.EqualError(t, err, "corrupt picture: the JPEG is damaged: the decoder gave up: runtime error: index out of range [0] with length 0")
}

func TestGuardPassesErrorsOn(t *testing.T) {
	t.Parallel()
	require.NoError(t, guard(func() error { return nil }))
	require.Equal(t, io.ErrNoProgress, guard(func() error { return io.ErrNoProgress }))
}
