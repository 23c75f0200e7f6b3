package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// standIn is a kubectl that knows the image of dispatch and of nothing else, and keeps what it is to apply.
const standIn = `#!/bin/sh
case "$*" in
*get*component=dispatch*) echo "registry.example/dispatch@sha256:1 registry.example/dispatch@sha256:1" ;;
*get*) ;;
"apply -f -") cat > "$APPLIED" ;;
*) exit 1 ;;
esac
`

func TestAModelIsAppliedWithTheImagesThatAreThere(t *testing.T) {
	t.Parallel()
	bin, applied := t.TempDir(), filepath.Join(t.TempDir(), "applied")
	require.NoError(t, os.WriteFile(filepath.Join(bin, "kubectl"), []byte(standIn), 0o700))
	run := func(files ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "../apply", files...)
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "APPLIED="+applied)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run(project+"/models/cat.yaml", project+"/500-callbacks.yaml")
	require.NoError(t, err, out)
	text := read(t, applied)
	require.Contains(t, text, "image: registry.example/dispatch@sha256:1\n")
	require.NotContains(t, text, "ko://")
	require.Contains(t, text, "name: callbacks\n")

	require.NoError(t, os.Remove(applied))
	out, err = run(project + "/300-ingress.yaml")
	require.Error(t, err)
	require.Contains(t, out, "the cluster runs no ingress yet")
	require.NoFileExists(t, applied)
	_, err = run()
	require.Error(t, err)
}
