package sink

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/ebb-inference/ebb/events"
)

// Whether a letter is parked: the values of the attribute "parked".
const (
	parkedYes     = "yes"
	notParked     = "no"     // there is nowhere to park it, or nothing to replay
	parkingFailed = "failed" // it comes again
	tooLarge      = "too large"
)

// parks says whether a letter is to be parked. That of a replay is parked already. That a callback is due is not worth
// keeping: its answer stays in the mailbox, and strangers who name addresses where nobody answers must not fill the place.
func (s *Sink) parks(l letter) bool {
	return s.Parking != nil && !l.replay && l.Event.Type() != events.TypeCallbackDue
}

// park reads a letter's data and parks it. It says how many bytes there are, as far as is known.
func (s *Sink) park(ctx context.Context, req *http.Request, l letter) (parked string, bytes int64, _ error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return parkingFailed, 0, fmt.Errorf("waiting to be parked: %w", ctx.Err())
	}
	data, err := events.ReadHTTPData(req, s.MaxBytes, nil)
	switch {
	case errors.Is(err, events.ErrTooLarge):
		return tooLarge, max(req.ContentLength, 0), err
	case err != nil: // the deliverer hung up in the middle
		return parkingFailed, 0, err
	}
	bytes = int64(len(data))
	complete := l.Letter
	complete.Event.DataEncoded = data
	switch err := s.Parking.Park(ctx, &complete); {
	case errors.Is(err, events.ErrTooLarge):
		return tooLarge, bytes, err
	case err != nil:
		return parkingFailed, bytes, err
	}
	return parkedYes, bytes, nil
}
