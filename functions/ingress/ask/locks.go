package ask

import (
	"context"
	"sync"
)

// locks are locks by name, of which there are as many as are being held or waited for.
type locks struct {
	mu   *sync.Mutex
	held map[string]*lock
}

type lock struct {
	users int           // who hold it or wait for it; guarded by locks.mu
	free  chan struct{} // of one: a token while nobody holds it
}

func newLocks() locks { return locks{mu: &sync.Mutex{}, held: make(map[string]*lock)} }

// lock waits for a lock. Without an error unlock must be called; the error is ctx's.
func (l locks) lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	k := l.held[name]
	if k == nil {
		k = &lock{free: make(chan struct{}, 1)}
		k.free <- struct{}{}
		l.held[name] = k
	}
	k.users++
	l.mu.Unlock()

	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.users--; k.users == 0 {
			delete(l.held, name)
		}
	}
	select {
	case <-k.free:
		return func() { k.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
