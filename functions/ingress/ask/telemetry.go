package ask

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/ebb-inference/ebb/events/reply"
)

const scope = "github.com/ebb-inference/ebb/functions/ingress/ask"

// The values of the attribute "outcome", beside the codes of this package's own problems.
const (
	outcomeAnswered = "answered"
	outcomeFailed   = "failed" // whoever should have answered sent a problem

	outcomeAccepted = "accepted" // asked asynchronously
	outcomeAgain    = "again"    // asked asynchronously before, with the same key

	outcomeCalled      = "called"  // the callback took the answer
	outcomeCallRefused = "refused" // it will never take it, or may not be called
	outcomeCallAgain   = "again"   // it is called again
	outcomeCallEarly   = "early"   // there is no whole answer yet
	outcomeCallNobody  = "nobody"  // there is nobody to call, or no more
)

// instruments is what the service measures of itself.
type instruments struct {
	tracer   trace.Tracer
	requests metric.Int64Counter
	duration metric.Float64Histogram
	late     metric.Int64Counter
	later    metric.Int64Counter
	reads    metric.Int64Counter
	calls    metric.Int64Counter
	gauge    metric.Registration
}

func newInstruments(p *reply.Pending) (*instruments, error) {
	meter := otel.Meter(scope)
	in := &instruments{tracer: otel.Tracer(scope)}
	var err error
	if in.requests, err = meter.Int64Counter("ebb.requests",
		metric.WithDescription("Pictures that models were asked about."), metric.WithUnit("{request}")); err != nil {
		return nil, err
	}
	if in.duration, err = meter.Float64Histogram("ebb.request.duration",
		metric.WithDescription("From the question until the model's answer or the reason why there is none."), metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60)); err != nil {
		return nil, err
	}
	if in.late, err = meter.Int64Counter("ebb.replies.unclaimed",
		metric.WithDescription("Answers that nobody waited for: too late, or a second time."), metric.WithUnit("{reply}")); err != nil {
		return nil, err
	}
	for _, c := range []struct {
		counter *metric.Int64Counter
		name    string
		what    string
	}{
		{&in.later, "ebb.async.requests", "Asynchronous requests, by what became of accepting them."},
		{&in.reads, "ebb.async.reads", "Looks at asynchronous requests, by how they stood."},
		{&in.calls, "ebb.callbacks", "Callbacks that were due, by what became of them."},
	} {
		if *c.counter, err = meter.Int64Counter(c.name, metric.WithDescription(c.what), metric.WithUnit("{request}")); err != nil {
			return nil, err
		}
	}
	pending, err := meter.Int64ObservableGauge("ebb.pending",
		metric.WithDescription("Requests that wait for their answer."), metric.WithUnit("{request}"))
	if err != nil {
		return nil, err
	}
	in.gauge, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(pending, int64(p.Len()))
		return nil
	}, pending)
	return in, err
}

func (in *instruments) close() error { return in.gauge.Unregister() }

// done counts one model's request. model must be a known one: names that clients make up would be endless.
func (in *instruments) done(ctx context.Context, model, outcome string, took time.Duration) {
	attributes := metric.WithAttributeSet(attribute.NewSet(attribute.String("model", model), attribute.String("outcome", outcome)))
	in.requests.Add(ctx, 1, attributes)
	in.duration.Record(ctx, took.Seconds(), attributes)
}

func (in *instruments) unclaimed(model string) {
	in.late.Add(context.Background(), 1, metric.WithAttributes(attribute.String("model", model)))
}

func (in *instruments) accepted(ctx context.Context, outcome string) {
	in.later.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
}

func (in *instruments) collected(ctx context.Context, status string) {
	in.reads.Add(ctx, 1, metric.WithAttributes(attribute.String("status", status)))
}

func (in *instruments) called(ctx context.Context, outcome string) {
	in.calls.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
}
