package amqp

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/ebb-inference/ebb/events/reply"
)

// publisher is what a responder's session carries. One goroutine writes to the channel, and another hears what RabbitMQ
// says about what was written; neither ever waits for the other, or the two ends could wait for each other for ever.
//
// RabbitMQ returns a message that nobody gets before it confirms it. The library hands over both from one goroutine, and
// both of these Go channels have no buffer and one reader, so that a return is known when its confirmation arrives.
type publisher struct {
	in     *instruments
	writes chan *publication // unbuffered: what is in it has not been written
	over   chan struct{}     // closed when nothing is written any more

	returns  chan amqp091.Return
	confirms chan amqp091.Confirmation
	blocks   chan amqp091.Blocking

	mu       sync.Mutex
	written  uint64                  // delivery tag of the latest publication
	inFlight map[uint64]*publication // by delivery tag
	flows    chan struct{}           // closed while RabbitMQ takes messages
	stuck    chan struct{}           // closed while it has said that it does not
}

// publication is one message on its way.
type publication struct {
	to       string // the queue; "" is nobody's, and nobody is not missed
	message  amqp091.Publishing
	returned bool       // guarded by the publisher's mu
	outcome  chan error // of one; the confirmation
}

func newPublisher(in *instruments) *publisher {
	p := &publisher{
		in:     in,
		writes: make(chan *publication), over: make(chan struct{}),
		returns: make(chan amqp091.Return), confirms: make(chan amqp091.Confirmation), blocks: make(chan amqp091.Blocking),
		inFlight: make(map[uint64]*publication), flows: make(chan struct{}), stuck: make(chan struct{}),
	}
	close(p.flows)
	return p
}

func (p *publisher) set(s *session) error {
	if err := s.channel.Confirm(false); err != nil {
		return fmt.Errorf("asking for publisher confirms: %w", err)
	}
	s.channel.NotifyReturn(p.returns)
	s.channel.NotifyPublish(p.confirms)
	s.conn.NotifyBlocked(p.blocks)
	return nil
}

// run works until the session or life ends; then it ends the session, and all that was in flight fails. The error is what
// ended the session.
func (p *publisher) run(life context.Context, s *session) error {
	var hearing sync.WaitGroup
	hearing.Go(p.hear)
	stop := context.AfterFunc(life, s.close) //nolint:contextcheck // closing has a deadline of its own
	err := p.write(life, s)
	close(p.over)
	stop()
	s.close() // ends what hear listens to
	hearing.Wait()
	p.fail()
	return err
}

// write publishes what comes until the session or life ends.
func (p *publisher) write(life context.Context, s *session) error {
	const exchange, immediate = "", false
	for {
		select {
		case w := <-p.writes:
			mandatory := w.to != ""
			w.message.MessageId = strconv.FormatUint(p.enter(w), 10)
			if err := s.channel.Publish(exchange, w.to, mandatory, immediate, w.message); err != nil {
				return err // with w in flight: nobody knows how much of it was written
			}
		case told := <-s.ended:
			return why(told)
		case <-life.Done():
			return life.Err()
		}
	}
}

// enter numbers a publication as RabbitMQ will.
func (p *publisher) enter(w *publication) (tag uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.written++
	p.inFlight[p.written] = w
	return p.written
}

// hear takes what RabbitMQ says until the library closes its channels.
func (p *publisher) hear() {
	returns, confirms, blocks := p.returns, p.confirms, p.blocks
	for returns != nil || confirms != nil || blocks != nil {
		select {
		case r, ok := <-returns:
			if !ok {
				returns = nil
				continue
			}
			p.returned(r.MessageId)
		case c, ok := <-confirms:
			if !ok {
				confirms = nil
				continue
			}
			p.confirmed(c)
		case b, ok := <-blocks:
			if !ok {
				blocks = nil
				continue
			}
			p.blocked(b.Active)
		}
	}
}

func (p *publisher) returned(messageID string) {
	tag, err := strconv.ParseUint(messageID, 10, 64)
	if err != nil {
		return // not ours, though nobody else has the channel
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.inFlight[tag]; w != nil {
		w.returned = true
	}
}

func (p *publisher) confirmed(c amqp091.Confirmation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.inFlight[c.DeliveryTag]
	if w == nil {
		return
	}
	delete(p.inFlight, c.DeliveryTag)
	switch {
	case !c.Ack:
		w.outcome <- ErrRefused
	case w.returned:
		w.outcome <- reply.ErrNoRequester
	default:
		w.outcome <- nil
	}
}

// fail ends what will not be confirmed any more.
func (p *publisher) fail() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for tag, w := range p.inFlight {
		delete(p.inFlight, tag)
		w.outcome <- fmt.Errorf("%w: the connection was lost: %w", ErrUnconfirmed, reply.ErrDown)
	}
}

// blocked notes whether RabbitMQ takes messages. What is written while it does not would fill the socket.
func (p *publisher) blocked(active bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flows:
		if active {
			p.flows = make(chan struct{})
			close(p.stuck)
		}
	default:
		if !active {
			p.stuck = make(chan struct{})
			close(p.flows)
		}
	}
}

func (p *publisher) flowing() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flows
}

func (p *publisher) sticking() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stuck
}

// probe is ErrBlocked if RabbitMQ takes no messages, and nil if it took one; another error says that it is not known. RabbitMQ
// says that it takes none only to who publishes one, so it gets one to nobody.
func (p *publisher) probe(ctx context.Context) error {
	w := &publication{outcome: make(chan error, 1)}
	stuck := p.sticking()
	select {
	case <-stuck:
		return ErrBlocked
	default:
	}
	select {
	case p.writes <- w:
	case <-p.over:
		return reply.ErrDown
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-w.outcome:
		return err
	case <-stuck:
		return ErrBlocked
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publish has a message written and waits until it is confirmed, or ctx or the session ends.
func (p *publisher) publish(ctx context.Context, to string, message amqp091.Publishing) error {
	select {
	case <-p.flowing():
	case <-p.over:
		return reply.ErrDown
	case <-ctx.Done():
		return errors.Join(ErrBlocked, ctx.Err())
	}
	began := time.Now()
	w := &publication{to: to, message: message, outcome: make(chan error, 1)}
	select {
	case p.writes <- w:
	case <-p.over:
		return reply.ErrDown
	case <-ctx.Done():
		return fmt.Errorf("the reply was not sent in time: %w", ctx.Err())
	}
	select {
	case err := <-w.outcome:
		p.in.confirm.Record(ctx, time.Since(began).Seconds())
		if errors.Is(err, reply.ErrNoRequester) {
			p.in.returned.Add(ctx, 1)
		}
		return err
	case <-ctx.Done():
		return p.unconfirmed(ctx.Err())
	}
}

// unconfirmed is the error of a publication that was written, but not confirmed in time.
func (p *publisher) unconfirmed(err error) error {
	select {
	case <-p.flowing():
		return fmt.Errorf("%w in time: %w", ErrUnconfirmed, err)
	default:
		return fmt.Errorf("%w in time: %w: %w", ErrUnconfirmed, ErrBlocked, err)
	}
}
