// Package amqptest gives tests replies over a RabbitMQ node, and a network to it that they can break. It knows nothing of
// what is tested with them.
package amqptest

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events/conformance"
	"github.com/ebb-inference/ebb/events/rabbitmq"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/events/reply/amqp"
)

const patience = conformance.Patience

// Config is that of everything here. It logs nothing.
func Config(url string) amqp.Config {
	return amqp.Config{URL: url, Name: "test", Logger: slog.New(slog.DiscardHandler)}
}

// Connect gives a System of the conformance suite replies over a node, for one test.
func Connect(t *testing.T, node *rabbitmq.Node, s *conformance.System) {
	t.Helper()
	network := NewProxy(t, Listen(t), node.Address())
	r := &recorder{}
	s.Requester = func(t *testing.T) reply.Requester {
		t.Helper()
		q, err := amqp.NewRequester(Config(network.URL()))
		require.NoError(t, err)
		return recording{q, r}
	}
	s.Responder = Responder(t, node.URL())
	s.Mailboxes = Mailboxes(t, node.URL())
	s.BreakReplies = func(t *testing.T) {
		t.Helper()
		gone := r.addresses()
		network.Cut()
		// RabbitMQ deletes a queue in a moment after its connection is gone.
		for _, queue := range gone {
			requireGone(t, node.URL(), queue)
		}
	}
}

// recorder knows the Inboxes that were opened.
type recorder struct {
	mu      sync.Mutex
	inboxes []reply.Inbox
}

type recording struct {
	reply.Requester
	recorder *recorder
}

func (r recording) Listen(ctx context.Context, l reply.Listener) (reply.Inbox, error) {
	in, err := r.Requester.Listen(ctx, l)
	if err == nil {
		r.recorder.mu.Lock()
		defer r.recorder.mu.Unlock()
		r.recorder.inboxes = append(r.recorder.inboxes, in)
	}
	return in, err
}

func (r *recorder) addresses() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, in := range r.inboxes {
		if a, err := in.Address(); err == nil {
			all = append(all, a)
		}
	}
	return all
}

// requireGone waits until there is no such queue.
func requireGone(t *testing.T, url, queue string) {
	t.Helper()
	conn, err := amqp091.Dial(url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	require.Eventually(t, func() bool {
		ch, err := conn.Channel()
		if err != nil {
			return false
		}
		_, err = ch.QueueDeclarePassive(queue, false, true, true, false, nil) // its error closes the channel
		var why *amqp091.Error
		return errors.As(err, &why) && why.Code == amqp091.NotFound
	}, patience, 10*time.Millisecond)
}

// Responder makes a Responder for one test.
func Responder(t *testing.T, url string) *amqp.Responder {
	t.Helper()
	r, err := amqp.NewResponder(t.Context(), Config(url))
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, r.Close(ctx))
	})
	return r
}

// Mailboxes makes Mailboxes for one test.
func Mailboxes(t *testing.T, url string) *amqp.Mailboxes {
	t.Helper()
	m, err := amqp.NewMailboxes(t.Context(), Config(url))
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, m.Close(ctx))
	})
	return m
}
