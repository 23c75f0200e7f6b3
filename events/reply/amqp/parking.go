package amqp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/parking"
	"github.com/ebb-inference/ebb/events/reply"
)

const (
	// ParkingQueue is the queue that is the parking place.
	ParkingQueue = "ebb.deadletters"
	// parkingLock is an exclusive queue: whoever has it has the letters in hand.
	parkingLock = "ebb.deadletters.hold"
)

// parkingArguments are those of the queue. RabbitMQ 4 throws away what was put back twenty times unless a queue says
// otherwise, and reading the letters is putting them back; older ones know no word for "never".
var parkingArguments = amqp091.Table{
	amqp091.QueueTypeArg:        amqp091.QueueTypeQuorum,
	amqp091.QueueMaxLenArg:      parking.MaxLetters,
	amqp091.QueueMaxLenBytesArg: parking.MaxBytes,
	amqp091.QueueMessageTTLArg:  parking.TTL.Milliseconds(),
	amqp091.QueueOverflowArg:    amqp091.QueueOverflowRejectPublish,
	"x-delivery-limit":          1 << 30,
}

// Parking is a parking place in RabbitMQ: a durable quorum queue, in which letters are persistent messages of the same form
// as results, with the time of parking as the property timestamp.
type Parking struct {
	out *Responder
	ask *channels
}

var _ parking.Place = (*Parking)(nil)

// NewParking connects, as NewResponder does, and makes the queue if it is not there. Close ends the Parking.
func NewParking(ctx context.Context, c Config) (*Parking, error) {
	out, err := NewResponder(ctx, c)
	if err != nil {
		return nil, err
	}
	p := &Parking{out: out, ask: &channels{cfg: out.cfg}}
	if err := p.declare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("parking dead letters: %w", err), p.Close(ctx))
	}
	return p, nil
}

// Ready says why no letter could be parked now, or nil.
func (p *Parking) Ready() error { return p.out.Ready() }

// Close waits for what is being parked and closes the connections; see Responder.Close.
func (p *Parking) Close(ctx context.Context) error {
	err := p.out.Close(ctx)
	p.ask.close()
	return err
}

func (p *Parking) declare(ctx context.Context) error {
	return p.ask.use(ctx, func(ch *amqp091.Channel) error {
		const durable, autoDelete, exclusive, noWait = true, false, false, false
		_, err := ch.QueueDeclare(ParkingQueue, durable, autoDelete, exclusive, noWait, parkingArguments)
		if isCode(err, amqp091.PreconditionFailed) {
			return fmt.Errorf("the queue %s has other arguments: empty it, and delete it: %w", ParkingQueue, err)
		}
		return err
	})
}

// Park stores a letter. Parked of l is not read: it is now. The error may be one of Respond's besides those of
// parking.Place.
func (p *Parking) Park(ctx context.Context, l *parking.Letter) error {
	if err := p.park(ctx, l); err != nil {
		return fmt.Errorf("parking a dead letter: %w", err)
	}
	return nil
}

func (p *Parking) park(ctx context.Context, l *parking.Letter) error {
	m, err := encodeEvent(&l.Event)
	if err != nil {
		return fmt.Errorf("%w: %w", events.ErrMalformed, err)
	}
	if err := fits(&m); err != nil {
		return err
	}
	m.DeliveryMode, m.Timestamp = amqp091.Persistent, time.Now()
	err = p.out.send(ctx, ParkingQueue, m)
	if errors.Is(err, reply.ErrNoRequester) { // somebody deleted the queue
		if err = p.declare(ctx); err == nil {
			err = p.out.send(ctx, ParkingQueue, m)
		}
	}
	if errors.Is(err, ErrRefused) {
		return parking.ErrFull
	}
	return err
}

// longestWord is the longest name of a header and the longest content type: AMQP's short strings.
const longestWord = 255

// fits says whether the message's attributes fit into the one frame that they have to. What does not would cost the
// connection, with all that is under way on it.
func fits(m *amqp091.Publishing) error {
	size := len(m.ContentType)
	for name, value := range m.Headers {
		text, _ := value.(string)
		size += len(name) + len(text)
		if len(name) > longestWord {
			return fmt.Errorf("%w: an attribute's name has %d bytes", events.ErrTooLarge, len(name)-len(headerPrefix))
		}
	}
	if len(m.ContentType) > longestWord || size > parking.MaxAttributeBytes {
		return fmt.Errorf("%w: %d bytes of attributes, %d of them the content type; at most %d and %d can be parked",
			events.ErrTooLarge, size, len(m.ContentType), parking.MaxAttributeBytes, longestWord)
	}
	return nil
}

// hold is a parking.Hold over one session. RabbitMQ is asked for one letter after the other, and keeps their data until
// then: a consumer would be sent all of it at once, as one that waited for room would wait for ever behind the letters that
// it keeps in hand.
type hold struct {
	s       *session
	timeout time.Duration // of one question

	mu      sync.Mutex
	last    uint64 // ticket; the first is 1
	removed map[uint64]bool
}

// HoldParking takes the letters of the parking place in hand. The error may wrap parking.ErrInUse or parking.ErrNoPlace.
//
// RabbitMQ takes back, by closing the connection, what somebody has had in hand for half an hour, unless its operators
// have changed that.
func HoldParking(ctx context.Context, c Config) (parking.Hold, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	s, err := c.dial(ctx, func(s *session) error {
		const durable, autoDelete, exclusive, noWait = true, true, true, false
		if _, err := s.channel.QueueDeclare(parkingLock, !durable, autoDelete, exclusive, noWait, nil); err != nil {
			if isCode(err, amqp091.ResourceLocked) {
				return parking.ErrInUse
			}
			return err
		}
		_, err := s.channel.QueueDeclarePassive(ParkingQueue, durable, !autoDelete, !exclusive, noWait, nil)
		if isCode(err, amqp091.NotFound) {
			return fmt.Errorf("%w: there is no queue %s", parking.ErrNoPlace, ParkingQueue)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dead letters in RabbitMQ at %s: %w", host(c.URL), err)
	}
	return &hold{s: s, timeout: c.Timeout, removed: map[uint64]bool{}}, nil
}

func (h *hold) Next(ctx context.Context) (*parking.Held, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("reading dead letters: %w", err)
	}
	// Who gives up in between shall still be able to put back. A RabbitMQ that says nothing is another matter.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.timeout)
	defer cancel()
	defer context.AfterFunc(ctx, h.s.close)() //nolint:contextcheck // closing has a deadline of its own
	const autoAck = false
	d, ok, err := h.s.channel.Get(ParkingQueue, autoAck)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading dead letters: %w", inTime(ctx, err))
	case !ok:
		return nil, io.EOF
	}
	h.mu.Lock()
	h.last = d.DeliveryTag
	h.mu.Unlock()
	held := &parking.Held{Bytes: len(d.Body), Ticket: d.DeliveryTag}
	ev, err := decodeEvent(&d)
	if err == nil {
		if err = ev.Validate(); err != nil {
			err = malformed(err)
		}
	}
	if err != nil {
		held.Err = err
		return held, nil
	}
	held.Letter = &parking.Letter{Event: ev, Parked: d.Timestamp.UTC()}
	return held, nil
}

func (h *hold) Remove(held *parking.Held) error {
	const multiple = false
	if err := h.s.channel.Ack(held.Ticket, multiple); err != nil {
		return fmt.Errorf("removing a dead letter: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removed[held.Ticket] = true
	return nil
}

// Close puts the letters back one by one: RabbitMQ would do it as well, in some order. It puts what comes back behind what
// came back before, and before what never left.
func (h *hold) Close() error {
	err := h.putBack()
	lost := h.s.channel.IsClosed()
	if err == nil {
		err = h.s.channel.Close() // RabbitMQ has done then what it was told on it
	}
	h.s.close()
	if lost { // closing what is closed succeeds
		err = errors.New("the connection was lost, and RabbitMQ does it; what was removed last may still be there")
	}
	if err != nil {
		return fmt.Errorf("putting dead letters back: %w", err)
	}
	return nil
}

func (h *hold) putBack() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	const multiple, requeue = false, true
	for ticket := uint64(1); ticket <= h.last; ticket++ {
		if h.removed[ticket] {
			continue
		}
		if err := h.s.channel.Nack(ticket, multiple, requeue); err != nil {
			return err
		}
	}
	return nil
}
