package reply_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/events/reply"
)

// What every implementation does is in the conformance suite; here is what only the Hub promises.

func TestHubAddressesAreUnguessableAndNeverTheSame(t *testing.T) {
	t.Parallel()
	h := reply.NewHub()
	seen := map[string]bool{}
	for range 1000 {
		in, err := h.Listen(t.Context(), reply.Listener{})
		require.NoError(t, err)
		a, err := in.Address()
		require.NoError(t, err)
		require.True(t, reply.ValidAddress(a), a)
		require.False(t, seen[a])
		seen[a] = true
	}
}

func TestHubSharesNoMemory(t *testing.T) {
	t.Parallel()
	h := reply.NewHub()
	var got *events.Result
	in, err := h.Listen(t.Context(), reply.Listener{Reply: func(r *events.Result) { got = r }})
	require.NoError(t, err)
	to, err := in.Address()
	require.NoError(t, err)
	sent := result("a")
	require.NoError(t, h.Respond(t.Context(), to, sent))
	require.Equal(t, sent, got)
	require.NotSame(t, sent.Problem, got.Problem)
}

func TestHubRefusesWhatNoWireWouldCarry(t *testing.T) {
	t.Parallel()
	h := reply.NewHub()
	in, err := h.Listen(t.Context(), reply.Listener{Reply: func(*events.Result) { t.Error("delivered") }})
	require.NoError(t, err)
	to, err := in.Address()
	require.NoError(t, err)

	bad := result("a")
	bad.Model = ""
	require.ErrorContains(t, h.Respond(t.Context(), to, bad), "attribute model")

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, h.Respond(ended, to, result("a")), context.Canceled)
	_, err = h.Listen(ended, reply.Listener{})
	require.ErrorIs(t, err, context.Canceled)
}

func TestHubCallsAListenerOneAtATimeAndNeverAfterClose(t *testing.T) {
	t.Parallel()
	h := reply.NewHub()
	var inside, replies, losses atomic.Int32
	var closed atomic.Bool
	enter := func(count *atomic.Int32) {
		if inside.Add(1) != 1 {
			t.Error("two calls at once")
		}
		if closed.Load() {
			t.Error("called after Close")
		}
		count.Add(1)
		inside.Add(-1)
	}
	in, err := h.Listen(t.Context(), reply.Listener{
		Reply: func(*events.Result) { enter(&replies) },
		Lost:  func(string) { enter(&losses) },
	})
	require.NoError(t, err)
	require.NoError(t, h.Respond(t.Context(), address(t, in), result("a")))

	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				to, err := in.Address()
				if err != nil {
					return
				}
				if err := h.Respond(t.Context(), to, result("a")); err != nil && !errors.Is(err, reply.ErrNoRequester) {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		h.Break()
	}
	require.NoError(t, in.Close())
	closed.Store(true)
	require.NoError(t, in.Close(), "closing twice is harmless")
	wg.Wait()
	h.Break()
	_, err = in.Address()
	require.ErrorIs(t, err, reply.ErrDown)
	require.Positive(t, replies.Load())
	require.EqualValues(t, 20, losses.Load())
}

func address(t *testing.T, in reply.Inbox) string {
	t.Helper()
	a, err := in.Address()
	require.NoError(t, err)
	return a
}

func openMailbox(t *testing.T, h *reply.Hub, lives time.Duration) string {
	t.Helper()
	now := time.Now()
	r := &reply.Record{ID: uuid.NewString(), Asked: []reply.Asked{{Model: "cat"}}, Time: now, Deadline: now.Add(lives / 2), Expires: now.Add(lives)}
	require.NoError(t, h.Open(t.Context(), r))
	return r.ID
}

func TestHubKnowsThatAMailboxWasThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := reply.NewHub()
		long, short := openMailbox(t, h, 2*time.Hour), openMailbox(t, h, time.Hour)
		time.Sleep(time.Hour - 1)
		_, err := h.Read(t.Context(), short)
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		_, err = h.Read(t.Context(), short)
		require.ErrorIs(t, err, reply.ErrMailboxGone)
		require.ErrorIs(t, h.Respond(t.Context(), reply.MailboxAddress(short), mailboxResult(t, 1)), reply.ErrNoRequester)
		require.NoError(t, h.Delete(t.Context(), long))
		_, err = h.Read(t.Context(), long)
		require.ErrorIs(t, err, reply.ErrMailboxGone)
		_, err = h.Read(t.Context(), uuid.NewString())
		require.NotErrorIs(t, err, reply.ErrMailboxGone)
	})
}

func TestHubHoldsNoMoreInMailboxesThanItMay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := reply.NewHub()
		id := openMailbox(t, h, time.Hour)
		var err error
		kept := 0
		for ; err == nil; kept++ {
			require.Less(t, kept, 100, "there is no end")
			err = h.Respond(t.Context(), reply.MailboxAddress(id), mailboxResult(t, 1<<20-1<<10))
		}
		require.ErrorIs(t, err, reply.ErrFull)
		require.Greater(t, kept, 60)
		mail, err := h.Read(t.Context(), id)
		require.NoError(t, err)
		require.Len(t, mail.Results, kept-1)

		time.Sleep(time.Hour) // and then there is room again
		id = openMailbox(t, h, time.Hour)
		require.NoError(t, h.Respond(t.Context(), reply.MailboxAddress(id), mailboxResult(t, 1<<19)))
	})
}

func TestHubHasNoMoreMailboxesThanItMay(t *testing.T) {
	t.Parallel()
	h := reply.NewHub()
	for range 10_000 {
		openMailbox(t, h, time.Hour)
	}
	now := time.Now()
	one := &reply.Record{ID: uuid.NewString(), Asked: []reply.Asked{{Model: "cat"}}, Time: now, Deadline: now, Expires: now.Add(time.Hour)}
	require.ErrorIs(t, h.Open(t.Context(), one), reply.ErrFull)
}

// mailboxResult is a result with so many bytes of text.
func mailboxResult(t *testing.T, text int) *events.Result {
	t.Helper()
	return &events.Result{
		ID: uuid.NewString(), Source: "/ebb/test", Time: time.Now(), RequestID: uuid.NewString(), CorrelationID: "c", Model: "cat",
		Problem: problem.New("test", 500, "Test", strings.Repeat("x", text)),
	}
}

func TestAddressesOfMailboxes(t *testing.T) {
	t.Parallel()
	id := uuid.NewString()
	got, ok := reply.MailboxID(reply.MailboxAddress(id))
	require.True(t, ok)
	require.Equal(t, id, got)
	require.True(t, reply.ValidAddress(reply.MailboxAddress(id)))
	for _, bad := range []string{
		"", "ebb.mailbox.", "ebb.mailbox", id, "ebb.mailbox." + id + "x", "ebb.mailbox." + id[:35], "ebb.mailbox." + strings.ToUpper(id[:8]+"-a"+id[10:]),
		"ebb.mailbox.{" + id + "}", "ebb.mailbox.urn:uuid:" + id, "ebb.mailbox." + strings.ReplaceAll(id, "-", ""), "ebb.parked." + id,
		" ebb.mailbox." + id, "ebb.mailbox." + id + "\n",
	} {
		_, ok := reply.MailboxID(bad)
		require.False(t, ok, bad)
		require.False(t, reply.ValidAddress(bad), bad)
	}
}
