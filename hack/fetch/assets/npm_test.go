package assets

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// files are what the tests' npm installs.
var files = []npmFile{{"pkg/dir/one.bin", pinOf("one")}, {"pkg/two.bin", pinOf("two")}}

const installs = `
echo "$@" >> calls
mkdir -p node_modules/pkg/dir
printf one > node_modules/pkg/dir/one.bin
printf two > node_modules/pkg/two.bin
`

func TestNPMInstallsWhatIsMissingOnce(t *testing.T) {
	t.Parallel()
	f := fetcher(t)
	f.npm = program(t, installs)
	for _, file := range files {
		to := filepath.Join(f.out, filepath.Base(file.path))
		require.NoError(t, f.ensure(t.Context(), file.pin, to, f.copy(file)))
		require.NoError(t, check(file.pin, to))
	}
	requireContent(t, "ci --ignore-scripts --legacy-peer-deps --include=optional --no-audit --no-fund\n", filepath.Join(f.root, "calls"))
}

func TestNPMIsNotNeededForWhatIsThere(t *testing.T) {
	t.Parallel()
	f := fetcher(t)
	f.npm = []string{"no such program"}
	write(t, filepath.Join(f.root, "node_modules", "pkg", "two.bin"), "two")
	_, err := f.source(t.Context(), files[1])
	require.NoError(t, err)
}

func TestNPMReplacesWhatIsDamaged(t *testing.T) {
	t.Parallel()
	f := fetcher(t)
	f.npm = program(t, installs)
	write(t, filepath.Join(f.root, "node_modules", "pkg", "two.bin"), "tw")
	_, err := f.source(t.Context(), files[1])
	require.NoError(t, err)
}

func TestPackageWithOtherContentIsRefused(t *testing.T) {
	t.Parallel()
	f := fetcher(t)
	f.npm = program(t, `mkdir -p node_modules/pkg; printf evil > node_modules/pkg/two.bin`)
	_, err := f.source(t.Context(), files[1])
	require.ErrorIs(t, err, ErrChecksum)
	require.ErrorContains(t, err, "do not use it")
}

func TestPackageWithoutTheFileIsNamed(t *testing.T) {
	t.Parallel()
	f := fetcher(t)
	f.npm = program(t, "")
	_, err := f.source(t.Context(), files[1])
	require.ErrorContains(t, err, "npm has installed what package-lock.json names, but not")
}

func TestFailuresOfNPMSayWhatToDo(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]string{
		"npm error code EAI_AGAIN":   "the registry could not be reached",
		"npm error code ENOSPC":      "the disk is full",
		"npm error code EINTEGRITY":  "wrong checksum; do not use it",
		"npm error code E404":        "the registry refused a package",
		"npm error code EUSAGE":      "do not fit together",
		"npm error something is off": "its messages say why",
	} {
		f := fetcher(t)
		f.npm = program(t, "echo '"+message+"' >&2; exit 1")
		_, err := f.source(t.Context(), files[0])
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, message)
	}
}

func TestMachineWithoutNPMIsToldWhatToInstall(t *testing.T) {
	t.Parallel()
	f := fetcher(t)
	f.npm = []string{"no such program"}
	_, err := f.source(t.Context(), files[0])
	require.ErrorContains(t, err, "npm is not installed: install Node.js")
}

func TestNPMEndsWithTheContext(t *testing.T) {
	t.Parallel()
	f := fetcher(t)
	f.npm = program(t, "exec sleep 60")
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	_, err := f.source(ctx, files[0])
	require.ErrorIs(t, err, enough)
}

func TestEveryPlatformHasItsLibraryPinned(t *testing.T) {
	t.Parallel()
	require.Equal(t, "darwin/amd64, darwin/arm64, linux/amd64, linux/arm64", platforms())
	for platform, l := range libraries {
		require.Len(t, l.sha256, 64, platform)
		require.Positive(t, l.size, platform)
	}
}
