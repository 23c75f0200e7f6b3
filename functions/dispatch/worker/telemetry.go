package worker

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/models/tfserving"
)

const scope = "github.com/ebb-inference/ebb/functions/dispatch/worker"

// instruments is what a Worker measures.
type instruments struct {
	tracer   trace.Tracer
	model    metric.MeasurementOption // the attribute "model"
	network  metric.MeasurementOption // and "network"
	outcomes map[string]metric.MeasurementOption
	versions versions

	requests metric.Int64Counter
	again    metric.Int64Counter
	held     metric.Int64UpDownCounter
	queue    metric.Float64Histogram
	decode   metric.Float64Histogram
	wait     metric.Float64Histogram
	compute  metric.Float64Histogram
	failures metric.Int64Counter
	size     metric.Int64Histogram
}

func newInstruments(model, network string) (*instruments, error) {
	meter := otel.Meter(scope)
	attr := attribute.String("model", model)
	in := &instruments{
		tracer:   otel.Tracer(scope),
		model:    metric.WithAttributeSet(attribute.NewSet(attr)),
		network:  metric.WithAttributeSet(attribute.NewSet(attr, attribute.String("network", network))),
		outcomes: make(map[string]metric.MeasurementOption),
		versions: versions{of: []attribute.KeyValue{attr, attribute.String("network", network)}},
	}
	for _, o := range []string{
		outcomeCompleted, outcomeFailed, outcomeExpired, outcomeDuplicate,
		outcomeUnroutable, outcomeRefused, outcomeOverloaded, outcomeRetried,
	} {
		in.outcomes[o] = metric.WithAttributeSet(attribute.NewSet(attr, attribute.String("outcome", o)))
	}
	var errs [9]error
	seconds := func(name, what string) (metric.Float64Histogram, error) {
		return meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(what))
	}
	in.requests, errs[0] = meter.Int64Counter("ebb.dispatch.requests", metric.WithDescription("Deliveries, by what became of them."))
	in.held, errs[1] = meter.Int64UpDownCounter("ebb.dispatch.held", metric.WithDescription("Deliveries under way."))
	in.queue, errs[2] = seconds("ebb.dispatch.queue.duration", "From the event's time until it was delivered.")
	in.decode, errs[3] = seconds("ebb.dispatch.decode.duration", "From picture to tensor, with the wait for a free decoder.")
	in.wait, errs[4] = seconds("ebb.dispatch.batch.duration", "Wait of an item until its batch was taken.")
	in.compute, errs[5] = seconds("ebb.dispatch.compute.duration", "One call of the model server that was answered.")
	in.size, errs[6] = meter.Int64Histogram("ebb.dispatch.batch.size", metric.WithDescription("Items in one call of the model server that was answered."),
		metric.WithExplicitBucketBoundaries(1, 2, 4, 8, 16, 32, 64, 128))
	in.again, errs[7] = meter.Int64Counter("ebb.dispatch.remembered", metric.WithDescription("Questions that were asked again and not computed again."))
	in.failures, errs[8] = meter.Int64Counter("ebb.dispatch.compute.failures", metric.WithDescription("Calls of the model server that were not answered as they should."))
	return in, errors.Join(errs[:]...)
}

func (in *instruments) done(ctx context.Context, outcome string) {
	in.requests.Add(ctx, 1, in.outcomes[outcome])
}

func (in *instruments) batchDone(ctx context.Context, items int, version int64, took time.Duration) {
	in.size.Record(ctx, int64(items), in.model)
	in.compute.Record(ctx, took.Seconds(), in.versions.attributes(version))
}

// batchFailed counts a call that failed, unless a picture was to blame.
func (in *instruments) batchFailed(ctx context.Context, err error) {
	if !errors.Is(err, tfserving.ErrInvalid) {
		in.failures.Add(ctx, 1, in.network)
	}
}

// maxVersions is how many versions of the network are told apart in metrics, the first that this process saw: more than one
// lives to see, and few enough for a server that names another one each time to cost no memory.
const maxVersions = 200

// versions are the attributes of calls by the version that answered.
type versions struct {
	of []attribute.KeyValue // what all of them have

	mu   sync.Mutex
	seen map[int64]metric.MeasurementOption
}

func (v *versions) attributes(version int64) metric.MeasurementOption {
	v.mu.Lock()
	defer v.mu.Unlock()
	if known, ok := v.seen[version]; ok {
		return known
	}
	name := "other"
	if len(v.seen) < maxVersions {
		name = strconv.FormatInt(version, 10)
	}
	attrs := metric.WithAttributeSet(attribute.NewSet(append(slices.Clone(v.of), attribute.String("version", name))...))
	if name != "other" {
		if v.seen == nil {
			v.seen = make(map[int64]metric.MeasurementOption, maxVersions)
		}
		v.seen[version] = attrs
	}
	return attrs
}

// startDelivery starts a span that continues the event's trace.
func (in *instruments) startDelivery(ctx context.Context, r *events.Request) (context.Context, trace.Span) {
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{
		events.ExtTraceParent: r.TraceParent, events.ExtTraceState: r.TraceState,
	})
	return in.tracer.Start(ctx, "dispatch", trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("model", r.Model), attribute.String("cloudevents.event_id", r.ID)))
}

// startBatch starts the span of a batch: a child of the first of its items that is sampled, since a span has one parent,
// with a link to each of them.
func (in *instruments) startBatch(ctx context.Context, items []item) (context.Context, trace.Span) {
	parent := items[0].span
	links := make([]trace.Link, len(items))
	for i, it := range items {
		links[i].SpanContext = it.span
		if it.span.IsSampled() && !parent.IsSampled() {
			parent = it.span
		}
	}
	return in.tracer.Start(trace.ContextWithSpanContext(ctx, parent), "batch",
		trace.WithLinks(links...), trace.WithAttributes(attribute.Int("batch.size", len(items))))
}
