package batch_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-inference/ebb/models/batch"
)

// BenchmarkDo measures what a batch costs beyond the computation: producers that each wait for their answer before they
// come back, in front of a model that takes no time. Every item has a context with a deadline.
//
// It does so with the usual batcher too, which collects from a channel and lets a batch go when it is full or when its
// first item has waited for a millisecond: x-window is how many times as long that one takes.
func BenchmarkDo(b *testing.B) {
	compare(b, func(calls *atomic.Int64) batch.Func[int, int] {
		return func(_ context.Context, in []int) ([]int, error) {
			calls.Add(1)
			return in, nil
		}
	})
}

// BenchmarkDoBusy is the same in front of a model that takes a millisecond for a batch of any size, as a server at the
// other end of a network does.
func BenchmarkDoBusy(b *testing.B) {
	compare(b, func(calls *atomic.Int64) batch.Func[int, int] {
		return func(_ context.Context, in []int) ([]int, error) {
			calls.Add(1)
			time.Sleep(time.Millisecond)
			return in, nil
		}
	})
}

func compare(b *testing.B, model func(calls *atomic.Int64) batch.Func[int, int]) {
	b.Helper()
	const size, slots = 64, 2
	for _, producers := range []int{1, 8, 64, 512} {
		b.Run(fmt.Sprintf("producers=%d", producers), func(b *testing.B) {
			var calls atomic.Int64
			batcher := batch.New(batch.Config{Size: size, Slots: slots, Queue: 1024}, model(&calls))
			b.ReportAllocs()
			b.ResetTimer()
			ours := produce(b, producers, b.N, func(ctx context.Context, i int) (int, error) {
				out, _, err := batcher.Do(ctx, i)
				return out, err
			})
			b.StopTimer()
			if err := batcher.Stop(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/float64(calls.Load()), "items/batch")

			w := newWindow(size, slots, time.Millisecond, model(&calls))
			n := min(b.N, 200*producers) // it may be much slower
			theirs := produce(b, producers, n, w.do)
			w.stop()
			b.ReportMetric(theirs.Seconds()/float64(n)/(ours.Seconds()/float64(b.N)), "x-window")
		})
	}
}

// produce shares n items among producers, checks every answer, and returns how long it took.
func produce(b *testing.B, producers, n int, do func(context.Context, int) (int, error)) time.Duration {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range producers {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			for {
				i := int(next.Add(1))
				if i > n {
					return
				}
				if out, err := do(ctx, i); err != nil || out != i {
					b.Errorf("item %d was answered %d, %v", i, out, err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// window is the batcher that ours is compared with.
type window struct {
	items   chan windowItem
	workers sync.WaitGroup
}

type windowItem struct {
	in  int
	out chan int
}

func newWindow(size, slots int, wait time.Duration, f batch.Func[int, int]) *window {
	w := &window{items: make(chan windowItem)}
	for range slots {
		w.workers.Go(func() {
			for first := range w.items {
				w.collect(first, size, wait, f)
			}
		})
	}
	return w
}

// collect makes a batch that begins with an item.
func (w *window) collect(first windowItem, size int, wait time.Duration, f batch.Func[int, int]) {
	waiting, inputs := []windowItem{first}, []int{first.in}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for open := true; open && len(waiting) < size; {
		var it windowItem
		select {
		case it, open = <-w.items:
			if open {
				waiting, inputs = append(waiting, it), append(inputs, it.in)
			}
		case <-timer.C:
			open = false
		}
	}
	outs, _ := f(context.Background(), inputs) // a benchmark's model never fails
	for i, it := range waiting {
		it.out <- outs[i]
	}
}

func (w *window) do(ctx context.Context, in int) (int, error) {
	it := windowItem{in: in, out: make(chan int, 1)}
	select {
	case w.items <- it:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	select {
	case out := <-it.out:
		return out, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (w *window) stop() {
	close(w.items)
	w.workers.Wait()
}
