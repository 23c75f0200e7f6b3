package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"testing"

	"github.com/sethvargo/go-envconfig"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/functions/internal/app"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Where nobody names a source modelsync has no account with Kubernetes, and a Service that never gets ready would hold up the
// deployment of all.
func TestWithoutASourceItIsReadyWithoutACluster(t *testing.T) {
	t.Parallel()
	logs, write := io.Pipe()
	a := &app.App{
		Name: "modelsync", Version: "test", Logger: slog.New(slog.NewJSONHandler(write, nil)),
		Lookup: envconfig.MapLookuper(map[string]string{
			"HOST": "127.0.0.1", "PORT": "0", "METRICS_PORT": "0", "NAMESPACE": "ebb", "MODELS": "../../config/compose/models",
		}),
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, a)
		ended <- err
		_ = write.Close() // a pipe's Close never fails
	}()
	address := ""
	lines := bufio.NewScanner(logs)
	for ready := false; (!ready || address == "") && lines.Scan(); {
		var line struct{ Msg, Address string }
		require.NoError(t, json.Unmarshal(lines.Bytes(), &line))
		if line.Msg == "serving" {
			address = line.Address
		}
		ready = ready || line.Msg == "ready"
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines.Scan() { // the pipe has no memory
		}
	}()
	if address == "" {
		require.Fail(t, "it ended early", "%v", <-ended)
	}

	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/v1/networks", http.NoBody)
	require.NoError(t, err)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode, "%s", body)
	require.JSONEq(t, `{"networks":[]}`, string(body))

	stop()
	require.NoError(t, <-ended)
	<-drained
}
