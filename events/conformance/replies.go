//nolint:thelper // what takes a *testing.T here is a test, not a helper
package conformance

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/reply"
)

// requester is an open reply queue whose deliveries a test takes from channels.
type requester struct {
	inbox   reply.Inbox
	replies chan *events.Result
	lost    chan string
}

func listen(t *testing.T, s *System) *requester {
	t.Helper()
	r := &requester{replies: make(chan *events.Result, 4096), lost: make(chan string, 16)}
	inbox, err := s.Requester(t).Listen(t.Context(), reply.Listener{
		Reply: func(res *events.Result) { r.replies <- res },
		Lost:  func(address string) { r.lost <- address },
	})
	require.NoError(t, err)
	r.inbox = inbox
	t.Cleanup(func() {
		if err := inbox.Close(); err != nil {
			t.Errorf("closing an inbox: %v", err)
		}
	})
	return r
}

func (r *requester) address(t *testing.T) string {
	t.Helper()
	a, err := r.inbox.Address()
	require.NoError(t, err)
	require.True(t, reply.ValidAddress(a), a)
	return a
}

var replies = []test{
	{"a result arrives as it was sent", func(t *testing.T, s *System) {
		r := listen(t, s)
		failed := result("one")
		failed.TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
		answered := result("two")
		yes, p := true, 0.75
		answered.Problem, answered.Answer = nil, &events.Answer{
			Yes: &yes, Probability: &p, Top: []events.Class{{Label: "tabby, tabby cat", Probability: 0.5}, {Label: "ÄÖ <&>", Probability: 0.25}},
			ServedBy: events.ServedBy{Model: "network", Version: 1 << 40}, Timing: events.Timing{Queue: 0.125, Compute: 30}, BatchSize: 8,
		}
		for _, sent := range []*events.Result{failed, answered} {
			require.NoError(t, s.Responder.Respond(t.Context(), r.address(t), sent))
			require.Equal(t, sent, wait(t, r.replies, "the reply"))
		}
	}},
	{"many requesters each get their own", func(t *testing.T, s *System) {
		const requesters, each = 8, 50
		all := make([]*requester, 0, requesters)
		for range requesters {
			all = append(all, listen(t, s))
		}
		var responding sync.WaitGroup
		for i, r := range all {
			to := r.address(t)
			responding.Go(func() {
				for j := range each {
					if err := s.Responder.Respond(t.Context(), to, result(fmt.Sprintf("%d-%d", i, j))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for i, r := range all {
			got, want := make([]string, 0, each), make([]string, 0, each)
			for j := range each {
				got = append(got, wait(t, r.replies, "a reply").CorrelationID)
				want = append(want, fmt.Sprintf("%d-%d", i, j))
			}
			require.ElementsMatch(t, want, got)
		}
		responding.Wait()
		for _, r := range all {
			require.Empty(t, r.replies)
		}
	}},
	{"no two requesters share an address", func(t *testing.T, s *System) {
		one, other := listen(t, s), listen(t, s)
		require.NotEqual(t, one.address(t), other.address(t))
	}},
	{"to a requester that is gone there is no way", func(t *testing.T, s *System) {
		gone, here := listen(t, s), listen(t, s)
		to := gone.address(t)
		require.NoError(t, gone.inbox.Close())
		require.ErrorIs(t, s.Responder.Respond(t.Context(), to, result("late")), reply.ErrNoRequester)
		require.ErrorIs(t, s.Responder.Respond(t.Context(), nobody, result("never")), reply.ErrNoRequester)
		require.Empty(t, gone.replies)
		_, err := gone.inbox.Address()
		require.ErrorIs(t, err, reply.ErrDown)

		require.NoError(t, s.Responder.Respond(t.Context(), here.address(t), result("after")), "the responder works on")
		require.Equal(t, "after", wait(t, here.replies, "the reply").CorrelationID)
	}},
	{"what is no reply address is not sent to", func(t *testing.T, s *System) {
		r := listen(t, s)
		to := r.address(t)
		for _, bad := range []string{
			"", "ebb.to-cat.0198c0de", "amq.direct", "amq.rabbitmq.reply-to", "amq.gen-", to + "x", to[:len(to)-1], " " + to,
			strings.ToUpper(to), "amq.gen-" + strings.Repeat("a", 1<<16), to + "\x00",
		} {
			require.ErrorIs(t, s.Responder.Respond(t.Context(), bad, result("bad")), reply.ErrBadAddress, "%.64q", bad)
		}
		require.NoError(t, s.Responder.Respond(t.Context(), to, result("good")))
		require.Equal(t, "good", wait(t, r.replies, "the reply").CorrelationID)
	}},
	{"a result that is none is not sent", func(t *testing.T, s *System) {
		r := listen(t, s)
		bad := result("bad")
		bad.Problem = nil
		require.Error(t, s.Responder.Respond(t.Context(), r.address(t), bad))
		require.NoError(t, s.Responder.Respond(t.Context(), r.address(t), result("good")))
		require.Equal(t, "good", wait(t, r.replies, "the reply").CorrelationID)
	}},
	{"a lost reply queue is said to be lost, and a new one takes its place", func(t *testing.T, s *System) {
		r := listen(t, s)
		old := r.address(t)
		require.NoError(t, s.Responder.Respond(t.Context(), old, result("before")))
		require.Equal(t, "before", wait(t, r.replies, "the reply").CorrelationID)

		s.BreakReplies(t)
		require.Equal(t, old, wait(t, r.lost, "the loss"))
		renewed := r.afterLoss(t)
		require.NotEqual(t, old, renewed)
		require.ErrorIs(t, s.Responder.Respond(t.Context(), old, result("late")), reply.ErrNoRequester)
		require.NoError(t, s.Responder.Respond(t.Context(), renewed, result("after")))
		require.Equal(t, "after", wait(t, r.replies, "the reply").CorrelationID)
		require.Empty(t, r.lost)
	}},
	{"after Close nothing is delivered and nothing said to be lost", func(t *testing.T, s *System) {
		r := listen(t, s)
		require.NoError(t, r.inbox.Close())
		require.NoError(t, r.inbox.Close(), "closing twice is harmless")
		s.BreakReplies(t)
		require.Empty(t, r.lost)
		require.Empty(t, r.replies)
	}},
}

// afterLoss is the address of the new queue. Nothing announces it: a requester that has none to name fails its request with
// ErrDown, and asks again with the next; so does this.
func (r *requester) afterLoss(t *testing.T) (address string) {
	t.Helper()
	require.Eventually(t, func() bool {
		a, err := r.inbox.Address()
		address = a
		return err == nil
	}, Patience, 10*time.Millisecond)
	require.True(t, reply.ValidAddress(address), address)
	return address
}

var roundTrips = []test{
	{"each request gets its own answer, whatever the order", func(t *testing.T, s *System) {
		const requests = 60
		cats, dead := newSubscriber(t), newSubscriber(t)
		tr := patient("cat")
		tr.Delivery.Parallelism = requests
		s.Subscribe(t, tr, cats.url, dead.url)

		pending := reply.NewPending(requests)
		inbox, err := s.Requester(t).Listen(t.Context(), reply.Listener{
			Reply: func(r *events.Result) {
				if !pending.Deliver(r) {
					t.Errorf("a reply that nobody waits for: %s", r.CorrelationID)
				}
			},
			Lost: pending.Lose,
		})
		require.NoError(t, err)
		defer func() { require.NoError(t, inbox.Close()) }()
		address, err := inbox.Address()
		require.NoError(t, err)

		waiters := map[string]*reply.Waiter{}
		for i := range requests {
			r := request("cat")
			r.ReplyTo, r.CorrelationID, r.Data = address, strconv.Itoa(i), []byte("picture "+strconv.Itoa(i))
			w, err := pending.Add(r.CorrelationID, address)
			require.NoError(t, err)
			waiters[r.CorrelationID] = w
			s.publish(t, r)
		}
		held := make([]*call, requests) // all at once, to be answered in an order of our own
		for i := range held {
			held[i] = cats.next(t)
		}
		rand.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] }) //nolint:gosec // any order will do
		for _, c := range held {
			answer := result(c.event.CorrelationID)
			answer.RequestID = c.event.ID
			answer.Problem.Detail = "about " + string(c.event.Data)
			require.NoError(t, s.Responder.Respond(t.Context(), c.event.ReplyTo, answer))
			c.answer <- http.StatusOK
		}
		for id, w := range waiters {
			got, err := w.Wait(t.Context())
			require.NoError(t, err)
			require.Equal(t, "about picture "+id, got.Problem.Detail)
		}
		require.Zero(t, pending.Len())
	}},
	{"a requester that loses its queue loses the requests that wait on it, and no later one", func(t *testing.T, s *System) {
		cats, dead := newSubscriber(t), newSubscriber(t)
		s.Subscribe(t, patient("cat"), cats.url, dead.url)
		r := listen(t, s)
		before := request("cat")
		before.ReplyTo = r.address(t)
		s.publish(t, before)
		inHand := cats.next(t)
		require.Equal(t, before, inHand.event)

		s.BreakReplies(t)
		require.Equal(t, before.ReplyTo, wait(t, r.lost, "the loss"))
		require.ErrorIs(t, s.Responder.Respond(t.Context(), before.ReplyTo, result("before")), reply.ErrNoRequester)
		inHand.answer <- http.StatusOK

		after := request("cat")
		after.ReplyTo = r.afterLoss(t)
		s.publish(t, after)
		cats.expect(t, after, http.StatusOK)
		require.NoError(t, s.Responder.Respond(t.Context(), after.ReplyTo, result("after")))
		require.Equal(t, "after", wait(t, r.replies, "the reply").CorrelationID)
	}},
}
