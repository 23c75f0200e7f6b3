package batch_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/batch"
)

// The batcher against a model of it: a slow, single-threaded simulation that knows, for a random history of arrivals,
// deadlines, cancellations, failures and a stop, which calls are made when with which items, and when each item gets
// which answer. In a synctest bubble time is exact, so the two must agree to the nanosecond.

var (
	errFault  = errors.New("an item is at fault")
	errOutage = errors.New("nobody's fault")
)

const never = time.Duration(1 << 62)

// history is what happens to a batcher from outside.
type history struct {
	seed     uint64
	config   batch.Config
	items    []visitor
	stopAt   time.Duration
	stopFor  time.Duration // how long Stop may take
	perBatch time.Duration
	perItem  time.Duration
	outages  int // in a hundred calls
}

// visitor is one item.
type visitor struct {
	arrives  time.Duration
	deadline time.Duration // or never
	cancels  time.Duration // or never
	poisoned bool
}

func (v visitor) leaves() time.Duration { return min(v.deadline, v.cancels) }

// fate is what an item should get, and when.
type fate struct {
	at   time.Duration
	out  int
	err  error // matched with errors.Is
	info batch.Info
}

// computation is one call of Func.
type computation struct {
	at       time.Duration
	items    string // their numbers, in order
	deadline time.Duration
}

func answerTo(item int) int { return 7*item + 1 }

// Times are random nanoseconds out of minutes, so that no two things happen at the same instant.
func randomHistory(seed uint64) history {
	r := rand.New(rand.NewPCG(seed, 1))
	h := history{
		seed: seed,
		config: batch.Config{
			Size: 1 + r.IntN(9), Slots: 1 + r.IntN(3), Queue: 1 + r.IntN(20),
			ItemFault: func(err error) bool { return errors.Is(err, errFault) },
		},
		perBatch: time.Duration(r.Int64N(int64(20 * time.Second))),
		perItem:  time.Duration(r.Int64N(int64(5 * time.Second))),
		stopFor:  never,
	}
	length := time.Duration(1+r.IntN(10)) * time.Minute
	instant := func(d time.Duration) time.Duration { return 1 + time.Duration(r.Int64N(int64(d))) }
	poison, expiry, cancellation := r.IntN(40), r.IntN(80), r.IntN(40)
	if r.IntN(2) == 0 {
		h.outages = r.IntN(30)
	}
	for range 1 + r.IntN(60) {
		v := visitor{arrives: instant(length), deadline: never, cancels: never, poisoned: r.IntN(100) < poison}
		if r.IntN(100) < expiry {
			v.deadline = v.arrives + instant(time.Minute)
		}
		if r.IntN(100) < cancellation {
			v.cancels = v.arrives + instant(time.Minute)
		}
		h.items = append(h.items, v)
	}
	h.stopAt = instant(2 * length)
	if r.IntN(2) == 0 {
		h.stopFor = instant(time.Minute)
	}
	return h
}

// outcome says how long a call with these items takes and how it ends, the same for model and batcher.
func (h history) outcome(items []int) (time.Duration, error) {
	hash := fnv.New64a()
	_, _ = fmt.Fprint(hash, h.seed, items) // a hash takes everything
	r := rand.New(rand.NewPCG(hash.Sum64(), 2))
	takes := h.perBatch + time.Duration(len(items))*h.perItem + time.Duration(1+r.Int64N(int64(time.Second)))
	if r.IntN(100) < h.outages {
		return takes, errOutage
	}
	for _, i := range items {
		if h.items[i].poisoned {
			return takes, errFault
		}
	}
	return takes, nil
}

// simulation is the model's state.
type simulation struct {
	history
	queue   []int
	slots   []*simulatedSlot
	stopped bool
	settled []bool
	takenAt []time.Duration
	fates   []fate
	calls   []computation
	undone  bool // Stop had to give up
}

type simulatedSlot struct {
	busy  bool
	parts [][]int // that are still to be computed
	now   []int   // under way, with those who have left
	began time.Duration
	ends  time.Duration
	err   error
}

// simulate returns every item's fate, every call, and whether Stop fails.
func (h history) simulate() *simulation {
	s := &simulation{
		history: h,
		settled: make([]bool, len(h.items)),
		takenAt: make([]time.Duration, len(h.items)),
		fates:   make([]fate, len(h.items)),
	}
	for range h.config.Slots {
		s.slots = append(s.slots, &simulatedSlot{})
	}
	type event struct {
		at time.Duration
		do func(at time.Duration)
	}
	events := []event{{h.stopAt, func(time.Duration) { s.stopped = true }}}
	if h.stopFor != never {
		events = append(events, event{h.stopAt + h.stopFor, s.giveUp})
	}
	for i, v := range h.items {
		events = append(events, event{v.arrives, func(at time.Duration) { s.arrive(i, at) }})
		if v.leaves() != never {
			events = append(events, event{v.leaves(), func(at time.Duration) { s.leave(i, at) }})
		}
	}
	slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	for {
		next, at := -1, never
		for i, slot := range s.slots {
			if slot.busy && slot.ends < at {
				next, at = i, slot.ends
			}
		}
		switch {
		case len(events) > 0 && events[0].at < at:
			e := events[0]
			events = events[1:]
			e.do(e.at)
		case next >= 0:
			s.end(s.slots[next], at)
		default:
			return s
		}
	}
}

func (s *simulation) settle(i int, f fate) {
	if !s.settled[i] {
		s.settled[i], s.fates[i] = true, f
	}
}

func (s *simulation) arrive(i int, at time.Duration) {
	switch {
	case s.stopped:
		s.settle(i, fate{at: at, err: batch.ErrStopped})
		return
	case len(s.queue) == s.config.Queue:
		s.settle(i, fate{at: at, err: batch.ErrFull})
		return
	}
	s.queue = append(s.queue, i)
	for _, slot := range s.slots {
		if !slot.busy {
			s.take(slot, at)
			return
		}
	}
}

// take gives a free slot what waits.
func (s *simulation) take(slot *simulatedSlot, at time.Duration) {
	slot.busy = len(s.queue) > 0
	if !slot.busy {
		return
	}
	n := min(len(s.queue), s.config.Size)
	for _, i := range s.queue[:n] {
		s.takenAt[i] = at
	}
	slot.parts = [][]int{slices.Clone(s.queue[:n])}
	s.queue = s.queue[n:]
	s.begin(slot, at)
}

// begin starts the next call of a slot.
func (s *simulation) begin(slot *simulatedSlot, at time.Duration) {
	for len(slot.parts) > 0 {
		part := slices.DeleteFunc(slot.parts[0], func(i int) bool { return s.settled[i] })
		slot.parts = slot.parts[1:]
		if len(part) == 0 {
			continue
		}
		var takes time.Duration
		takes, slot.err = s.outcome(part)
		slot.now, slot.began, slot.ends = part, at, at+takes
		var deadline time.Duration
		for _, i := range part {
			deadline = max(deadline, s.items[i].deadline)
		}
		s.calls = append(s.calls, computation{at: at, items: fmt.Sprint(part), deadline: deadline})
		return
	}
	s.take(slot, at)
}

// end finishes the call of a slot.
func (s *simulation) end(slot *simulatedSlot, at time.Duration) {
	if n := len(slot.now); errors.Is(slot.err, errFault) && n > 1 {
		slot.parts = append([][]int{slices.Clone(slot.now[:n/2]), slices.Clone(slot.now[n/2:])}, slot.parts...)
	} else {
		for _, i := range slot.now {
			f := fate{at: at, err: slot.err, info: batch.Info{
				Size: n, Wait: s.takenAt[i] - s.items[i].arrives, Compute: at - slot.began,
			}}
			if slot.err == nil {
				f.out = answerTo(i)
			}
			s.settle(i, f)
		}
	}
	s.begin(slot, at)
}

func (s *simulation) leave(i int, at time.Duration) {
	if s.settled[i] {
		return
	}
	f := fate{at: at, err: context.Canceled, info: batch.Info{Wait: at - s.items[i].arrives}}
	queued := slices.Index(s.queue, i)
	if queued < 0 {
		f.info.Wait = s.takenAt[i] - s.items[i].arrives
	}
	if s.items[i].deadline == at {
		f.err = context.DeadlineExceeded
		if queued >= 0 {
			f.err = batch.ErrExpired
		}
	}
	s.settle(i, f)
	if queued >= 0 {
		s.queue = slices.Delete(s.queue, queued, queued+1)
	}
	s.endDeserted(at)
}

// endDeserted ends the calls for which nobody waits any more.
func (s *simulation) endDeserted(at time.Duration) {
	for _, slot := range s.slots {
		if slot.busy && !slices.ContainsFunc(slot.now, func(i int) bool { return !s.settled[i] }) {
			slot.err = context.Canceled
			s.end(slot, at)
		}
	}
}

func (s *simulation) giveUp(at time.Duration) {
	for _, slot := range s.slots {
		s.undone = s.undone || slot.busy
		for i := range s.items {
			if !s.settled[i] && (slices.Contains(slot.now, i) || slices.ContainsFunc(slot.parts, func(p []int) bool { return slices.Contains(p, i) })) {
				s.settle(i, fate{at: at, err: batch.ErrStopped, info: batch.Info{Wait: s.takenAt[i] - s.items[i].arrives}})
			}
		}
	}
	for _, i := range s.queue {
		s.settle(i, fate{at: at, err: batch.ErrStopped, info: batch.Info{Wait: at - s.items[i].arrives}})
	}
	s.queue = nil
	s.endDeserted(at)
}

func TestBatcherDoesWhatTheModelDoes(t *testing.T) {
	t.Parallel()
	const seeds = 2500
	for seed := range uint64(seeds) {
		h := randomHistory(seed)
		synctest.Test(t, func(t *testing.T) { replay(t, h) })
		if t.Failed() {
			return
		}
	}
}

// replay lets a history happen to a real batcher and compares.
func replay(t *testing.T, h history) {
	t.Helper()
	want := h.simulate()
	start := time.Now()
	var mu sync.Mutex
	var calls []computation
	b := batch.New(h.config, func(ctx context.Context, in []int) ([]int, error) {
		c := computation{at: time.Since(start), items: fmt.Sprint(in), deadline: never}
		if deadline, ok := ctx.Deadline(); ok {
			c.deadline = deadline.Sub(start)
		}
		mu.Lock()
		calls = append(calls, c)
		mu.Unlock()
		takes, err := h.outcome(in)
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		outs := make([]int, len(in))
		for i, item := range in {
			outs[i] = answerTo(item)
		}
		return outs, nil
	})

	got := make([]fate, len(h.items))
	var wg sync.WaitGroup
	for i, v := range h.items {
		wg.Go(func() {
			time.Sleep(v.arrives)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if v.deadline != never {
				ctx, cancel = context.WithDeadline(ctx, start.Add(v.deadline))
				defer cancel()
			}
			if v.cancels != never {
				defer time.AfterFunc(v.cancels-v.arrives, cancel).Stop()
			}
			out, info, err := b.Do(ctx, i)
			got[i] = fate{at: time.Since(start), out: out, err: err, info: info}
		})
	}
	var stopErr error
	wg.Go(func() {
		time.Sleep(h.stopAt)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if h.stopFor != never {
			ctx, cancel = context.WithTimeout(ctx, h.stopFor)
			defer cancel()
		}
		stopErr = b.Stop(ctx)
	})
	wg.Wait()
	require.NoError(t, b.Stop(t.Context()), "seed %d: nothing is left to do", h.seed)

	slices.SortFunc(calls, func(a, b computation) int { return cmp.Compare(a.at, b.at) })
	require.Equal(t, want.calls, calls, "seed %d: the calls", h.seed)
	for i, f := range got {
		require.ErrorIs(t, f.err, want.fates[i].err, "seed %d: item %d, %+v", h.seed, i, h.items[i])
		require.Equal(t, errors.Is(want.fates[i].err, batch.ErrExpired), errors.Is(f.err, batch.ErrExpired), "seed %d: item %d: %v", h.seed, i, f.err)
		want.fates[i].err, f.err = nil, nil
		require.Equal(t, want.fates[i], f, "seed %d: item %d, %+v", h.seed, i, h.items[i])
	}
	if want.undone {
		require.ErrorIs(t, stopErr, context.DeadlineExceeded, "seed %d: Stop", h.seed)
	} else {
		require.NoError(t, stopErr, "seed %d: Stop", h.seed)
	}
}
