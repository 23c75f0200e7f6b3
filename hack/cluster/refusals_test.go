//nolint:thelper // what takes a *testing.T here is a step, unless it begins with t.Helper
package cluster_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// refusesBadManifests has the cluster refuse what the check without one, hack/manifests, refuses in its place.
func refusesBadManifests(t *testing.T) {
	data, err := os.ReadFile(root + "/hack/manifests/refused.yaml")
	require.NoError(t, err)
	var changes []struct {
		Name, After, Old, New string
		Want                  string // said without a cluster
		Cluster               string // said by one, if in other words
		Feature               string // of Knative's, off by default: with it this is no mistake
	}
	require.NoError(t, yaml.Unmarshal(data, &changes))
	manifests, refused := joined(t), 0
	var features struct{ Data map[string]string }
	require.NoError(t, json.Unmarshal(kubectl(t, "-n", "knative-serving", "get", "configmap", "config-features", "-o", "json"), &features))
	for _, c := range changes {
		t.Run(c.Name, func(t *testing.T) {
			if value := features.Data[c.Feature]; value != "" && !strings.EqualFold(value, "disabled") {
				t.Skipf("this cluster has %s: %s", c.Feature, value)
			}
			before, behind, found := strings.Cut(manifests, c.After)
			require.True(t, found, "%q is nowhere", c.After)
			bad := before + c.After + strings.Replace(behind, c.Old, c.New, 1)
			good, changed := theDifferentOne(t, manifests, bad)
			require.Contains(t, refusal(t, good), "AlreadyExists", "what is good is taken, but for being there")
			require.Contains(t, refusal(t, changed), cmp.Or(c.Cluster, c.Want))
			refused++
		})
	}
	measured("bad manifests", "%d of %d refused by the cluster, with what is wrong", refused, len(changes))
}

// joined is all manifests as one, as hack/manifests joins them, with images that might be.
func joined(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	for _, pattern := range []string{"*.yaml", "models/*.yaml"} {
		files, err := filepath.Glob(root + "/config/" + pattern)
		require.NoError(t, err)
		for _, file := range files {
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			b.WriteString("---\n# " + filepath.Base(file) + "\n")
			b.Write(data)
		}
	}
	return strings.ReplaceAll(b.String(), "ko://", "registry.example/")
}

// theDifferentOne is the document in which two texts differ, as it is in each.
func theDifferentOne(t *testing.T, a, b string) (inA, inB string) {
	t.Helper()
	as, bs := strings.Split(a, "\n---\n"), strings.Split(b, "\n---\n")
	require.Len(t, bs, len(as))
	for i := range as {
		if as[i] != bs[i] {
			return as[i], bs[i]
		}
	}
	t.Fatal("nothing differs")
	return "", ""
}

// refusal is what the API server says when an object is made, which it does not keep.
func refusal(t *testing.T, manifest string) string {
	t.Helper()
	_, err := run(t.Context(), []byte(manifest), "kubectl", "create", "--dry-run=server", "--validate=strict", "-f", "-")
	require.Error(t, err, "it was taken")
	return err.Error()
}
