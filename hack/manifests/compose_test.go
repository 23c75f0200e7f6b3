package manifests

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models"
)

const composeFolder = folder + "/compose"

// composed is what `docker compose config` makes of Ebb's file: it is the same code.
func composed(t *testing.T, file string) (*types.Project, error) {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{file}, cli.WithWorkingDirectory(composeFolder))
	require.NoError(t, err)
	return options.LoadProject(t.Context())
}

func TestComposeTakesTheFileAndItsPartsFit(t *testing.T) {
	t.Parallel()
	project, err := composed(t, composeFolder+"/compose.yaml")
	require.NoError(t, err)
	var definitions struct{ Exchanges, Queues []struct{ Name string } }
	text, err := os.ReadFile(composeFolder + "/definitions.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &definitions))
	declared, consumed := map[string]bool{}, map[string]bool{}
	for _, x := range definitions.Exchanges {
		declared[x.Name] = true
	}
	for _, q := range definitions.Queues {
		declared[q.Name] = true
	}
	variable := func(s types.ServiceConfig, name string) string {
		if v := s.Environment[name]; v != nil {
			return *v
		}
		return ""
	}
	for name, service := range project.Services {
		_, version, _ := strings.Cut(filepath.Base(service.Image), ":")
		function, ours := strings.CutPrefix(strings.SplitN(service.Image, ":", 2)[0], "ko.local/")
		require.True(t, ours || version != "" && version != "latest", "%s has any version of its image", name)
		if ours {
			known, err := System{Root: root}.settings(function)
			require.NoError(t, err)
			for v := range service.Environment {
				require.True(t, known[v], "%s knows no variable %s", function, v)
			}
		}
		if ours || strings.Contains(service.Image, "eventing-rabbitmq") {
			require.True(t, service.ReadOnly && len(service.CapDrop) == 1, name)
		}
		for _, v := range service.Volumes {
			if v.Type == types.VolumeTypeBind {
				require.FileExists(t, existing(t, v.Source), name)
			}
		}
		for _, v := range []string{"QUEUE_NAME", "DLX_NAME", "EXCHANGE_NAME"} {
			if is := variable(service, v); is != "" {
				require.True(t, declared[is], "%s of %s is not among the definitions", v, name)
				consumed[is] = true
			}
		}
		for _, v := range []string{"SUBSCRIBER", "BROKER_URL", "RABBIT_URL", "RABBITMQ_URL", "BROKER_INGRESS_URL"} {
			if is := variable(service, v); is != "" {
				u, err := url.Parse(is)
				require.NoError(t, err)
				require.Contains(t, project.Services, u.Hostname(), "%s of %s", v, name)
			}
		}
	}
	for _, q := range definitions.Queues {
		require.True(t, consumed[q.Name], "nobody consumes %s", q.Name)
	}
	all, err := models.ReadFolders(composeFolder + "/models")
	require.NoError(t, err)
	require.NotEmpty(t, all)
	for _, m := range all {
		require.Contains(t, project.Services, "dispatch-"+m.Name)
		require.Contains(t, variable(project.Services["deadletter"], "ATTEMPTS"), m.Name+":")
		require.Equal(t, m.Serving.Model, variable(project.Services["serving"], "MODEL_NAME"))
	}
}

// existing is path, or a file in it when it is a folder.
func existing(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	if !info.IsDir() {
		return path
	}
	found, err := filepath.Glob(filepath.Join(path, "*.yaml"))
	require.NoError(t, err)
	if len(found) == 0 {
		found, err = filepath.Glob(filepath.Join(path, "*", "*.yaml"))
		require.NoError(t, err)
	}
	require.NotEmpty(t, found)
	return found[0]
}

func TestComposeRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(composeFolder + "/compose.yaml")
	require.NoError(t, err)
	for name, c := range map[string]struct{ old, new, want string }{
		"a field":                  {"    hostname: rabbitmq", "    hostnam: rabbitmq", "hostnam"},
		"a service to wait for":    {"depends_on: {resnet:", "depends_on: {resnett:", "resnett"},
		"a volume":                 {`volumes: ["resnet:/models/resnet:ro"]`, `volumes: ["resnett:/models/resnet:ro"]`, "resnett"},
		"a variable without value": {"${EBB_VERSION:-latest}", "${EBB_VERSION:?which}", "EBB_VERSION"},
	} {
		file := filepath.Join(t.TempDir(), "compose.yaml")
		require.Contains(t, string(text), c.old, name)
		require.NoError(t, os.WriteFile(file, []byte(strings.Replace(string(text), c.old, c.new, 1)), 0o600))
		_, err := composed(t, file)
		require.ErrorContains(t, err, c.want, name)
	}
}
