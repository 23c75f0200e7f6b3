package sink

import (
	"errors"
	"net/http"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/parking"
)

// letter is a dead letter's attributes, as far as they could be read.
type letter struct {
	parking.Letter // without data

	replyTo, correlationID  string
	traceParent, traceState string
	callback, replay        bool
	deadline                time.Time
}

// parse reads a dead letter's attributes. whole says that they are those of an event; with an error, the letter has what
// could be read of a request.
func parse(h http.Header) (l letter, whole bool, _ error) {
	ev, err := events.ReadHTTPAttributes(h)
	if err != nil {
		return letter{Letter: parking.Letter{Event: event.New()}}, false, err
	}
	l = letter{
		Letter:  parking.Letter{Event: *ev},
		replyTo: events.Extension(ev, events.ExtReplyTo), correlationID: events.Extension(ev, events.ExtCorrelationID),
		traceParent: events.Extension(ev, events.ExtTraceParent), traceState: events.Extension(ev, events.ExtTraceState),
		callback: events.Extension(ev, events.ExtCallback) != "", replay: events.IsReplay(ev),
	}
	if ev.Type() != events.TypeRequested {
		return l, true, errors.New("not a request event")
	}
	if l.deadline, err = time.Parse(time.RFC3339Nano, events.Extension(ev, events.ExtDeadline)); err != nil {
		return l, true, errors.New("attribute deadline is not an RFC 3339 time")
	}
	return l, true, nil
}
