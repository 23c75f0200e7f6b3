package worker_test

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/functions/dispatch/worker"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// What all tests measure goes here; each test has a model of its own name.
var (
	metrics = sdkmetric.NewManualReader()
	spans   = tracetest.NewSpanRecorder()
)

func TestMain(m *testing.M) {
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(metrics)))
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	goleak.VerifyTestMain(m)
}

var modelNumber atomic.Int64

// newModel is a network of 2x2 pixels with two classes, of which the second means yes. More YAML may follow.
func newModel(tb testing.TB, more string) *models.Model {
	tb.Helper()
	name := fmt.Sprintf("m%d", modelNumber.Add(1))
	m, err := models.Parse(fstest.MapFS{
		"model.yaml": {Data: []byte(fmt.Sprintf(`
name: %s
question: Is it bright?
subject: bright
serving: {address: "localhost:8500", model: net, signature: pixels}
output: {tensor: probabilities, labels: labels.txt, yes: [1], top: 2}
`, name) + more)},
		"labels.txt": {Data: []byte("dark\nbright\n")},
	}, "model.yaml")
	require.NoError(tb, err)
	return m
}

const pixels = "input: {tensor: image, dtype: uint8, width: 2, height: 2}\n"

// picture is one of 65536 that the network tells apart: its answer is number/65535. See brightness.
func picture(tb testing.TB, number int) []byte {
	tb.Helper()
	return pictureOf(tb, color.NRGBA{R: uint8(number >> 8), G: uint8(number), A: 255})
}

// poison is a picture that the network refuses.
func poison(tb testing.TB) []byte {
	tb.Helper()
	return pictureOf(tb, color.NRGBA{B: 255, A: 255})
}

func pictureOf(tb testing.TB, c color.NRGBA) []byte {
	tb.Helper()
	img := image.NewNRGBA(image.Rect(0, 0, 2, 2))
	for i := range 4 {
		img.SetNRGBA(i%2, i/2, c)
	}
	var b bytes.Buffer
	require.NoError(tb, png.Encode(&b, img))
	return b.Bytes()
}

// brightness is what the network computes of an item's first pixel.
func brightness(pixel []byte) float32 { return float32(int(pixel[0])<<8|int(pixel[1])) / 65535 }

// floats is a tensor of rows.
func floats(rows ...[]float32) tfserving.Tensor {
	t := tfserving.Tensor{DType: tfserving.Float32, Shape: []int64{int64(len(rows)), int64(len(rows[0]))}}
	for _, row := range rows {
		for _, v := range row {
			bits := math.Float32bits(v)
			t.Data = append(t.Data, byte(bits), byte(bits>>8), byte(bits>>16), byte(bits>>24))
		}
	}
	return t
}

// network answers a batch of 2x2 pixels as it should be.
func network(_ context.Context, in tfserving.Tensor) (tfserving.Tensor, error) {
	rows := make([][]float32, in.Shape[0])
	for i := range rows {
		p := brightness(in.Data[i*12:])
		rows[i] = []float32{1 - p, p}
	}
	return floats(rows...), nil
}

// predictor is a model server in the test's own hands.
type predictor struct {
	predict func(ctx context.Context, in tfserving.Tensor) (tfserving.Tensor, error)
	status  func() ([]tfserving.VersionStatus, error)
	calls   atomic.Int64
}

func (p *predictor) Predict(ctx context.Context, _ tfserving.Spec, in map[string]tfserving.Tensor, outputs ...string) (map[string]tfserving.Tensor, int64, error) {
	p.calls.Add(1)
	out, err := p.predict(ctx, in["image"])
	if err != nil {
		return nil, 0, err
	}
	return map[string]tfserving.Tensor{outputs[0]: out}, 3, nil
}

func (p *predictor) Status(context.Context, tfserving.Spec) ([]tfserving.VersionStatus, error) {
	p.calls.Add(1)
	return p.status()
}

// responderFunc is a reply transport that fails as a test wants.
type responderFunc func(ctx context.Context, to string, r *events.Result) error

func (f responderFunc) Respond(ctx context.Context, to string, r *events.Result) error {
	return f(ctx, to, r)
}

// world is a worker between a deliverer and a requester.
type world struct {
	tb      testing.TB
	model   *models.Model
	hub     *reply.Hub
	address string
	replies chan *events.Result
	worker  *worker.Worker
}

// newWorld makes a worker of c, whose Responder is by default a Hub with one requester.
func newWorld(tb testing.TB, c worker.Config) *world {
	tb.Helper()
	w := &world{tb: tb, model: c.Model, hub: reply.NewHub(), replies: make(chan *events.Result, 1024)}
	inbox, err := w.hub.Listen(tb.Context(), reply.Listener{
		Reply: func(r *events.Result) { w.replies <- r },
		Lost:  func(string) {},
	})
	require.NoError(tb, err)
	w.address, err = inbox.Address()
	require.NoError(tb, err)
	if c.Responder == nil {
		c.Responder = w.hub
	}
	c.Replica = "r1"
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	w.worker, err = worker.New(c)
	require.NoError(tb, err)
	tb.Cleanup(func() {
		require.NoError(tb, w.worker.Stop(context.Background()))
		require.NoError(tb, inbox.Close())
	})
	return w
}

// event is a request for the world's model.
func (w *world) event(data []byte) *events.Request {
	now := time.Now()
	id := uuid.Must(uuid.NewV7()).String()
	return &events.Request{
		ID: id, Source: "/ebb/ingress/i1", Time: now, Model: w.model.Name, ReplyTo: w.address, CorrelationID: "c-" + id,
		Deadline: now.Add(30 * time.Second), ContentType: "image/png", Data: data,
	}
}

func (w *world) request(r *events.Request) *http.Request {
	w.tb.Helper()
	req, err := events.NewHTTPRequest(w.tb.Context(), "http://dispatch.test/", r)
	require.NoError(w.tb, err)
	return req
}

// deliver delivers an event and returns the answer to the delivery.
func (w *world) deliver(req *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	w.worker.ServeHTTP(rec, req)
	return rec
}

// outcomes is how many deliveries became what.
func (w *world) outcomes() map[string]int64 {
	w.tb.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(w.tb, metrics.Collect(context.Background(), &all))
	found := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != "ebb.dispatch.requests" {
				continue
			}
			for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
				if model, _ := p.Attributes.Value(attribute.Key("model")); model.AsString() == w.model.Name {
					outcome, _ := p.Attributes.Value(attribute.Key("outcome"))
					found[outcome.AsString()] += p.Value
				}
			}
		}
	}
	return found
}
