package oci_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/oci"
)

func TestPlainHTTPIsForWhatHasNoCertificates(t *testing.T) {
	t.Parallel()
	for registry, want := range map[string]string{
		"127.0.0.1:5000":                         "http",
		"localhost:5000":                         "http",
		"10.1.2.3:5000":                          "http",
		"registry.kube-system.svc:5000":          "http",
		"registry.kube-system.svc.cluster.local": "http",
		"registry.example":                       "https",
		"registry.example:5000":                  "https",
		"svc.example.svc.com":                    "https",
		"europe-docker.pkg.dev":                  "https",
	} {
		t.Run(registry, func(t *testing.T) {
			t.Parallel()
			repo, err := oci.Repository(registry + "/models/net")
			require.NoError(t, err)
			require.Equal(t, want, repo.Scheme())
			ref, err := oci.Reference(registry + "/models/net:1")
			require.NoError(t, err)
			require.Equal(t, want, ref.Context().Scheme())
		})
	}
}

func TestNamesThatAreNone(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, says string }{
		{"", "empty"},
		{strings.Repeat("a", 600), "600 bytes"},
		{"user:secret@registry.example/net", "docker's configuration"},
		{"registry.example/Net", "lower case"},
		{"registry.example/net:tag:tag", "tag"},
		{"registry.example/../net\n", "want"},
	} {
		t.Run(tc.says, func(t *testing.T) {
			t.Parallel()
			_, err := oci.Reference(tc.name)
			require.ErrorIs(t, err, oci.ErrName)
			require.ErrorContains(t, err, tc.says)
			require.NotContains(t, err.Error(), "secret")
			_, err = oci.Repository(tc.name)
			require.ErrorIs(t, err, oci.ErrName)
			require.NotContains(t, err.Error(), "\n")
		})
	}
	_, err := oci.Repository("net")
	require.ErrorIs(t, err, oci.ErrName, "it would be a public registry's")
}

// answered is what a registry said to a request for a URL.
func answered(t *testing.T, at string, status int, said ...transport.Diagnostic) error {
	t.Helper()
	u, err := url.Parse(at)
	require.NoError(t, err)
	return &transport.Error{Errors: said, StatusCode: status, Request: &http.Request{Method: http.MethodGet, URL: u}}
}

func TestErrorsSayWhatToDoAndNoSecrets(t *testing.T) {
	t.Parallel()
	const at = "https://me:secret@registry.example/v2/net/manifests/1?token=secret"
	broken := errors.New("connection reset")
	for _, tc := range []struct {
		name string
		err  error
		says []string
	}{
		{"not allowed", answered(t, at, http.StatusForbidden, transport.Diagnostic{Code: "DENIED", Message: "no"}), []string{"403 Forbidden", "DENIED: no", "DOCKER_CONFIG"}},
		{"unknown", answered(t, at, http.StatusUnauthorized), []string{"GET https://registry.example/v2/net/manifests/1: 401", "DOCKER_CONFIG"}},
		{"a connection lost", &url.Error{Op: "Get", URL: at, Err: broken}, []string{"Get https://registry.example/v2/net/manifests/1: connection reset"}},
		{"much said", answered(t, at, http.StatusTeapot, transport.Diagnostic{Message: strings.Repeat("\x1b[31m", 10_000)}), []string{"418", "…"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := oci.Explain(t.Context(), tc.err)
			for _, says := range tc.says {
				require.ErrorContains(t, err, says)
			}
			require.NotContains(t, err.Error(), "secret")
			require.NotContains(t, err.Error(), "\x1b")
			require.Less(t, len(err.Error()), 600)
			require.ErrorIs(t, err, tc.err)
		})
	}
	require.NoError(t, oci.Explain(t.Context(), nil))
	over, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, oci.Explain(over, broken), context.Canceled)
}

func TestWhatARegistryMeans(t *testing.T) {
	t.Parallel()
	const at = "https://registry.example/"
	require.True(t, oci.IsGone(answered(t, at, http.StatusNotFound)))
	require.False(t, oci.IsGone(answered(t, at, http.StatusForbidden)))
	require.False(t, oci.IsGone(errors.New("404")))
	require.True(t, oci.IsUnsupported(answered(t, at, http.StatusMethodNotAllowed)))
	require.True(t, oci.IsUnsupported(answered(t, at, http.StatusBadRequest, transport.Diagnostic{Code: transport.UnsupportedErrorCode})))
	require.False(t, oci.IsUnsupported(answered(t, at, http.StatusBadRequest)))
	require.False(t, oci.IsUnsupported(errors.New("405")))
}
