package amqp

import (
	"errors"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

const scope = "github.com/ebb-inference/ebb/events/reply/amqp"

// instruments are what is measured here.
type instruments struct {
	lost     metric.Int64Counter     // connections
	returned metric.Int64Counter     // replies to nobody
	refused  metric.Int64Counter     // replies that are none
	confirm  metric.Float64Histogram // seconds
}

func newInstruments() (*instruments, error) {
	meter := otel.Meter(scope)
	lost, err1 := meter.Int64Counter("ebb.amqp.connections.lost", metric.WithDescription("Connections to RabbitMQ that broke and were made again, by side."))
	returned, err2 := meter.Int64Counter("ebb.replies.returned", metric.WithDescription("Replies that RabbitMQ returned, as their requester is gone."))
	refused, err3 := meter.Int64Counter("ebb.replies.refused", metric.WithDescription("Messages in a reply queue that are not a result."))
	confirm, err4 := meter.Float64Histogram("ebb.replies.confirm.duration", metric.WithUnit("s"),
		metric.WithDescription("From handing a reply to RabbitMQ until it is confirmed."),
		metric.WithExplicitBucketBoundaries(.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10))
	return &instruments{lost, returned, refused, confirm}, errors.Join(err1, err2, err3, err4)
}
