package sourcetest

import (
	"bytes"
	"net/http"
	"sync"
)

// Tap is a handler before a place's own that can lose connections and spoil files, for places that are asked by HTTP.
type Tap struct {
	Place http.Handler
	// Files says which requests ask for the content of files.
	Files func(r *http.Request) bool

	mu      sync.Mutex
	left    int64
	lost    func()
	spoiled bool
}

// Spoil changes what is sent of files from now on.
func (t *Tap) Spoil() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spoiled = true
}

// Break loses the next connection that has brought so many bytes of files; see Place.Break.
func (t *Tap) Break(after int64, lost func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.left, t.lost = after, lost
}

// ServeHTTP has the place answer.
func (t *Tap) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if t.Files(r) {
		w = &tapped{w, t}
	}
	t.Place.ServeHTTP(w, r)
}

// take says how many of so many bytes may pass, and whether the connection is lost after them.
func (t *Tap) take(p []byte) (passing int, lose bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if t.spoiled && n > 0 {
		p[n-1] ^= 1
	}
	if t.lost == nil || int64(n) < t.left {
		t.left -= int64(n)
		return n, false
	}
	t.lost()
	t.lost = nil
	return int(t.left), true
}

type tapped struct {
	http.ResponseWriter
	tap *Tap
}

func (w *tapped) Write(p []byte) (int, error) {
	p = bytes.Clone(p)
	n, lose := w.tap.take(p)
	if !lose {
		return w.ResponseWriter.Write(p)
	}
	_, _ = w.ResponseWriter.Write(p[:n])
	_ = http.NewResponseController(w.ResponseWriter).Flush() // so that what passes does arrive
	panic(http.ErrAbortHandler)
}

// Flush passes on what was written.
func (w *tapped) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }
