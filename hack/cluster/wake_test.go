//nolint:thelper // what takes a *testing.T here is a step
package cluster_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// unwoken asks from zero pods without ingress waking what a request needs, as a measure of what waking it is good for.
func unwoken(t *testing.T) {
	const times = 5
	before := environment(t)
	set(t, slices.DeleteFunc(slices.Clone(before), func(v variable) bool { return strings.HasPrefix(v.Name, "WAKE_") }))
	defer set(t, before)
	base := address(t)
	var took []time.Duration
	for range times {
		awaitZero(t)
		_, d, err := ask(t, base, "cat", "chelsea.png", true)
		require.NoError(t, err)
		took = append(took, d)
	}
	measured("the same, nothing woken ahead of the event", "median %.2f s, longest %.2f s; 0 failed", median(took).Seconds(), slices.Max(took).Seconds())
}

// variable is of a container's environment.
type variable struct {
	Name      string          `json:"name"`
	Value     string          `json:"value,omitempty"`
	ValueFrom json.RawMessage `json:"valueFrom,omitempty"`
}

// environment is what ingress is told by variables.
func environment(t *testing.T) (env []variable) {
	t.Helper()
	list := kubectl(t, "-n", namespace, "get", "ksvc", "ingress", "-o", "jsonpath={.spec.template.spec.containers[0].env}")
	require.NoError(t, json.Unmarshal(list, &env))
	require.NotEmpty(t, env)
	return env
}

// set gives ingress another environment, and returns when its new revision has the route.
func set(t *testing.T, env []variable) {
	t.Helper()
	list, err := json.Marshal(env)
	require.NoError(t, err)
	kubectl(t, "-n", namespace, "patch", "ksvc", "ingress", "--type=json",
		"-p", `[{"op": "replace", "path": "/spec/template/spec/containers/0/env", "value": `+string(list)+`}]`)
	eventually(t, func() string {
		of := kubectl(t, "-n", namespace, "get", "ksvc", "ingress", "-o", "jsonpath={.metadata.generation} {.status.observedGeneration}")
		if generation, observed, _ := strings.Cut(string(of), " "); generation != observed {
			return "Knative has not seen the change yet"
		}
		return notReady(t)
	})
}
