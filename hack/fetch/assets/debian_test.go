package assets

import (
	"archive/tar"
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

var inDebian = debianFile{"thing", "usr/share/thing/cat.png", pinOf("a cat")}

// archive is the inside of a Debian package.
func archive(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range map[string]string{"./usr/share/thing/cat.png": "a cat", "./usr/share/thing/other.png": "other"} {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}))
		_, err := w.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	path := filepath.Join(t.TempDir(), "inside.tar")
	write(t, path, b.String())
	return path
}

// debian stands in for apt-get, with a script, and dpkg-deb, which here opens an archive that is not packed.
func debian(t *testing.T, apt string) *Fetcher {
	t.Helper()
	f := fetcher(t)
	f.apt = program(t, apt)
	f.dpkg = program(t, `test "$1" = --fsys-tarfile && cat "$2"`)
	return f
}

func (f *Fetcher) ensureDebian(ctx context.Context, file debianFile) (string, error) {
	path := filepath.Join(f.out, "cat.png")
	return path, f.ensure(ctx, file.pin, path, func(ctx context.Context, temp string) error {
		return f.unpack(ctx, file, filepath.Join(f.out, "debian"), temp)
	})
}

func TestFileComesOutOfADebianPackage(t *testing.T) {
	t.Parallel()
	for name, apt := range map[string]string{
		"with the machine's lists": `case "$*" in *Dir::State*) exit 1;; *"download thing") cp ARCHIVE thing_1.0_all.deb;; esac`,
		"with lists of its own": `
case "$*" in
*Dir::State::lists=*update) touch ../updated;;
*Dir::State::lists=*"download thing") test -e ../updated && cp ARCHIVE thing_1.0_all.deb;;
*) echo "E: Unable to locate package thing" >&2; exit 100;;
esac`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := debian(t, `ARCHIVE=`+archive(t)+"\n"+replaceArchive(apt))
			path, err := f.ensureDebian(t.Context(), inDebian)
			require.NoError(t, err)
			requireContent(t, "a cat", path)
			// The package is there for the next file in it.
			f.apt = []string{"no such program"}
			_, err = f.debian(t.Context(), "thing", filepath.Join(f.out, "debian"))
			require.NoError(t, err)
		})
	}
}

func replaceArchive(script string) string {
	return string(bytes.ReplaceAll([]byte(script), []byte("ARCHIVE"), []byte(`"$ARCHIVE"`)))
}

func TestFailuresOfAptSayWhatToDo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		apt  []string
		want string
	}{
		"no apt-get":   {[]string{"no such program"}, "this needs Debian or Ubuntu"},
		"no network":   {program(t, `echo "E: Failed to fetch"; exit 100`), "check the network and apt's sources"},
		"no package":   {program(t, `exit 0`), "apt-get download thing made no package"},
		"not a packet": {program(t, `echo nonsense > thing_1.0_all.deb`), "thing_1.0_all.deb: "},
	} {
		f := debian(t, "")
		f.apt = c.apt
		_, err := f.ensureDebian(t.Context(), inDebian)
		require.ErrorContains(t, err, c.want, name)
	}
}

func TestDebianPackageWithoutTheFileIsNamed(t *testing.T) {
	t.Parallel()
	f := debian(t, `cp `+archive(t)+` thing_1.0_all.deb`)
	_, err := f.ensureDebian(t.Context(), debianFile{"thing", "usr/share/thing/dog.png", pinOf("a dog")})
	require.ErrorContains(t, err, "it has no usr/share/thing/dog.png")
}

func TestDebianPackageWithAnotherFileIsRefused(t *testing.T) {
	t.Parallel()
	f := debian(t, `cp `+archive(t)+` thing_1.0_all.deb`)
	_, err := f.ensureDebian(t.Context(), debianFile{"thing", "usr/share/thing/other.png", pinOf("a cat")})
	require.ErrorIs(t, err, ErrChecksum)
}
