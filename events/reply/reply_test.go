package reply_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/events/reply"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const replyTo = "amq.gen-JzTY20BRgKO-HjmUJj0wLg"

func result(correlationID string) *events.Result {
	return &events.Result{
		ID: uuid.NewString(), Source: "/ebb/dispatch/cat/test", Time: time.Now().UTC(),
		RequestID: uuid.NewString(), CorrelationID: correlationID, Model: "cat",
		Problem: problem.New("test", 422, "Test", correlationID),
	}
}

func TestValidAddress(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		replyTo:                             true,
		"amq.gen-0123456789-_ABCDEFxyzw":    true,
		"":                                  false,
		"amq.gen-":                          false,
		"amq.gen-JzTY20BRgKO-HjmUJj0wL":     false,
		"amq.gen-JzTY20BRgKO-HjmUJj0wLgg":   false,
		"amq.gen-JzTY20BRgKO+HjmUJj0wLg":    false,
		"amq.gen-JzTY20BRgKO/HjmUJj0wLg":    false,
		"amq.gen-JzTY20BRgKO-HjmUJj0wL=":    false,
		"amq.gen-JzTY20BRgKO-HjmUJj0w\x00g": false,
		"amq.gen-JzTY20BRgKO-HjmUJj0wé":     false,
		"amq.rabbitmq.reply-to.g1h2AA5y":    false,
		"AMQ.GEN-JzTY20BRgKO-HjmUJj0wLg":    false,
		"ebb.cat.0198c0de":                  false,
		" " + replyTo[1:]:                   false,
		replyTo + "\n":                      false,
		strings.Repeat("a", 1<<16):          false,
	} {
		require.Equal(t, want, reply.ValidAddress(address), "%.80q", address)
	}
}

func TestAReplyReachesTheRequestItAnswers(t *testing.T) {
	t.Parallel()
	p := reply.NewPending(2)
	require.Equal(t, 2, p.Limit())
	a, err := p.Add("a", replyTo)
	require.NoError(t, err)
	b, err := p.Add("b", replyTo)
	require.NoError(t, err)
	require.Equal(t, 2, p.Len())

	toA, toB := result("a"), result("b")
	require.True(t, p.Deliver(toB))
	require.True(t, p.Deliver(toA))
	require.Zero(t, p.Len())
	for w, want := range map[*reply.Waiter]*events.Result{a: toA, b: toB} {
		got, err := w.Wait(t.Context())
		require.NoError(t, err)
		require.Same(t, want, got)
	}
}

func TestADuplicateReplyIsForNobody(t *testing.T) {
	t.Parallel()
	p := reply.NewPending(1)
	w, err := p.Add("a", replyTo)
	require.NoError(t, err)
	first := result("a")
	require.True(t, p.Deliver(first))
	require.False(t, p.Deliver(result("a")))
	got, err := w.Wait(t.Context())
	require.NoError(t, err)
	require.Same(t, first, got)
	require.False(t, p.Deliver(result("never asked")))
}

func TestALateReplyIsForNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := reply.NewPending(1)
		w, err := p.Add("a", replyTo)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		_, err = w.Wait(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(began))
		require.Zero(t, p.Len())
		require.False(t, p.Deliver(result("a")))
		_, err = w.Wait(t.Context())
		require.ErrorIs(t, err, context.DeadlineExceeded, "waiting again changes nothing")
	})
}

func TestAReplyThatIsThereBeatsAnEndedContext(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // select would choose at random
		p := reply.NewPending(1)
		w, err := p.Add("a", replyTo)
		require.NoError(t, err)
		want := result("a")
		require.True(t, p.Deliver(want))
		got, err := w.Wait(ended)
		require.NoError(t, err)
		require.Same(t, want, got)
	}
}

func TestAFullTableTakesNoMoreUntilOneLeaves(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*reply.Pending, *reply.Waiter){
		"answered":  func(p *reply.Pending, _ *reply.Waiter) { p.Deliver(result("a")) },
		"cancelled": func(_ *reply.Pending, w *reply.Waiter) { w.Cancel() },
		"lost":      func(p *reply.Pending, _ *reply.Waiter) { p.Lose(replyTo) },
		"gave up": func(_ *reply.Pending, w *reply.Waiter) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_, _ = w.Wait(ctx) // for its effect
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := reply.NewPending(1)
			w, err := p.Add("a", replyTo)
			require.NoError(t, err)
			_, err = p.Add("b", replyTo)
			require.ErrorIs(t, err, reply.ErrFull)
			leave(p, w)
			require.Zero(t, p.Len())
			_, err = p.Add("b", "amq.gen-another-address-000000")
			require.NoError(t, err)
		})
	}
}

func TestACorrelationIDWaitsOnce(t *testing.T) {
	t.Parallel()
	p := reply.NewPending(3)
	w, err := p.Add("a", replyTo)
	require.NoError(t, err)
	_, err = p.Add("a", replyTo)
	require.ErrorIs(t, err, reply.ErrDuplicate)
	require.Equal(t, 1, p.Len())

	w.Cancel()
	again, err := p.Add("a", replyTo)
	require.NoError(t, err)
	w.Cancel()
	require.Equal(t, 1, p.Len(), "the old waiter must not take the new one out")
	require.True(t, p.Deliver(result("a")))
	_, err = again.Wait(t.Context())
	require.NoError(t, err)
}

func TestCancelEndsAWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := reply.NewPending(1)
		w, err := p.Add("a", replyTo)
		require.NoError(t, err)
		waited := make(chan error, 1)
		go func() {
			_, err := w.Wait(t.Context())
			waited <- err
		}()
		synctest.Wait()
		w.Cancel()
		w.Cancel()
		require.ErrorIs(t, <-waited, context.Canceled)
	})
}

func TestALostAddressFailsItsRequestsOnly(t *testing.T) {
	t.Parallel()
	const other = "amq.gen-another-address-000000"
	p := reply.NewPending(3)
	a, err := p.Add("a", replyTo)
	require.NoError(t, err)
	b, err := p.Add("b", other)
	require.NoError(t, err)
	p.Lose(replyTo)
	_, err = a.Wait(t.Context())
	require.ErrorIs(t, err, reply.ErrLost)
	require.Equal(t, 1, p.Len())

	_, err = p.Add("c", replyTo)
	require.ErrorIs(t, err, reply.ErrLost, "a request that read the address before it was lost must not wait in vain")

	want := result("b")
	require.True(t, p.Deliver(want))
	got, err := b.Wait(t.Context())
	require.NoError(t, err)
	require.Same(t, want, got)
}

func TestLostAddressesAreRememberedWithinABound(t *testing.T) {
	t.Parallel()
	p := reply.NewPending(1)
	for i := range 65 {
		p.Lose(fmt.Sprintf("amq.gen-%022d", i))
	}
	_, err := p.Add("a", fmt.Sprintf("amq.gen-%022d", 1))
	require.ErrorIs(t, err, reply.ErrLost)
	_, err = p.Add("a", fmt.Sprintf("amq.gen-%022d", 0))
	require.NoError(t, err)
}

// Every request ends with exactly the outcome that took it out of the table, whoever raced for it.
func TestRacingOutcomes(t *testing.T) {
	t.Parallel()
	const requests = 2000
	p := reply.NewPending(requests)
	var wg sync.WaitGroup
	for i := range requests {
		id := fmt.Sprint(i)
		w, err := p.Add(id, fmt.Sprintf("amq.gen-%022d", i%7))
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		want := result(id)
		var delivered [2]bool
		var racers sync.WaitGroup
		for j := range delivered {
			racers.Go(func() { delivered[j] = p.Deliver(want) })
		}
		racers.Go(cancel)
		wg.Go(func() {
			defer cancel()
			got, err := w.Wait(ctx)
			racers.Wait()
			if err != nil {
				if delivered[0] || delivered[1] {
					t.Errorf("request %s: delivered, but Wait said %v", id, err)
				}
				return
			}
			if got != want || delivered[0] == delivered[1] {
				t.Errorf("request %s: got %v, delivered %v", id, got, delivered)
			}
		})
	}
	wg.Go(func() {
		for i := range 7 {
			p.Lose(fmt.Sprintf("amq.gen-%022d", i))
		}
	})
	wg.Wait()
	require.Zero(t, p.Len())
}
