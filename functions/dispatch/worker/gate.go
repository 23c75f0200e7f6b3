package worker

import "sync"

// gate bounds how many deliveries are inside, and says when the last one has left.
type gate struct {
	mu     sync.Mutex
	room   int
	inside int
	closed bool
	empty  chan struct{} // closed when the gate is and nobody is inside
}

func newGate(room int) *gate { return &gate{room: room, empty: make(chan struct{})} }

// enter lets a delivery in, or says which of the two reasons there is not to. Who got in must leave.
func (g *gate) enter() (ok, closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.inside >= g.room {
		return false, g.closed
	}
	g.inside++
	return true, false
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.closed && g.inside == 0 {
		close(g.empty)
	}
}

// close lets nobody in any more. It may be called any number of times.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed && g.inside == 0 {
		close(g.empty)
	}
	g.closed = true
}

func (g *gate) isClosed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}
