package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/rabbitmq/amqp091-go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/ebb-inference/ebb/events/reply"
)

// Requester opens reply queues, each over a connection of its own.
type Requester struct {
	cfg Config
	in  *instruments
}

var _ reply.Requester = (*Requester)(nil)

// NewRequester makes a Requester. It connects to nothing yet and needs no closing; Inboxes do.
func NewRequester(c Config) (*Requester, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	in, err := newInstruments()
	if err != nil {
		return nil, err
	}
	return &Requester{cfg: c, in: in}, nil
}

// Listen opens a reply queue. While RabbitMQ is away it tries until ctx ends; when RabbitMQ refuses the user, the password
// or the vhost it fails at once.
func (q *Requester) Listen(ctx context.Context, l reply.Listener) (reply.Inbox, error) {
	first := &consumer{maxBytes: q.cfg.QueueBytes}
	s, err := q.cfg.connect(ctx, first.set, refused)
	if err != nil {
		return nil, fmt.Errorf("listening for replies: %w", err)
	}
	in := &inbox{requester: q, listener: l, address: first.queue, done: make(chan struct{})}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	in.end = end
	go func() {
		defer close(in.done)
		in.run(life, s, first)
	}()
	return in, nil
}

// consumer is what a requester's session carries.
type consumer struct {
	maxBytes int64 // that may wait in the queue

	queue   string                  // its name
	replies <-chan amqp091.Delivery // closed with the session, and when the server ended it because the queue is gone
}

// set declares the queue and consumes it.
func (c *consumer) set(s *session) error {
	const durable, autoDelete, exclusive, noWait, autoAck, noLocal = false, true, true, false, true, false
	queue, err := s.channel.QueueDeclare("", durable, autoDelete, exclusive, noWait, amqp091.Table{
		amqp091.QueueMaxLenBytesArg: c.maxBytes,
		amqp091.QueueOverflowArg:    amqp091.QueueOverflowRejectPublish,
	})
	if err != nil {
		return fmt.Errorf("declaring a reply queue: %w", err)
	}
	if !reply.ValidAddress(queue.Name) { // responders would refuse it
		return fmt.Errorf("declaring a reply queue: the server named it %.64q: %w", queue.Name, reply.ErrBadAddress)
	}
	c.queue = queue.Name
	if c.replies, err = s.channel.Consume(queue.Name, "", autoAck, exclusive, noLocal, noWait, nil); err != nil {
		return fmt.Errorf("consuming a reply queue: %w", err)
	}
	return nil
}

type inbox struct {
	requester *Requester
	listener  reply.Listener
	end       context.CancelFunc
	done      chan struct{} // closed when nothing of it is left

	mu      sync.Mutex
	address string // "" while there is none
}

// run hands out replies from one session after another until life ends.
func (in *inbox) run(life context.Context, s *session, c *consumer) {
	q := in.requester
	for {
		in.receive(life, c.replies)
		in.move("")
		if life.Err() != nil {
			s.close()
			return
		}
		q.cfg.Logger.WarnContext(life, "reply queue lost; a new one is made", "queue", c.queue, "error", s.whyNoReplies())
		q.in.lost.Add(life, 1, metric.WithAttributes(attribute.String("side", "requester")))
		in.listener.Lost(c.queue)
		s.close()

		var err error
		c = &consumer{maxBytes: q.cfg.QueueBytes}
		if s, err = q.cfg.connect(life, c.set, never); err != nil {
			return // life has ended
		}
		q.cfg.Logger.InfoContext(life, "reply queue is there", "queue", c.queue)
		in.move(c.queue)
	}
}

// whyNoReplies says why there are no more deliveries.
func (s *session) whyNoReplies() error {
	select {
	case told := <-s.ended:
		return why(told)
	default:
		return errors.New("the queue was deleted")
	}
}

// receive hands out replies until there are no more in this session, or life ends.
func (in *inbox) receive(life context.Context, replies <-chan amqp091.Delivery) {
	for {
		select {
		case d, ok := <-replies:
			if !ok || life.Err() != nil {
				return
			}
			in.hand(life, &d)
		case <-life.Done():
			return
		}
	}
}

func (in *inbox) hand(life context.Context, d *amqp091.Delivery) {
	r, err := decode(d)
	if err != nil {
		in.requester.in.refused.Add(life, 1)
		in.requester.cfg.Logger.WarnContext(life, "a message in the reply queue is no result", "error", err)
		return
	}
	in.listener.Reply(r)
}

// Address is the present name of the queue; ErrDown while there is none, and once the Inbox is closed.
func (in *inbox) Address() (string, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.address == "" {
		return "", reply.ErrDown
	}
	return in.address, nil
}

func (in *inbox) move(address string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.address = address
}

// Close closes the connection, with which the queue goes. It waits for a call of the Listener that is under way; so a
// Listener must not call it.
func (in *inbox) Close() error {
	in.end()
	<-in.done
	return nil
}
