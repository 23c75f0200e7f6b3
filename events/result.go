package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/ebb-inference/ebb/events/problem"
)

// The bounds of a result event.
const (
	MaxResultBytes = 1 << 20 // of its data
	MaxClasses     = 1024    // that an answer lists
)

// roundingError is how far a sum of float32 probabilities may exceed one.
const roundingError = 1e-3

// Event writes r as a CloudEvent: subject is the request's id, correlationid and model are extensions, and the data is the
// answer as JSON or the problem as problem details. It refuses a Result that ParseResult would.
func (r *Result) Event() (event.Event, error) {
	typ, contentType, data, err := r.encode()
	if err != nil {
		return event.Event{}, fmt.Errorf("result event: %w", err)
	}
	ev := newEvent(typ, r.ID, r.Source, r.Time)
	ev.SetSubject(r.RequestID)
	ev.SetDataContentType(contentType)
	ev.SetExtension(ExtCorrelationID, r.CorrelationID)
	ev.SetExtension(ExtModel, r.Model)
	setTrace(&ev, r.TraceParent, r.TraceState)
	ev.DataEncoded = data
	if err := ev.Validate(); err != nil {
		return event.Event{}, fmt.Errorf("result event: %w", err)
	}
	return ev, nil
}

func (r *Result) encode() (typ, contentType string, data []byte, err error) {
	if err := r.validate(); err != nil {
		return "", "", nil, err
	}
	if r.Answer != nil {
		typ, contentType = TypeCompleted, event.ApplicationJSON
		data, err = json.Marshal(r.Answer)
	} else {
		typ, contentType = TypeFailed, problem.ContentType
		data, err = json.Marshal(r.Problem)
	}
	if err != nil {
		return "", "", nil, err
	}
	if len(data) > MaxResultBytes {
		return "", "", nil, fmt.Errorf("%w: %d bytes of data; at most %d are allowed", ErrTooLarge, len(data), MaxResultBytes)
	}
	return typ, contentType, data, nil
}

// ParseResult reads what Event wrote. The error wraps ErrMalformed with what is wrong, or ErrTooLarge. Members of the data
// that this version does not know are ignored.
func ParseResult(ev event.Event) (*Result, error) {
	if err := ev.Validate(); err != nil {
		return nil, malformed(err)
	}
	if v := ev.SpecVersion(); v != event.CloudEventsVersionV1 {
		return nil, malformed(fmt.Errorf("attribute specversion: %.16q is not %s", v, event.CloudEventsVersionV1))
	}
	if n := len(ev.Data()); n > MaxResultBytes {
		return nil, fmt.Errorf("%w: %d bytes of data; at most %d are taken", ErrTooLarge, n, MaxResultBytes)
	}
	r := &Result{
		ID:            ev.ID(),
		Source:        ev.Source(),
		Time:          ev.Time().UTC(),
		RequestID:     ev.Subject(),
		CorrelationID: Extension(&ev, ExtCorrelationID),
		Model:         Extension(&ev, ExtModel),
		TraceParent:   Extension(&ev, ExtTraceParent),
		TraceState:    Extension(&ev, ExtTraceState),
	}
	var into any
	var want string
	switch ev.Type() {
	case TypeCompleted:
		r.Answer, want = &Answer{}, event.ApplicationJSON
		into = r.Answer
	case TypeFailed:
		r.Problem, want = &problem.Details{}, problem.ContentType
		into = r.Problem
	default:
		return nil, malformed(fmt.Errorf("attribute type: %.100q is neither %s nor %s", ev.Type(), TypeCompleted, TypeFailed))
	}
	if ct := ev.DataContentType(); ct != want {
		return nil, malformed(attributeError("datacontenttype", "is %.100q; with this type it should be %s", ct, want))
	}
	if err := json.Unmarshal(ev.Data(), into); err != nil {
		return nil, malformed(fmt.Errorf("data: %w", err))
	}
	if err := r.validate(); err != nil {
		return nil, malformed(err)
	}
	return r, nil
}

// Clone returns a copy that shares no memory with r: what ParseResult makes of r's event.
func (r *Result) Clone() *Result {
	c := *r
	c.Time = r.Time.Round(0).UTC() // no event carries a monotonic clock
	if r.Answer != nil {
		a := *r.Answer
		a.Yes, a.Probability, a.Top = clonePointer(a.Yes), clonePointer(a.Probability), slices.Clone(a.Top)
		c.Answer = &a
	}
	c.Problem = clonePointer(r.Problem)
	return &c
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

func (r *Result) validate() error {
	err := firstError(
		checkVisible("id", r.ID, MaxCorrelationIDLength),
		checkSource(r.Source),
		checkTime("time", r.Time),
		checkUUID("subject", r.RequestID),
		checkVisible(ExtCorrelationID, r.CorrelationID, MaxCorrelationIDLength),
		checkModel(r.Model),
		checkTrace(r.TraceParent, r.TraceState),
	)
	if err != nil {
		return err
	}
	switch {
	case r.Answer != nil && r.Problem != nil:
		return errors.New("a result has either an answer or a problem, this one has both")
	case r.Answer != nil:
		return r.Answer.validate()
	case r.Problem != nil:
		return validateProblem(r.Problem)
	default:
		return errors.New("a result has either an answer or a problem, this one has neither")
	}
}

func (a *Answer) validate() error {
	if (a.Yes == nil) != (a.Probability == nil) {
		return errors.New("data: answer and probability belong together, one is missing")
	}
	if a.Probability != nil && !isProbability(*a.Probability) {
		return errors.New("data: probability is not between 0 and 1")
	}
	if len(a.Top) > MaxClasses {
		return fmt.Errorf("data: top has %d classes; at most %d are allowed", len(a.Top), MaxClasses)
	}
	for i, c := range a.Top {
		if !isProbability(c.Probability) {
			return fmt.Errorf("data: top[%d]: probability is not between 0 and 1", i)
		}
	}
	for name, ms := range map[string]float64{
		"queue": a.Timing.Queue, "decode": a.Timing.Decode, "batch": a.Timing.Batch, "compute": a.Timing.Compute,
	} {
		if math.IsNaN(ms) || math.IsInf(ms, 0) || ms < 0 {
			return fmt.Errorf("data: timing_ms.%s is not a time", name)
		}
	}
	if a.BatchSize < 0 || a.ServedBy.Version < 0 {
		return errors.New("data: batch_size or version is negative")
	}
	return nil
}

func isProbability(p float64) bool { return p >= 0 && p <= 1+roundingError }

func validateProblem(d *problem.Details) error {
	if d.Status < 400 || d.Status > 599 {
		return fmt.Errorf("data: status %d is not that of an error (400 to 599)", d.Status)
	}
	if d.RetryAfter < 0 || d.Attempts < 0 {
		return errors.New("data: retry_after or attempts is negative")
	}
	return nil
}
