package folder_test

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/source/folder"
	"github.com/ebb-inference/ebb/models/source/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is the time between two looks where nothing changes.
const soon = time.Microsecond

func fileURL(dir string) string { return (&url.URL{Scheme: folder.Scheme, Path: dir}).String() }

func open(t *testing.T, dir string, settle time.Duration, limits source.Limits) source.Source {
	t.Helper()
	openers := source.Openers{folder.Scheme: folder.Opener(folder.Options{Settle: settle})}
	s, err := openers.Open(t.Context(), fileURL(dir), limits)
	require.NoError(t, err)
	return s
}

func write(t *testing.T, dir string, files sourcetest.Files) {
	t.Helper()
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	}
}

func TestAFolderIsASource(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) *sourcetest.Place {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "network of mine")
		require.NoError(t, os.Mkdir(dir, 0o755))
		return &sourcetest.Place{
			URL: fileURL(dir),
			Open: func(t *testing.T, limits source.Limits) source.Source {
				t.Helper()
				return open(t, dir, soon, limits)
			},
			Publish: func(t *testing.T, name string, files sourcetest.Files) {
				t.Helper()
				write(t, filepath.Join(dir, name), files)
			},
			Half: func(t *testing.T, version int64) {
				t.Helper()
				write(t, filepath.Join(dir, "."+strconv.FormatInt(version, 10)), sourcetest.Files{"saved_model.pb": "graph"})
			},
			Hostile: func(t *testing.T, version int64, name string, files sourcetest.Files) bool {
				t.Helper()
				if name == "" || strings.Contains(name, "/") || strings.Trim(name, ".") == "" || strings.ContainsRune(name, 0) {
					return false
				}
				write(t, filepath.Join(dir, strconv.FormatInt(version, 10)), files)
				require.NoError(t, os.WriteFile(filepath.Join(dir, strconv.FormatInt(version, 10), name), []byte("evil"), 0o644))
				return true
			},
			Away: func(t *testing.T) {
				t.Helper()
				require.NoError(t, os.RemoveAll(dir))
			},
		}
	})
}

func TestWhatIsNoFileOfTheVersionIsRefused(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(outside, []byte("secret"), 0o644))
	for _, c := range []struct {
		name string
		make func(path string) error
		want error
	}{
		{"a link out of the folder, absolute", func(path string) error { return os.Symlink(outside, path) }, source.ErrCorrupt},
		{"a link out of the folder, relative", func(path string) error { return os.Symlink("../../../secret", path) }, source.ErrCorrupt},
		{"a link that leads nowhere yet", func(path string) error { return os.Symlink("weights", path) }, source.ErrIncomplete},
		{"a link to itself", func(path string) error { return os.Symlink(".", path) }, source.ErrCorrupt},
		{"a pipe that nobody writes to", func(path string) error { return syscall.Mkfifo(path, 0o644) }, source.ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "1"), sourcetest.Files{"model": "one"})
			require.NoError(t, c.make(filepath.Join(dir, "1", "odd")))
			s := open(t, dir, soon, source.Limits{})
			_, err := s.Fetch(t.Context(), 1, t.TempDir())
			require.ErrorIs(t, err, c.want)
			require.NotContains(t, err.Error(), outside)
		})
	}
}

func TestLinksWithinTheFolderAreFollowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "..data"), sourcetest.Files{"model": "weights"})
	require.NoError(t, os.Mkdir(filepath.Join(dir, "1"), 0o755))
	require.NoError(t, os.Symlink("../..data/model", filepath.Join(dir, "1", "model")))
	require.NoError(t, os.Symlink("..data", filepath.Join(dir, "2")))
	require.NoError(t, os.Symlink("/etc", filepath.Join(dir, "3")))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "4")))
	s := open(t, dir, soon, source.Limits{})
	versions, err := s.Versions(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int64{1, 2}, versions)
	for _, version := range versions {
		to := t.TempDir()
		_, err := s.Fetch(t.Context(), version, to)
		require.NoError(t, err)
		content, err := os.ReadFile(filepath.Join(to, "model"))
		require.NoError(t, err)
		require.Equal(t, "weights", string(content))
	}
}

func TestAVersionThatIsBeingCopiedIsNotComplete(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(t *testing.T, version string)
	}{
		{"a file grows", func(t *testing.T, version string) {
			t.Helper()
			f, err := os.OpenFile(filepath.Join(version, "model"), os.O_APPEND|os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.WriteString("more")
			require.NoError(t, errors.Join(err, f.Close()))
		}},
		{"a file is added", func(t *testing.T, version string) {
			t.Helper()
			require.NoError(t, os.WriteFile(filepath.Join(version, "labels"), nil, 0o644))
		}},
		{"a file is removed", func(t *testing.T, version string) {
			t.Helper()
			require.NoError(t, os.Remove(filepath.Join(version, "model")))
		}},
		{"a file is written anew, as long as before", func(t *testing.T, version string) {
			t.Helper()
			path := filepath.Join(version, "model")
			require.NoError(t, os.WriteFile(path, []byte("WEIGHTS"), 0o644))
			require.NoError(t, os.Chtimes(path, time.Time{}, time.Unix(1_000_000_000, 0)))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "1"), sourcetest.Files{"model": "weights", "other": "stays"})
			synctest.Test(t, func(t *testing.T) {
				s := open(t, dir, 2*time.Second, source.Limits{})
				to, result := t.TempDir(), make(chan error, 1)
				go func() {
					_, err := s.Fetch(t.Context(), 1, to)
					result <- err
				}()
				time.Sleep(time.Second) // between the two looks
				c.change(t, filepath.Join(dir, "1"))
				require.ErrorIs(t, <-result, source.ErrIncomplete)

				_, err := s.Fetch(t.Context(), 1, to)
				require.NoError(t, err, "when nothing changes any more")
			})
		})
	}
}

func TestURLsOfFolders(t *testing.T) {
	t.Parallel()
	openers := source.Openers{folder.Scheme: folder.Opener(folder.Options{})}
	for _, at := range []string{"file://host/models", "file://models", "file:///models?token=secret", "file:///models?", "file:///a%00secret"} {
		_, err := openers.Open(t.Context(), at, source.Limits{})
		require.ErrorIs(t, err, source.ErrURL, at)
		require.NotContains(t, err.Error(), "secret")
	}
	for _, at := range []string{"file:///models", "file://localhost/models", "file:///"} {
		s, err := openers.Open(t.Context(), at, source.Limits{})
		require.NoError(t, err)
		require.NoError(t, s.Close())
	}
}
