// Package batch turns single items into batches: whoever has an item calls Do and gets the answer to that item; the
// network behind it sees few calls with many items.
//
// The batcher is work-conserving. When a slot is free it takes what waits, at most Size items, and goes: a lone item
// never waits for company, and batches form by themselves while the slots are busy. Items are taken in the order in
// which they came. While there is nothing to do there is no goroutine and no timer.
//
// It knows nothing of pictures, tensors or transports.
package batch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

var (
	// ErrFull says that as many items wait as may wait. Come back later.
	ErrFull = errors.New("batch queue is full")
	// ErrStopped says that the batcher takes no more items.
	ErrStopped = errors.New("batcher is stopped")
	// ErrExpired says that an item's deadline passed before it got into a batch; nothing was computed for it.
	ErrExpired = errors.New("deadline passed before the item was batched")
	// ErrOutputs says that a Func did not return one output for each input.
	ErrOutputs = errors.New("wrong number of outputs")
)

// errExpired is what Do returns: callers that only know of contexts understand it too.
var errExpired = fmt.Errorf("%w: %w", ErrExpired, context.DeadlineExceeded)

// Func computes one batch. It returns one output for each input, in order, or an error for the whole batch. Inputs must
// not be kept after it returns. Its context ends when nobody waits for any of the items any more, at the latest of the
// items' deadlines, and when the call has returned; it carries no values of the items' contexts. A panic is an error for
// the whole batch.
type Func[In, Out any] func(ctx context.Context, inputs []In) ([]Out, error)

// Info says how an item fared.
type Info struct {
	Size    int           // items in the call that answered it; 0 when none did
	Wait    time.Duration // from Do until its batch was taken
	Compute time.Duration // of the call that answered it
}

// Config limits a Batcher. Numbers below 1 mean 1.
type Config struct {
	Size  int // items in a batch, at most
	Slots int // batches under way at the same time, at most
	Queue int // items that wait, at most; those that a free slot is about to take do not count
	// ItemFault says that a batch failed because of what is in an item, so that its neighbours may succeed without it.
	// The batch is then halved until the items that are at fault fail alone. It must be quick and pure. Nil: a batch
	// fails as a whole.
	ItemFault func(error) bool
}

// Batcher collects items into batches. It is safe for concurrent use.
type Batcher[In, Out any] struct {
	compute   Func[In, Out]
	size      int
	queue     int
	itemFault func(error) bool
	pool      sync.Pool // of *item; those that nobody else refers to any more

	mu       sync.Mutex
	waiting  list[In, Out]
	slots    []*slot[In, Out]
	idle     []*slot[In, Out] // those of slots that have nothing to do
	starting int              // slots on their way to their first batch
	stopped  bool
	drained  chan struct{} // closed when stopped and every slot is idle
}

// New returns a batcher that computes with f.
func New[In, Out any](c Config, f Func[In, Out]) *Batcher[In, Out] {
	b := &Batcher[In, Out]{
		compute:   f,
		size:      max(c.Size, 1),
		queue:     max(c.Queue, 1),
		itemFault: c.ItemFault,
		drained:   make(chan struct{}),
	}
	b.pool.New = func() any { return &item[In, Out]{settled: make(chan struct{}, 1)} }
	for range max(c.Slots, 1) {
		s := &slot[In, Out]{batcher: b}
		s.start = s.run
		b.slots = append(b.slots, s)
	}
	b.idle = append(b.idle, b.slots...)
	return b
}

// Do computes one item as a part of a batch. It returns as soon as ctx ends, whatever the item is doing then: ErrExpired
// when it still waited and its deadline passed, otherwise ctx.Err(). Other errors are ErrFull, ErrStopped, ErrOutputs,
// *PanicError, and what Func returned. Wait of Info is right in any case.
func (b *Batcher[In, Out]) Do(ctx context.Context, in In) (Out, Info, error) {
	var none Out
	if err := ctx.Err(); err != nil {
		return none, Info{}, ended(err)
	}
	it := b.pool.Get().(*item[In, Out]) // nothing else is ever put there
	it.ctx, it.in, it.came = ctx, in, time.Now()
	it.deadline, it.bounded = ctx.Deadline()
	if err := b.admit(it); err != nil {
		b.release(it)
		return none, Info{}, err
	}

	select {
	case <-it.settled:
	case <-ctx.Done():
		if was, info := b.leave(it); was == waiting {
			b.release(it)
			return none, info, ended(ctx.Err())
		} else if was == taken {
			// The item stays with its batch, which may be reading it: it does not go back to the pool.
			return none, info, ctx.Err()
		}
		<-it.settled // it was answered at the same moment
	}
	out, info, err := it.out, it.info, it.err
	b.release(it)
	return out, info, err
}

// ended is the error of an item whose context ended before it was in a batch.
func ended(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errExpired
	}
	return err
}

// admit puts an item into the queue and wakes an idle slot.
func (b *Batcher[In, Out]) admit(it *item[In, Out]) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return ErrStopped
	}
	if b.waiting.len >= b.queue+b.starting*b.size {
		return ErrFull
	}
	it.state = waiting
	b.waiting.push(it)
	if n := len(b.idle); n > 0 {
		s := b.idle[n-1]
		b.idle = b.idle[:n-1]
		s.starting = true
		b.starting++
		go s.start()
	}
	return nil
}

// leave gives an item up because its context ended, and returns the state that it was in. A settled item keeps its
// answer.
func (b *Batcher[In, Out]) leave(it *item[In, Out]) (state, Info) {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := it.state
	switch was {
	case waiting:
		b.waiting.remove(it)
		it.info = Info{Wait: time.Since(it.came)}
		it.state = done
	case taken:
		it.state = done
		it.call.leave()
	case done:
	}
	return was, it.info
}

// release takes back an item that nobody else refers to.
func (b *Batcher[In, Out]) release(it *item[In, Out]) {
	*it = item[In, Out]{settled: it.settled}
	b.pool.Put(it)
}

// Stop takes no more items and waits until those that were taken are answered. When ctx ends first, the rest are
// answered with ErrStopped, the contexts of the batches under way end, and the error says so. It may be called any
// number of times; each call waits.
func (b *Batcher[In, Out]) Stop(ctx context.Context) error {
	b.mu.Lock()
	b.stopped = true
	b.closeIfDrained()
	b.mu.Unlock()

	select {
	case <-b.drained:
		return nil
	default: // so that a context that has ended already does not win by chance
	}
	select {
	case <-b.drained:
		return nil
	case <-ctx.Done():
		b.abandon()
		return fmt.Errorf("stopping batcher: batches are still under way: %w", ctx.Err())
	}
}

// abandon answers everything that has no answer yet with ErrStopped.
func (b *Batcher[In, Out]) abandon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for it := b.waiting.pop(); it != nil; it = b.waiting.pop() {
		it.info = Info{Wait: time.Since(it.came)}
		it.settle(ErrStopped)
	}
	for _, s := range b.slots {
		s.abandon()
	}
}

// closeIfDrained is called with the lock held.
func (b *Batcher[In, Out]) closeIfDrained() {
	if !b.stopped || len(b.idle) < len(b.slots) {
		return
	}
	select {
	case <-b.drained:
	default:
		close(b.drained)
	}
}
