package download

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/hack/command"
)

// What is downloaded by whom, and what is done when it has changed, hack/gke's tests show; here is the file of checksums.
func TestChecksumsAreReadStrictlyAndKept(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "sums")
	sums, err := readSums(file)
	require.NoError(t, err)
	require.Empty(t, sums)
	sum := strings.Repeat("0a", 32)
	require.NoError(t, appendSum(file, sum, "https://example.com/a"))
	require.NoError(t, appendSum(file, sum, "https://example.com/b"))
	sums, err = readSums(file)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"https://example.com/a": sum, "https://example.com/b": sum}, sums)
	for name, line := range map[string]string{"half a checksum": sum[:40] + " https://example.com/c", "no address": sum, "a word too many": sum + " a b"} {
		require.NoError(t, os.WriteFile(file, []byte("# a word\n"+line+"\n"), 0o600))
		_, err := readSums(file)
		require.ErrorContains(t, err, "sums, line 2", name)
		require.ErrorContains(t, Downloader{Runner: &command.Runner{}, Sums: file}.Get(context.Background(), "https://example.com/a", file), "line 2",
			"nothing is trusted when the file cannot be read")
	}
}

func TestTheProjectsChecksumsAreReadable(t *testing.T) {
	t.Parallel()
	_, err := readSums("sums")
	require.NoError(t, err)
}
