package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ebb-inference/ebb/models"
)

// How long what is known of the model server is believed, and how long asking it may take. Together with the failing
// probe they are short enough for a kubelet's default time-out of 1 s.
const (
	believeGood = 5 * time.Second
	believeBad  = 500 * time.Millisecond
	askWithin   = 800 * time.Millisecond
)

// wakeWithin is how long a model server may take to get up, which it does for Rouse. Knative holds the question meanwhile.
const wakeWithin = time.Minute

// served is what is known of the model server. It is asked when somebody wants to know, so an idle worker is idle.
type served struct {
	mu    sync.Mutex
	asked time.Time
	err   error
}

// Ready says whether deliveries are taken. The model server need not be there yet: what is taken is decoded meanwhile, and held
// until it is, so that the two start at the same time.
func (w *Worker) Ready() error {
	if w.gate.isClosed() {
		return errStopping
	}
	return nil
}

// Served says whether deliveries can be answered at once: the model server serves the model. It takes 800 ms at most.
func (w *Worker) Served() error {
	s := &w.served
	s.mu.Lock() // whoever comes while the server is being asked has the same answer
	defer s.mu.Unlock()
	believed := believeGood
	if s.err != nil {
		believed = believeBad
	}
	if s.asked.IsZero() || time.Since(s.asked) >= believed {
		ctx, cancel := context.WithTimeout(context.Background(), askWithin)
		defer cancel()
		s.err = askStatus(ctx, w.Model, w.Predictor)
		s.asked = time.Now()
	}
	return s.err
}

// Rouse asks a model's server how it stands, which starts one that is at zero, and returns when it answered or ctx ends. It is
// for the moment when a dispatch itself starts, before there is a Worker. The log says how long it took, or what is wrong.
func Rouse(ctx context.Context, m *models.Model, server Predictor, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, wakeWithin)
	defer cancel()
	began := time.Now()
	err := askStatus(ctx, m, server)
	switch {
	case err == nil:
		log.InfoContext(ctx, "the model server serves the model", "model", m.Name, "duration_ms", ms(time.Since(began)))
	case !errors.Is(ctx.Err(), context.Canceled):
		log.WarnContext(ctx, "the model server does not serve the model: batches will wait for it", "model", m.Name, "error", err)
	}
}

// askStatus asks whether a model server serves a model.
func askStatus(ctx context.Context, m *models.Model, server Predictor) error {
	spec := specOf(m)
	versions, err := server.Status(ctx, spec)
	if err != nil {
		return fmt.Errorf("model server %s: %w", m.Serving.Address, err)
	}
	for _, v := range versions {
		if v.Available() {
			return nil
		}
	}
	for _, v := range versions {
		if v.Err != nil {
			return fmt.Errorf("model server %s: %s, version %d is %s: %w", m.Serving.Address, spec, v.Version, v.State, v.Err)
		}
	}
	return fmt.Errorf("model server %s: %s is not available yet", m.Serving.Address, spec)
}
