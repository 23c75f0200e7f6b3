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
	batcher  *Batcher[In, Out]
	start    func() // run, made once so that starting it allocates nothing
	starting bool   // its goroutine has not looked for work yet; guarded by the batcher's lock

	// The batch; an entry is nil once it is answered. What the slices hold is guarded by the batcher's lock, because
	// Stop may want to answer it.
	items []*item[In, Out]
	parts [][]*item[In, Out] // parts of items that are to be computed one after the other, the next one last

	// The call under way.
	call   *call
	part   []*item[In, Out] // of items
	inputs []In             // in the order of part

	answered []*item[In, Out] // to be told
}

// run is the slot's goroutine.
func (s *slot[In, Out]) run() {
	idle := false
	defer func() {
		if !idle { // Func ended the goroutine with runtime.Goexit: the slot goes on in a new one.
			s.finish(nil, errGoexit)
			go s.start()
		}
	}()
	for s.next() {
		outs, err := s.invoke()
		if err == nil && len(outs) != len(s.inputs) {
			err = fmt.Errorf("%w: %d for %d inputs", ErrOutputs, len(outs), len(s.inputs))
		}
		if err == nil || !s.divide(err) {
			s.finish(outs, err)
		}
	}
	idle = true
}

// next prepares a call: of a part of the batch, or else of what waits. When there is nothing the slot becomes idle and
// next returns false.
func (s *slot[In, Out]) next() bool {
	b := s.batcher
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.starting {
		s.starting = false
		b.starting--
	}
	for n := len(s.parts); n > 0; n = len(s.parts) {
		part := s.parts[n-1]
		s.parts = s.parts[:n-1]
		if s.retake(part) {
			return true
		}
	}
	if s.take() {
		return true
	}
	b.idle = append(b.idle, s)
	b.closeIfDrained()
	return false
}

// take makes a batch of what waits, and a call of that.
func (s *slot[In, Out]) take() bool {
	s.call, s.items, s.inputs = nil, s.items[:0], s.inputs[:0]
	var now time.Time
	for len(s.items) < s.batcher.size {
		it := s.batcher.waiting.pop()
		if it == nil {
			break
		}
		if now.IsZero() {
			now = time.Now()
		}
		it.info.Wait = now.Sub(it.came)
		if s.join(it, now) {
			s.items = append(s.items, it)
		}
	}
	s.part = s.items
	return s.call != nil
}

// retake makes a call of those items of a part that somebody still waits for.
func (s *slot[In, Out]) retake(part []*item[In, Out]) bool {
	s.call, s.inputs = nil, s.inputs[:0]
	now, live := time.Now(), part[:0]
	for _, it := range part {
		if it != nil && it.state != done && s.join(it, now) {
			live = append(live, it)
		}
	}
	clear(part[len(live):])
	s.part = live
	return s.call != nil
}

// join makes an item a part of the call, unless it has expired: then it is answered. Its input is copied here, under the
// lock: as soon as the item is done, its memory may serve another.
func (s *slot[In, Out]) join(it *item[In, Out], now time.Time) bool {
	if err := it.expired(now); err != nil {
		it.settle(err)
		return false
	}
	if s.call == nil {
		s.call = newCall(now)
	}
	s.call.join(it.deadline, it.bounded)
	it.state, it.call = taken, s.call
	s.inputs = append(s.inputs, it.in)
	return true
}

// invoke calls Func, whatever it does.
func (s *slot[In, Out]) invoke() (outs []Out, err error) {
	defer s.call.cancel()
	defer func() {
		if v := recover(); v != nil {
			outs, err = nil, &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return s.batcher.compute(s.call, s.inputs[:len(s.inputs):len(s.inputs)])
}

// finish answers those items of the call that are not done: with the output at the same place, or with err.
func (s *slot[In, Out]) finish(outs []Out, err error) {
	size, compute := len(s.inputs), time.Since(s.call.began)
	s.batcher.mu.Lock()
	for i, it := range s.part {
		s.part[i] = nil
		if it == nil || it.state == done {
			continue
		}
		it.state = done
		if err == nil {
			it.out = outs[i]
		}
		it.err = err
		it.info.Size, it.info.Compute = size, compute
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
		it.call.leave()
		it.settle(ErrStopped)
	}
}
