package source_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/source"
)

func newDir(t *testing.T, at string, limits source.Limits) *source.Dir {
	t.Helper()
	d, err := source.NewDir(at, limits)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// has returns what opens a file with a content.
func has(content string) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }
}

func sumOf(content string) source.Sum {
	sum := sha256.Sum256([]byte(content))
	return source.SHA256(sum[:])
}

func unknown(name string) source.File { return source.File{Name: name, Size: -1} }

func TestAFileThatIsHereAndConfirmedIsNotOpened(t *testing.T) {
	t.Parallel()
	at := t.TempDir()
	first := newDir(t, at, source.Limits{})
	require.NoError(t, first.Bring(t.Context(), unknown("a/model"), has("weights")))
	never := func(context.Context) (io.ReadCloser, error) { return nil, errors.New("it was opened") }

	d := newDir(t, at, source.Limits{})
	require.NoError(t, d.Bring(t.Context(), source.File{Name: "a/model", Size: 7, Sum: sumOf("weights")}, never))
	got, err := d.Finish()
	require.NoError(t, err)
	require.True(t, got.Verified)
	require.EqualValues(t, 7, got.Bytes)

	for name, f := range map[string]source.File{
		"without a checksum":    {Name: "a/model", Size: 7},
		"with another checksum": {Name: "a/model", Size: 7, Sum: sumOf("WEIGHTS")},
		"with another size":     {Name: "a/model", Size: 8, Sum: sumOf("weights")},
		"with another name":     {Name: "model", Size: 7, Sum: sumOf("weights")},
	} {
		require.ErrorContains(t, newDir(t, at, source.Limits{}).Bring(t.Context(), f, never), "it was opened", name)
	}
}

func TestWhatIsHereIsNotFollowedOutOfTheFolder(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "precious")
	require.NoError(t, os.WriteFile(outside, []byte("precious"), 0o600))
	at := t.TempDir()
	for _, name := range []string{"model", ".part"} {
		require.NoError(t, os.Symlink(outside, filepath.Join(at, name)))
	}
	require.NoError(t, os.Symlink(filepath.Dir(outside), filepath.Join(at, "folder")))
	d := newDir(t, at, source.Limits{})
	require.Error(t, d.Bring(t.Context(), unknown("model"), has("weights")), "the part would be written there")
	require.NoError(t, os.Remove(filepath.Join(at, ".part")))

	d = newDir(t, at, source.Limits{})
	require.NoError(t, d.Bring(t.Context(), source.File{Name: "model", Size: 8, Sum: sumOf("precious")}, has("precious")))
	require.NoError(t, d.Bring(t.Context(), unknown("folder/precious"), has("weights")))
	_, err := d.Finish()
	require.NoError(t, err)
	content, err := os.ReadFile(outside)
	require.NoError(t, err)
	require.Equal(t, "precious", string(content))
	info, err := os.Lstat(filepath.Join(at, "model"))
	require.NoError(t, err)
	require.True(t, info.Mode().IsRegular())
	require.FileExists(t, filepath.Join(at, "folder", "precious"))
}

func TestWhatASourceMayNotBring(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		before  []string
		file    source.File
		content string
		want    error
	}{
		{"a name twice", []string{"a"}, unknown("a"), "", source.ErrCorrupt},
		{"a file where a folder is", []string{"a/b"}, unknown("a"), "", source.ErrCorrupt},
		{"a folder where a file is", []string{"a"}, unknown("a/b"), "", source.ErrCorrupt},
		{"a name that is in use", nil, unknown(".part"), "", source.ErrCorrupt},
		{"a folder whose name is in use", nil, unknown(".part/a"), "", source.ErrCorrupt},
		{"a name without end", nil, unknown(strings.Repeat("a", 513)), "", source.ErrCorrupt},
		{"folders without end", nil, unknown(strings.Repeat("a/", 17) + "a"), "", source.ErrCorrupt},
		{"a name with an order of writing", nil, unknown("a\u202eb"), "", source.ErrCorrupt},
		{"two SHA256SUMS", []string{source.SumsName}, unknown(source.SumsName), "", source.ErrCorrupt},
		{"a SHA256SUMS without end", nil, unknown(source.SumsName), strings.Repeat("\n", 4<<20+1), source.ErrLimit},
		{"a SHA256SUMS that is cut off", nil, source.File{Name: source.SumsName, Size: 1}, "", source.ErrIncomplete},
		{"a SHA256SUMS with another checksum", nil, source.File{Name: source.SumsName, Size: -1, Sum: sumOf("a")}, "", source.ErrCorrupt},
		{"less than it says", nil, source.File{Name: "a", Size: 2}, "x", source.ErrIncomplete},
		{"more than it says", nil, source.File{Name: "a", Size: 2}, "xxx", source.ErrCorrupt},
		{"something else than it says", nil, source.File{Name: "a", Size: 1, Sum: sumOf("a")}, "x", source.ErrCorrupt},
		{"more than is allowed, by its own word", nil, source.File{Name: "a", Size: 11}, "", source.ErrLimit},
		{"more than is allowed", nil, unknown("a"), strings.Repeat("x", 11), source.ErrLimit},
		{"more files than are allowed", []string{"a", "b", "c"}, unknown("d"), "", source.ErrLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := newDir(t, t.TempDir(), source.Limits{Bytes: 10, Files: 3})
			for _, name := range c.before {
				require.NoError(t, d.Bring(t.Context(), unknown(name), has("")))
			}
			require.ErrorIs(t, d.Bring(t.Context(), c.file, has(c.content)), c.want)
		})
	}
}

func TestSHA256SUMSMayComeLast(t *testing.T) {
	t.Parallel()
	sums := "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 *greeting\n" // of "hello"
	for _, c := range []struct {
		name, content string
		also          string
		verified      bool
		want          error
	}{
		{"right", "hello", "", true, nil},
		{"wrong", "Hello", "", false, source.ErrCorrupt},
		{"right, and a file that it does not list", "hello", "more", false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := newDir(t, t.TempDir(), source.Limits{})
			require.NoError(t, d.Bring(t.Context(), unknown("greeting"), has(c.content)))
			if c.also != "" {
				require.NoError(t, d.Bring(t.Context(), unknown(c.also), has("")))
			}
			require.NoError(t, d.Bring(t.Context(), unknown(source.SumsName), has(sums)))
			got, err := d.Finish()
			require.ErrorIs(t, err, c.want)
			require.Equal(t, c.verified, got.Verified)
		})
	}
}

func FuzzSHA256SUMS(f *testing.F) {
	f.Add("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824  greeting\n")
	f.Add("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 *./a/b\r\n\n")
	f.Add(`\2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824  a\nb`)
	f.Fuzz(func(t *testing.T, text string) {
		d := newDir(t, t.TempDir(), source.Limits{})
		err := d.Bring(t.Context(), unknown(source.SumsName), has(text))
		if err != nil {
			require.ErrorIs(t, err, source.ErrCorrupt)
			return
		}
		require.NoError(t, d.Bring(t.Context(), unknown("other"), has("")))
		if _, err := d.Finish(); err != nil { // it lists something else than is here
			require.Condition(t, func() bool { return errors.Is(err, source.ErrIncomplete) || errors.Is(err, source.ErrCorrupt) }, "%v", err)
		}
	})
}

func FuzzNames(f *testing.F) {
	for _, name := range []string{"model", "variables/index", "../evil", "/etc/passwd", ".part/x", "a//b", "SHA256SUMS/x", "ü", "a\u202eb"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		parent := t.TempDir()
		at := filepath.Join(parent, "version")
		require.NoError(t, os.Mkdir(at, 0o700))
		d := newDir(t, at, source.Limits{})
		err := d.Bring(t.Context(), unknown(name), has(""))
		entries, readErr := os.ReadDir(parent)
		require.NoError(t, readErr)
		require.Len(t, entries, 1, "it wrote beside the folder")
		if err == nil && name != source.SumsName {
			require.FileExists(t, filepath.Join(at, filepath.FromSlash(name)))
		}
	})
}
