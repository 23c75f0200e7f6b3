package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/reply"
)

var (
	// ErrRefused says that RabbitMQ would not take a reply: most likely the reply queue is full.
	ErrRefused = errors.New("RabbitMQ refused the reply")
	// ErrBlocked says that RabbitMQ takes no messages at the moment: it is short of memory or disk.
	ErrBlocked = errors.New("RabbitMQ takes no messages: it is short of memory or disk")
	// ErrUnconfirmed says that a reply was published and not confirmed, so that it may have arrived or not.
	ErrUnconfirmed = errors.New("RabbitMQ did not confirm the reply")
)

// Responder sends replies over one connection. Any number of calls may be under way: none waits for another's
// confirmation.
type Responder struct {
	cfg  Config
	in   *instruments
	end  context.CancelFunc
	done chan struct{} // closed when nothing of it is left

	mu      sync.Mutex
	present *publisher     // nil while there is no connection
	closed  bool           // takes no more replies
	calls   sync.WaitGroup // of Respond, added to under mu while not closed

	probing sync.Mutex
	flowed  time.Time // when RabbitMQ was last known to take messages; guarded by probing
}

var _ reply.Responder = (*Responder)(nil)

// NewResponder connects. While RabbitMQ is away it tries until ctx ends; when RabbitMQ refuses the user, the password or
// the vhost it fails at once. Close ends the Responder.
func NewResponder(ctx context.Context, c Config) (*Responder, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	in, err := newInstruments()
	if err != nil {
		return nil, err
	}
	p := newPublisher(in)
	s, err := c.connect(ctx, p.set, refused)
	if err != nil {
		return nil, err
	}
	r := &Responder{cfg: c, in: in, done: make(chan struct{}), present: p}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	r.end = end
	go func() {
		defer close(r.done)
		r.run(life, s, p)
	}()
	return r, nil
}

// run publishes over one session after another until life ends.
func (r *Responder) run(life context.Context, s *session, p *publisher) {
	for {
		err := p.run(life, s)
		r.use(nil)
		if life.Err() != nil {
			return
		}
		r.cfg.Logger.WarnContext(life, "connection for replies lost; it is made again", "error", err)
		r.in.lost.Add(life, 1, metric.WithAttributes(attribute.String("side", "responder")))

		p = newPublisher(r.in)
		if s, err = r.cfg.connect(life, p.set, never); err != nil {
			return // life has ended
		}
		r.cfg.Logger.InfoContext(life, "connection for replies is there")
		r.use(p)
	}
}

func (r *Responder) use(p *publisher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.present = p
}

// Ready says why no reply could be sent now, or nil.
func (r *Responder) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.present == nil || r.closed {
		return fmt.Errorf("replies: no connection to RabbitMQ: %w", reply.ErrDown)
	}
	return nil
}

// Respond sends result to the reply queue to, and returns when RabbitMQ has confirmed that it took it. Besides what
// reply.Responder says the error may be reply.ErrDown, at once, while there is no connection; ErrRefused; and ErrBlocked or
// ErrUnconfirmed, with ctx's error, when ctx ends or Config.Timeout has passed.
func (r *Responder) Respond(ctx context.Context, to string, result *events.Result) error {
	if !reply.ValidAddress(to) {
		return fmt.Errorf("%w: %.64q", reply.ErrBadAddress, to)
	}
	message, err := encode(result)
	if err != nil {
		return fmt.Errorf("responding: %w", err)
	}
	if _, ok := reply.MailboxID(to); ok {
		message.DeliveryMode = amqp091.Persistent
	}
	if err := r.send(ctx, to, message); err != nil {
		if errors.Is(err, reply.ErrNoRequester) {
			return reply.ErrNoRequester
		}
		return fmt.Errorf("responding: %w", err)
	}
	return nil
}

// send publishes a message to a queue and returns when RabbitMQ has confirmed that it took it.
func (r *Responder) send(ctx context.Context, to string, message amqp091.Publishing) error {
	p, err := r.enter()
	if err != nil {
		return err
	}
	defer r.calls.Done()
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	return p.publish(ctx, to, message)
}

// enter counts a call in. Who has entered must call r.calls.Done.
func (r *Responder) enter() (*publisher, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.present == nil || r.closed {
		return nil, reply.ErrDown
	}
	r.calls.Add(1)
	return r.present, nil
}

// Close takes no more replies, waits for those under way, and closes the connection. When ctx ends first, those under way
// fail, and the error says so. It may be called any number of times.
func (r *Responder) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()

	drained := make(chan struct{})
	go func() {
		defer close(drained)
		r.calls.Wait()
	}()
	var err error
	select {
	case <-drained:
	case <-ctx.Done():
		err = fmt.Errorf("replies were still being sent: %w", ctx.Err())
	}
	r.end() // ends what is still under way
	<-drained
	<-r.done
	return err
}
