package ask

import (
	"context"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
)

// woken remembers, in their order, who was woken and what was published.
type woken struct {
	mu   sync.Mutex
	seen []string
}

func (w *woken) see(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, what)
}

func TestAModelIsWokenBeforeItsEventIsOnItsWay(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		ask  func(ctx context.Context, b *broker) error
		want []string
	}{
		{"asked", func(ctx context.Context, b *broker) error {
			_, err := b.Ask(ctx, Question{Picture: dot(), Models: []string{"cat"}})
			return err
		}, []string{"wake cat", "event cat"}},
		{"asked later", func(ctx context.Context, b *broker) error {
			_, err := b.AskLater(ctx, Question{Picture: dot(), Models: []string{"dog", "dog"}})
			return err
		}, []string{"wake dog", "event dog"}},
		{"expected", func(_ context.Context, b *broker) error { return b.Expect([]string{"cat", "dog", "cat"}) }, []string{"wake cat", "wake dog"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var w woken
			b := start(t, func(c *Config, b *broker) {
				c.Mailboxes = b.hub
				c.Wake = func(model string) { w.see("wake " + model) }
				b.take = func(ctx context.Context, r *events.Request) (*http.Response, error) {
					w.see("event " + r.Model)
					return b.answer(ctx, r)
				}
			})
			require.NoError(t, tt.ask(t.Context(), b))
			require.Equal(t, tt.want, w.seen)
		})
	}
}

func TestNobodyIsWokenForAQuestionThatIsNone(t *testing.T) {
	t.Parallel()
	var w woken
	b := start(t, func(c *Config, b *broker) {
		c.Mailboxes = b.hub
		c.Wake = func(model string) { w.see(model) }
	})
	for name, q := range map[string]Question{
		"no such model":         {Picture: dot(), Models: []string{"cat", "cta"}},
		"no picture":            {Models: []string{"cat"}},
		"something else":        {Picture: []byte("GIF89"), Models: []string{"cat"}},
		"a callback to nowhere": {Picture: dot(), Models: []string{"cat"}, Callback: "http://caller.test/"},
	} {
		_, err := b.AskLater(t.Context(), q)
		require.Error(t, err, name)
		if q.Callback == "" {
			_, err = b.Ask(t.Context(), q)
			require.Error(t, err, name)
		}
	}
	require.Error(t, b.Expect([]string{"cat", "cta"}))
	require.Empty(t, w.seen)
}
