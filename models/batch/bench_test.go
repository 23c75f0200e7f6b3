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
// "window" is the usual batcher, as a ratio: a channel, and a batch that leaves when it is full or when its first item
// has waited for a millisecond.
func BenchmarkDo(b *testing.B) {
	const size = 64
	noop := func(calls *atomic.Int64) batch.Func[int, int] {
		return func(_ context.Context, in []int) ([]int, error) {
			calls.Add(1)
			return in, nil
		}
	}
	for _, producers := range []int{1, 8, 64, 512} {
		b.Run(fmt.Sprintf("batcher/producers=%d", producers), func(b *testing.B) {
			var calls atomic.Int64
			batcher := batch.New(batch.Config{Size: size, Slots: 2, Queue: 1024}, noop(&calls))
			produce(b, producers, &calls, func(ctx context.Context, i int) (int, error) {
				out, _, err := batcher.Do(ctx, i)
				return out, err
			})
			if err := batcher.Stop(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
		b.Run(fmt.Sprintf("window/producers=%d", producers), func(b *testing.B) {
			var calls atomic.Int64
			w := newWindow(size, time.Millisecond, noop(&calls))
			produce(b, producers, &calls, w.do)
			w.stop()
		})
	}
}

// produce shares b.N items among producers and checks every answer.
func produce(b *testing.B, producers int, calls *atomic.Int64, do func(context.Context, int) (int, error)) {
	b.ReportAllocs()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range producers {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			for {
				i := int(next.Add(1))
				if i > b.N {
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
	b.StopTimer()
	b.ReportMetric(float64(b.N)/float64(calls.Load()), "items/batch")
}

// window is the batcher that ours is compared with.
type window struct {
	items chan windowItem
	done  chan struct{}
}

type windowItem struct {
	in  int
	out chan int
}

func newWindow(size int, wait time.Duration, f batch.Func[int, int]) *window {
	w := &window{items: make(chan windowItem), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for first := range w.items {
			waiting, inputs := []windowItem{first}, []int{first.in}
			timer := time.NewTimer(wait)
		collect:
			for len(waiting) < size {
				select {
				case it, ok := <-w.items:
					if !ok {
						break collect
					}
					waiting, inputs = append(waiting, it), append(inputs, it.in)
				case <-timer.C:
					break collect
				}
			}
			timer.Stop()
			outs, _ := f(context.Background(), inputs) // a benchmark's model never fails
			for i, it := range waiting {
				it.out <- outs[i]
			}
		}
	}()
	return w
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
	<-w.done
}
