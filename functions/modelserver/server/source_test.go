package server_test

import (
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/functions/modelserver/onnx/onnxtest"
	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/source/folder"
	"github.com/ebb-inference/ebb/models/source/tfs"
)

// TestAServerIsASourceOfTheVersionsThatItServes takes versions over from a server, as another one's modelsync does.
func TestAServerIsASourceOfTheVersionsThatItServes(t *testing.T) {
	t.Parallel()
	fx := serveAffine(t, nil)
	files, err := source.Openers{folder.Scheme: folder.Opener(folder.Options{Settle: time.Microsecond})}.Open(
		t.Context(), (&url.URL{Scheme: folder.Scheme, Path: filepath.Join(fx.base, "affine")}).String(), source.Limits{})
	require.NoError(t, err)
	s, err := source.Openers{tfs.Scheme: tfs.Opener(files)}.Open(t.Context(), "grpc://"+fx.target+"/affine", source.Limits{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })

	versions, err := s.Versions(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int64{1}, versions)

	onnxtest.Publish(t, fx.base, "affine", 2, onnxtest.Affine(2, 3, 1))
	require.Eventually(t, func() bool {
		versions, err := s.Versions(t.Context())
		return err == nil && slices.Contains(versions, 2)
	}, patience, interval)
	dir := t.TempDir()
	got, err := s.Fetch(t.Context(), 2, dir)
	require.NoError(t, err)
	there, err := os.ReadDir(filepath.Join(fx.base, "affine", "2"))
	require.NoError(t, err)
	require.Equal(t, len(there), got.Files)
	direct, err := files.Fetch(t.Context(), 2, t.TempDir())
	require.NoError(t, err)
	require.Equal(t, direct, got)

	// A network that cannot be loaded is published, and is no version of the server's.
	onnxtest.PublishFile(t, fx.base, "affine", 3, []byte("no network"))
	versions, err = files.Versions(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int64{1, 2, 3}, versions)
	_, err = s.Fetch(t.Context(), 3, t.TempDir())
	require.Error(t, err)
	require.NotErrorIs(t, err, source.ErrCorrupt)
	versions, err = s.Versions(t.Context())
	require.NoError(t, err)
	require.NotContains(t, versions, int64(3))
}
