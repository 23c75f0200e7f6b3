package worker

import (
	"context"
	"errors"
	"sync"
)

var (
	errFull     = errors.New("full")
	errStopping = errors.New("stopping")
)

// gate bounds how many deliveries are inside, says when the last one has left, and can end what they are doing.
type gate struct {
	room int

	mu     sync.Mutex
	inside map[int64]context.CancelFunc
	next   int64
	closed bool
	empty  chan struct{} // closed when the gate is and nobody is inside
}

func newGate(room int) *gate {
	return &gate{room: room, inside: make(map[int64]context.CancelFunc), empty: make(chan struct{})}
}

// enter lets a delivery in, whose work end ends. The error is errFull or errStopping; without one leave must be called.
func (g *gate) enter(end context.CancelFunc) (leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, errStopping
	}
	if len(g.inside) >= g.room {
		return nil, errFull
	}
	number := g.next
	g.next++
	g.inside[number] = end
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.inside, number)
		if g.closed && len(g.inside) == 0 {
			close(g.empty)
		}
	}, nil
}

// close lets nobody in any more. It may be called any number of times.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed && len(g.inside) == 0 {
		close(g.empty)
	}
	g.closed = true
}

// end ends the work of all who are inside.
func (g *gate) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, end := range g.inside {
		end()
	}
}

func (g *gate) isClosed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}
