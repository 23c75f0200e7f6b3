package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHelpNamesEverythingThatCanBeFetched(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, run(t.Context(), []string{"-h"}, &out))
	for _, w := range []string{"inception_v3", "resnet50", "runtime", "pictures", "-out", "-root", "-timeout"} {
		require.Contains(t, out.String(), w)
	}
}

func TestUnknownThingIsRefusedBeforeAnyIsFetched(t *testing.T) {
	t.Parallel()
	err := run(t.Context(), []string{"-root", t.TempDir(), "inception_v3", "alexnet"}, t.Output())
	require.EqualError(t, err, `there is no "alexnet" to fetch; there are inception_v3, resnet50, runtime and pictures`)
}
