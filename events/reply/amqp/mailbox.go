package amqp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/uuid"
	"github.com/rabbitmq/amqp091-go"

	"github.com/ebb-inference/ebb/events/reply"
)

// The kinds of messages in a mailbox that are no results: the property type.
const (
	kindRecord = "ebb.mailbox.record"
	kindMark   = "ebb.mailbox.mark"
)

// The bounds of one mailbox. What is beyond them is refused.
const (
	mailboxMessages = 150 // RabbitMQ hands a consumer 200 at once, and who reads needs them all
	mailboxBytes    = 16 << 20
)

// The pauses between two looks at a mailbox that somebody else has in hand, which takes some milliseconds, and how many
// looks there are: about two seconds' worth.
const (
	firstLook = 2 * time.Millisecond
	lastLook  = 50 * time.Millisecond
	looks     = 45
)

// Mailboxes are durable queues, one a request, that RabbitMQ deletes when nobody has used them for as long as they live.
// The first message of a queue is the record, as JSON; results and marks follow. All are persistent, and confirmed before
// anybody is told. Names, times and addresses that are in there are not secret to RabbitMQ's operators.
//
// The queues are classic ones. A quorum queue would throw away a message that was put back often enough, and putting back
// is what reading a mailbox is; and each would be a group of processes on several nodes. So in a cluster of RabbitMQ a
// mailbox is away while its node is.
//
// Who reads consumes exclusively, so that RabbitMQ lets in one at a time among all processes, takes what is there, and puts
// it back in its place with one word. When a reader or RabbitMQ dies in between, RabbitMQ puts it back likewise. Who finds
// a queue in use, or without its record at the front, since the one before has not put back yet, looks again.
type Mailboxes struct {
	cfg Config
	out *Responder // publishes; RabbitMQ holds up its connection while it is short of memory, so there is another for reading
	in  *channels
}

var _ reply.Mailboxes = (*Mailboxes)(nil)

// NewMailboxes connects, as NewResponder does. Close ends the Mailboxes.
func NewMailboxes(ctx context.Context, c Config) (*Mailboxes, error) {
	out, err := NewResponder(ctx, c)
	if err != nil {
		return nil, err
	}
	return &Mailboxes{cfg: out.cfg, out: out, in: &channels{cfg: out.cfg}}, nil
}

// Ready says why no mailbox could be opened now, or nil.
func (m *Mailboxes) Ready() error { return m.out.Ready() }

// Close closes the connections; see Responder.Close. What is being read fails.
func (m *Mailboxes) Close(ctx context.Context) error {
	err := m.out.Close(ctx)
	m.in.close()
	return err
}

// Open makes a mailbox. When several try at once, the one whose record is the first in the queue has made it.
func (m *Mailboxes) Open(ctx context.Context, r *reply.Record) error {
	if err := r.Validate(); err != nil {
		return fmt.Errorf("opening a mailbox: %w", err)
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("opening a mailbox: %w", err)
	}
	if len(body) > reply.MaxRecordBytes {
		return errors.New("opening a mailbox: the record is too large")
	}
	isNew, err := m.declare(ctx, r)
	if err != nil {
		return fmt.Errorf("opening a mailbox: %w", err)
	}
	if !isNew {
		switch _, _, err := m.look(ctx, r.ID); {
		case err == nil:
			return reply.ErrMailboxExists
		case !errors.Is(err, errNoRecord): // else: whoever declared it came no further
			return fmt.Errorf("opening a mailbox: %w", err)
		}
	}
	mine := uuid.NewString()
	err = m.put(ctx, r.ID, amqp091.Publishing{Type: kindRecord, CorrelationId: mine, ContentType: event.ApplicationJSON, Body: body})
	if err != nil {
		return fmt.Errorf("opening a mailbox: %w", err)
	}
	first, _, err := m.look(ctx, r.ID)
	switch {
	case err != nil:
		return fmt.Errorf("opening a mailbox: %w", err)
	case first != mine:
		return reply.ErrMailboxExists
	}
	return nil
}

// declare makes the queue. It is not new when it was there already, as far as RabbitMQ says so: a queue whose messages
// somebody has in hand looks new.
func (m *Mailboxes) declare(ctx context.Context, r *reply.Record) (isNew bool, err error) {
	// RabbitMQ counts from the last time that somebody read, so a mailbox is never gone early; Read looks at the record, too.
	lives := time.Until(r.Expires).Round(time.Second) + time.Second
	if lives <= 0 {
		return false, errors.New("it has expired already")
	}
	err = m.use(ctx, func(ch *amqp091.Channel) error {
		const durable, autoDelete, exclusive, noWait = true, false, false, false
		q, err := ch.QueueDeclare(reply.MailboxAddress(r.ID), durable, autoDelete, exclusive, noWait, amqp091.Table{
			amqp091.QueueTypeArg:        amqp091.QueueTypeClassic,
			amqp091.QueueTTLArg:         lives.Milliseconds(),
			amqp091.QueueMaxLenArg:      mailboxMessages,
			amqp091.QueueMaxLenBytesArg: mailboxBytes,
			amqp091.QueueOverflowArg:    amqp091.QueueOverflowRejectPublish,
		})
		isNew = q.Messages == 0 && q.Consumers == 0
		return err
	})
	if isCode(err, amqp091.PreconditionFailed) { // it is there, and lives for another time
		return false, nil
	}
	return isNew, err
}

// Read returns what is in a mailbox.
func (m *Mailboxes) Read(ctx context.Context, id string) (*reply.Mail, error) {
	_, mail, err := m.look(ctx, id)
	if errors.Is(err, errNoRecord) { // it is being opened, or somebody reads it all the time
		return nil, fmt.Errorf("reading a mailbox: %w", reply.ErrMailboxBusy)
	}
	if err != nil {
		return nil, fmt.Errorf("reading a mailbox: %w", err)
	}
	if time.Now().Before(mail.Record.Expires) {
		return mail, nil
	}
	if err := m.Delete(ctx, id); err != nil && !errors.Is(err, reply.ErrNoMailbox) {
		m.cfg.Logger.WarnContext(ctx, "a mailbox that has expired was not deleted; RabbitMQ will", "request_id", id, "error", err)
	}
	return nil, fmt.Errorf("reading a mailbox: %w", reply.ErrMailboxGone)
}

// Set puts a mark on a mailbox.
func (m *Mailboxes) Set(ctx context.Context, id string, mark reply.Mark) error {
	if err := m.put(ctx, id, amqp091.Publishing{Type: kindMark, Body: []byte(mark)}); err != nil {
		return fmt.Errorf("marking a mailbox: %w", err)
	}
	return nil
}

// Delete deletes the queue.
func (m *Mailboxes) Delete(ctx context.Context, id string) error {
	err := m.use(ctx, func(ch *amqp091.Channel) error {
		const durable, autoDelete, exclusive, noWait, ifUnused, ifEmpty = true, false, false, false, false, false
		queue := reply.MailboxAddress(id)
		// Deleting what is not there succeeds, so somebody has to ask.
		if _, err := ch.QueueDeclarePassive(queue, durable, autoDelete, exclusive, noWait, nil); err != nil {
			return err
		}
		_, err := ch.QueueDelete(queue, ifUnused, ifEmpty, noWait)
		return err
	})
	if err != nil {
		return fmt.Errorf("deleting a mailbox: %w", err)
	}
	return nil
}

// put stores a message in a mailbox.
func (m *Mailboxes) put(ctx context.Context, id string, message amqp091.Publishing) error {
	message.DeliveryMode = amqp091.Persistent
	err := m.out.send(ctx, reply.MailboxAddress(id), message)
	if errors.Is(err, reply.ErrNoRequester) {
		return reply.ErrNoMailbox
	}
	return err
}

// errNoRecord says that a mailbox was found without its record each time.
var errNoRecord = errors.New("there is no record in the mailbox")

// look reads a mailbox, and looks again while somebody else has it in hand. first is what Open gave the record that
// counts.
func (m *Mailboxes) look(ctx context.Context, id string) (first string, mail *reply.Mail, err error) {
	pause := firstLook
	for range looks {
		var messages []amqp091.Delivery
		err = m.use(ctx, func(ch *amqp091.Channel) (err error) {
			messages, err = take(ch, reply.MailboxAddress(id))
			return err
		})
		switch {
		case isCode(err, amqp091.AccessRefused):
			err = reply.ErrMailboxBusy
		case err != nil:
			return "", nil, err
		case len(messages) > 0 && messages[0].Type == kindRecord:
			mail, err := m.sort(ctx, messages)
			return messages[0].CorrelationId, mail, err
		default:
			err = errNoRecord
		}
		wait := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // keeps readers from meeting again
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return "", nil, errors.Join(err, ctx.Err())
		}
		pause = min(2*pause, lastLook)
	}
	return "", nil, err
}

// take takes all messages of a queue and puts them back.
//
// RabbitMQ hands a new consumer what there is before it hears that the consumer goes away. It has heard that it is to put
// back when the channel is closed.
func take(ch *amqp091.Channel, queue string) ([]amqp091.Delivery, error) {
	const autoAck, exclusive, noLocal, noWait, multiple, requeue = false, true, false, false, true, true
	handed, err := ch.Consume(queue, "reader", autoAck, exclusive, noLocal, noWait, nil)
	if err != nil {
		return nil, err
	}
	if err := ch.Cancel("reader", noWait); err != nil {
		return nil, err
	}
	var all []amqp091.Delivery
	for d := range handed { // the library closes it behind the last
		all = append(all, d)
	}
	if ch.IsClosed() { // then what was handed may have been cut short
		return nil, amqp091.ErrClosed
	}
	if len(all) == 0 {
		return nil, nil
	}
	return all, ch.Nack(all[len(all)-1].DeliveryTag, multiple, requeue)
}

// sort reads the messages of a mailbox. What is none of ours is passed over.
func (m *Mailboxes) sort(ctx context.Context, messages []amqp091.Delivery) (*reply.Mail, error) {
	mail := &reply.Mail{}
	if err := json.Unmarshal(messages[0].Body, &mail.Record); err != nil {
		return nil, fmt.Errorf("the record: %w", err)
	}
	if err := mail.Record.Validate(); err != nil {
		return nil, err
	}
	for i := range messages[1:] {
		d := &messages[i+1]
		switch d.Type {
		case kindRecord: // of somebody who came second
		case kindMark:
			if mark := reply.Mark(d.Body); !mail.Has(mark) {
				mail.Marks = append(mail.Marks, mark)
			}
		default:
			r, err := decode(d)
			if err != nil {
				m.out.in.refused.Add(ctx, 1)
				m.cfg.Logger.WarnContext(ctx, "a message in a mailbox is no result", "request_id", mail.Record.ID, "error", err)
				continue
			}
			mail.Results = append(mail.Results, r)
		}
	}
	return mail, nil
}

// use calls f with a channel for reading.
func (m *Mailboxes) use(ctx context.Context, f func(*amqp091.Channel) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := m.Ready(); err != nil { // do not wait for what is known to be away
		return err
	}
	if err := m.in.use(ctx, f); err != nil {
		return away(err)
	}
	return nil
}

// away says of an error what it means here: that there is no such queue, or no connection.
func away(err error) error {
	var said *amqp091.Error
	switch {
	case isCode(err, amqp091.NotFound):
		return reply.ErrNoMailbox
	case errors.Is(err, reply.ErrDown):
		return err
	case errors.As(err, &said) && (said.Code == amqp091.AccessRefused || said.Code == amqp091.PreconditionFailed):
		return err // about this queue, not about the connection
	default:
		return fmt.Errorf("%w: %w", reply.ErrDown, err)
	}
}
