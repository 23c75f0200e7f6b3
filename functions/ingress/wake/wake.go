// Package wake gets up what a question will need while the question's event is still on its way, so that the cold starts of
// a request overlap. Nothing waits for it, and nothing depends on what comes of it: without it an event is answered too, only
// later.
//
// It knows models by their names, and what it wakes by how that is asked; nothing of events and pictures.
package wake

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// interval is for how long after it answered something is not asked again. What was asked within it is still there: Knative
	// takes nothing down that had a request within its stable window, and that is 6 s at least.
	interval = 5 * time.Second
	// patience is how long something may take to get up. Knative holds the request meanwhile.
	patience = time.Minute
)

// Target is something that may be asleep.
type Target struct {
	Name string // for the log; targets with the same name are the same
	// Ask asks it anything, and returns when it answered. It must end when ctx does.
	Ask func(ctx context.Context) error
}

// sleeper is a Target and what is known of it.
type sleeper struct {
	Target
	asking bool      // it is being asked
	rest   time.Time // before which it is not asked again
}

// Waker wakes what models need. It has no goroutine but one for each target that is being asked.
type Waker struct {
	log      *slog.Logger
	sleepers map[string][]*sleeper // by model

	life context.Context //nolint:containedctx // the Waker's, not a call's: ends with Stop
	end  context.CancelFunc

	mu      sync.Mutex // of all sleepers, too
	stopped bool
	asking  sync.WaitGroup // added to under mu while not stopped
}

// New makes a Waker that knows what each model needs. Stop ends it.
func New(needs map[string][]Target, log *slog.Logger) *Waker {
	w := &Waker{log: log, sleepers: make(map[string][]*sleeper, len(needs))}
	w.life, w.end = context.WithCancel(context.Background())
	known := map[string]*sleeper{}
	for model, targets := range needs {
		for _, t := range targets {
			if known[t.Name] == nil {
				known[t.Name] = &sleeper{Target: t}
			}
			w.sleepers[model] = append(w.sleepers[model], known[t.Name])
		}
	}
	return w
}

// Wake asks what a model needs, unless that was asked a moment ago. It returns at once.
func (w *Waker) Wake(model string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sleepers[model] {
		if w.stopped || s.asking || time.Now().Before(s.rest) {
			continue
		}
		s.asking = true
		w.asking.Go(func() { w.ask(s) })
	}
}

func (w *Waker) ask(s *sleeper) {
	ctx, cancel := context.WithTimeout(w.life, patience)
	defer cancel()
	began := time.Now()
	err := s.Ask(ctx)
	ended := time.Now()
	switch {
	case err == nil:
		w.log.Debug("awake", "target", s.Name, "duration_ms", ended.Sub(began).Milliseconds())
	case w.life.Err() == nil:
		w.log.Warn("cannot be woken; who asks waits longer", "target", s.Name, "error", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.asking, s.rest = false, ended.Add(interval)
}

// Stop wakes nothing any more, and ends what is under way.
func (w *Waker) Stop() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	w.end()
	w.asking.Wait()
}
