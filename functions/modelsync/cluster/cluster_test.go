package cluster_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/ebb-inference/ebb/functions/modelsync/cluster"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/image"
	"github.com/ebb-inference/ebb/models/oci"
)

func TestServiceIsWhatTheAddressSays(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"inception-v3.ebb.svc.cluster.local:80":   "inception-v3",
		"inception-v3.ebb.svc.example.com:80":     "inception-v3",
		"inception-v3.other.svc.cluster.local:80": "",
		"inception-v3.ebb.svc.cluster.local:8500": "",
		"inception-v3.ebb.svc.cluster.local":      "",
		"serving.example:80":                      "",
		".ebb.svc.cluster.local:80":               "",
		"":                                        "",
	} {
		got, err := cluster.ServiceOf(address, "ebb")
		require.Equal(t, want, got, address)
		require.Equal(t, want == "", err != nil, address)
	}
}

func TestNetworksThatCannotBeRolledOutAreSaid(t *testing.T) {
	t.Parallel()
	network := func(name, address string) *models.Network {
		return &models.Network{Name: name, Address: address, Source: models.Source{URL: "gs://models/" + name}}
	}
	config := cluster.Config{
		API: &rest.Config{Host: "http://127.0.0.1:1"}, Namespace: "ebb", Registry: oci.New(oci.Options{}), Holder: "test",
		Fetch: func(context.Context, string) ([]byte, error) { return nil, errors.New("no picture is by URL") },
	}
	const one, two = "one.ebb.svc.cluster.local:80", "two.ebb.svc.cluster.local:80"
	joined, err := cluster.Networks(config, []*models.Network{network("a", one), network("b", two)})
	require.NoError(t, err)
	require.Len(t, joined, 2)
	_, err = cluster.Networks(config, []*models.Network{network("a", one), network("b", one), network("c", "elsewhere:8500")})
	require.ErrorContains(t, err, "networks a and b are both served by the Service one")
	require.ErrorContains(t, err, `network c: serving.address is "elsewhere:8500"`)
}

func TestImagesGoBesideTheServersOwn(t *testing.T) {
	t.Parallel()
	registry := httptest.NewServer(ggcr.New())
	t.Cleanup(registry.Close)
	host := strings.TrimPrefix(registry.URL, "http://")
	client := oci.New(oci.Options{})
	t.Cleanup(client.Close)
	server, err := random.Image(64, 1)
	require.NoError(t, err)
	to, err := oci.Repository(host + "/ebb/modelserver")
	require.NoError(t, err)
	pusher, err := client.Pusher()
	require.NoError(t, err)
	require.NoError(t, pusher.Push(t.Context(), to.Tag("latest"), server))

	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "model.onnx"), []byte("weights"), 0o600))
	c := rollout.Candidate{Version: 2, Digest: "sha256:" + strings.Repeat("a", 64), Source: "gs://models/net", Dir: dir}
	for repository, want := range map[string]string{"": host + "/ebb/modelserver@sha256:", host + "/elsewhere": host + "/elsewhere@sha256:"} {
		images := cluster.Images{Registries: image.New(client), Repository: repository}
		first, err := images.Build(t.Context(), host+"/ebb/modelserver:latest", "", "net", c)
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(first, want), first)
		again, err := images.Build(t.Context(), host+"/ebb/modelserver:latest", "", "net", c)
		require.NoError(t, err)
		require.Equal(t, first, again)
		require.NoError(t, images.Remove(t.Context(), first))
		require.NoError(t, images.Remove(t.Context(), first), "what is gone is removed")
	}
}
