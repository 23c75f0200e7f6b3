package batch

import (
	"context"
	"time"
)

// state is where an item is in its life. It only ever goes forward, under the batcher's lock; who moves an item to done
// is the one who decides what Do returns.
type state uint8

const (
	waiting state = iota // in the queue
	taken                // in a batch
	done                 // answered, or given up by its context
)

// item is one call of Do.
type item[In, Out any] struct {
	ctx      context.Context //nolint:containedctx // an item waits as long as its caller's context says
	in       In
	came     time.Time
	deadline time.Time
	bounded  bool // deadline is set

	// Guarded by the batcher's lock; the answer is the caller's once settled has a token.
	state   state
	call    *call // the one that computes it, when taken
	out     Out
	info    Info
	err     error
	settled chan struct{} // room for the one token that an item ever gets

	next, previous *item[In, Out] // in the queue
}

// expired says whether the item's deadline has passed or its context has ended, and with what. The deadline is looked at
// too because a context's timer may be late.
func (it *item[In, Out]) expired(now time.Time) error {
	if err := it.ctx.Err(); err != nil {
		return ended(err)
	}
	if it.bounded && !now.Before(it.deadline) {
		return errExpired
	}
	return nil
}

// settle answers an item that is not done yet with an error. It is called with the lock held; the token never blocks.
// From then on the item belongs to who waits for it: nobody else may touch it.
func (it *item[In, Out]) settle(err error) {
	it.state = done
	it.err = err
	it.settled <- struct{}{}
}

// list is a queue from whose middle an item can leave at no cost.
type list[In, Out any] struct {
	first, last *item[In, Out]
	len         int
}

func (l *list[In, Out]) push(it *item[In, Out]) {
	it.previous = l.last
	if l.last == nil {
		l.first = it
	} else {
		l.last.next = it
	}
	l.last = it
	l.len++
}

// pop returns the item that has waited longest, or nil.
func (l *list[In, Out]) pop() *item[In, Out] {
	it := l.first
	if it != nil {
		l.remove(it)
	}
	return it
}

func (l *list[In, Out]) remove(it *item[In, Out]) {
	if it.previous == nil {
		l.first = it.next
	} else {
		it.previous.next = it.next
	}
	if it.next == nil {
		l.last = it.previous
	} else {
		it.next.previous = it.previous
	}
	it.next, it.previous = nil, nil
	l.len--
}
