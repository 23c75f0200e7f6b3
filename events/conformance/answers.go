//nolint:thelper // what takes a *testing.T here is a test, not a helper
package conformance

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/trigger"
)

// dueTrier is a Trigger for the events that subscribers answer with.
func dueTrier() trigger.Trigger {
	tr := patient("callback")
	tr.Filter = map[string]string{"type": events.TypeCallbackDue}
	return tr
}

// due is an event to answer with, and as what a subscriber reads it.
func due(t *testing.T) (header http.Header, read *events.Request) {
	t.Helper()
	c := &events.CallbackDue{ID: uuid.NewString(), Source: "/ebb/conformance", Time: time.Now().UTC().Truncate(time.Second), RequestID: uuid.NewString()}
	header = http.Header{}
	require.NoError(t, c.WriteTo(header))
	return header, &events.Request{ID: c.ID, Source: c.Source, Time: c.Time, CorrelationID: c.RequestID}
}

func (c *call) answerWith(status int, header http.Header) {
	for name, values := range header {
		c.with[name] = values
	}
	c.answer <- status
}

// What a subscriber answers a delivery with is published, if it is an event.
var answers = []test{
	{"an event in an answer goes to whom it matches, and the delivery is one", func(t *testing.T, s *System) {
		cats, callbacks, dead := newSubscriber(t), newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, trier("cat", 0), cats.url, dead.url)
		s.Subscribe(t, dueTrier(), callbacks.url, dead.url)
		for _, status := range []int{http.StatusOK, http.StatusAccepted} {
			event := request("cat")
			s.publish(t, event)
			header, read := due(t)
			delivered := cats.next(t)
			require.Equal(t, event, delivered.event)
			delivered.answerWith(status, header)
			callbacks.expect(t, read, http.StatusNoContent)
		}
		last := request("cat")
		s.publish(t, last)
		cats.expect(t, last, http.StatusOK)
	}},
	{"an event in an answer that matches nothing is dropped", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, trier("cat", 0), cats.url, dead.url)
		event := request("cat")
		s.publish(t, event)
		header, _ := due(t)
		cats.next(t).answerWith(http.StatusOK, header)
		last := request("cat")
		s.publish(t, last)
		cats.expect(t, last, http.StatusOK)
	}},
	{"an event in the answer of an attempt that failed is not published", func(t *testing.T, s *System) {
		cats, callbacks, dead := newSubscriber(t), newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, trier("cat", 1), cats.url, dead.url)
		s.Subscribe(t, dueTrier(), callbacks.url, dead.url)
		event := request("cat")
		s.publish(t, event)
		failed, _ := due(t)
		cats.next(t).answerWith(http.StatusServiceUnavailable, failed)
		header, read := due(t)
		again := cats.next(t)
		require.Equal(t, event, again.event)
		again.answerWith(http.StatusOK, header)
		callbacks.expect(t, read, http.StatusOK)
	}},
	{"an event in the answer of a dead letter sink is published, too", func(t *testing.T, s *System) {
		cats, callbacks, dead := newSubscriber(t), newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, trier("cat", 0), cats.url, dead.url)
		s.Subscribe(t, dueTrier(), callbacks.url, dead.url)
		event := request("cat")
		s.publish(t, event)
		cats.expect(t, event, http.StatusInternalServerError)
		header, read := due(t)
		letter := dead.next(t)
		require.Equal(t, event, letter.event)
		letter.answerWith(http.StatusOK, header)
		callbacks.expect(t, read, http.StatusOK)
	}},
}
