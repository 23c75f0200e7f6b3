package amqp_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events/rabbitmqtest"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/events/reply/amqp"
	"github.com/ebb-inference/ebb/events/reply/amqp/amqptest"
)

func record(lives time.Duration) *reply.Record {
	now := time.Now().UTC().Truncate(time.Second)
	return &reply.Record{
		ID: uuid.Must(uuid.NewV7()).String(), Asked: []reply.Asked{{Model: "cat", Question: "Is it a cat?"}},
		Time: now, Deadline: now.Add(lives / 2), Expires: now.Add(lives),
	}
}

// openMailbox opens a mailbox with one result in it.
func openMailbox(t *testing.T, m *amqp.Mailboxes, r *amqp.Responder) (*reply.Record, *reply.Mail) {
	t.Helper()
	opened, answer := record(time.Hour), result("one")
	require.NoError(t, m.Open(t.Context(), opened))
	require.NoError(t, m.Set(t.Context(), opened.ID, reply.MarkAsked))
	require.NoError(t, r.Respond(t.Context(), reply.MailboxAddress(opened.ID), answer))
	mail, err := m.Read(t.Context(), opened.ID)
	require.NoError(t, err)
	require.Equal(t, *opened, mail.Record)
	require.Len(t, mail.Results, 1)
	require.Equal(t, []reply.Mark{reply.MarkAsked}, mail.Marks)
	return opened, mail
}

func TestAMailboxOutlivesRabbitMQAndItsReaders(t *testing.T) {
	t.Parallel()
	node := rabbitmqtest.Start(t)
	mailboxes, responder := amqptest.Mailboxes(t, node.URL()), amqptest.Responder(t, node.URL())
	opened, before := openMailbox(t, mailboxes, responder)
	to := reply.MailboxAddress(opened.ID)
	same := func() {
		t.Helper()
		eventually(t, func() bool {
			mail, err := mailboxes.Read(t.Context(), opened.ID)
			if err != nil {
				require.NotErrorIs(t, err, reply.ErrNoMailbox)
				return false
			}
			require.Equal(t, before, mail)
			return true
		})
	}

	// A reader that dies with the messages in hand.
	conn, err := amqp091.Dial(node.URL())
	require.NoError(t, err)
	ch, err := conn.Channel()
	require.NoError(t, err)
	handed, err := ch.Consume(to, "", false, true, false, false, nil)
	require.NoError(t, err)
	for range 3 {
		receive(t, handed)
	}
	_, err = mailboxes.Read(t.Context(), opened.ID)
	require.ErrorIs(t, err, reply.ErrMailboxBusy)
	require.NoError(t, conn.Close())
	same()

	// RabbitMQ ends in good order, with readers under way.
	stop := make(chan struct{})
	var reading sync.WaitGroup
	for range 4 {
		reading.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				mail, err := mailboxes.Read(t.Context(), opened.ID)
				if err == nil {
					assert.Equal(t, before, mail)
				} else {
					assert.NotErrorIs(t, err, reply.ErrNoMailbox)
				}
			}
		})
	}
	require.NoError(t, node.Stop())
	_, err = mailboxes.Read(t.Context(), opened.ID)
	require.ErrorIs(t, err, reply.ErrDown)
	require.ErrorIs(t, mailboxes.Open(t.Context(), record(time.Hour)), reply.ErrDown)
	require.ErrorIs(t, mailboxes.Delete(t.Context(), opened.ID), reply.ErrDown)
	require.NoError(t, node.Start(t.Context()))
	same()

	// And is killed, again with readers under way.
	require.NoError(t, node.Kill())
	require.NoError(t, node.Start(t.Context()))
	same()
	close(stop)
	reading.Wait()
	eventually(t, func() bool { return responder.Ready() == nil && mailboxes.Ready() == nil })
	require.NoError(t, responder.Respond(t.Context(), to, result("two")))
	mail, err := mailboxes.Read(t.Context(), opened.ID)
	require.NoError(t, err)
	require.Len(t, mail.Results, 2)
}

func TestAMailboxThatNobodyReadsExpires(t *testing.T) {
	t.Parallel()
	node := rabbitmqtest.Shared(t)
	mailboxes, responder := amqptest.Mailboxes(t, node.URL()), amqptest.Responder(t, node.URL())
	r := record(time.Second)
	require.NoError(t, mailboxes.Open(t.Context(), r))
	eventually(t, func() bool { // asking RabbitMQ for the queue would make it live longer; answering does not
		return errors.Is(responder.Respond(t.Context(), reply.MailboxAddress(r.ID), result("one")), reply.ErrNoRequester)
	})
}

func TestMailboxesOfSeveralReplicasAreTheSame(t *testing.T) {
	t.Parallel()
	node := rabbitmqtest.Shared(t)
	replicas := []*amqp.Mailboxes{amqptest.Mailboxes(t, node.URL()), amqptest.Mailboxes(t, node.URL())}
	responder := amqptest.Responder(t, node.URL())
	r := record(time.Hour)
	var opening sync.WaitGroup
	errs := make(chan error, 8)
	for i := range cap(errs) {
		opening.Go(func() {
			own := *r
			own.Expires = own.Expires.Add(time.Duration(i) * time.Minute) // a setting that one of them does not have yet
			errs <- replicas[i%2].Open(t.Context(), &own)
		})
	}
	opening.Wait()
	close(errs)
	opened := 0
	for err := range errs {
		if err == nil {
			opened++
			continue
		}
		require.ErrorIs(t, err, reply.ErrMailboxExists)
	}
	require.Equal(t, 1, opened)

	var reading sync.WaitGroup
	for _, m := range replicas {
		reading.Go(func() {
			for range 50 {
				mail, err := m.Read(t.Context(), r.ID)
				if assert.NoError(t, err) {
					assert.Equal(t, r.ID, mail.Record.ID)
				}
			}
		})
	}
	for range 20 {
		require.NoError(t, responder.Respond(t.Context(), reply.MailboxAddress(r.ID), result("one")))
	}
	reading.Wait()
	for _, m := range replicas {
		mail, err := m.Read(t.Context(), r.ID)
		require.NoError(t, err)
		require.Len(t, mail.Results, 20)
	}
}

func TestAMailboxWhoseOpenerDiedIsOpenedByTheNext(t *testing.T) {
	t.Parallel()
	node := rabbitmqtest.Shared(t)
	mailboxes := amqptest.Mailboxes(t, node.URL())
	r := record(time.Hour)
	declare(t, node.URL(), reply.MailboxAddress(r.ID)) // and came no further
	_, err := mailboxes.Read(t.Context(), r.ID)
	require.ErrorIs(t, err, reply.ErrMailboxBusy)
	require.NoError(t, mailboxes.Open(t.Context(), r))
	mail, err := mailboxes.Read(t.Context(), r.ID)
	require.NoError(t, err)
	require.Equal(t, *r, mail.Record)
}

// declare makes a durable queue.
func declare(t *testing.T, url, queue string) {
	t.Helper()
	conn, err := amqp091.Dial(url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	ch, err := conn.Channel()
	require.NoError(t, err)
	_, err = ch.QueueDeclare(queue, true, false, false, false, amqp091.Table{amqp091.QueueTTLArg: time.Minute.Milliseconds()})
	require.NoError(t, err)
}

func TestWhatIsInAMailboxAndIsNothingOfOursIsPassedOver(t *testing.T) {
	t.Parallel()
	node := rabbitmqtest.Shared(t)
	mailboxes, responder := amqptest.Mailboxes(t, node.URL()), amqptest.Responder(t, node.URL())
	opened, before := openMailbox(t, mailboxes, responder)
	conn, err := amqp091.Dial(node.URL())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	ch, err := conn.Channel()
	require.NoError(t, err)
	require.NoError(t, ch.Confirm(false))
	for _, strange := range []amqp091.Publishing{{}, {Type: "somebody's", Body: []byte("x")}, {Type: "ebb.mailbox.record", Body: []byte("{")}} {
		c, err := ch.PublishWithDeferredConfirmWithContext(t.Context(), "", reply.MailboxAddress(opened.ID), true, false, strange)
		require.NoError(t, err)
		require.True(t, c.Wait())
	}
	mail, err := mailboxes.Read(t.Context(), opened.ID)
	require.NoError(t, err)
	require.Equal(t, before, mail)
}

func TestAReaderThatHangsUpDisturbsNoOther(t *testing.T) {
	t.Parallel()
	node := rabbitmqtest.Shared(t)
	mailboxes, responder := amqptest.Mailboxes(t, node.URL()), amqptest.Responder(t, node.URL())
	opened, before := openMailbox(t, mailboxes, responder)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := mailboxes.Read(gone, opened.ID)
	require.ErrorIs(t, err, context.Canceled)
	mail, err := mailboxes.Read(t.Context(), opened.ID)
	require.NoError(t, err)
	require.Equal(t, before, mail)
}
