package amqp_test

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events/broker"
	"github.com/ebb-inference/ebb/events/conformance"
	"github.com/ebb-inference/ebb/events/rabbitmqtest"
	"github.com/ebb-inference/ebb/events/reply/amqp/amqptest"
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
	s := &conformance.System{
		URL: server.URL + "/",
		Subscribe: func(t *testing.T, tr trigger.Trigger, subscriberURL, deadLetterURL string) {
			t.Helper()
			require.NoError(t, b.Subscribe(tr, subscriberURL, deadLetterURL))
		},
	}
	amqptest.Connect(t, rabbitmqtest.Shared(t), s)
	return s
}

var quiet = slog.New(slog.DiscardHandler)
