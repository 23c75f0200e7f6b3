package tally_test

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/functions/dispatch/worker"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/functions/modelsync/tally"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/tfserving"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// flaky is a model server whose version 2 answers, and whose every third call fails.
type flaky struct{ calls int }

func (f *flaky) Predict(_ context.Context, _ tfserving.Spec, _ map[string]tfserving.Tensor, outputs ...string) (map[string]tfserving.Tensor, int64, error) {
	if f.calls++; f.calls%3 == 0 {
		return nil, 0, errors.New("broken")
	}
	return map[string]tfserving.Tensor{outputs[0]: {DType: tfserving.Float32, Shape: []int64{1, 2}, Data: make([]byte, 8)}}, 2, nil
}

func (f *flaky) Status(context.Context, tfserving.Spec) ([]tfserving.VersionStatus, error) {
	return nil, nil
}

func TestWhatDispatchCountsIsWhatIsRead(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	exporter, err := promexporter.New(promexporter.WithRegisterer(registry))
	require.NoError(t, err)
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)))
	m, err := models.Parse(fstest.MapFS{
		"model.yaml": {Data: []byte("name: m\nserving: {address: 'x:1', model: net}\ninput: {tensor: i, dtype: uint8, width: 2, height: 2}\n" +
			"output: {tensor: o, labels: labels.txt}\n")},
		"labels.txt": {Data: []byte("a\nb\n")},
	}, "model.yaml")
	require.NoError(t, err)
	hub := reply.NewHub()
	inbox, err := hub.Listen(t.Context(), reply.Listener{Reply: func(*events.Result) {}, Lost: func(string) {}})
	require.NoError(t, err)
	address, err := inbox.Address()
	require.NoError(t, err)
	w, err := worker.New(worker.Config{Model: m, Predictor: &flaky{}, Responder: hub, Replica: "r"})
	require.NoError(t, err)
	var file bytes.Buffer
	require.NoError(t, png.Encode(&file, image.NewGray(image.Rect(0, 0, 2, 2))))
	for range 6 {
		r := &events.Request{
			ID: uuid.Must(uuid.NewV7()).String(), Source: "/t", Time: time.Now(), Model: "m", ReplyTo: address, CorrelationID: "c",
			Deadline: time.Now().Add(time.Minute), ContentType: "image/png", Data: file.Bytes(),
		}
		req, err := events.NewHTTPRequest(t.Context(), "http://dispatch.test/", r)
		require.NoError(t, err)
		w.ServeHTTP(httptest.NewRecorder(), req)
	}
	require.NoError(t, w.Stop(t.Context()))
	require.NoError(t, inbox.Close())

	counted, err := tally.NewProcess(registry, "net").Tallies(t.Context())
	require.NoError(t, err)
	require.Len(t, counted, 1)
	for _, is := range counted {
		requireFlaky(t, is)
	}
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	is, err := tally.Parse(rec.Body, "net")
	require.NoError(t, err)
	requireFlaky(t, is)
}

func requireFlaky(t *testing.T, is rollout.Tally) {
	t.Helper()
	require.EqualValues(t, 4, is.Answered[2].Calls)
	require.Positive(t, is.Answered[2].Seconds)
	require.Len(t, is.Answered, 1)
	require.EqualValues(t, 2, is.Failed)
}

const scraped = `# TYPE ebb_dispatch_compute_duration_seconds histogram
ebb_dispatch_compute_duration_seconds_bucket{model="cat",network="net",version="1",le="+Inf"} 10
ebb_dispatch_compute_duration_seconds_sum{model="cat",network="net",version="1"} 0.5
ebb_dispatch_compute_duration_seconds_count{model="cat",network="net",version="1"} 10
ebb_dispatch_compute_duration_seconds_bucket{model="dog",network="net",version="1",le="+Inf"} 5
ebb_dispatch_compute_duration_seconds_sum{model="dog",network="net",version="1"} 0.25
ebb_dispatch_compute_duration_seconds_count{model="dog",network="net",version="1"} 5
ebb_dispatch_compute_duration_seconds_bucket{model="dog",network="net",version="other",le="+Inf"} 5
ebb_dispatch_compute_duration_seconds_sum{model="dog",network="net",version="other"} 0.25
ebb_dispatch_compute_duration_seconds_count{model="dog",network="net",version="other"} 5
ebb_dispatch_compute_duration_seconds_bucket{model="x",network="another",version="1",le="+Inf"} 7
ebb_dispatch_compute_duration_seconds_sum{model="x",network="another",version="1"} 7
ebb_dispatch_compute_duration_seconds_count{model="x",network="another",version="1"} 7
# TYPE ebb_dispatch_compute_failures_total counter
ebb_dispatch_compute_failures_total{model="cat",network="net"} 3
ebb_dispatch_compute_failures_total{model="x",network="another"} 9
`

func TestTheModelsOfANetworkAreCountedTogether(t *testing.T) {
	t.Parallel()
	is, err := tally.Parse(strings.NewReader(scraped), "net")
	require.NoError(t, err)
	require.Equal(t, rollout.Tally{Answered: map[int64]rollout.Count{1: {Calls: 15, Seconds: 0.75}}, Failed: 3}, is)
}

func TestWhatIsNoMetricsIsAnError(t *testing.T) {
	t.Parallel()
	_, err := tally.Parse(strings.NewReader("<html>"), "net")
	require.ErrorContains(t, err, "metrics:")
	_, err = tally.Parse(strings.NewReader("# "+strings.Repeat("x", 5<<20)), "net")
	require.ErrorIs(t, err, tally.ErrTooLarge)
	is, err := tally.Parse(strings.NewReader(""), "net")
	require.NoError(t, err)
	require.Empty(t, is.Answered)
}
