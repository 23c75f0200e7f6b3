package broker

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// outcome is a set of attributes, made once.
type outcome = metric.MeasurementOption

func newOutcome(kv ...attribute.KeyValue) outcome {
	return metric.WithAttributeSet(attribute.NewSet(kv...))
}

// What becomes of a published event.
var (
	outcomeAccepted  = newOutcome(attribute.String("outcome", "accepted"))
	outcomeUnmatched = newOutcome(attribute.String("outcome", "unmatched"))
	outcomeFull      = newOutcome(attribute.String("outcome", "full"))
	outcomeRefused   = newOutcome(attribute.String("outcome", "refused"))
)

// deliveryOutcomes is what becomes of a Trigger's events: retried is counted per retry, the others once an event.
type deliveryOutcomes struct {
	delivered, retried, deadLettered, lost, left outcome
}

func newDeliveryOutcomes(trigger string) deliveryOutcomes {
	of := func(name string) outcome {
		return newOutcome(attribute.String("trigger", trigger), attribute.String("outcome", name))
	}
	return deliveryOutcomes{
		delivered: of("delivered"), retried: of("retried"), deadLettered: of("dead_lettered"), lost: of("lost"), left: of("left"),
	}
}

type metrics struct {
	events     metric.Int64Counter
	deliveries metric.Int64Counter
	gauges     metric.Registration
}

func newMetrics(b *Broker) *metrics {
	meter := otel.Meter("github.com/ebb-inference/ebb/events/broker")
	m := &metrics{}
	var err error
	if m.events, err = meter.Int64Counter("ebb.broker.events", metric.WithUnit("{event}"),
		metric.WithDescription("Events that were published, by outcome")); err != nil {
		otel.Handle(err)
	}
	if m.deliveries, err = meter.Int64Counter("ebb.broker.deliveries", metric.WithUnit("{delivery}"),
		metric.WithDescription("Deliveries by trigger and outcome; retries are counted apart")); err != nil {
		otel.Handle(err)
	}
	depth, err := meter.Int64ObservableGauge("ebb.queue.depth", metric.WithUnit("{event}"),
		metric.WithDescription("Events in a trigger's queue, those being delivered included"))
	if err != nil {
		otel.Handle(err)
	}
	size, err := meter.Int64ObservableGauge("ebb.queue.size", metric.WithUnit("By"),
		metric.WithDescription("Bytes in a trigger's queue, those being delivered included"))
	if err != nil {
		otel.Handle(err)
	}
	m.gauges, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		b.mu.RLock()
		defer b.mu.RUnlock()
		for _, s := range b.subs {
			events, bytes := s.depth()
			trigger := newOutcome(attribute.String("trigger", s.name))
			o.ObserveInt64(depth, int64(events), trigger)
			o.ObserveInt64(size, bytes, trigger)
		}
		return nil
	}, depth, size)
	if err != nil {
		otel.Handle(err)
	}
	return m
}

func (m *metrics) received(ctx context.Context, o outcome)  { m.events.Add(ctx, 1, o) }
func (m *metrics) delivered(ctx context.Context, o outcome) { m.deliveries.Add(ctx, 1, o) }

func (m *metrics) stop() {
	if err := m.gauges.Unregister(); err != nil {
		otel.Handle(err)
	}
}
