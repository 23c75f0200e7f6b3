package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/hack/tflite"
)

func TestHelpIsNoError(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, run([]string{"-h"}, &out))
	require.Contains(t, out.String(), "INPUT.tflite OUTPUT.onnx")
}

func TestErrorsNameTheFileAndLeaveNoOutput(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	in, out := filepath.Join(folder, "in.tflite"), filepath.Join(folder, "out.onnx")
	require.ErrorIs(t, run([]string{in, out}, t.Output()), os.ErrNotExist)
	require.NoError(t, os.WriteFile(in, []byte("no network"), 0o644))
	err := run([]string{in, out}, t.Output())
	require.ErrorIs(t, err, tflite.ErrCorrupt)
	require.ErrorContains(t, err, in)
	require.NoFileExists(t, out)
	require.ErrorContains(t, run([]string{in}, t.Output()), "want two arguments")
}
