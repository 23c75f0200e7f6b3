package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/ebb-inference/ebb/models/tfserving"
)

// outage says in the log when calls of the model server begin to fail for want of a server, and when they no longer do.
// Between the two batches wait, and nothing else would tell why answers stay away.
type outage struct {
	log *slog.Logger

	mu    sync.Mutex
	since time.Time // zero: there is none
}

// see takes notice of how a call ended.
func (o *outage) see(ctx context.Context, err error) {
	away := errors.Is(err, tfserving.ErrUnavailable)
	if err != nil && !away {
		return // a call that the caller gave up says nothing
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case away && o.since.IsZero():
		o.since = time.Now()
		o.log.WarnContext(ctx, "the model server is unavailable: batches wait for it", "error", err)
	case !away && !o.since.IsZero():
		o.log.InfoContext(ctx, "the model server answers again", "duration_ms", ms(time.Since(o.since)))
		o.since = time.Time{}
	}
}
