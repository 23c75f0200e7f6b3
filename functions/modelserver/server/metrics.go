package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebb-inference/ebb/models/store"
)

// metrics are what the server measures.
type metrics struct {
	loads       metric.Int64Counter
	loadTime    metric.Float64Histogram
	predictTime metric.Float64Histogram
	waitTime    metric.Float64Histogram
	underWay    metric.Int64UpDownCounter
}

func newMetrics() (*metrics, error) {
	meter := otel.Meter("github.com/ebb-inference/ebb/functions/modelserver/server")
	var m metrics
	var errs [5]error
	m.loads, errs[0] = meter.Int64Counter("ebb.modelserver.loads",
		metric.WithDescription("Attempts to load a version, by model and outcome (ok, error)."))
	m.loadTime, errs[1] = meter.Float64Histogram("ebb.modelserver.load.duration", metric.WithUnit("s"),
		metric.WithDescription("Time to load and warm a version, by model and outcome."))
	m.predictTime, errs[2] = meter.Float64Histogram("ebb.modelserver.predict.duration", metric.WithUnit("s"),
		metric.WithDescription("Time to answer a prediction, by model and outcome."))
	m.waitTime, errs[3] = meter.Float64Histogram("ebb.modelserver.session.wait", metric.WithUnit("s"),
		metric.WithDescription("Time that a prediction waited for its turn, by model."))
	m.underWay, errs[4] = meter.Int64UpDownCounter("ebb.modelserver.inflight",
		metric.WithDescription("Predictions under way or waiting, by model."))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("make metrics: %w", err)
	}
	return &m, nil
}

// version records the end of a load.
func (m *metrics) version(e store.Event) {
	outcome := "ok"
	switch {
	case e.State == store.End && e.Err != nil:
		outcome = "error"
	case e.State != store.Available:
		return
	}
	set := metric.WithAttributes(attribute.String("model", e.Model), attribute.String("outcome", outcome))
	m.loads.Add(context.Background(), 1, set)
	m.loadTime.Record(context.Background(), e.Took.Seconds(), set)
}

func (m *metrics) predicted(ctx context.Context, model string, begin time.Time, err error) {
	m.predictTime.Record(ctx, time.Since(begin).Seconds(),
		metric.WithAttributes(attribute.String("model", model), attribute.String("outcome", outcome(err))))
}

func (m *metrics) waited(ctx context.Context, model string, waited time.Duration) {
	m.waitTime.Record(ctx, waited.Seconds(), metric.WithAttributes(attribute.String("model", model)))
}

func (m *metrics) inFlight(ctx context.Context, model string, more int64) {
	m.underWay.Add(ctx, more, metric.WithAttributes(attribute.String("model", model)))
}

func outcome(err error) string {
	switch status.Code(err) {
	case codes.OK:
		return "ok"
	case codes.InvalidArgument:
		return "invalid"
	case codes.NotFound:
		return "not_found"
	case codes.Unavailable:
		return "unavailable"
	case codes.DeadlineExceeded:
		return "expired"
	case codes.Canceled:
		return "canceled"
	default:
		return "error"
	}
}
