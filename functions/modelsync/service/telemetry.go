package service

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
)

const scope = "github.com/ebb-inference/ebb/functions/modelsync/service"

// instruments is what a Service measures.
type instruments struct {
	serving   metric.Int64Gauge
	candidate metric.Int64Gauge
	looks     metric.Int64Counter
	took      metric.Float64Histogram
	refused   metric.Int64Counter
}

func newInstruments() (*instruments, error) {
	meter := otel.Meter(scope)
	in := new(instruments)
	var errs [5]error
	in.serving, errs[0] = meter.Int64Gauge("ebb.modelsync.version.serving", metric.WithDescription("The version of a network that serves; 0: none."))
	in.candidate, errs[1] = meter.Int64Gauge("ebb.modelsync.version.candidate", metric.WithDescription("The version that is being rolled out; 0: none."))
	in.looks, errs[2] = meter.Int64Counter("ebb.modelsync.looks", metric.WithDescription("Looks at the versions of a network, by what came of them."))
	in.took, errs[3] = meter.Float64Histogram("ebb.modelsync.rollout.duration", metric.WithUnit("s"),
		metric.WithDescription("From finding a version until it served for good."),
		metric.WithExplicitBucketBoundaries(1, 5, 15, 30, 60, 120, 300, 600, 1200, 3600))
	in.refused, errs[4] = meter.Int64Counter("ebb.modelsync.refused", metric.WithDescription("Versions that were refused, by whom."))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("modelsync's metrics: %w", err)
	}
	return in, nil
}

func ofNetwork(name string, more ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(append(more, attribute.String("network", name))...))
}

func (in *instruments) looked(ctx context.Context, network string, o rollout.Outcome) {
	in.looks.Add(ctx, 1, ofNetwork(network, attribute.String("outcome", string(o))))
}

// measure takes from a state what a look, or a command with no outcome, has made of it.
func (in *instruments) measure(ctx context.Context, s rollout.State, o rollout.Outcome) {
	in.serving.Record(ctx, s.Serving, ofNetwork(s.Network))
	var candidate int64
	if s.Candidate != nil {
		candidate = s.Candidate.Version
	}
	in.candidate.Record(ctx, candidate, ofNetwork(s.Network))
	switch {
	case o == rollout.RolledOut:
		if took, ok := s.Took(); ok {
			in.took.Record(ctx, took.Seconds(), ofNetwork(s.Network))
		}
	case o == rollout.NotTaken && len(s.Refused) > 0:
		in.refused.Add(ctx, 1, ofNetwork(s.Network, attribute.String("by", s.Refused[len(s.Refused)-1].By)))
	}
}
