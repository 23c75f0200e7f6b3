package knative

import (
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheReleasesAreThoseWhoseTypesTheManifestsAreCheckedWith holds the versions together: Knative's release 1.N is the modules' 0.N+27.
func TestTheReleasesAreThoseWhoseTypesTheManifestsAreCheckedWith(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../manifests/go.mod")
	require.NoError(t, err)
	modules := map[string]string{
		"Knative Serving": "knative.dev/serving", "Knative Eventing": "knative.dev/eventing", "Knative's RabbitMQ broker": "knative.dev/eventing-rabbitmq",
		"RabbitMQ's cluster operator": "github.com/rabbitmq/cluster-operator/v2", "RabbitMQ's messaging topology operator": "github.com/rabbitmq/messaging-topology-operator",
	}
	found := 0
	for _, r := range releases {
		module, ok := modules[r.name]
		if !ok {
			continue
		}
		found++
		is := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(module) + ` v(\d+)\.(\d+)\.`).FindSubmatch(text)
		require.NotNil(t, is, module)
		major, minor := string(is[1]), string(is[2])
		if major == "0" {
			var n int
			_, err := fmt.Sscan(minor, &n)
			require.NoError(t, err)
			major, minor = "1", fmt.Sprint(n-27)
		}
		require.True(t, strings.HasPrefix(r.version, "v"+major+"."+minor+"."), "%s is %s, and the manifests are checked with %s", r.name, r.version, is[0])
	}
	require.Equal(t, len(modules), found)
}

func TestEveryFileIsOfItsReleaseAndHasANameOfItsOwn(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, r := range releases {
		for _, file := range r.files {
			u, err := url.Parse(file)
			require.NoError(t, err)
			require.Equal(t, "https", u.Scheme)
			require.Contains(t, u.Path, r.version+"/", "%s is not of %s", file, r.version)
			require.False(t, names[fileName(file)], file)
			names[fileName(file)] = true
		}
	}
}

func TestOnlyWhatIsNotSaidYetIsPatched(t *testing.T) {
	t.Parallel()
	is := map[string]any{"data": map[string]any{"a": "1", "b": "2"}, "ports": []any{map[string]any{"port": 80.0, "protocol": "TCP"}}}
	for name, c := range map[string]struct {
		want any
		has  bool
	}{
		"a part":         {map[string]any{"data": map[string]any{"a": "1"}}, true},
		"another value":  {map[string]any{"data": map[string]any{"a": "2"}}, false},
		"one more":       {map[string]any{"data": map[string]any{"c": "3"}}, false},
		"something else": {map[string]any{"spec": map[string]any{}}, false},
		"a list":         {map[string]any{"ports": []any{map[string]any{"port": 80.0}}}, true},
		"a longer list":  {map[string]any{"ports": []any{map[string]any{"port": 80.0}, map[string]any{"port": 443.0}}}, false},
	} {
		require.Equal(t, c.has, has(is, c.want), name)
	}
}
