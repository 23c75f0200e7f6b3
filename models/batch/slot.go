package batch

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// PanicError is the error of every item of a batch whose Func panicked.
type PanicError struct {
	Value any    // what it panicked with
	Stack []byte // where
}

func (e *PanicError) Error() string { return fmt.Sprintf("batch panicked: %v", e.Value) }

// Unwrap returns the value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error) // a value that is no error has nothing to unwrap
	return err
}

var errGoexit = errors.New("batch function ended its goroutine")

// slot computes one batch after the other while something waits. Its goroutine lives only so long.
type slot[In, Out any] struct {
	batcher *Batcher[In, Out]
	start   func() // run, made once so that starting it allocates nothing

	items    []*item[In, Out] // the batch; an entry is nil once it is answered; guarded by the batcher's lock
	inputs   []In             // of the call under way
	answered []*item[In, Out] // to be told
}

// run is the slot's goroutine.
func (s *slot[In, Out]) run() {
	idle := false
	defer func() {
		if idle {
			return
		}
		// Func ended the goroutine (runtime.Goexit): the slot goes on in a new one.
		s.finish(s.items, nil, Info{}, errGoexit)
		s.batcher.mu.Lock()
		s.batcher.starting++
		s.batcher.mu.Unlock()
		go s.start()
	}()
	for c := s.take(true); c != nil; c = s.take(false) {
		s.compute(c, s.items)
	}
	idle = true
}

// take fills the slot with what waits, at most a batch. When nothing does, the slot becomes idle and take returns nil.
func (s *slot[In, Out]) take(first bool) *call {
	b := s.batcher
	b.mu.Lock()
	defer b.mu.Unlock()
	if first {
		b.starting--
	}
	var c *call
	s.items, s.inputs = s.items[:0], s.inputs[:0]
	now := time.Now()
	for len(s.items) < b.size {
		it := b.waiting.pop()
		if it == nil {
			break
		}
		it.info.Wait = now.Sub(it.came)
		if err := it.expired(now); err != nil {
			it.settle(err)
			continue
		}
		if c == nil {
			c = newCall()
		}
		s.items = append(s.items, s.join(c, it))
	}
	if c == nil {
		b.idle = append(b.idle, s)
		b.closeIfDrained()
	}
	return c
}

// retake makes a new call of those of the items that somebody still waits for: the first ones of items when it returns.
// Without any it returns nil.
func (s *slot[In, Out]) retake(items []*item[In, Out]) (*call, []*item[In, Out]) {
	s.batcher.mu.Lock()
	defer s.batcher.mu.Unlock()
	var c *call
	live := items[:0]
	s.inputs = s.inputs[:0]
	now := time.Now()
	for _, it := range items {
		if it == nil || it.state == done {
			continue
		}
		if err := it.expired(now); err != nil {
			it.settle(err)
			continue
		}
		if c == nil {
			c = newCall()
		}
		live = append(live, s.join(c, it))
	}
	clear(items[len(live):])
	return c, live
}

// join makes an item a part of a call. Its input is copied here, under the lock: as soon as the item is done, its memory
// may serve another.
func (s *slot[In, Out]) join(c *call, it *item[In, Out]) *item[In, Out] {
	it.state, it.call = taken, c
	c.join(it.deadline, it.bounded)
	s.inputs = append(s.inputs, it.in)
	return it
}

// compute gets an answer for each of the items, in one call or, when some of them are at fault, in more.
func (s *slot[In, Out]) compute(c *call, items []*item[In, Out]) {
	info := Info{Size: len(s.inputs)}
	began := time.Now()
	outs, err := s.invoke(c)
	info.Compute = time.Since(began)
	if err == nil && len(outs) != len(s.inputs) {
		err = fmt.Errorf("%w: %d for %d inputs", ErrOutputs, len(outs), len(s.inputs))
	}
	if err != nil && s.divide(items, err) {
		return
	}
	s.finish(items, outs, info, err)
}

// invoke calls Func, whatever it does.
func (s *slot[In, Out]) invoke(c *call) (outs []Out, err error) {
	defer c.cancel()
	defer func() {
		if v := recover(); v != nil {
			outs, err = nil, &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return s.batcher.compute(c, s.inputs[:len(s.inputs):len(s.inputs)])
}

// finish answers those of the items that are not done: with the output at the same place, or with err.
func (s *slot[In, Out]) finish(items []*item[In, Out], outs []Out, info Info, err error) {
	s.batcher.mu.Lock()
	for i, it := range items {
		items[i] = nil
		if it == nil || it.state == done {
			continue
		}
		it.state = done
		if err == nil {
			it.out = outs[i]
		}
		it.err = err
		it.info.Size, it.info.Compute = info.Size, info.Compute
		s.answered = append(s.answered, it)
	}
	s.batcher.mu.Unlock()
	// Without the lock, so that who wakes up can come back with the next item at once.
	for _, it := range s.answered {
		it.settled <- struct{}{}
	}
	clear(s.answered)
	s.answered = s.answered[:0]
	clear(s.inputs) // whatever they refer to can go
}

// abandon answers the batch with ErrStopped and ends its context. It is called with the lock held.
func (s *slot[In, Out]) abandon() {
	for i, it := range s.items {
		s.items[i] = nil
		if it == nil || it.state == done {
			continue
		}
		it.settle(ErrStopped)
		it.call.leave()
	}
}
