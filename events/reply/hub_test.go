package reply_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
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
