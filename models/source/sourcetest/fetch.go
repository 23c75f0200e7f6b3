package sourcetest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/source"
)

func fetches(t *testing.T, p *Place) {
	t.Helper()
	p.Publish(t, "1", Files{"model": "one"})
	p.Publish(t, "2", network())
	p.Publish(t, "22", Files{"model": "twenty-two"})
	dir := folder(t)
	got, err := p.open(t, source.Limits{}).Fetch(t.Context(), 2, dir)
	require.NoError(t, err)
	requireFiles(t, network(), dir)
	require.Equal(t, source.Fetched{
		Files: len(network()), Bytes: network().bytes(), Digest: networkDigest, Verified: p.Verified,
	}, got)
}

func digests(t *testing.T, p *Place) {
	t.Helper()
	p.Publish(t, "1", network())
	p.Publish(t, "2", network())
	p.Publish(t, "3", network().with("saved_model.pb", "Graph"))
	renamed := network().with("graph.pb", network()["saved_model.pb"])
	delete(renamed, "saved_model.pb")
	p.Publish(t, "4", renamed)
	s := p.open(t, source.Limits{})
	digest := make(map[int64]string)
	for version := int64(1); version <= 4; version++ {
		got, err := s.Fetch(t.Context(), version, folder(t))
		require.NoError(t, err)
		digest[version] = got.Digest
	}
	require.Equal(t, networkDigest, digest[1])
	require.Equal(t, digest[1], digest[2], "another version with the same files")
	require.NotEqual(t, digest[1], digest[3], "other content")
	require.NotEqual(t, digest[1], digest[4], "another name")
	require.NotEqual(t, digest[3], digest[4])
}

func missing(t *testing.T, p *Place) {
	t.Helper()
	p.Publish(t, "1", network())
	p.Publish(t, "31", network())
	_, err := p.open(t, source.Limits{}).Fetch(t.Context(), 3, folder(t))
	require.ErrorIs(t, err, source.ErrGone)
	require.ErrorContains(t, err, p.URL)
}

func half(t *testing.T, p *Place) {
	t.Helper()
	if p.Half == nil {
		t.Skip("the place has no versions that are half there")
	}
	p.Publish(t, "1", network())
	p.Half(t, 2)
	s := p.open(t, source.Limits{})
	versions, err := s.Versions(t.Context())
	require.NoError(t, err)
	require.Contains(t, versions, int64(1))
	if len(versions) == 1 {
		return
	}
	require.Equal(t, []int64{1, 2}, versions)
	_, err = s.Fetch(t.Context(), 2, folder(t))
	require.ErrorIs(t, err, source.ErrIncomplete)
	p.Publish(t, "2", network())
	dir := folder(t)
	_, err = s.Fetch(t.Context(), 2, dir)
	require.NoError(t, err, "once it is complete")
	requireFiles(t, network(), dir)
}

func sumsMissing(t *testing.T, p *Place) {
	t.Helper()
	files := network().withSums()
	delete(files, "variables/index")
	p.Publish(t, "1", files)
	s, dir := p.open(t, source.Limits{}), folder(t)
	_, err := s.Fetch(t.Context(), 1, dir)
	require.ErrorIs(t, err, source.ErrIncomplete)
	require.ErrorContains(t, err, "variables/index")

	p.Publish(t, "1", network().withSums())
	_, err = s.Fetch(t.Context(), 1, dir)
	require.NoError(t, err, "once it is complete, in the same folder")
	requireFiles(t, network(), dir)
}

func empty(t *testing.T, p *Place) {
	t.Helper()
	// A place without empty folders has no such version at all.
	p.Publish(t, "1", Files{})
	_, err := p.open(t, source.Limits{}).Fetch(t.Context(), 1, folder(t))
	require.Error(t, err)
	require.Condition(t, func() bool {
		return isAny(err, source.ErrIncomplete, source.ErrGone)
	}, "%v", err)
}

func sumsRight(t *testing.T, p *Place) {
	t.Helper()
	// sha256sum * >SHA256SUMS lists the file that it is just writing, and find prefixes each name.
	sums := fmt.Sprintf("%064d  ./%s\n", 0, source.SumsName) + network().sums()
	p.Publish(t, "1", network().with(source.SumsName, sums))
	dir := folder(t)
	got, err := p.open(t, source.Limits{}).Fetch(t.Context(), 1, dir)
	require.NoError(t, err)
	require.True(t, got.Verified)
	require.Equal(t, networkDigest, got.Digest, "as without SHA256SUMS")
	require.Equal(t, len(network()), got.Files)
	require.Equal(t, network().bytes(), got.Bytes)
	requireFiles(t, network(), dir)
}

func sumsWrong(t *testing.T, p *Place) {
	t.Helper()
	p.Publish(t, "1", network().withSums().with("variables/index", "INDEX"))
	_, err := p.open(t, source.Limits{}).Fetch(t.Context(), 1, folder(t))
	require.ErrorIs(t, err, source.ErrCorrupt)
	require.ErrorContains(t, err, "variables/index")
}

func sumsUnreadable(t *testing.T, p *Place) {
	t.Helper()
	p.Publish(t, "1", network().with(source.SumsName, "<html>"))
	p.Publish(t, "2", network().with(source.SumsName, fmt.Sprintf("%064d  ../../etc/passwd\n", 0)))
	s := p.open(t, source.Limits{})
	for _, version := range []int64{1, 2} {
		_, err := s.Fetch(t.Context(), version, folder(t))
		require.ErrorIs(t, err, source.ErrCorrupt)
		require.ErrorContains(t, err, source.SumsName)
	}
}

func corrupt(t *testing.T, p *Place) {
	t.Helper()
	if p.Corrupt == nil {
		t.Skip("the place has no checksums")
	}
	p.Corrupt(t, 1)
	_, err := p.open(t, source.Limits{}).Fetch(t.Context(), 1, folder(t))
	require.ErrorIs(t, err, source.ErrCorrupt)
	require.ErrorContains(t, err, p.URL)
}

func tooLarge(t *testing.T, p *Place) {
	t.Helper()
	p.Publish(t, "1", network())
	dir := folder(t)
	_, err := p.open(t, source.Limits{Bytes: network().bytes() - 1}).Fetch(t.Context(), 1, dir)
	require.ErrorIs(t, err, source.ErrLimit)
	require.LessOrEqual(t, read(t, dir).bytes(), network().bytes(), "it stopped at the limit")
	_, err = p.open(t, source.Limits{Bytes: network().bytes()}).Fetch(t.Context(), 1, dir)
	require.NoError(t, err)
}

func tooManyFiles(t *testing.T, p *Place) {
	t.Helper()
	p.Publish(t, "1", network().withSums())
	_, err := p.open(t, source.Limits{Files: len(network()) - 1}).Fetch(t.Context(), 1, folder(t))
	require.ErrorIs(t, err, source.ErrLimit)
	_, err = p.open(t, source.Limits{Files: len(network())}).Fetch(t.Context(), 1, folder(t))
	require.NoError(t, err)
}

func hostile(t *testing.T, p *Place) {
	t.Helper()
	if p.Hostile == nil {
		t.Skip("the place cannot have evil names")
	}
	s := p.open(t, source.Limits{})
	had := 0
	for i, name := range []string{
		"../evil", "../../evil", "/evil", "a/../../evil", "..", ".", "", "a//evil", "a/./evil", `..\evil`, `C:\evil`,
		"evil\x00", "evil\n", "\x1b[2Jevil", "ev\xffil", "model/evil", "//evil.example/evil",
	} {
		version := int64(i + 1)
		if !p.Hostile(t, version, name, Files{"model": "good"}) {
			continue
		}
		had++
		dir := folder(t)
		_, err := s.Fetch(t.Context(), version, dir)
		requireAlone(t, dir)
		if err == nil { // the source has taken the name for none of a file
			requireFiles(t, Files{"model": "good"}, dir)
			continue
		}
		require.ErrorIs(t, err, source.ErrCorrupt, "%q", name)
		read(t, dir) // finds nothing but files
	}
	require.NotZero(t, had)
}

func leftovers(t *testing.T, p *Place) {
	t.Helper()
	p.Publish(t, "1", network())
	dir := folder(t)
	for name, content := range map[string]string{
		"saved_model.pb":          "GRAPH",     // as long as it has to be
		"variables/data":          "weights ",  // as if cut off
		"variables/index/a":       "a folder",  // where a file has to be
		"assets":                  "a file",    // where a folder has to be
		"variables/other/checked": "no longer", // what was published before
		".part":                   "unfinished",
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o750))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	got, err := p.open(t, source.Limits{}).Fetch(t.Context(), 1, dir)
	require.NoError(t, err)
	require.Equal(t, networkDigest, got.Digest)
	requireFiles(t, network(), dir)
	require.NoDirExists(t, filepath.Join(dir, "variables", "other"))
}
