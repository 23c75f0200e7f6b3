package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/hack/standin/standintest"
)

func TestMain(m *testing.M) {
	os.Exit(standintest.Main(m))
}

// place is a project's folder and a Docker, as far as the stand-in has one.
type place struct {
	standintest.World
	root string
}

func newPlace(t *testing.T) place {
	t.Helper()
	root := t.TempDir()
	for _, folder := range []string{"download", "kind"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, "hack", folder), 0o755))
	}
	manifest, err := os.ReadFile("rabbitmq.yaml")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(root, "hack", "kind", "rabbitmq.yaml"), manifest, 0o600))
	return place{standintest.New(t), root}
}

func (p place) kind(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var log bytes.Buffer
	err := run(t.Context(), args, machine{log: &log, root: p.root, environ: p.Environ(), pause: time.Millisecond})
	return log.String(), err
}

func (p place) must(t *testing.T, args ...string) []string {
	t.Helper()
	said, err := p.kind(t, args...)
	require.NoError(t, err, said)
	return p.Commands(t)
}

func changing(commands []string) []string {
	reads := regexp.MustCompile(`^kind (get|export)|^docker (ps|inspect)|^kubectl (--namespace=\S+ )?(get|wait)`)
	return slices.DeleteFunc(slices.Clone(commands), reads.MatchString)
}

func TestUpMakesEverythingAndASecondOneChangesNothing(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	printed, err := p.kind(t, "-dry-run", "up")
	require.NoError(t, err)
	require.Empty(t, p.Commands(t))
	first := p.must(t, "up")
	require.Equal(t, standintest.Printed(printed, "KUBECONFIG="+filepath.Join(p.root, ".ebb", "kind", "ebb", "kubeconfig")), slices.Compact(first))
	state := p.State(t)
	require.Equal(t, "kind", state.Things["docker/ebb-registry"]["network"])
	require.Contains(t, state.Things, "kind/ebb")
	require.Equal(t, map[string]any{"stable-window": "10s", "scale-to-zero-grace-period": "5s"}, state.Kube["knative-serving/configmap/config-autoscaler"]["data"])
	require.Contains(t, fmt.Sprint(state.Kube["kourier-system/service/kourier"]), "nodePort:31080")

	env, err := os.ReadFile(filepath.Join(p.root, ".ebb", "kind", "ebb", "env"))
	require.NoError(t, err)
	require.Contains(t, string(env), "export RABBITMQ_URL='amqp://default_user_x:secret@172.18.0.2:30672/' RABBITMQ_MANAGEMENT_URL=http://172.18.0.2:31672\n")
	info, err := os.Stat(filepath.Join(p.root, ".ebb", "kind", "ebb", "env"))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
	require.NotContains(t, printed, "secret@")

	said, err := p.kind(t, "up")
	require.NoError(t, err)
	require.NotContains(t, said, "secret@")
	require.Empty(t, changing(p.Commands(t)))
}

func TestTheClusterHasTheRegistryAndThePorts(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.must(t, "-port=8099", "-registry-port=5055", "up")
	text, err := os.ReadFile(filepath.Join(p.root, ".ebb", "kind", "ebb", "cluster.yaml"))
	require.NoError(t, err)
	var config struct {
		Nodes []struct {
			ExtraPortMappings []struct {
				ContainerPort, HostPort int
				ListenAddress           string
			}
			ExtraMounts []struct{ HostPath string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &config))
	require.Len(t, config.Nodes, 1)
	require.Equal(t, 8099, config.Nodes[0].ExtraPortMappings[0].HostPort)
	require.Equal(t, "127.0.0.1", config.Nodes[0].ExtraPortMappings[0].ListenAddress)
	hosts, err := os.ReadFile(filepath.Join(config.Nodes[0].ExtraMounts[0].HostPath, "localhost:5055", "hosts.toml"))
	require.NoError(t, err)
	require.Equal(t, "[host.\"http://ebb-registry:5000\"]\n", string(hosts))

	manifest, err := os.ReadFile("rabbitmq.yaml")
	require.NoError(t, err)
	require.Contains(t, string(manifest), fmt.Sprintf("nodePort: %d}", amqpPort))
	require.Contains(t, string(manifest), fmt.Sprintf("nodePort: %d}", managementPort))
}

func TestItGoesOnAfterAFailureOfEveryStepAndDownRemovesTheRest(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before", "after"} {
		t.Run(when+" the change", func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			failed := p.FailEach(t, when, changing, func() error {
				_, err := p.kind(t, "up")
				return err
			})
			require.Greater(t, len(failed), 25)
			require.Empty(t, changing(p.must(t, "up")))
			p.FailEach(t, when, changing, func() error {
				_, err := p.kind(t, "down")
				return err
			})
			for name := range p.State(t).Things {
				require.False(t, strings.HasPrefix(name, "kind/") || strings.HasPrefix(name, "docker/"), name)
			}
			require.Empty(t, changing(p.must(t, "down")))
			require.NoDirExists(t, filepath.Join(p.root, ".ebb", "kind", "ebb"))
		})
	}
}

func TestWhatIsSomebodyElsesIsLeft(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Put(t, standintest.State{Things: map[string]map[string]any{"kind/ebb": {}, "kind/other": {}}})
	_, err := p.kind(t, "up")
	require.ErrorContains(t, err, "choose another -name")
	p.must(t, "down")
	require.Contains(t, p.State(t).Things, "kind/ebb")
	require.Contains(t, p.State(t).Things, "kind/other")
}

func TestHostileSettingsAreRefusedBeforeAnythingRuns(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"a flag for a name": {[]string{"-name=--force", "up"}, "-name"},
		"a path for a name": {[]string{"-name=../..", "down"}, "-name"},
		"no port":           {[]string{"-port=70000", "up"}, "-port"},
		"one port twice":    {[]string{"-port=5001", "up"}, "two ports"},
		"no verb":           {nil, "one of up and down"},
		"an unknown verb":   {[]string{"destroy"}, `there is no "destroy"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			_, err := p.kind(t, c.args...)
			require.ErrorContains(t, err, c.want)
			require.Empty(t, p.Commands(t))
		})
	}
}
