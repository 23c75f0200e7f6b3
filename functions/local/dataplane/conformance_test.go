package dataplane_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events/conformance"
	"github.com/ebb-inference/ebb/events/rabbitmq"
	"github.com/ebb-inference/ebb/events/rabbitmq/topology"
	"github.com/ebb-inference/ebb/events/reply/amqp/amqptest"
	"github.com/ebb-inference/ebb/events/trigger"
	"github.com/ebb-inference/ebb/functions/local/dataplane"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	programs = "../../../.ebb/bin"
	patience = conformance.Patience
	interval = 20 * time.Millisecond
)

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
	s := &conformance.System{
		URL: d.URL(),
		Subscribe: func(t *testing.T, tr trigger.Trigger, subscriberURL, deadLetterURL string) {
			t.Helper()
			require.NoError(t, d.Subscribe(t.Context(), tr, subscriberURL, deadLetterURL))
		},
	}
	amqptest.Connect(t, node, s)
	return s
}
