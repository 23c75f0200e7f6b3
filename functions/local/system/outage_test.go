package system_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events/rabbitmq"
	"github.com/ebb-inference/ebb/events/rabbitmq/topology"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/local/system"
)

func TestWhenRabbitMQGoesAwayCallersAreToldAndWhenItComesBackTheyAreAnswered(t *testing.T) {
	t.Parallel()
	node, err := rabbitmq.New(t.Context(), rabbitmq.Config{Management: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, node.Remove()) })
	sys, err := system.Start(t.Context(), system.Config{
		Manifests: []string{root + "/config", root + "/config/models"}, Networks: networks, Logger: slog.New(slog.DiscardHandler),
		RabbitMQ: &system.RabbitMQ{Server: topology.Server{URL: node.URL(), ManagementURL: node.ManagementURL()}, Folder: t.TempDir(), Programs: programs},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sys.Stop(context.Background(), time.Minute)) })
	call := func(method, path string, body []byte) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		sys.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, bytes.NewReader(body)))
		return w
	}
	picture := read(t, "chelsea.png")
	answered := func() {
		t.Helper()
		w := call(http.MethodPost, "/v1/infer?model=cat", picture)
		require.Equal(t, http.StatusOK, w.Code, "%s", w.Body)
		var got ask.Response
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
		requireSure(t, got.Results[0], "cat", true)
	}
	answered()

	require.NoError(t, node.Sync(t.Context()))
	require.NoError(t, node.Kill())
	requireReadiness(t, sys, http.StatusServiceUnavailable)
	refused := call(http.MethodPost, "/v1/infer?model=cat", picture)
	require.Equal(t, http.StatusServiceUnavailable, refused.Code, "%s", refused.Body)
	require.NotEmpty(t, refused.Header().Get("Retry-After"))

	require.NoError(t, node.Start(t.Context()))
	requireReadiness(t, sys, http.StatusOK)
	answered()
}

// requireReadiness waits for a status of the readiness probe, and fails with what it said last.
func requireReadiness(t *testing.T, h http.Handler, status int) {
	t.Helper()
	var last *httptest.ResponseRecorder
	became := func() bool {
		last = httptest.NewRecorder()
		h.ServeHTTP(last, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/health/readiness", nil))
		return last.Code == status
	}
	if !assert.Eventually(t, became, time.Minute, 20*time.Millisecond) {
		t.Fatalf("readiness: %d: %s", last.Code, last.Body)
	}
}
