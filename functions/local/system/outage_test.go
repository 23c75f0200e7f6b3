package system_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"mime/multipart"
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
	call := func(method, path string, body []byte, header ...string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), method, path, bytes.NewReader(body))
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		sys.ServeHTTP(w, r)
		return w
	}
	picture := read(t, "chelsea.png")
	sure := func(w *httptest.ResponseRecorder) {
		t.Helper()
		require.Equal(t, http.StatusOK, w.Code, "%s", w.Body)
		var got ask.Response
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
		requireSure(t, got.Results[0], "cat", true)
	}
	sure(call(http.MethodPost, "/v1/infer?model=cat", picture))
	accepted := call(http.MethodPost, "/v1/infer?model=cat", picture, "Prefer", "respond-async")
	require.Equal(t, http.StatusAccepted, accepted.Code, "%s", accepted.Body)
	location := accepted.Header().Get("Location")

	require.NoError(t, node.Sync(t.Context()))
	require.NoError(t, node.Kill())
	requireReadiness(t, sys, http.StatusServiceUnavailable)
	form, contentType := formWith(t, "cat", picture)
	for what, refused := range map[string]*httptest.ResponseRecorder{
		"who waits":        call(http.MethodPost, "/v1/infer?model=cat", picture),
		"who does not":     call(http.MethodPost, "/v1/infer?model=cat", picture, "Prefer", "respond-async"),
		"who comes back":   call(http.MethodGet, location, nil),
		"who has the page": call(http.MethodPost, "/home", form, "Content-Type", contentType),
	} {
		require.Equal(t, http.StatusServiceUnavailable, refused.Code, "%s: %s", what, refused.Body)
		require.NotEmpty(t, refused.Header().Get("Retry-After"), what)
	}

	require.NoError(t, node.Start(t.Context()))
	requireReadiness(t, sys, http.StatusOK)
	// Ready is what was so a moment ago: the broker ingress may end once more, of what it met before, and be started again. Until
	// then callers hear when to come back, and do.
	var answered, collected *httptest.ResponseRecorder
	require.Eventually(t, func() bool {
		answered = call(http.MethodPost, "/v1/infer?model=cat", picture)
		return answered.Code != http.StatusServiceUnavailable || answered.Header().Get("Retry-After") == ""
	}, time.Minute, 20*time.Millisecond)
	sure(answered)
	require.Eventually(t, func() bool {
		collected = call(http.MethodGet, location, nil)
		return collected.Code == http.StatusOK
	}, time.Minute, 20*time.Millisecond)
	sure(collected)
}

// formWith is what the page sends.
func formWith(t *testing.T, model string, picture []byte) (body []byte, contentType string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	part, err := w.CreateFormFile("image", "picture.png")
	require.NoError(t, err)
	_, err = part.Write(picture)
	require.NoError(t, err)
	require.NoError(t, w.WriteField("model", model))
	require.NoError(t, w.Close())
	return b.Bytes(), w.FormDataContentType()
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
