package worker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"
)

// How long what is known of the model server is believed, and how long asking it may take. Together with the failing
// probe they are short enough for a kubelet's default time-out of 1 s.
const (
	believeGood = 5 * time.Second
	believeBad  = 500 * time.Millisecond
	askWithin   = 800 * time.Millisecond
)

// readiness is what is known of the model server. It is asked when somebody wants to know, so an idle worker is idle.
type readiness struct {
	mu    sync.Mutex
	asked time.Time
	err   error
}

// Ready says whether deliveries can be answered: the model server serves the model. It takes 800 ms at most.
func (w *Worker) Ready() error {
	if w.gate.isClosed() {
		return errStopping
	}
	r := &w.ready
	r.mu.Lock() // whoever comes while the server is being asked has the same answer
	defer r.mu.Unlock()
	believed := believeGood
	if r.err != nil {
		believed = believeBad
	}
	if r.asked.IsZero() || time.Since(r.asked) >= believed {
		r.err = w.askStatus()
		r.asked = time.Now()
	}
	return r.err
}

// untraced is ctx for what is not worth a trace: a probe comes every few seconds, and each would be one. Here and on the
// model server nothing is sampled that has an unsampled parent.
func untraced(ctx context.Context) context.Context {
	id := uuid.New()
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID(id), SpanID: trace.SpanID(id[8:]),
	}))
}

func (w *Worker) askStatus() error {
	ctx, cancel := context.WithTimeout(untraced(context.Background()), askWithin)
	defer cancel()
	versions, err := w.Predictor.Status(ctx, w.network.spec)
	if err != nil {
		return fmt.Errorf("model server %s: %w", w.Model.Serving.Address, err)
	}
	for _, v := range versions {
		if v.Available() {
			return nil
		}
	}
	for _, v := range versions {
		if v.Err != nil {
			return fmt.Errorf("model server %s: %s, version %d is %s: %w", w.Model.Serving.Address, w.network.spec, v.Version, v.State, v.Err)
		}
	}
	return fmt.Errorf("model server %s: %s is not available yet", w.Model.Serving.Address, w.network.spec)
}
