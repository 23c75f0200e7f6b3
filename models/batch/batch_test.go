package batch_test

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/batch"
)

// slow takes a second for a batch, or until nobody waits any more.
func slow(ctx context.Context, in []string) ([]int, error) {
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	out := make([]int, len(in))
	for i, s := range in {
		n, err := strconv.Atoi(s)
		if err != nil {
			return nil, err
		}
		out[i] = n
	}
	return out, nil
}

func isSyntax(err error) bool { return errors.Is(err, strconv.ErrSyntax) }

// recorder remembers the calls of a Func.
type recorder struct {
	mu    sync.Mutex
	calls [][]string
}

func (r *recorder) record(f batch.Func[string, int]) batch.Func[string, int] {
	return func(ctx context.Context, in []string) ([]int, error) {
		r.mu.Lock()
		r.calls = append(r.calls, append([]string(nil), in...))
		r.mu.Unlock()
		return f(ctx, in)
	}
}

// arrive calls Do in goroutines of their own, one item after the other, and returns their results once wait is called.
type results struct {
	outs  []int
	infos []batch.Info
	errs  []error
	group sync.WaitGroup
}

func arrive(ctx context.Context, b *batch.Batcher[string, int], items ...string) *results {
	r := &results{outs: make([]int, len(items)), infos: make([]batch.Info, len(items)), errs: make([]error, len(items))}
	for i, item := range items {
		r.group.Go(func() { r.outs[i], r.infos[i], r.errs[i] = b.Do(ctx, item) })
		synctest.Wait()
	}
	return r
}

func TestLoneItemDoesNotWaitForCompany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := batch.New(batch.Config{Size: 8, Slots: 1, Queue: 8}, slow)
		out, info, err := b.Do(t.Context(), "7")
		require.NoError(t, err)
		require.Equal(t, 7, out)
		require.Equal(t, batch.Info{Size: 1, Wait: 0, Compute: time.Second}, info)
	})
}

func TestItemsThatWaitForASlotShareABatchInTheirOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls recorder
		b := batch.New(batch.Config{Size: 3, Slots: 1, Queue: 8}, calls.record(slow))
		r := arrive(t.Context(), b, "1", "2", "3", "4", "5")
		r.group.Wait()
		require.Equal(t, []error{nil, nil, nil, nil, nil}, r.errs)
		require.Equal(t, []int{1, 2, 3, 4, 5}, r.outs)
		require.Equal(t, [][]string{{"1"}, {"2", "3", "4"}, {"5"}}, calls.calls)
		require.Equal(t, batch.Info{Size: 3, Wait: time.Second, Compute: time.Second}, r.infos[2])
	})
}

func TestIdleBatcherHasNoGoroutine(t *testing.T) {
	t.Parallel()
	// A bubble only ends when all of its goroutines have; the batcher is not stopped.
	synctest.Test(t, func(t *testing.T) {
		b := batch.New(batch.Config{Size: 8, Slots: 4, Queue: 8}, slow)
		r := arrive(t.Context(), b, "1", "2", "3", "4", "5", "6")
		r.group.Wait()
		require.Equal(t, []int{1, 2, 3, 4, 5, 6}, r.outs)
	})
}

func TestFullQueueRefusesAndAnItemThatLeavesMakesRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls recorder
		b := batch.New(batch.Config{Size: 1, Slots: 1, Queue: 2}, calls.record(slow))
		under := arrive(t.Context(), b, "1", "2")
		ctx, cancel := context.WithCancel(t.Context())
		leaver := arrive(ctx, b, "3")
		_, _, err := b.Do(t.Context(), "4")
		require.ErrorIs(t, err, batch.ErrFull)

		cancel()
		leaver.group.Wait()
		require.ErrorIs(t, leaver.errs[0], context.Canceled)
		late := arrive(t.Context(), b, "5")
		under.group.Wait()
		late.group.Wait()
		require.Equal(t, []int{1, 2}, under.outs)
		require.Equal(t, []int{5}, late.outs)
		require.Equal(t, [][]string{{"1"}, {"2"}, {"5"}}, calls.calls)
	})
}

func TestItemWhoseDeadlinePassesInTheQueueIsNotComputed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls recorder
		b := batch.New(batch.Config{Size: 2, Slots: 1, Queue: 8}, calls.record(slow))
		first := arrive(t.Context(), b, "1")
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		hurried := arrive(ctx, b, "2")
		third := arrive(t.Context(), b, "3")
		hurried.group.Wait()
		require.ErrorIs(t, hurried.errs[0], batch.ErrExpired)
		require.ErrorIs(t, hurried.errs[0], context.DeadlineExceeded)
		require.Equal(t, batch.Info{Wait: 300 * time.Millisecond}, hurried.infos[0])
		first.group.Wait()
		third.group.Wait()
		require.Equal(t, [][]string{{"1"}, {"3"}}, calls.calls)
	})
}

func TestItemWhoseContextHasEndedIsRefusedWhateverTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls recorder
		b := batch.New(batch.Config{Size: 1, Slots: 1, Queue: 1}, calls.record(slow))
		r := arrive(t.Context(), b, "1", "2") // the queue is full
		expired, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		_, _, err := b.Do(expired, "3")
		require.ErrorIs(t, err, batch.ErrExpired)
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err = b.Do(cancelled, "4")
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, batch.ErrExpired)
		r.group.Wait()
		require.Equal(t, [][]string{{"1"}, {"2"}}, calls.calls)
	})
}

// unnoticed is a context that has ended, but nobody has been woken by that yet.
type unnoticed struct {
	context.Context //nolint:containedctx // it is a context
	ended           *atomic.Bool
}

func (c unnoticed) Err() error {
	if c.ended.Load() {
		return context.Canceled
	}
	return nil
}

func TestItemWhoseCancellationIsStillUnnoticedIsNotComputed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls recorder
		var ended atomic.Bool
		b := batch.New(batch.Config{Size: 2, Slots: 1, Queue: 2}, calls.record(slow))
		first := arrive(t.Context(), b, "1")
		second := arrive(unnoticed{t.Context(), &ended}, b, "2")
		third := arrive(t.Context(), b, "3")
		ended.Store(true)
		for _, r := range []*results{first, second, third} {
			r.group.Wait()
		}
		require.ErrorIs(t, second.errs[0], context.Canceled)
		require.Equal(t, [][]string{{"1"}, {"3"}}, calls.calls)
	})
}

// overdue is a context whose deadline has passed and whose timer has not fired yet.
type overdue struct {
	context.Context //nolint:containedctx // it is a context
}

func (overdue) Deadline() (time.Time, bool) { return time.Unix(0, 0), true }

func TestItemWhoseTimerIsLateIsNotComputed(t *testing.T) {
	t.Parallel()
	b := batch.New(batch.Config{}, func(context.Context, []string) ([]int, error) {
		return nil, errors.New("must not be called")
	})
	_, info, err := b.Do(overdue{t.Context()}, "1")
	require.ErrorIs(t, err, batch.ErrExpired)
	require.Zero(t, info.Size)
}

// tie is a context that ends just after its item was answered and just before anybody looks.
type tie struct {
	context.Context //nolint:containedctx // it is a context
	cancel          context.CancelFunc
}

func (c tie) Done() <-chan struct{} {
	synctest.Wait()
	c.cancel()
	return c.Context.Done()
}

func TestItemThatIsAnsweredWhenItsContextEndsGetsItsAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := batch.New(batch.Config{}, func(_ context.Context, in []int) ([]int, error) { return in, nil })
		for i := range 100 { // who finds both is free to choose
			ctx, cancel := context.WithCancel(t.Context())
			out, _, err := b.Do(tie{ctx, cancel}, i)
			require.NoError(t, err)
			require.Equal(t, i, out)
		}
	})
}

func TestBatchEndsWhenTheLastWhoWaitsLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var ended atomic.Int64
		b := batch.New(batch.Config{Size: 2, Slots: 1, Queue: 2}, func(ctx context.Context, in []string) ([]int, error) {
			if in[0] == "1" {
				return slow(ctx, in)
			}
			child, cancel := context.WithCancel(ctx)
			defer cancel()
			<-child.Done()
			ended.Store(int64(time.Since(start)))
			return nil, child.Err()
		})
		busy := arrive(t.Context(), b, "1")
		early, cancelEarly := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancelEarly()
		late, cancelLate := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancelLate()
		one, other := arrive(early, b, "2"), arrive(late, b, "3")
		busy.group.Wait()
		one.group.Wait()
		require.ErrorIs(t, one.errs[0], context.DeadlineExceeded)
		require.NotErrorIs(t, one.errs[0], batch.ErrExpired, "it was being computed")
		require.Equal(t, 2*time.Second, time.Since(start))
		synctest.Wait()
		require.Zero(t, ended.Load(), "somebody still waits")
		other.group.Wait()
		synctest.Wait()
		require.EqualValues(t, 3*time.Second, ended.Load())
	})
}

func TestDeadlineOfABatchIsTheLatestOfItsItems(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		timeouts []time.Duration // 0: none
		want     time.Duration
	}{
		"latest first":     {[]time.Duration{9 * time.Second, 5 * time.Second}, 9 * time.Second},
		"latest last":      {[]time.Duration{5 * time.Second, 9 * time.Second}, 9 * time.Second},
		"one without":      {[]time.Duration{5 * time.Second, 0}, 0},
		"first is without": {[]time.Duration{0, 5 * time.Second}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var got time.Duration
				b := batch.New(batch.Config{Size: 2, Slots: 1, Queue: 2}, func(ctx context.Context, in []string) ([]int, error) {
					got = 0
					if deadline, ok := ctx.Deadline(); ok {
						got = deadline.Sub(start)
					}
					return slow(ctx, in)
				})
				busy := arrive(t.Context(), b, "1")
				all := []*results{busy}
				for _, timeout := range test.timeouts {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if timeout > 0 {
						ctx, cancel = context.WithTimeout(ctx, timeout)
						defer cancel()
					}
					all = append(all, arrive(ctx, b, "2"))
				}
				for _, r := range all {
					r.group.Wait()
					require.NoError(t, r.errs[0])
				}
				require.Equal(t, test.want, got)
			})
		})
	}
}

func TestItemAtFaultFailsAloneAtLogarithmicCost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls recorder
		b := batch.New(batch.Config{Size: 64, Slots: 1, Queue: 64, ItemFault: isSyntax}, calls.record(slow))
		busy := arrive(t.Context(), b, "0")
		items := make([]string, 64)
		for i := range items {
			items[i] = strconv.Itoa(i)
		}
		items[37] = "bad"
		r := arrive(t.Context(), b, items...)
		busy.group.Wait()
		r.group.Wait()
		for i := range items {
			if i == 37 {
				require.ErrorIs(t, r.errs[i], strconv.ErrSyntax)
				require.Equal(t, 1, r.infos[i].Size)
				continue
			}
			require.NoError(t, r.errs[i])
			require.Equal(t, i, r.outs[i])
		}
		require.Equal(t, 32, r.infos[0].Size, "of the call that answered")
		require.Equal(t, time.Second, r.infos[0].Compute, "of the call that answered")
		require.Len(t, calls.calls, 1+1+2*6)
	})
}

func TestErrorOfNobodysFaultFailsTheWholeBatchOnce(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(error) bool{
		"nothing is an item's fault": nil,
		"this is not":                func(error) bool { return false },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var calls recorder
				b := batch.New(batch.Config{Size: 4, Slots: 1, Queue: 4, ItemFault: fault}, calls.record(slow))
				busy := arrive(t.Context(), b, "0")
				r := arrive(t.Context(), b, "1", "bad", "3")
				busy.group.Wait()
				r.group.Wait()
				for i := range r.errs {
					require.ErrorIs(t, r.errs[i], strconv.ErrSyntax)
					require.Equal(t, batch.Info{Size: 3, Wait: time.Second, Compute: time.Second}, r.infos[i])
				}
				require.Len(t, calls.calls, 2)
			})
		})
	}
}

func TestFuncThatMisbehavesFailsItsBatchOnly(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		do func() ([]int, error)
		is func(error) bool
	}{
		"panics with a value": {
			func() ([]int, error) { panic("boom") },
			func(err error) bool {
				var p *batch.PanicError
				return errors.As(err, &p) && p.Value == "boom" && strings.Contains(string(p.Stack), "batch_test.go") &&
					err.Error() == "batch panicked: boom"
			},
		},
		"panics with an error": {
			func() ([]int, error) { panic(broken) },
			func(err error) bool { return errors.Is(err, broken) },
		},
		"ends its goroutine": {
			func() ([]int, error) { runtime.Goexit(); return nil, nil },
			func(err error) bool { return strings.Contains(err.Error(), "ended its goroutine") },
		},
		"returns too few": {
			func() ([]int, error) { return []int{1}, nil },
			func(err error) bool { return errors.Is(err, batch.ErrOutputs) },
		},
		"returns too many": {
			func() ([]int, error) { return []int{1, 2, 3}, nil },
			func(err error) bool { return errors.Is(err, batch.ErrOutputs) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := batch.New(batch.Config{Size: 2, Slots: 1, Queue: 4}, func(ctx context.Context, in []string) ([]int, error) {
					if in[0] == "bad" {
						return test.do()
					}
					return slow(ctx, in)
				})
				busy := arrive(t.Context(), b, "0")
				bad := arrive(t.Context(), b, "bad", "2")
				next := arrive(t.Context(), b, "3")
				for _, r := range []*results{busy, bad, next} {
					r.group.Wait()
				}
				require.NoError(t, busy.errs[0])
				for i := range bad.errs {
					require.Error(t, bad.errs[i])
					require.True(t, test.is(bad.errs[i]), "%v", bad.errs[i])
					require.Equal(t, 2, bad.infos[i].Size)
				}
				require.NoError(t, next.errs[0], "the slot goes on")
				require.Equal(t, 3, next.outs[0])
				require.NoError(t, b.Stop(t.Context()))
			})
		})
	}
}

func TestStopFlushesWhatWaitsAndTakesNoMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := batch.New(batch.Config{Size: 1, Slots: 1, Queue: 4}, slow)
		r := arrive(t.Context(), b, "1", "2", "3")
		start := time.Now()
		var stops sync.WaitGroup
		errs := make([]error, 2)
		for i := range errs {
			stops.Go(func() { errs[i] = b.Stop(t.Context()) })
		}
		synctest.Wait()
		_, _, err := b.Do(t.Context(), "4")
		require.ErrorIs(t, err, batch.ErrStopped)
		stops.Wait()
		require.Equal(t, []error{nil, nil}, errs)
		require.Equal(t, 3*time.Second, time.Since(start))
		r.group.Wait()
		require.Equal(t, []int{1, 2, 3}, r.outs)
		require.NoError(t, b.Stop(t.Context()), "stopping again")
	})
}

func TestStopThatRunsOutOfTimeAnswersEverybody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		ended := false
		b := batch.New(batch.Config{Size: 2, Slots: 1, Queue: 4}, func(ctx context.Context, in []string) ([]int, error) {
			<-release // deaf to its context
			ended = ctx.Err() != nil
			return make([]int, len(in)), nil
		})
		r := arrive(t.Context(), b, "1", "2", "3", "4")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := b.Stop(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		r.group.Wait()
		for _, err := range r.errs {
			require.ErrorIs(t, err, batch.ErrStopped)
		}
		require.Equal(t, time.Second, r.infos[3].Wait)
		require.ErrorIs(t, b.Stop(ctx), context.DeadlineExceeded, "its batch is still under way")
		close(release)
		require.NoError(t, b.Stop(t.Context()))
		require.True(t, ended)
	})
}

func TestStopOfAnIdleBatcherSucceedsWhateverItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		b := batch.New(batch.Config{Size: 2, Slots: 2, Queue: 2}, slow)
		require.NoError(t, b.Stop(ctx))
	}
}

func TestContextOfABatchEndsWithItsCall(t *testing.T) {
	t.Parallel()
	kept := make(chan context.Context, 1)
	b := batch.New(batch.Config{}, func(ctx context.Context, in []int) ([]int, error) {
		kept <- ctx
		return in, ctx.Err()
	})
	_, _, err := b.Do(t.Context(), 1)
	require.NoError(t, err)
	require.NoError(t, b.Stop(t.Context()))
	require.ErrorIs(t, (<-kept).Err(), context.Canceled)
}

func TestBatcherKeepsNothingOfWhatItHasAnswered(t *testing.T) {
	t.Parallel()
	b := batch.New(batch.Config{Size: 4}, func(_ context.Context, in []*[1 << 16]byte) ([]*[1 << 16]byte, error) {
		return in, nil
	})
	var picture weak.Pointer[[1 << 16]byte]
	func() {
		in := new([1 << 16]byte)
		picture = weak.Make(in)
		out, _, err := b.Do(t.Context(), in)
		require.NoError(t, err)
		require.Same(t, in, out)
	}()
	require.NoError(t, b.Stop(t.Context()))
	runtime.GC()
	require.Nil(t, picture.Value())
	runtime.KeepAlive(b)
}
