package gateway

import (
	"net/http"

	"golang.org/x/sync/semaphore"
)

// memory is what the bodies of all requests under way may take together. Who finds no room is sent away at once: waiting
// for it would need memory, too.
type memory struct {
	size int64
	room *semaphore.Weighted
}

func newMemory(bytes int64) *memory { return &memory{size: bytes, room: semaphore.NewWeighted(bytes)} }

// hold is a request's part of the memory. Release must be called.
type hold struct {
	of    *memory
	bytes int64
}

// take holds so many bytes, or returns nil when there is no room for them.
func (m *memory) take(bytes int64) *hold {
	bytes = max(bytes, 0)
	if !m.room.TryAcquire(bytes) {
		return nil
	}
	return &hold{of: m, bytes: bytes}
}

// shrink gives back what is beyond so many bytes: what was announced, or could have come, and did not.
func (h *hold) shrink(bytes int64) {
	if bytes < h.bytes {
		h.of.room.Release(h.bytes - bytes)
		h.bytes = bytes
	}
}

func (h *hold) release() { h.shrink(0) }

// bounded holds memory for the bodies that another handler reads, as large as they may be there.
func (g *gateway) bounded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			h.ServeHTTP(w, r)
			return
		}
		hold := g.memory.take(g.MaxBytes)
		if hold == nil {
			fail(w, r, busy())
			return
		}
		defer hold.release()
		h.ServeHTTP(w, r)
	})
}
