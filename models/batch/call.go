package batch

import (
	"context"
	"time"
)

// call is one call of Func and its context. The context needs no timer of its own: everybody who waits watches a context
// of his own, and the last one to leave ends this one.
type call struct {
	// One that package context recognises as its own, so that deriving from it is cheap.
	context.Context //nolint:containedctx // a call is a context

	cancel   context.CancelFunc
	began    time.Time
	deadline time.Time // the latest of its items'
	bounded  bool      // all of its items have a deadline
	waiting  int       // items that somebody still waits for; guarded by the batcher's lock
}

func newCall(now time.Time) *call {
	c := &call{began: now, bounded: true}
	c.Context, c.cancel = context.WithCancel(context.Background())
	return c
}

// Deadline returns the latest of the items' deadlines, so that clients can tell servers how long somebody will wait.
func (c *call) Deadline() (time.Time, bool) {
	if !c.bounded {
		return time.Time{}, false
	}
	return c.deadline, true
}

// join counts an item in.
func (c *call) join(deadline time.Time, bounded bool) {
	c.waiting++
	c.bounded = c.bounded && bounded
	if deadline.After(c.deadline) {
		c.deadline = deadline
	}
}

// leave counts an item out.
func (c *call) leave() {
	c.waiting--
	if c.waiting == 0 {
		c.cancel()
	}
}
