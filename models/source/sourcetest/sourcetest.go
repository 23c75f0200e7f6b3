// Package sourcetest is the suite that every source of versions has to pass, wherever its versions are published. It knows a
// source by its contract alone; how its place of publication is made and broken, a Place says.
package sourcetest

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/source"
)

// Files are a version's files: their contents by their names.
type Files map[string]string

// Place is where the versions of one network are published, for one test. What is nil, the place cannot have.
type Place struct {
	// URL is what errors name the place by.
	URL string
	// Verified says that the place has checksums of its own for every file.
	Verified bool
	// Open returns a source of the place, as Openers.Open does, which adds the URL to errors. It is closed by the suite.
	Open func(t *testing.T, limits source.Limits) source.Source
	// Publish publishes a version completely, under a name that is perhaps no version's; what was published under it before
	// is gone. It does nothing if the place cannot have such a name.
	Publish func(t *testing.T, name string, files Files)
	// Half publishes a version so that the place itself shows that there is more to come.
	Half func(t *testing.T, version int64)
	// Corrupt publishes a version with files that are not what the place's own checksums say.
	Corrupt func(t *testing.T, version int64)
	// Hostile publishes a version with a file of an evil name, and those given. It is false when the place cannot have the name.
	Hostile func(t *testing.T, version int64, name string, files Files) bool
	// Break ends what is being sent, as a lost connection does, after so many bytes of files; once, and then calls lost. It
	// says so only to sources that have a connection to lose.
	Break func(t *testing.T, after int64, lost func())
	// Away makes the place unreachable.
	Away func(t *testing.T)
}

// Run runs the suite. Each test has a place of its own.
func Run(t *testing.T, newPlace func(t *testing.T) *Place) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(t *testing.T, p *Place)
	}{
		{"lists versions ascending, by number", listsAscending},
		{"skips what is no version", skipsNonVersions},
		{"lists nothing where nothing is published", listsNothing},
		{"fetches all files of the version, and nothing else", fetches},
		{"says the same digest whatever else differs", digests},
		{"a version that is not there is gone", missing},
		{"a half-written version is not listed or not complete", half},
		{"a version that lacks what SHA256SUMS lists is not complete", sumsMissing},
		{"a version without files is not complete", empty},
		{"SHA256SUMS that are right verify the version", sumsRight},
		{"a file that is not what SHA256SUMS says is corrupt", sumsWrong},
		{"a SHA256SUMS that cannot be read is corrupt", sumsUnreadable},
		{"a file that is not what the place's checksum says is corrupt", corrupt},
		{"a version of more bytes than allowed is over the limit", tooLarge},
		{"a version of more files than allowed is over the limit", tooManyFiles},
		{"a list of more versions than allowed is over the limit", tooManyVersions},
		{"evil names reach nothing outside", hostile},
		{"ended at each step, it goes on", endedAtSteps},
		{"a connection lost in the middle of each file is no failure, or is made good by the next fetch", brokenInFiles},
		{"a version that is replaced while it is fetched is never a mixture", replaced},
		{"what an earlier fetch left of other files is removed", leftovers},
		{"a place that is away is an error that names it", away},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, newPlace(t))
		})
	}
}

// network is what the tests publish: several files, one in a folder, one empty, one larger than a read.
func network() Files {
	return Files{
		"saved_model.pb":      "graph",
		"variables/data":      strings.Repeat("weights ", 20_000),
		"variables/index":     "index",
		"assets/labels/a.txt": "",
		"Ünïcode & more.txt":  "a name that has to be escaped in URLs",
	}
}

// networkDigest is network's, whichever source brought it.
const networkDigest = "sha256:49c412e84f91c0788d6fed6cb6d2360e7fc6968337f4839c97388cb6e72e3558"

// with returns the files and one more.
func (f Files) with(name, content string) Files {
	all := maps.Clone(f)
	all[name] = content
	return all
}

// withSums returns the files and their SHA256SUMS.
func (f Files) withSums() Files { return f.with(source.SumsName, f.sums()) }

// sums is what sha256sum writes for the files.
func (f Files) sums() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f)) {
		_, _ = fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256([]byte(f[name])), name) // a Builder never fails
	}
	return b.String()
}

func (f Files) bytes() int64 {
	var n int64
	for _, content := range f {
		n += int64(len(content))
	}
	return n
}

// open returns a source of the place that the test closes.
func (p *Place) open(t *testing.T, limits source.Limits) source.Source {
	t.Helper()
	s := p.Open(t, limits)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// folder returns an empty folder, all that is in its parent.
func folder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "in")
	require.NoError(t, os.Mkdir(dir, 0o750))
	return dir
}

// requireFiles says that the folder has the files, all of them and nothing else.
func requireFiles(t *testing.T, want Files, dir string) {
	t.Helper()
	require.Equal(t, summary(want), summary(read(t, dir)))
}

// requireAlone says that nothing was written beside the folder.
func requireAlone(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(dir))
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

// read returns the files in a folder. Anything that is neither a file nor a folder fails the test.
func read(t *testing.T, dir string) Files {
	t.Helper()
	files := Files{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		require.NoError(t, err)
		if e.IsDir() {
			return nil
		}
		require.True(t, e.Type().IsRegular(), "%s is a %s", path, e.Type())
		content, err := os.ReadFile(path) //nolint:gosec // in a folder of the test
		require.NoError(t, err)
		name, err := filepath.Rel(dir, path)
		require.NoError(t, err)
		files[filepath.ToSlash(name)] = string(content)
		return nil
	}))
	return files
}

// summary is short enough to be printed.
func summary(files Files) map[string]string {
	short := make(map[string]string)
	for name, content := range files {
		short[name] = fmt.Sprintf("%d bytes, %x", len(content), sha256.Sum256([]byte(content)))
	}
	return short
}
