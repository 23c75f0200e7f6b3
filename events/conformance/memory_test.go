package conformance_test

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events/broker"
	"github.com/ebb-inference/ebb/events/conformance"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/events/trigger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	t.Parallel()
	conformance.Run(t, conformance.Factory{Mailboxes: true, New: func(t *testing.T) *conformance.System {
		t.Helper()
		b := broker.New(broker.Config{Logger: slog.New(slog.DiscardHandler)})
		server := httptest.NewServer(b)
		t.Cleanup(func() {
			server.Close()
			now, cancel := context.WithCancel(context.Background())
			cancel()
			_ = b.Stop(now) // a test may end with events that it left on purpose
		})
		hub := reply.NewHub()
		return &conformance.System{
			URL: server.URL + "/",
			Subscribe: func(t *testing.T, tr trigger.Trigger, subscriberURL, deadLetterURL string) {
				t.Helper()
				require.NoError(t, b.Subscribe(tr, subscriberURL, deadLetterURL))
			},
			Requester:    func(*testing.T) reply.Requester { return hub },
			Responder:    hub,
			Mailboxes:    hub,
			BreakReplies: func(*testing.T) { hub.Break() },
		}
	}})
}
