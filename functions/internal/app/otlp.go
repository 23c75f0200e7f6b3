package app

import (
	"cmp"
	"context"
	"fmt"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// The OTLP exporters are made here rather than by OpenTelemetry's autoexport module, which adds 1.2 MB more to each
// binary for exporters that a function has no use for (console, logs, a second Prometheus server).

// newSpanExporter returns nil when traces are not to be exported.
func newSpanExporter(ctx context.Context, c telemetryConfig) (sdktrace.SpanExporter, error) {
	on, err := exports("OTEL_TRACES_EXPORTER", c.TracesExporter, c.TracesEndpoint, c.Endpoint)
	if !on || err != nil {
		return nil, err
	}
	switch p := cmp.Or(c.TracesProtocol, c.Protocol, "http/protobuf"); p {
	case "http/protobuf":
		return otlptracehttp.New(ctx)
	case "grpc":
		return otlptracegrpc.New(ctx)
	default:
		return nil, errProtocol("TRACES", p)
	}
}

// newMetricExporter returns nil when metrics are not to be exported.
func newMetricExporter(ctx context.Context, c telemetryConfig) (sdkmetric.Exporter, error) {
	on, err := exports("OTEL_METRICS_EXPORTER", c.MetricsExporter, c.MetricsEndpoint, c.Endpoint)
	if !on || err != nil {
		return nil, err
	}
	switch p := cmp.Or(c.MetricsProtocol, c.Protocol, "http/protobuf"); p {
	case "http/protobuf":
		return otlpmetrichttp.New(ctx)
	case "grpc":
		return otlpmetricgrpc.New(ctx)
	default:
		return nil, errProtocol("METRICS", p)
	}
}

func errProtocol(signal, protocol string) error {
	return fmt.Errorf("environment variable OTEL_EXPORTER_OTLP_PROTOCOL or OTEL_EXPORTER_OTLP_%s_PROTOCOL: no protocol %q; want http/protobuf or grpc", signal, protocol)
}
