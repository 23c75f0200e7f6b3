package reply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/ebb-inference/ebb/events"
)

// ErrDuplicate says that a request with the same correlation id already waits.
var ErrDuplicate = errors.New("a request with this correlation id already waits")

// lostKept is how many lost addresses a Pending remembers: more than there are reconnects between reading an address and
// adding a request that uses it.
const lostKept = 64

// Pending is the table of requests that wait for a reply, bounded, keyed by correlation id. Each entry leaves it exactly
// once: by its reply, by the loss of its reply queue, or because its Waiter stopped waiting. It is safe for concurrent use
// and has no goroutine of its own.
type Pending struct {
	limit int

	mu      sync.Mutex
	waiters map[string]*Waiter
	lost    []string // the latest lost addresses, oldest first; names are never used twice
}

// Waiter waits for one reply. Cancel or Wait must be called, or its entry stays.
type Waiter struct {
	pending       *Pending
	correlationID string
	address       string

	done   chan struct{} // closed when the entry left the table; then result and err are final
	result *events.Result
	err    error
}

// NewPending makes a table in which at most limit requests wait.
func NewPending(limit int) *Pending {
	return &Pending{limit: limit, waiters: make(map[string]*Waiter)}
}

// Add enters a request whose reply will come to address. The error is ErrFull, ErrDuplicate, or ErrLost when address was
// lost before the request was entered.
func (p *Pending) Add(correlationID, address string) (*Waiter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Contains(p.lost, address) {
		return nil, ErrLost
	}
	if _, ok := p.waiters[correlationID]; ok {
		return nil, fmt.Errorf("%w: %.128q", ErrDuplicate, correlationID)
	}
	if len(p.waiters) >= p.limit {
		return nil, ErrFull
	}
	w := &Waiter{pending: p, correlationID: correlationID, address: address, done: make(chan struct{})}
	p.waiters[correlationID] = w
	return w, nil
}

// Deliver hands r to the request that waits for it. False says that nobody does: the reply is late, or a duplicate.
func (p *Pending) Deliver(r *events.Result) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.waiters[r.CorrelationID]
	if !ok {
		return false
	}
	w.leave(r, nil)
	return true
}

// Lose ends the wait of every request whose reply would have come to address, with ErrLost.
func (p *Pending) Lose(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lost) == lostKept {
		p.lost = slices.Delete(p.lost, 0, 1)
	}
	p.lost = append(p.lost, address)
	for _, w := range p.waiters {
		if w.address == address {
			w.leave(nil, ErrLost)
		}
	}
}

// Len is how many requests wait.
func (p *Pending) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiters)
}

// Limit is how many may.
func (p *Pending) Limit() int { return p.limit }

// Wait returns the reply, ErrLost, or ctx.Err(). A reply that arrived before ctx ended wins. The entry has
// left the table when Wait returns. After Cancel it returns context.Canceled.
func (w *Waiter) Wait(ctx context.Context) (*events.Result, error) {
	select {
	case <-w.done:
	case <-ctx.Done():
		w.abandon(ctx.Err())
	}
	return w.result, w.err
}

// Cancel stops waiting. It may be called at any time and more than once; after a reply it does nothing.
func (w *Waiter) Cancel() { w.abandon(context.Canceled) }

func (w *Waiter) abandon(why error) {
	w.pending.mu.Lock()
	defer w.pending.mu.Unlock()
	if w.pending.waiters[w.correlationID] == w {
		w.leave(nil, why)
	}
}

// leave takes the entry out of the table with its outcome. The caller holds the table's lock and knows that the entry is
// in it, so an entry leaves once.
func (w *Waiter) leave(r *events.Result, err error) {
	delete(w.pending.waiters, w.correlationID)
	w.result, w.err = r, err
	close(w.done)
}
