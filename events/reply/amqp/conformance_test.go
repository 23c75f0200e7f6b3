package amqp_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events/broker"
	"github.com/ebb-inference/ebb/events/conformance"
	"github.com/ebb-inference/ebb/events/rabbitmqtest"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/events/reply/amqp"
	"github.com/ebb-inference/ebb/events/trigger"
)

func TestMain(m *testing.M) { rabbitmqtest.Main(m) }

func TestConformance(t *testing.T) {
	t.Parallel()
	conformance.Run(t, conformance.Factory{Mailboxes: true, New: newSystem})
}

// newSystem is events over the broker in memory and replies over RabbitMQ.
func newSystem(t *testing.T) *conformance.System {
	t.Helper()
	b := broker.New(broker.Config{Logger: quiet})
	server := httptest.NewServer(b)
	t.Cleanup(func() {
		server.Close()
		now, cancel := context.WithCancel(context.Background())
		cancel()
		_ = b.Stop(now) // a test may end with events that it left on purpose
	})
	node := rabbitmqtest.Shared(t)
	network := newProxy(t, listenTCP(t), node.Address())
	r := &recorder{}
	return &conformance.System{
		URL: server.URL + "/",
		Subscribe: func(t *testing.T, tr trigger.Trigger, subscriberURL, deadLetterURL string) {
			t.Helper()
			require.NoError(t, b.Subscribe(tr, subscriberURL, deadLetterURL))
		},
		Requester: func(t *testing.T) reply.Requester {
			t.Helper()
			q, err := amqp.NewRequester(config(through(network)))
			require.NoError(t, err)
			return r.record(q)
		},
		Responder: respond(t, node.URL()),
		Mailboxes: keepMailboxes(t, node.URL()),
		BreakReplies: func(t *testing.T) {
			t.Helper()
			gone := r.addresses()
			network.cut()
			// RabbitMQ deletes a queue in a moment after its connection is gone.
			for _, queue := range gone {
				requireGone(t, node.URL(), queue)
			}
		},
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

func (r *recorder) record(q reply.Requester) reply.Requester { return recording{q, r} }

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

var quiet = slog.New(slog.DiscardHandler)

func config(url string) amqp.Config { return amqp.Config{URL: url, Name: "test", Logger: quiet} }

func through(p *proxy) string { return "amqp://guest:guest@" + p.listener.Addr().String() + "/" }

// respond makes a Responder for one test.
func respond(t *testing.T, url string) *amqp.Responder {
	t.Helper()
	r, err := amqp.NewResponder(t.Context(), config(url))
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, r.Close(ctx))
	})
	return r
}

// keepMailboxes makes Mailboxes for one test.
func keepMailboxes(t *testing.T, url string) *amqp.Mailboxes {
	t.Helper()
	m, err := amqp.NewMailboxes(t.Context(), config(url))
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, m.Close(ctx))
	})
	return m
}
