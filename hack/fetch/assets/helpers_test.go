package assets

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fetcher works in folders of its own.
func fetcher(t *testing.T) *Fetcher {
	t.Helper()
	f, err := New(Config{Root: t.TempDir(), Log: t.Output()})
	require.NoError(t, err)
	return f
}

func pinOf(content string) pin {
	return pin{fmt.Sprintf("%x", sha256.Sum256([]byte(content))), int64(len(content))}
}

// program is a shell script that stands in for one of the programs that are called.
func program(t *testing.T, script string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program.sh")
	write(t, path, script)
	return []string{"sh", path}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
}

func requireContent(t *testing.T, want, path string) {
	t.Helper()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

// names is everything in a folder, by name.
func names(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	all := []string{}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}
