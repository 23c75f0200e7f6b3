package sink

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/ebb-inference/ebb/events"
)

// letter is a dead letter's attributes, as far as they could be read.
type letter struct {
	id, typ, from, model, replyTo, correlationID string
	traceParent, traceState                      string
	callback                                     bool
	time, deadline                               time.Time
	destination                                  string
	status                                       int // 0: not said
	bytes                                        int64
}

func (l letter) statusText() string {
	switch l.status {
	case 0:
		return "unknown"
	case -1:
		return "none"
	}
	return strconv.Itoa(l.status)
}

// parse reads a dead letter's attributes. With an error, the letter has what could be read of them.
func parse(h http.Header) (letter, error) {
	ev, err := events.ReadHTTPAttributes(h)
	if err != nil {
		return letter{}, err
	}
	l := letter{
		id: ev.ID(), typ: ev.Type(), from: ev.Source(), time: ev.Time(),
		model: events.Extension(ev, events.ExtModel), replyTo: events.Extension(ev, events.ExtReplyTo), correlationID: events.Extension(ev, events.ExtCorrelationID),
		traceParent: events.Extension(ev, events.ExtTraceParent), traceState: events.Extension(ev, events.ExtTraceState),
		callback: events.Extension(ev, events.ExtCallback) != "", destination: events.Extension(ev, events.ExtErrorDest),
	}
	if code, err := strconv.Atoi(events.Extension(ev, events.ExtErrorCode)); err == nil && code >= -1 && code <= 999 {
		l.status = code
	}
	if l.typ != events.TypeRequested {
		return l, errors.New("not a request event")
	}
	if l.deadline, err = time.Parse(time.RFC3339Nano, events.Extension(ev, events.ExtDeadline)); err != nil {
		return l, errors.New("attribute deadline is not an RFC 3339 time")
	}
	return l, nil
}
