package onnxtest

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/functions/modelserver/onnx"
)

// Loader returns a loader with the library that ONNXRUNTIME_LIB names, or the fetched one. Without any the test fails,
// and says how to get it.
func Loader(tb testing.TB, o onnx.Options) *onnx.Loader {
	tb.Helper()
	o.Library = os.Getenv("ONNXRUNTIME_LIB")
	l, err := onnx.NewLoader(o)
	require.NoError(tb, err)
	return l
}
