package onnx

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBytesAreMultipliedExactlyOnEveryProcessor(t *testing.T) {
	t.Parallel()
	require.Equal(t, "0", precise(true), "VNNI is exact")
	require.Equal(t, "1", precise(false), "without it overflow has to be ruled out")
}
