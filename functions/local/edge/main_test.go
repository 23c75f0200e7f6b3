// Package edge_test holds what becomes of requests where things go wrong at the edges, over a real RabbitMQ with Knative's
// data plane: a queue that is full, a RabbitMQ that is short of memory, events that nobody routes, answers that nobody waits
// for, hostile events, pictures and models that fail. Each has its defined answer; nothing is lost, computed for nobody or
// delivered for ever.
//
// All tests share one Ebb, and each has a model of its own in it. What the models do is in models_test.go.
package edge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events/rabbitmq"
	"github.com/ebb-inference/ebb/events/rabbitmq/topology"
	"github.com/ebb-inference/ebb/functions/local/system"
)

const (
	programs = "../../../.ebb/bin"
	// queueEvents is how many events may wait in a Trigger's queue; a dispatcher takes 100 more into its hands.
	queueEvents = 8
	patience    = time.Minute
	interval    = 10 * time.Millisecond
)

// What the tests share.
var (
	node     *rabbitmq.Node
	broker   string // where events are published
	tools    string // the file that tells tools how to reach all this
	ebb      *system.System
	serving  *modelServer
	logged   logs
	measured = sdkmetric.NewManualReader()
)

func TestMain(m *testing.M) {
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(measured)))
	code, err := withEbb(m.Run)
	if err == nil && code == 0 {
		err = errors.Join(logged.check(), goleak.Find())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// withEbb runs the tests with everything up, and takes it down again.
func withEbb(tests func() int) (code int, err error) {
	folder, err := os.MkdirTemp("", "edge")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	if node, err = rabbitmq.New(context.Background(), rabbitmq.Config{Management: true}); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, node.Remove()) }()
	if serving, err = startModelServer(); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, serving.stop()) }()
	if err := os.WriteFile(filepath.Join(folder, "models.yaml"), manifests(), 0o600); err != nil {
		return 1, err
	}
	log := slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ebb, err = system.Start(context.Background(), system.Config{
		Manifests: []string{folder}, Serving: serving.address, Timeout: patience, Logger: log,
		RabbitMQ: &system.RabbitMQ{
			Server: topology.Server{URL: node.URL(), ManagementURL: node.ManagementURL()},
			Folder: folder, Programs: programs, Limits: topology.Limits{MaxEvents: queueEvents},
		},
	})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, ebb.Stop(context.Background(), patience)) }()
	tools = filepath.Join(folder, "env")
	if broker, err = brokerURL(); err != nil {
		return 1, err
	}
	defer http.DefaultClient.CloseIdleConnections()
	return tests(), nil
}

// brokerURL reads where events are published from the file for tools.
func brokerURL() (string, error) {
	env, err := os.ReadFile(tools)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(env)) {
		if url, ok := strings.CutPrefix(line, "BROKER_URL="); ok {
			return strings.TrimSpace(url), nil
		}
	}
	return "", fmt.Errorf("no BROKER_URL in %q", env)
}

// logs is what everything has logged.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// check says whether what must not be in a log is in there: data of events, and RabbitMQ's password.
func (l *logs) check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		for _, secret := range []string{payload, "guest:guest"} {
			if strings.Contains(line, secret) {
				return fmt.Errorf("logged: %s", line)
			}
		}
	}
	return nil
}

// count is how often something was measured of a model, by its outcome.
func count(t *testing.T, metric, model string) map[string]int {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, measured.Collect(t.Context(), &all))
	found := map[string]int{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != metric {
				continue
			}
			for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
				if of, _ := p.Attributes.Value("model"); of.AsString() == model {
					outcome, _ := p.Attributes.Value("outcome")
					found[outcome.AsString()] += int(p.Value)
				}
			}
		}
	}
	return found
}

// requireCounts waits until as much was measured of a model as is wanted, and wants it to be that.
func requireCounts(t *testing.T, metric, model string, want map[string]int) {
	t.Helper()
	require.Eventually(t, func() bool { return total(count(t, metric, model)) >= total(want) }, patience, interval)
	require.Equal(t, want, count(t, metric, model))
}

func total(counts map[string]int) (all int) {
	for _, n := range counts {
		all += n
	}
	return all
}

const (
	deliveries  = "ebb.dispatch.requests"
	deadLetters = "ebb.deadletter.events"
)

// infer asks as a client does.
func infer(t *testing.T, model string, picture []byte, prefer string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/infer?model="+model, bytes.NewReader(picture))
	if prefer != "" {
		r.Header.Set("Prefer", prefer)
	}
	ebb.ServeHTTP(w, r)
	return w
}

// decoded is how many pictures a model's worker has decoded.
func decoded(t *testing.T, model string) (n int) {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, measured.Collect(t.Context(), &all))
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != "ebb.dispatch.decode.duration" {
				continue
			}
			for _, p := range m.Data.(metricdata.Histogram[float64]).DataPoints {
				if of, _ := p.Attributes.Value("model"); of.AsString() == model {
					n += int(p.Count)
				}
			}
		}
	}
	return n
}
