//nolint:thelper // what takes a *testing.T here is a step, unless it begins with t.Helper
package cluster_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// accounts are those of the functions.
var accounts = []string{"ingress", "dispatch", "deadletter", "modelserver", "modelsync"}

// mayDoNothingElse sees that a function's account has what every account of any namespace has, and no more, and that no pod
// has a token at all. That they can do their work the other steps see.
func mayDoNothingElse(t *testing.T) {
	everybody := mayDo(t, "somebody", "--as-group=system:authenticated", "--as-group=system:serviceaccounts")
	require.NotEmpty(t, everybody)
	for _, account := range accounts {
		who := "system:serviceaccount:" + namespace + ":" + account
		require.Equal(t, everybody, mayDo(t, who), account)
		for _, what := range []string{
			"get secrets", "list configmaps", "create pods", "create pods/exec", "create serviceaccounts/token",
			"patch services.serving.knative.dev", "delete triggers.eventing.knative.dev", "create rolebindings.rbac.authorization.k8s.io",
		} {
			// It exits with 1 to say no.
			out, _ := run(t.Context(), nil, "kubectl", append([]string{"auth", "can-i", "-n", namespace, "--as", who}, strings.Fields(what)...)...)
			require.Equal(t, "no", strings.TrimSpace(string(out)), "%s: %s", account, what)
		}
	}

	_, _, err := ask(t, address(t), "cat", "chelsea.png", true) // so that there are pods
	require.NoError(t, err)
	var deployments, pods struct{ Items []running }
	require.NoError(t, json.Unmarshal(kubectl(t, "-n", namespace, "get", "deployments", "-l", "app.kubernetes.io/part-of=ebb", "-o", "json"), &deployments))
	require.NoError(t, json.Unmarshal(kubectl(t, "-n", namespace, "get", "pods", "-l", "app.kubernetes.io/part-of=ebb", "-o", "json"), &pods))
	used := map[string]bool{}
	for _, d := range deployments.Items {
		used[d.Spec.Template.Spec.ServiceAccountName] = true
		requireNoToken(t, d.Metadata.Name, d.Spec.Template.Spec)
	}
	for _, account := range accounts {
		require.True(t, used[account], "no function has the account %s", account)
	}
	require.Len(t, used, len(accounts))
	require.NotEmpty(t, pods.Items)
	for _, p := range pods.Items {
		requireNoToken(t, p.Metadata.Name, p.Spec.podSpec)
	}
	measured("rights", "the %d accounts have those of everybody and no more; none of %d pods has a token", len(accounts), len(pods.Items))
}

// mayDo is what somebody may do in the namespace, sorted.
func mayDo(t *testing.T, who string, args ...string) []string {
	t.Helper()
	out := kubectl(t, append([]string{"auth", "can-i", "--list", "--no-headers", "-n", namespace, "--as", who}, args...)...)
	rules := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i, rule := range rules {
		rules[i] = strings.Join(strings.Fields(rule), " ")
	}
	slices.Sort(rules)
	return slices.Compact(rules)
}

// running is a pod, or what makes pods.
type running struct {
	Metadata struct{ Name string }
	Spec     struct {
		podSpec
		Template struct{ Spec podSpec }
	}
}

type podSpec struct {
	ServiceAccountName           string
	AutomountServiceAccountToken *bool
	Volumes                      []struct {
		Name      string
		Projected *struct {
			Sources []struct{ ServiceAccountToken *struct{} }
		}
	}
	Containers []struct {
		Name         string
		VolumeMounts []struct{ MountPath string }
	}
}

func requireNoToken(t *testing.T, who string, p podSpec) {
	t.Helper()
	require.Contains(t, accounts, p.ServiceAccountName, who)
	require.NotNil(t, p.AutomountServiceAccountToken, who)
	require.False(t, *p.AutomountServiceAccountToken, who)
	for _, v := range p.Volumes {
		if v.Projected != nil {
			for _, source := range v.Projected.Sources {
				require.Nil(t, source.ServiceAccountToken, "%s: a token is in the volume %s", who, v.Name)
			}
		}
	}
	for _, c := range p.Containers {
		for _, m := range c.VolumeMounts {
			require.NotContains(t, m.MountPath, "serviceaccount", "%s: %s", who, c.Name)
		}
	}
}
