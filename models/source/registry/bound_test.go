package registry

import (
	"archive/tar"
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/source"
)

func TestWhatIsNotOfTheModelIsReadUpToABound(t *testing.T) {
	t.Parallel()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "usr/lib/large", Typeflag: tar.TypeReg, Size: 10_000}))
	_, err := w.Write(make([]byte, 10_000))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	for _, tc := range []struct {
		name  string
		bound int64
		is    error
	}{
		{"all of it", int64(layer.Len()) + 1, nil},
		{"not its end", int64(layer.Len()) - 1, source.ErrLimit},
		{"not its files", 5000, source.ErrLimit},
		{"nothing", 0, source.ErrLimit},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := &fetch{folder: modelcar, left: tc.bound, above: newAbove(10)}
			rest := bytes.NewReader(layer.Bytes())
			err := f.entries(t.Context(), io.MultiReader(rest))
			if tc.is == nil {
				require.NoError(t, err)
				require.Zero(t, rest.Len(), "the rest counts for the digest")
				return
			}
			require.ErrorIs(t, err, tc.is)
			require.GreaterOrEqual(t, int64(rest.Len()), int64(layer.Len())-tc.bound)
		})
	}
}

func TestWhiteoutsAreBounded(t *testing.T) {
	t.Parallel()
	a := newAbove(2)
	require.NoError(t, a.hide("/models/a"))
	a.next()
	require.NoError(t, a.hide("/models/b"))
	require.ErrorIs(t, a.hide("/models/c"), source.ErrLimit)
}
