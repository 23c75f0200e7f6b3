package oci

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/stretchr/testify/require"
)

// Workload Identity's metadata server is often not ready in the first seconds of a pod.
func TestCredentialsThatCameLateAreUsed(t *testing.T) {
	var ready atomic.Bool
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !ready.Load() || !strings.HasSuffix(r.URL.Path, "/service-accounts/default/token") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"of-the-pod","expires_in":3600,"token_type":"Bearer"}`)
	}))
	defer metadata.Close()
	t.Setenv("GCE_METADATA_HOST", metadata.Listener.Addr().String())
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	t.Setenv("HOME", t.TempDir())

	password := func(repository string) string {
		repo, err := name.NewRepository(repository)
		require.NoError(t, err)
		found, err := authn.Resolve(t.Context(), surroundings{}, repo)
		require.NoError(t, err)
		config, err := found.Authorization()
		require.NoError(t, err)
		return config.Password
	}
	require.Empty(t, password("europe-docker.pkg.dev/project/models"), "public images can be read")
	ready.Store(true)
	require.Equal(t, "of-the-pod", password("europe-docker.pkg.dev/project/models"))
	require.Equal(t, "of-the-pod", password("eu.gcr.io/project/models"))
	for _, other := range []string{"registry.example/models", "gcr.io.example/models", "notgcr.io/models", "127.0.0.1:5000/models"} {
		require.Empty(t, password(other), "Google's credentials are for Google's registries: %s", other)
	}
}
