package worker

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
)

// work enters an event, finishes it if that is up to the caller, and says whether it was.
func work(t *testing.T, w *window, id string, v verdict) bool {
	t.Helper()
	d, mine := w.begin(key{id: id})
	if mine {
		w.finish(d, v)
	}
	return mine
}

func TestTheWindowRemembersTheLatestEventsOnly(t *testing.T) {
	t.Parallel()
	w := newWindow(2)
	done := acknowledged(outcomeCompleted)
	require.True(t, work(t, w, "a", done))
	require.True(t, work(t, w, "b", done))
	require.False(t, work(t, w, "a", done))
	require.True(t, work(t, w, "c", done))
	require.True(t, work(t, w, "a", done), "it made room for c")
	require.False(t, work(t, w, "c", done))
	require.Len(t, w.entries, 2)
}

func TestTheWindowForgetsWhatComesAgainWithoutAResult(t *testing.T) {
	t.Parallel()
	w := newWindow(2)
	require.True(t, work(t, w, "a", retried("")))
	require.Empty(t, w.entries)
	require.True(t, work(t, w, "a", acknowledged(outcomeCompleted)))
}

func TestTheWindowKeepsAResultUntilItIsSent(t *testing.T) {
	t.Parallel()
	w := newWindow(2)
	result := &events.Result{ID: "r"}
	d, _ := w.begin(key{id: "a"})
	d.result = result
	w.finish(d, retried(""))

	again, mine := w.begin(key{id: "a"})
	require.True(t, mine)
	require.Same(t, result, again.result)
	_, mine = w.begin(key{id: "a"})
	require.False(t, mine, "it is under way")
	// Its first entry makes room for others; the one that is under way stays.
	require.True(t, work(t, w, "b", acknowledged(outcomeCompleted)))
	require.True(t, work(t, w, "c", acknowledged(outcomeCompleted)))
	_, mine = w.begin(key{id: "a"})
	require.False(t, mine)

	w.finish(again, acknowledged(outcomeCompleted))
	require.Nil(t, again.result, "what was sent needs no memory")
	require.False(t, work(t, w, "a", verdict{}))
	require.Len(t, w.entries, 2)
}
