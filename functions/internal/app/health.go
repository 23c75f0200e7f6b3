package app

import (
	"io"
	"net/http"
	"sync/atomic"
)

// Health answers /health/liveness and /health/readiness. Mount it at /health/.
//
// Liveness says that the process serves HTTP; readiness that it can do its work: 200, or 503 with the reason in a line
// of text.
type Health struct {
	ready    func() error
	draining atomic.Bool
	mux      *http.ServeMux
}

// NewHealth makes a Health that is ready when ready returns nil; a nil ready always is. ready is called for each
// request and must be quick.
func NewHealth(ready func() error) *Health {
	h := &Health{ready: ready, mux: http.NewServeMux()}
	h.mux.HandleFunc("GET /health/liveness", func(w http.ResponseWriter, _ *http.Request) {
		say(w, http.StatusOK, "alive")
	})
	h.mux.HandleFunc("GET /health/readiness", func(w http.ResponseWriter, _ *http.Request) {
		if h.draining.Load() {
			say(w, http.StatusServiceUnavailable, "draining")
			return
		}
		if h.ready != nil {
			if err := h.ready(); err != nil {
				say(w, http.StatusServiceUnavailable, err.Error())
				return
			}
		}
		say(w, http.StatusOK, "ready")
	})
	return h
}

// Drain makes readiness 503 from now on. It is meant for ServeOptions.OnDrain.
func (h *Health) Drain() { h.draining.Store(true) }

func (h *Health) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

func say(w http.ResponseWriter, status int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// The prober hung up when this fails; there is nobody to tell.
	_, _ = io.WriteString(w, line+"\n")
}
