package batch_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/batch"
)

// Where the model test lets one thing happen after the other, this one lets as much as possible happen at the same
// instant, in parallel, so that every order of locks and wake-ups gets its turn. What then happens cannot be predicted,
// but much must hold whatever happens.

const tick = time.Millisecond

// ending is how a call ends.
type ending int

const (
	succeeds ending = iota
	faults
	fails
	panics
	exits
	miscounts
	endings
)

var errChaos = errors.New("chaos")

// witness watches calls and answers.
type witness struct {
	t      *testing.T
	seed   uint64
	config batch.Config
	start  time.Time

	mu      sync.Mutex
	running int
	items   []*watched
	calls   []*watchedCall
}

type watched struct {
	arrives, deadline, cancels time.Duration // the latter two may be never
	poisoned                   bool
	came, gone, computing      bool
	last                       *watchedCall
}

type watchedCall struct {
	at    time.Duration
	items []int
	first bool // not a part of a batch that was divided
	end   ending
}

func (w *witness) now() time.Duration { return time.Since(w.start) }

// begins checks what must hold when a call begins.
func (w *witness) begins(in []int, end ending) *watchedCall {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running++
	require.LessOrEqual(w.t, w.running, w.config.Slots, "seed %d: calls under way", w.seed)
	require.LessOrEqual(w.t, len(in), w.config.Size, "seed %d: items in a batch", w.seed)
	require.NotEmpty(w.t, in, "seed %d: an empty batch", w.seed)
	c := &watchedCall{at: w.now(), items: slices.Clone(in), first: true, end: end}
	for _, i := range in {
		it := w.items[i]
		require.False(w.t, it.computing, "seed %d: item %d is in two calls", w.seed, i)
		require.Greater(w.t, it.deadline, c.at, "seed %d: item %d is computed after its deadline", w.seed, i)
		require.GreaterOrEqual(w.t, it.cancels, c.at, "seed %d: item %d is computed after its cancellation", w.seed, i)
		if it.last != nil {
			c.first = false
			require.Equal(w.t, faults, it.last.end, "seed %d: item %d is computed again", w.seed, i)
			require.Greater(w.t, len(it.last.items), len(in), "seed %d: item %d is computed again in as large a batch", w.seed, i)
		}
		it.computing, it.last = true, c
		if end == faults {
			c.end = succeeds
		}
	}
	if end == faults && slices.ContainsFunc(in, func(i int) bool { return w.items[i].poisoned }) {
		c.end = faults
	}
	w.calls = append(w.calls, c)
	return c
}

func (w *witness) ends(c *watchedCall) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running--
	for _, i := range c.items {
		w.items[i].computing = false
	}
}

// answered checks what must hold of an answer.
func (w *witness) answered(i, out int, info batch.Info, err error, stopAt time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	it, now := w.items[i], w.now()
	require.False(w.t, it.gone, "seed %d: item %d is answered twice", w.seed, i)
	it.gone = true
	left := min(it.deadline, it.cancels)
	require.LessOrEqual(w.t, now, left, "seed %d: item %d stays after its context ended", w.seed, i)
	var panicked *batch.PanicError
	var end ending
	switch {
	case err == nil:
		require.Equal(w.t, answerTo(i), out, "seed %d: item %d got the answer to another", w.seed, i)
		end = succeeds
	case errors.Is(err, errFault):
		require.True(w.t, it.poisoned, "seed %d: item %d fails for another's fault", w.seed, i)
		require.Equal(w.t, 1, info.Size, "seed %d: item %d does not fail alone", w.seed, i)
		end = faults
	case errors.Is(err, errChaos):
		end = fails
	case errors.As(err, &panicked):
		end = panics
	case errors.Is(err, batch.ErrOutputs):
		end = miscounts
	case errors.Is(err, batch.ErrFull):
		require.Nil(w.t, it.last, "seed %d: item %d was computed and refused", w.seed, i)
		return
	case errors.Is(err, batch.ErrStopped):
		require.GreaterOrEqual(w.t, now, stopAt, "seed %d: item %d is refused before the stop", w.seed, i)
		return
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		require.Equal(w.t, left, now, "seed %d: item %d gives up too early: %v", w.seed, i, err)
		if errors.Is(err, batch.ErrExpired) && it.last != nil {
			require.Equal(w.t, faults, it.last.end, "seed %d: item %d expired after it was computed", w.seed, i)
		}
		return
	default: // of those left, only this has no error to recognise it by
		require.ErrorContains(w.t, err, "ended its goroutine", "seed %d: item %d", w.seed, i)
		end, info.Size = exits, len(it.last.items)
	}
	require.NotNil(w.t, it.last, "seed %d: item %d is answered without a call: %v", w.seed, i, err)
	require.Equal(w.t, end, it.last.end, "seed %d: item %d: %v", w.seed, i, err)
	require.Len(w.t, it.last.items, info.Size, "seed %d: item %d", w.seed, i)
}

// rested checks what must hold when everything that could happen at an instant has happened.
func (w *witness) rested() {
	w.mu.Lock()
	defer w.mu.Unlock()
	waiting := 0
	for _, it := range w.items {
		if it.came && !it.gone && it.last == nil {
			waiting++
		}
	}
	require.LessOrEqual(w.t, waiting, w.config.Queue, "seed %d: items wait", w.seed)
	if waiting > 0 {
		require.Equal(w.t, w.config.Slots, w.running, "seed %d: %d items wait at %v while a slot is free", w.seed, waiting, w.now())
	}
}

// inOrder checks that nobody overtook anybody who had come at an earlier instant.
func (w *witness) inOrder() {
	var at, batchAt, latest, latestBefore time.Duration
	for _, c := range w.calls {
		if !c.first {
			continue
		}
		if c.at != batchAt {
			batchAt, latestBefore = c.at, latest
		}
		at = 0
		for _, i := range c.items {
			require.GreaterOrEqual(w.t, w.items[i].arrives, at, "seed %d: item %d was overtaken within its batch", w.seed, i)
			at = w.items[i].arrives
			require.GreaterOrEqual(w.t, at, latestBefore, "seed %d: item %d was overtaken", w.seed, i)
			latest = max(latest, at)
		}
	}
}

func TestWhateverHappensAtOnceEveryItemGetsItsOwnAnswerOnce(t *testing.T) {
	t.Parallel()
	const seeds = 1500
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) { chaos(t, seed) })
		if t.Failed() {
			return
		}
	}
}

func chaos(t *testing.T, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 3))
	w := &witness{t: t, seed: seed, start: time.Now(), config: batch.Config{
		Size: 1 + r.IntN(9), Slots: 1 + r.IntN(3), Queue: 1 + r.IntN(30),
		ItemFault: func(err error) bool { return errors.Is(err, errFault) },
	}}
	var trouble sync.Mutex // guards r once the batcher is at work
	troubles := r.IntN(60)
	b := batch.New(w.config, func(ctx context.Context, in []int) ([]int, error) {
		trouble.Lock()
		takes, end := time.Duration(r.IntN(4))*tick, faults // which succeeds without a poisoned item
		if r.IntN(100) < troubles {
			end = ending(r.IntN(int(endings)))
		}
		trouble.Unlock()
		if end == succeeds {
			end = faults
		}
		c := w.begins(in, end)
		defer w.ends(c)
		select {
		case <-time.After(takes):
		case <-ctx.Done():
		}
		switch c.end {
		case faults:
			clear(in) // a Func may do what it likes with its inputs
			return nil, errFault
		case fails:
			return nil, errChaos
		case panics:
			panic(errChaos.Error())
		case exits:
			runtime.Goexit()
		case miscounts:
			return make([]int, len(in)+1), nil
		}
		for i, item := range in {
			in[i] = answerTo(item) // an output may take its input's place
		}
		return in, nil
	})

	const ticks = 12
	instant := func() time.Duration { return time.Duration(1+r.IntN(ticks)) * tick }
	for range 1 + r.IntN(80) {
		it := &watched{arrives: instant(), deadline: never, cancels: never, poisoned: r.IntN(8) == 0}
		if r.IntN(2) == 0 {
			it.deadline = it.arrives + instant()
		}
		if r.IntN(3) == 0 {
			it.cancels = it.arrives + instant()
		}
		w.items = append(w.items, it)
	}
	stopAt, stopFor := instant()+instant(), instant()

	var wg sync.WaitGroup
	for i, it := range w.items {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if it.deadline != never {
				ctx, cancel = context.WithDeadline(ctx, w.start.Add(it.deadline))
				defer cancel()
			}
			if it.cancels != never {
				defer time.AfterFunc(it.cancels, cancel).Stop()
			}
			time.Sleep(it.arrives)
			w.mu.Lock()
			it.came = true
			w.mu.Unlock()
			out, info, err := b.Do(ctx, i)
			w.answered(i, out, info, err, stopAt)
		})
	}
	for range 2 { // at the same time
		wg.Go(func() {
			time.Sleep(stopAt)
			ctx, cancel := context.WithTimeout(t.Context(), stopFor)
			defer cancel()
			_ = b.Stop(ctx) // may or may not be in time
		})
	}
	for range 4 * ticks {
		time.Sleep(tick)
		synctest.Wait()
		w.rested()
	}
	wg.Wait()
	require.NoError(t, b.Stop(t.Context()), "seed %d: something is still under way", seed)
	w.inOrder()
}
