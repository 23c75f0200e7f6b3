package knative

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
)

// fromNow begins a watch with what the API server has at hand. It would wait for up to three seconds to have the very latest, and
// whoever waits here looks that up himself.
const fromNow = "0"

// watcher begins to watch something of the cluster.
type watcher func(context.Context) (watch.Interface, error)

func (t *Target) watchService(ctx context.Context) (watch.Interface, error) {
	return t.cfg.Serving.ServingV1().Services(t.cfg.Namespace).Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, t.cfg.Service).String(), ResourceVersion: fromNow,
	})
}

func (t *Target) watchRevisions(ctx context.Context) (watch.Interface, error) {
	return t.cfg.Serving.ServingV1().Revisions(t.cfg.Namespace).Watch(ctx, metav1.ListOptions{LabelSelector: t.selector(), ResourceVersion: fromNow})
}

// errNotYet is what a wait ends with that took too long.
var errNotYet = errors.New("took too long")

// until looks again and again until look has nothing to wait for any more, which it says in words. A change of what is watched
// wakes it, and what it is look finds out itself, so that nothing can be missed. Where nothing is watched, or not any more, as API
// servers end it after some minutes, it looks by the clock.
func (t *Target) until(ctx context.Context, patience time.Duration, watched watcher, look func(context.Context) (waiting string, err error)) error {
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(t.cfg.Interval)
	defer tick.Stop()
	var changes <-chan watch.Event
	last, began := "", time.Now()
	for first := true; ; first = false {
		waiting, err := look(within)
		switch {
		case err == nil && waiting == "":
			if !first {
				t.cfg.Logger.DebugContext(ctx, "waited", "duration_ms", time.Since(began).Milliseconds(), "reason", last)
			}
			return nil
		case within.Err() != nil: // what a look that was broken off says is of no interest
		case err != nil:
			return err
		default:
			last = waiting
		}
		if first { // and look again, for what came between
			if w, err := watched(within); err == nil {
				defer w.Stop()
				changes = w.ResultChan()
				continue
			} else if within.Err() == nil {
				t.cfg.Logger.DebugContext(ctx, "cannot watch, looking by the clock", "error", err)
			}
		}
		select {
		case <-within.Done():
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("%w: %s", err, last)
			}
			return fmt.Errorf("%w, %v: %s", errNotYet, patience, last)
		case _, watching := <-changes:
			if !watching {
				changes = nil
			}
		case <-tick.C:
		}
	}
}
