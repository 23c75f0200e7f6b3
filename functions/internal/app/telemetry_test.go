package app_test

import (
	"compress/gzip"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/sethvargo/go-envconfig"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/ebb-inference/ebb/functions/internal/app"
)

func newApp(env map[string]string) *app.App {
	return &app.App{Name: "test", Version: "v1", Logger: slog.New(slog.DiscardHandler), Lookup: envconfig.MapLookuper(env)}
}

// collector is an OTLP receiver, as a collector has it.
type collector struct {
	*httptest.Server
	mu      sync.Mutex
	traces  []*collectortrace.ExportTraceServiceRequest
	metrics []*collectormetrics.ExportMetricsServiceRequest
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", func(w http.ResponseWriter, r *http.Request) {
		var m collectortrace.ExportTraceServiceRequest
		receive(t, w, r, &m, &collectortrace.ExportTraceServiceResponse{})
		c.mu.Lock()
		defer c.mu.Unlock()
		c.traces = append(c.traces, &m)
	})
	mux.HandleFunc("POST /v1/metrics", func(w http.ResponseWriter, r *http.Request) {
		var m collectormetrics.ExportMetricsServiceRequest
		receive(t, w, r, &m, &collectormetrics.ExportMetricsServiceResponse{})
		c.mu.Lock()
		defer c.mu.Unlock()
		c.metrics = append(c.metrics, &m)
	})
	c.Server = httptest.NewServer(mux)
	t.Cleanup(c.Close)
	return c
}

func receive(t *testing.T, w http.ResponseWriter, r *http.Request, request, response proto.Message) {
	t.Helper()
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		body = z
	}
	data, err := io.ReadAll(body)
	if err == nil {
		err = proto.Unmarshal(data, request)
	}
	if err != nil {
		t.Error(err)
	}
	out, err := proto.Marshal(response)
	if err != nil {
		t.Error(err)
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(out)
}

func attributes(r *resourcepb.Resource) map[string]string {
	m := map[string]string{}
	for _, kv := range r.GetAttributes() {
		m[kv.GetKey()] = kv.GetValue().GetStringValue()
	}
	return m
}

func TestTelemetryIsFlushedToTheCollectorBeforeTheProcessEnds(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	code, log := start(t, "measuring", "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "OTEL_RESOURCE_ATTRIBUTES=deployment=blue").exits(t)
	require.Zero(t, code, log)

	require.Len(t, c.traces, 1)
	rs := c.traces[0].GetResourceSpans()[0]
	require.Equal(t, "work", rs.GetScopeSpans()[0].GetSpans()[0].GetName())
	require.Equal(t, "measuring", attributes(rs.GetResource())["service.name"])
	require.Equal(t, "blue", attributes(rs.GetResource())["deployment"])
	require.NotEmpty(t, attributes(rs.GetResource())["service.version"])

	require.Len(t, c.metrics, 1)
	m := c.metrics[0].GetResourceMetrics()[0].GetScopeMetrics()[0].GetMetrics()[0]
	require.Equal(t, "ebb.test.count", m.GetName())
	require.EqualValues(t, 3, m.GetSum().GetDataPoints()[0].GetAsInt())
}

func TestTelemetryFollowsTheStandardVariables(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name            string
		env             func(url string) []string
		traces, metrics int
	}{
		{"traces only, by the endpoint", func(url string) []string { return []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + url + "/v1/traces"} }, 1, 0},
		{"metrics only, by the exporter", func(url string) []string {
			return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + url, "OTEL_TRACES_EXPORTER=none", "OTEL_METRICS_EXPORTER=prometheus,otlp"}
		}, 0, 1},
		{"sampler", func(url string) []string {
			return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + url, "OTEL_TRACES_SAMPLER=always_off"}
		}, 0, 1},
		{"disabled", func(url string) []string {
			return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + url, "OTEL_SDK_DISABLED=true"}
		}, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCollector(t)
			code, log := start(t, "measuring", append(tt.env(c.URL), "OTEL_SERVICE_NAME=named")...).exits(t)
			require.Zero(t, code, log)
			require.Len(t, c.traces, tt.traces)
			require.Len(t, c.metrics, tt.metrics)
			for _, m := range c.metrics {
				require.Equal(t, "named", attributes(m.GetResourceMetrics()[0].GetResource())["service.name"])
			}
		})
	}
}

func TestTelemetryThatCannotBeFlushedDoesNotFailTheFunction(t *testing.T) {
	t.Parallel()
	c := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }))
	defer c.Close()
	code, log := start(t, "measuring", "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL).exits(t)
	require.Zero(t, code)
	require.NotEmpty(t, log)
	for _, line := range log {
		require.Equal(t, "WARN", line["level"])
	}
}

func TestStartTelemetryNamesTheVariableThatIsWrong(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ variable, value string }{
		{"OTEL_SDK_DISABLED", "maybe"},
		{"OTEL_TRACES_EXPORTER", "zipkin"},
		{"OTEL_TRACES_EXPORTER", "prometheus"},
		{"OTEL_METRICS_EXPORTER", "statsd"},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "smoke"},
		{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "smoke"},
		{"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "smoke"},
	} {
		t.Run(tt.variable, func(t *testing.T) {
			t.Parallel()
			env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", tt.variable: tt.value}
			_, err := app.StartTelemetry(t.Context(), newApp(env))
			require.ErrorContains(t, err, tt.variable)
			require.ErrorContains(t, err, tt.value)
		})
	}
}

func TestTelemetryWithoutACollector(t *testing.T) {
	tel, err := app.StartTelemetry(t.Context(), newApp(nil))
	require.NoError(t, err)
	defer func() { require.NoError(t, tel.Stop(t.Context())) }()

	t.Run("a request has a trace id that travels on", func(t *testing.T) {
		ctx, span := otel.Tracer("test").Start(t.Context(), "work")
		require.True(t, span.SpanContext().IsValid())
		require.False(t, span.IsRecording())
		carrier := propagation.MapCarrier{}
		otel.GetTextMapPropagator().Inject(ctx, carrier)
		require.Equal(t, "00-"+span.SpanContext().TraceID().String()+"-"+span.SpanContext().SpanID().String()+"-00", carrier["traceparent"])
	})
	t.Run("a caller's trace goes on and stays sampled", func(t *testing.T) {
		carrier := propagation.MapCarrier{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
		ctx := otel.GetTextMapPropagator().Extract(t.Context(), carrier)
		_, span := otel.Tracer("test").Start(ctx, "work")
		defer span.End()
		require.Equal(t, "0af7651916cd43dd8448eb211c80319c", span.SpanContext().TraceID().String())
		require.NotEqual(t, trace.SpanContextFromContext(ctx).SpanID(), span.SpanContext().SpanID())
		require.True(t, span.SpanContext().IsSampled())
	})
	t.Run("metrics can be scraped, durations in buckets of seconds", func(t *testing.T) {
		h, err := otel.Meter("test").Float64Histogram("ebb.test.duration", metric.WithUnit("s"))
		require.NoError(t, err)
		h.Record(t.Context(), .0007)
		w := httptest.NewRecorder()
		tel.Metrics.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		require.Equal(t, http.StatusOK, w.Code)
		require.Contains(t, w.Body.String(), "ebb_test_duration_seconds_bucket")
		require.Contains(t, w.Body.String(), `le="0.001"`)
		require.Contains(t, w.Body.String(), "go_goroutines")
		require.Contains(t, w.Body.String(), "process_open_fds")
	})
	t.Run("what a client makes up is no time series", func(t *testing.T) {
		h := otelhttp.NewHandler(http.NotFoundHandler(), "test")
		for _, host := range []string{"one.example", "two.example:81", "three.example:82"} {
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("hello"))
			r.Host = strings.Repeat("x", 100) + host
			r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
		w := httptest.NewRecorder()
		scrape := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		scrape.Header.Set("Accept", "application/openmetrics-text") // the format that has exemplars
		tel.Metrics.ServeHTTP(w, scrape)
		require.NotContains(t, w.Body.String(), ".example")
		require.Regexp(t, `# \{[^}]*trace_id="0af7651916cd43dd8448eb211c80319c"`, w.Body.String(), "exemplars lead to traces")
		require.Equal(t, 1, strings.Count(w.Body.String(), "\nhttp_server_request_duration_seconds_count{"))
		require.Contains(t, w.Body.String(), `http_server_request_body_size_bytes_bucket{http_request_method="POST",http_response_status_code="404"`)
		require.Contains(t, w.Body.String(), `le="1.048576e+06"`)
	})
}
