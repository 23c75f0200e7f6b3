// Package functions_test holds the project's layering: what may import what.
package functions_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/ebb-inference/ebb/"

// compiled lists the packages that go list names for args, with all that they compile.
func compiled(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-deps"}, args...)...)
	cmd.Dir = ".." // the module's root
	out, err := cmd.Output()
	require.NoError(t, err)
	packages := strings.Fields(string(out))
	require.NotEmpty(t, packages)
	return packages
}

func requireNone(t *testing.T, packages, prefixes []string) {
	t.Helper()
	for _, pkg := range packages {
		for _, prefix := range prefixes {
			require.False(t, strings.HasPrefix(pkg, prefix), "compiles %s", pkg)
		}
	}
}

func TestLayersKnowOnlyWhatIsBelowThem(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name      string
		list      []string
		forbidden []string
	}{
		{"events know nothing of models", []string{"-test", "./events/..."}, []string{module + "models", module + "functions", module + "hack"}},
		{"models know nothing of events", []string{"-test", "./models/..."}, []string{module + "events", module + "functions", module + "hack"}},
		{"functions run without the tools", []string{"./functions/..."}, []string{module + "hack"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			requireNone(t, compiled(t, tc.list...), tc.forbidden)
		})
	}
}

func TestFunctionsThatColdStartCompileNothingHeavy(t *testing.T) {
	t.Parallel()
	heavy := []string{"k8s.io/", "sigs.k8s.io/", "knative.dev/", "github.com/getkin/", "github.com/chromedp/", "gonum.org/"}
	for _, function := range []string{
		"./functions/ingress", "./functions/dispatch", "./functions/deadletter", "./functions/local",
		"./functions/modelsync/rollout", "./functions/modelsync/service", "./functions/modelsync/folder", // which are in local
	} {
		t.Run(function, func(t *testing.T) {
			t.Parallel()
			requireNone(t, compiled(t, function), heavy)
		})
	}
}
