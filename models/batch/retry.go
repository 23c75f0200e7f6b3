package batch

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff says how long Retry pauses between attempts: about First, then twice as long each time, at most Most. A random
// half of each pause keeps callers from coming back in step. Zero values mean 50 ms and 1 s.
type Backoff struct {
	First, Most time.Duration
}

// Retry returns a Func that calls f again when it fails with an error that transient recognises, such as that of a server
// which is starting or being replaced. It gives up with f's last error when the next attempt would come after the
// context's deadline, and when the context ends, that is when nobody waits any more; so without deadlines it goes on as
// long as somebody waits. The batch keeps its slot meanwhile: while one batch finds nobody, others would not either. All
// of that counts as Info.Compute.
func Retry[In, Out any](f Func[In, Out], transient func(error) bool, pause Backoff) Func[In, Out] {
	if pause.First <= 0 {
		pause.First = 50 * time.Millisecond
	}
	if pause.Most <= 0 {
		pause.Most = time.Second
	}
	return func(ctx context.Context, inputs []In) ([]Out, error) {
		next := min(pause.First, pause.Most)
		for {
			outs, err := f(ctx, inputs)
			if err == nil || !transient(err) {
				return outs, err
			}
			delay := next/2 + rand.N(next/2+1) //nolint:gosec // nobody gains by guessing it
			if deadline, ok := ctx.Deadline(); ok && !time.Now().Add(delay).Before(deadline) {
				return nil, err
			}
			timer := time.NewTimer(delay)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return nil, err
			}
			next = min(2*next, pause.Most)
		}
	}
}
