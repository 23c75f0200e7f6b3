package picture

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDecoderThatPanicsMeansCorrupt(t *testing.T) {
	t.Parallel()
	f := &formats[0]
	err := guard(func() error { panic("index out of range") })
	require.ErrorIs(t, err, errPanic)
	err = f.explain(err)
	require.ErrorIs(t, err, ErrCorrupt)
	require.EqualError(t, err, "corrupt picture: the JPEG is damaged: the decoder gave up: index out of range")
}

func TestGuardPassesErrorsOn(t *testing.T) {
	t.Parallel()
	require.NoError(t, guard(func() error { return nil }))
	require.Equal(t, io.ErrNoProgress, guard(func() error { return io.ErrNoProgress }))
}
