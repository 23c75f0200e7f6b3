package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// Telemetry is a function's metrics and traces. Its providers and the W3C propagator are also OpenTelemetry's globals.
type Telemetry struct {
	// Metrics answers a Prometheus scrape: what is measured through Meter, the Go runtime, the process.
	Metrics http.Handler
	// Gatherer is what Metrics tells, for who reads it in the process.
	Gatherer prometheus.Gatherer
	Meter    metric.MeterProvider
	Tracer   trace.TracerProvider

	stop []func(context.Context) error
}

// StartTelemetry starts what OpenTelemetry's standard environment variables ask for:
//
//	OTEL_EXPORTER_OTLP_[TRACES_|METRICS_]ENDPOINT  where to export to; without one nothing is exported
//	OTEL_EXPORTER_OTLP_[TRACES_|METRICS_]PROTOCOL  http/protobuf (default) or grpc
//	OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER    otlp, none; metrics also prometheus, which there always is
//	OTEL_TRACES_SAMPLER[_ARG]                      default parentbased_always_on
//	OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES    default service.name is a.Name
//	OTEL_SDK_DISABLED                              true: nothing is measured or traced
//
// and the exporters' own (headers, certificates, compression, timeouts, batching). Those are read by the exporters
// from the process's environment, not through a.Lookup.
//
// Without a trace exporter there is no goroutine and no network, and only traces that a caller has sampled are
// recorded; yet each request has a trace id, which travels on and is in its log lines.
func StartTelemetry(ctx context.Context, a *App) (*Telemetry, error) {
	var c telemetryConfig
	if err := Load(ctx, a, &c); err != nil {
		return nil, err
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	t := &Telemetry{
		Metrics:  promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}),
		Gatherer: reg,
		Meter:    metricnoop.NewMeterProvider(),
		Tracer:   tracenoop.NewTracerProvider(),
	}
	if !c.Disabled {
		if err := t.start(ctx, a, c, reg); err != nil {
			// What was started exports to the same place, so a failure to stop it would say nothing new.
			_ = t.Stop(ctx)
			return nil, fmt.Errorf("telemetry: %w", err)
		}
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { a.Logger.Warn("telemetry", "error", err) }))
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	otel.SetMeterProvider(t.Meter)
	otel.SetTracerProvider(t.Tracer)
	return t, nil
}

func (t *Telemetry) start(ctx context.Context, a *App, c telemetryConfig, reg prometheus.Registerer) error {
	res, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", a.Name), attribute.String("service.version", a.Version)),
		resource.WithFromEnv(), // last: the operator's word counts
	)
	if err != nil {
		return fmt.Errorf("environment variable OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}

	prom, err := promexporter.New(promexporter.WithRegisterer(reg))
	if err != nil {
		return fmt.Errorf("prometheus exporter: %w", err)
	}
	meterOptions := []sdkmetric.Option{
		sdkmetric.WithResource(res),
		sdkmetric.WithReader(prom),
		sdkmetric.WithView(view),
	}
	metrics, err := newMetricExporter(ctx, c)
	if err != nil {
		return err
	}
	if metrics != nil {
		meterOptions = append(meterOptions, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(metrics)))
	}
	meter := sdkmetric.NewMeterProvider(meterOptions...)
	t.Meter, t.stop = meter, append(t.stop, meter.Shutdown)

	traceOptions := []sdktrace.TracerProviderOption{sdktrace.WithResource(res)}
	traces, err := newSpanExporter(ctx, c)
	if err != nil {
		return err
	}
	if traces != nil {
		traceOptions = append(traceOptions, sdktrace.WithBatcher(traces))
	} else {
		traceOptions = append(traceOptions, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample())))
	}
	tracer := sdktrace.NewTracerProvider(traceOptions...)
	t.Tracer, t.stop = tracer, append(t.stop, tracer.Shutdown)
	return nil
}

// Stop exports what has not been exported yet, until ctx ends, and stops measuring. It is safe to call twice.
func (t *Telemetry) Stop(ctx context.Context) error {
	errs := make([]error, 0, len(t.stop))
	for _, stop := range t.stop {
		errs = append(errs, stop(ctx))
	}
	t.stop = nil
	return errors.Join(errs...)
}

type telemetryConfig struct {
	Disabled        bool   `env:"OTEL_SDK_DISABLED"`
	Endpoint        string `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
	TracesEndpoint  string `env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"`
	MetricsEndpoint string `env:"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"`
	Protocol        string `env:"OTEL_EXPORTER_OTLP_PROTOCOL"`
	TracesProtocol  string `env:"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"`
	MetricsProtocol string `env:"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"`
	TracesExporter  string `env:"OTEL_TRACES_EXPORTER"`
	MetricsExporter string `env:"OTEL_METRICS_EXPORTER"`
}

// exports says whether a signal goes out by OTLP. The specification would send it to localhost when nothing is said;
// here nothing said means nothing sent, since most deployments have no collector beside each function.
func exports(variable, exporter string, endpoints ...string) (bool, error) {
	if exporter == "" {
		return strings.Join(endpoints, "") != "", nil
	}
	otlp := false
	for name := range strings.SplitSeq(exporter, ",") {
		switch name = strings.TrimSpace(name); {
		case name == "otlp":
			otlp = true
		case name == "none", name == "prometheus" && variable == "OTEL_METRICS_EXPORTER":
		default:
			return false, fmt.Errorf("environment variable %s: no exporter %q; want otlp or none", variable, name)
		}
	}
	return otlp, nil
}
