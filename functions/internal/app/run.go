package app

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/ebb-inference/ebb/events/problem"
)

// Function is what a function serves once it has what it needs, and is ready.
type Function struct {
	Handler http.Handler
	Health  *Health                     // which Handler has at /health/
	Stop    func(context.Context) error // what Handler is made of; called when no request is under way any more
}

// stopFunctionWithin bounds Function.Stop. What requests need has had its time before.
const stopFunctionWithin = 5 * time.Second

var errStarting = errors.New("starting: what it needs is not there yet")

// Run serves what start makes, until ctx ends; see Serve. While start is busy, which may be for as long as RabbitMQ is away,
// the function is alive and not ready, and everything else is answered 503. So a function needs nobody to be there before
// it, and does not end for want of them: whoever starts it anew would wait longer each time.
//
// An error of start ends Run. When ctx ends, readiness is turned off, what is under way is answered, and then the function
// is stopped.
func (a *App) Run(ctx context.Context, c HTTP, o ServeOptions, start func(context.Context) (*Function, error)) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	var made atomic.Pointer[Function]
	starting := NewHealth(func() error { return errStarting })
	early := early(starting)
	failed := make(chan error, 1)
	go func() {
		f, err := start(running)
		if err == nil {
			made.Store(f)
			a.Ready()
		} else {
			cancel()
		}
		failed <- err
	}()

	o.OnDrain = func() {
		starting.Drain()
		if f := made.Load(); f != nil {
			f.Health.Drain()
		}
	}
	served := a.Serve(running, c, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := made.Load(); f != nil {
			f.Handler.ServeHTTP(w, r)
			return
		}
		early.ServeHTTP(w, r)
	}), o)
	cancel() // it may still be starting
	err := <-failed
	f := made.Load()
	switch {
	case f == nil && ctx.Err() != nil:
		return served // it was told to stop before it had begun
	case f == nil:
		return errors.Join(err, served)
	}
	stop, cancelStop := context.WithTimeout(context.WithoutCancel(ctx), stopFunctionWithin)
	defer cancelStop()
	return errors.Join(served, f.Stop(stop))
}

// early answers for a function that is starting.
func early(h *Health) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/health/", h)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, spill)) // who sends reads the answer afterwards
		p := problem.New("starting", http.StatusServiceUnavailable, "This server is starting", "What it needs is not there yet. Ask again in a moment.")
		p.RetryAfter = 1
		problem.Write(w, p)
	})
	return mux
}

// spill is how much of an unwanted body is read.
const spill = 16 << 20
