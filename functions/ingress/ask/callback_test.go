package ask

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/events/reply"
)

// caller remembers its calls and says what it is told to.
type caller struct {
	mu    sync.Mutex
	calls []*Response
	say   func(n int) error
}

func (c *caller) Check(address string) error {
	if address == "bad" {
		return problem.New("bad-callback", 400, "Bad callback", "It is bad.")
	}
	return nil
}

func (c *caller) Call(_ context.Context, _ string, r *Response) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, r)
	if c.say == nil {
		return nil
	}
	return c.say(len(c.calls))
}

func (c *caller) called() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls)
}

// withCallback asks two models with a callback.
func withCallback(t *testing.T, c *caller) (*broker, string) {
	t.Helper()
	b := later(t, func(cfg *Config, _ *broker) { cfg.Caller = c })
	accepted, err := b.AskLater(t.Context(), Question{Picture: dot(), Models: []string{"cat", "dog"}, Callback: "https://example.com/hook"})
	require.NoError(t, err)
	for _, r := range b.published() {
		require.True(t, r.Callback)
	}
	return b, accepted.ID
}

func TestACallbackIsCalledOnceWithTheWholeAnswer(t *testing.T) {
	t.Parallel()
	c := &caller{}
	b, id := withCallback(t, c)
	require.NoError(t, b.CallBack(t.Context(), id))
	b.answerAll(t, id, "cat")
	require.NoError(t, b.CallBack(t.Context(), id))
	require.Zero(t, c.called(), "not before the answer is whole")

	b.answerAll(t, id, "dog")
	var calling sync.WaitGroup
	for range 8 {
		calling.Go(func() {
			if err := b.CallBack(t.Context(), id); err != nil {
				t.Error(err)
			}
		})
	}
	calling.Wait()
	require.Equal(t, 1, c.called())
	require.Equal(t, id, c.calls[0].ID)
	require.Len(t, c.calls[0].Results, 2)
	p, err := b.Collect(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, p.Response(), c.calls[0], "and it can be collected, too")
}

func TestACallbackIsCalledAgainUntilItIsTaken(t *testing.T) {
	t.Parallel()
	c := &caller{say: func(n int) error {
		if n < 3 {
			return fmt.Errorf("%w: it answered 503", ErrCallAgain)
		}
		return nil
	}}
	b, id := withCallback(t, c)
	b.answerAll(t, id, "cat", "dog")
	require.ErrorIs(t, b.CallBack(t.Context(), id), ErrCallAgain)
	require.ErrorIs(t, b.CallBack(t.Context(), id), ErrCallAgain)
	require.NoError(t, b.CallBack(t.Context(), id))
	require.NoError(t, b.CallBack(t.Context(), id))
	require.Equal(t, 3, c.called())
}

func TestACallbackThatRefusesIsNotCalledAgain(t *testing.T) {
	t.Parallel()
	c := &caller{say: func(int) error { return errors.New("it answered 404") }}
	b, id := withCallback(t, c)
	b.answerAll(t, id, "cat", "dog")
	require.NoError(t, b.CallBack(t.Context(), id))
	require.NoError(t, b.CallBack(t.Context(), id))
	require.Equal(t, 1, c.called())
}

func TestNobodyIsCalledWhereThereIsNobodyToCall(t *testing.T) {
	t.Parallel()
	c := &caller{}
	b, id := withCallback(t, c)
	without, err := b.AskLater(t.Context(), Question{Picture: dot(), Models: []string{"cat"}})
	require.NoError(t, err)
	b.answerAll(t, without.ID, "cat")
	b.answerAll(t, id, "cat", "dog")
	require.NoError(t, b.Drop(t.Context(), id))
	for _, nobody := range []string{without.ID, id, uuid.NewString()} {
		require.NoError(t, b.CallBack(t.Context(), nobody))
	}
	require.Zero(t, c.called())
}

func TestACallbackWaitsForMailboxesThatAreAway(t *testing.T) {
	t.Parallel()
	b := later(t, func(c *Config, _ *broker) { c.Caller, c.Mailboxes = &caller{}, awayMailboxes{} })
	require.ErrorIs(t, b.CallBack(t.Context(), uuid.NewString()), reply.ErrDown)
}

func TestABadCallbackIsRefusedBeforeAnythingIsAsked(t *testing.T) {
	t.Parallel()
	b := later(t, func(c *Config, _ *broker) { c.Caller = &caller{} })
	_, err := b.AskLater(t.Context(), Question{Picture: dot(), Models: []string{"cat"}, Callback: "bad"})
	requireProblem(t, err, "bad-callback", 400)
	require.Empty(t, b.published())
}
