//nolint:thelper // what takes a *testing.T here is a step, unless it begins with t.Helper
package cluster_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// blocks finds the commands in Markdown.
var blocks = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// worksAsTheGuideSays runs every command of the section "Day to day" of config/README.md, in its order, and sees that what is
// said of it is so.
func worksAsTheGuideSays(t *testing.T) {
	guide, err := os.ReadFile(root + "/config/README.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(guide), "\n## Day to day\n")
	require.True(t, found)
	section, _, found = strings.Cut(section, "\n### Trying it out\n")
	require.True(t, found)
	awaitGone(t)
	// What the manifests do not say they leave as it is.
	defer func() {
		command(t, nil, "kn", "service", "update", "ingress", "-n", namespace, "--traffic", "@latest=100")
		command(t, nil, "kn", "service", "update", "inception-v3", "-n", namespace, "--scale-min", "0")
		command(t, nil, "ko", "apply", "-f", "config/", "-f", "config/models/")
	}()

	services := []string{"ingress", "deadletter", "inception-v3", "dispatch-cat", "dispatch-dog", "dispatch-imagenet"}
	effects := map[string]func(t *testing.T, out string){
		"kn service list -n ebb":             says(services...),
		"kn service describe ingress -n ebb": says("@latest"),
		"kn revision list -n ebb":            says("ingress-00001", "dispatch-cat-00001"),
		"kn trigger list -n ebb":             says("cat", "dog", "imagenet", "callbacks"),
		"kn broker describe ebb -n ebb":      says("http://ebb-broker-ingress.ebb.svc.cluster.local"),
		"kn service update dispatch-cat -n ebb --scale 0..5 --scale-target 32": func(t *testing.T, _ string) {
			annotations := service(t, "dispatch-cat").Spec.Template.Metadata.Annotations
			require.Equal(t, "0", annotations["autoscaling.knative.dev/min-scale"])
			require.Equal(t, "5", annotations["autoscaling.knative.dev/max-scale"])
			require.Equal(t, "32", annotations["autoscaling.knative.dev/target"])
		},
		"kn service update inception-v3 -n ebb --scale-min 1": func(t *testing.T, _ string) {
			eventually(t, func() string {
				if replicas(t)["inception-v3"] == 0 {
					return "there is no model server"
				}
				return ""
			})
		},
		"kn service update inception-v3 -n ebb --scale-min 0": func(t *testing.T, _ string) {
			require.Equal(t, "0", service(t, "inception-v3").Spec.Template.Metadata.Annotations["autoscaling.knative.dev/min-scale"])
		},
		"kn service update ingress -n ebb --env TIMEOUT=20s": func(t *testing.T, _ string) {
			s := service(t, "ingress").Status
			require.NotEqual(t, "ingress-00001", s.LatestReadyRevisionName)
			require.Equal(t, map[string]int{s.LatestReadyRevisionName: 100}, traffic(t))
		},
		"kn service update ingress -n ebb --traffic @latest=10,ingress-00001=90": func(t *testing.T, _ string) {
			require.Equal(t, map[string]int{"ingress-00001": 90, service(t, "ingress").Status.LatestReadyRevisionName: 10}, traffic(t))
		},
		"kn service update ingress -n ebb --traffic ingress-00001=100": func(t *testing.T, _ string) {
			require.Equal(t, map[string]int{"ingress-00001": 100}, traffic(t))
		},
		"kn service update ingress -n ebb --traffic @latest=100": func(t *testing.T, _ string) {
			require.Equal(t, map[string]int{service(t, "ingress").Status.LatestReadyRevisionName: 100}, traffic(t))
		},
	}
	ran := 0
	for _, block := range blocks.FindAllStringSubmatch(section, -1) {
		for line := range strings.Lines(block[1]) {
			line = strings.TrimSpace(line)
			effect, known := effects[line]
			require.True(t, known, "the test does not know what this is for: %s", line)
			out := command(t, nil, "bash", "-ec", line)
			eventually(t, func() string { return notReady(t) })
			effect(t, string(out))
			for range 3 {
				_, _, err := ask(t, address(t), "cat", "chelsea.png", true)
				require.NoError(t, err, "after %s", line)
			}
			ran++
		}
	}
	require.Equal(t, len(effects), ran, "commands in the guide")
	measured("commands of the guide", "%d run, each with the effect that it says", ran)
}

// says is for commands that only show something.
func says(what ...string) func(*testing.T, string) {
	return func(t *testing.T, out string) {
		for _, w := range what {
			require.Contains(t, out, w)
		}
		require.NotContains(t, out, "False")
	}
}

// deployed is a Service.
type deployed struct {
	Spec struct {
		Template struct {
			Metadata struct{ Annotations map[string]string }
		}
	}
	Status struct {
		LatestReadyRevisionName string
		Traffic                 []struct {
			RevisionName string
			Percent      int
		}
	}
}

func service(t *testing.T, name string) (s deployed) {
	t.Helper()
	require.NoError(t, json.Unmarshal(kubectl(t, "-n", namespace, "get", "ksvc", name, "-o", "json"), &s))
	return s
}

// traffic is how many percent of what ingress is asked go to which revision.
func traffic(t *testing.T) map[string]int {
	t.Helper()
	found := map[string]int{}
	for _, target := range service(t, "ingress").Status.Traffic {
		if target.Percent > 0 {
			found[target.RevisionName] += target.Percent
		}
	}
	return found
}
