// Package topology declares in RabbitMQ what Knative's RabbitMQ broker controller declares for a Broker and its Triggers: the
// exchange that events are published to, a quorum queue a Trigger bound by its filter, and an exchange and a queue for its
// dead letters. The names and arguments are the controller's, so that its data plane works on them.
//
// On top of that it bounds the queues, which the controller does not: see Limits.
//
// It knows nothing of who publishes and who consumes.
package topology

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/ebb-inference/ebb/events/trigger"
)

// declareTimeout bounds Declare.
const declareTimeout = 30 * time.Second

// The controller's words in a binding.
const (
	argMatch   = "x-match"
	argTrigger = "x-knative-trigger"
)

// The defaults of Limits.
const (
	DefaultMaxEvents = 10_000
	DefaultMaxBytes  = 256 << 20
	DefaultTTL       = time.Hour
)

// Limits bound the queue of a Trigger. What does not fit is refused, so that its publisher hears of it; what waited too long
// is a dead letter. Zero is the default.
type Limits struct {
	MaxEvents int           // that wait, default DefaultMaxEvents
	MaxBytes  int64         // of their data, default DefaultMaxBytes
	TTL       time.Duration // how long one may wait, default DefaultTTL
}

func (l Limits) withDefaults() Limits {
	l.MaxEvents = cmp.Or(l.MaxEvents, DefaultMaxEvents)
	l.MaxBytes = cmp.Or(l.MaxBytes, DefaultMaxBytes)
	l.TTL = cmp.Or(l.TTL, DefaultTTL)
	return l
}

// Server is where RabbitMQ is reached. Both URLs may have a user and a password; neither is ever part of an error.
type Server struct {
	URL           string // AMQP, amqp:// or amqps://
	ManagementURL string // of the management plugin's API, http:// or https://, without the path
}

// ErrDiffers says that something in RabbitMQ has the name of what is declared, and another form.
var ErrDiffers = errors.New("RabbitMQ has it in another form: remove it there, or use another RabbitMQ")

// Declare makes RabbitMQ have what b and its Triggers need, and takes away the bindings that their filters had before. Doing
// it again changes nothing. A name that is taken by something else is ErrDiffers.
func Declare(ctx context.Context, s Server, b Broker, triggers []trigger.Trigger, l Limits) error {
	ctx, cancel := context.WithTimeout(ctx, declareTimeout)
	defer cancel()
	uri, err := amqp091.ParseURI(s.URL)
	if err != nil {
		return errors.New("topology: RabbitMQ's URL cannot be parsed")
	}
	m, err := newManagement(s.ManagementURL, uri.Vhost)
	if err != nil {
		return fmt.Errorf("topology: %w", err)
	}
	defer m.client.CloseIdleConnections()
	conn, err := amqp091.DialConfig(s.URL, amqp091.Config{Dial: amqp091.DefaultDial(declareTimeout)})
	if err != nil {
		return fmt.Errorf("topology: connecting to RabbitMQ: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.CloseDeadline(time.Now()) }) // ends what waits on it
	defer stop()
	d := declarer{conn: conn, management: m, broker: b, limits: l.withDefaults()}
	err = d.exchange(b.Exchange())
	for _, t := range triggers {
		if err == nil {
			err = d.trigger(ctx, t)
		}
	}
	if closeErr := conn.Close(); err == nil && !errors.Is(closeErr, amqp091.ErrClosed) {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("topology of the broker %s/%s: %w", b.Namespace, b.Name, errors.Join(err, ctx.Err()))
	}
	return nil
}

// declarer declares what one Broker needs.
type declarer struct {
	conn       *amqp091.Connection
	management *management
	broker     Broker
	limits     Limits
}

// trigger declares in the controller's order: where dead letters go exists before anything can become one, the policies
// before the binding brings the first event.
func (d *declarer) trigger(ctx context.Context, t trigger.Trigger) error {
	names := d.broker.Trigger(t)
	for _, step := range []func() error{
		func() error { return d.exchange(names.DeadLetterExchange) },
		func() error { return d.queue(names.DeadLetterQueue) },
		func() error {
			return d.bind(names.DeadLetterQueue, names.DeadLetterExchange, amqp091.Table{argMatch: "all"})
		},
		func() error { return d.queue(names.Queue) },
		func() error { return d.management.putPolicy(ctx, names.deadLetterPolicy()) },
		func() error { return d.management.putPolicy(ctx, names.limitPolicy(d.limits)) },
		func() error { return d.bindOnly(ctx, names.Queue, d.broker.Exchange(), filter(t)) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("trigger %s: %w", t, err)
		}
	}
	return nil
}

// filter is the arguments of a Trigger's binding.
func filter(t trigger.Trigger) amqp091.Table {
	args := amqp091.Table{argMatch: "all", argTrigger: t.Name}
	for attribute, value := range t.Filter {
		args[attribute] = value
	}
	return args
}

// on runs f on a channel of its own: RabbitMQ closes the channel of what it refuses.
func (d *declarer) on(what string, f func(*amqp091.Channel) error) error {
	ch, err := d.conn.Channel()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer func() { _ = ch.Close() }() // everything on it was answered
	err = f(ch)
	var refused *amqp091.Error
	if errors.As(err, &refused) && refused.Code == amqp091.PreconditionFailed {
		return fmt.Errorf("%s: %w: %w", what, ErrDiffers, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

const durable, autoDelete, exclusive, internal, noWait = true, false, false, false, false

func (d *declarer) exchange(name string) error {
	return d.on("exchange "+name, func(ch *amqp091.Channel) error {
		return ch.ExchangeDeclare(name, amqp091.ExchangeHeaders, durable, autoDelete, internal, noWait, nil)
	})
}

func (d *declarer) queue(name string) error {
	return d.on("queue "+name, func(ch *amqp091.Channel) error {
		_, err := ch.QueueDeclare(name, durable, autoDelete, exclusive, noWait, amqp091.Table{
			amqp091.QueueTypeArg: amqp091.QueueTypeQuorum,
		})
		return err
	})
}

func (d *declarer) bind(queue, exchange string, args amqp091.Table) error {
	return d.on("binding of "+queue, func(ch *amqp091.Channel) error { return ch.QueueBind(queue, "", exchange, noWait, args) })
}

// bindOnly binds and takes away every other binding between the two: a filter that was changed must not go on selecting.
func (d *declarer) bindOnly(ctx context.Context, queue, exchange string, args amqp091.Table) error {
	if err := d.bind(queue, exchange, args); err != nil {
		return err
	}
	bindings, err := d.management.bindings(ctx, exchange, queue)
	if err != nil {
		return err
	}
	for _, b := range bindings {
		if b.RoutingKey == "" && maps.Equal(b.Arguments, args) {
			continue
		}
		err := d.on("former binding of "+queue, func(ch *amqp091.Channel) error {
			return ch.QueueUnbind(queue, b.RoutingKey, exchange, b.Arguments)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
