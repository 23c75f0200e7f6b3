package dataplane_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events/conformance"
	"github.com/ebb-inference/ebb/events/rabbitmq"
	"github.com/ebb-inference/ebb/events/rabbitmq/topology"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/events/reply/amqp"
	"github.com/ebb-inference/ebb/events/trigger"
	"github.com/ebb-inference/ebb/functions/local/dataplane"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	programs = "../../../.ebb/bin"
	patience = conformance.Patience
	interval = 20 * time.Millisecond
)

var quiet = slog.New(slog.DiscardHandler)

func startNode(t *testing.T) *rabbitmq.Node {
	t.Helper()
	node, err := rabbitmq.New(t.Context(), rabbitmq.Config{Management: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, node.Remove()) })
	return node
}

// start starts a data plane with a Broker of its own.
func start(t *testing.T, node *rabbitmq.Node, log *slog.Logger) *dataplane.DataPlane {
	t.Helper()
	d, err := dataplane.New(t.Context(), dataplane.Config{
		Programs: programs, Server: topology.Server{URL: node.URL(), ManagementURL: node.ManagementURL()},
		Broker: topology.NewBroker("ebb", uuid.NewString()), Logger: log,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Stop(context.Background())) })
	return d
}

func requireReady(t *testing.T, d *dataplane.DataPlane) {
	t.Helper()
	if !eventually(func() bool { return d.Ready() == nil }) {
		require.NoError(t, d.Ready())
	}
}

func eventually(is func() bool) bool {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for end := time.Now().Add(patience); !is(); <-tick.C {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

func TestConformance(t *testing.T) {
	t.Parallel()
	node := startNode(t)
	conformance.Run(t, conformance.Factory{
		New: func(t *testing.T) *conformance.System {
			t.Helper()
			d := start(t, node, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})))
			requireReady(t, d)
			return newSystem(t, node, d)
		},
		// It is the last test, and has the node for itself.
		Restart: func(t *testing.T, _ *conformance.System) {
			t.Helper()
			require.NoError(t, node.Sync(t.Context()))
			require.NoError(t, node.Kill())
			require.NoError(t, node.Start(t.Context()))
		},
	})
}

// newSystem is events over d and replies over RabbitMQ.
func newSystem(t *testing.T, node *rabbitmq.Node, d *dataplane.DataPlane) *conformance.System {
	t.Helper()
	network := newRelay(t, node.Address())
	responder, err := amqp.NewResponder(t.Context(), amqp.Config{URL: node.URL(), Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, responder.Close(ctx))
	})
	var mu sync.Mutex
	var inboxes []reply.Inbox
	return &conformance.System{
		URL: d.URL(),
		Subscribe: func(t *testing.T, tr trigger.Trigger, subscriberURL, deadLetterURL string) {
			t.Helper()
			require.NoError(t, d.Subscribe(t.Context(), tr, subscriberURL, deadLetterURL))
		},
		Requester: func(t *testing.T) reply.Requester {
			t.Helper()
			q, err := amqp.NewRequester(amqp.Config{URL: "amqp://guest:guest@" + network.address() + "/", Logger: quiet})
			require.NoError(t, err)
			return listening(func(ctx context.Context, l reply.Listener) (reply.Inbox, error) {
				in, err := q.Listen(ctx, l)
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					inboxes = append(inboxes, in)
				}
				return in, err
			})
		},
		Responder: responder,
		BreakReplies: func(t *testing.T) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			var gone []string
			for _, in := range inboxes {
				if address, err := in.Address(); err == nil {
					gone = append(gone, address)
				}
			}
			network.cut()
			requireGone(t, node.URL(), gone) // RabbitMQ deletes a queue a moment after its connection
		},
	}
}

// listening is a reply.Requester.
type listening func(context.Context, reply.Listener) (reply.Inbox, error)

func (f listening) Listen(ctx context.Context, l reply.Listener) (reply.Inbox, error) {
	return f(ctx, l)
}

func requireGone(t *testing.T, url string, queues []string) {
	t.Helper()
	conn, err := amqp091.Dial(url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	for _, queue := range queues {
		require.True(t, eventually(func() bool {
			ch, err := conn.Channel()
			if err != nil {
				return false
			}
			_, err = ch.QueueDeclarePassive(queue, false, true, true, false, nil) // its error closes the channel
			var why *amqp091.Error
			return errors.As(err, &why) && why.Code == amqp091.NotFound
		}))
	}
}

// relay passes connections on, and can cut them.
type relay struct {
	listener net.Listener
	to       string
	passing  sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{listener: ln, to: to}
	r.passing.Go(r.accept)
	t.Cleanup(func() {
		require.NoError(t, ln.Close())
		r.cut()
		r.passing.Wait()
	})
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		out, err := net.Dial("tcp", r.to)
		if err != nil { // RabbitMQ is away
			_ = in.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, in, out)
		r.mu.Unlock()
		r.passing.Go(func() { pass(in, out) })
		r.passing.Go(func() { pass(out, in) })
	}
}

// pass ends both directions when one ends.
func pass(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.Close()
	_ = from.Close()
}

func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}
