package events

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

var (
	// ErrMalformed says that an event is not what the contract says; the error around it says in what.
	ErrMalformed = errors.New("malformed event")
	// ErrTooLarge says that an event's data has more bytes than its receiver takes.
	ErrTooLarge = errors.New("event is too large")
)

// flagSet is the value of an attribute that says that something is so. Otherwise it is absent.
const flagSet = "true"

// headerPrefix starts the headers of context attributes, as Go writes them.
const headerPrefix = "Ce-"

// NewHTTPRequest writes r as a CloudEvent in HTTP binary mode: a POST to url whose body is r.Data itself, not a copy, and
// can be read again for a retry (GetBody). It refuses a Request that is not valid.
func NewHTTPRequest(ctx context.Context, url string, r *Request) (*http.Request, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(r.Data))
	if err != nil {
		return nil, fmt.Errorf("request event: %w", err)
	}
	writeAttributes(req.Header, TypeRequested, r.ID, r.Source, r.Time, []attribute{
		{"Content-Type", r.ContentType},
		{"Ce-Model", r.Model},
		{"Ce-Replyto", r.ReplyTo},
		{"Ce-Correlationid", r.CorrelationID},
		{"Ce-Deadline", r.Deadline.UTC().Format(time.RFC3339Nano)},
		{"Ce-Callback", flagOf(r.Callback)},
		{"Ce-Replay", flagOf(r.Replay)},
		{"Ce-Traceparent", r.TraceParent},
		{"Ce-Tracestate", r.TraceState},
		// Knative's RabbitMQ broker passes a trace on only if its request has it too.
		{"Traceparent", r.TraceParent},
		{"Tracestate", r.TraceState},
	})
	return req, nil
}

// attribute is a context attribute in binary mode: its header's canonical name, and its value, "" when it is absent.
type attribute struct{ header, value string }

// writeAttributes writes the attributes of an event, which have been checked, into headers as the SDK would. The SDK puts an
// event together, checks it again and takes it apart, which takes nearly as long as all the rest.
func writeAttributes(h http.Header, typ, id, source string, t time.Time, more []attribute) {
	for _, a := range append([]attribute{
		{"Ce-Specversion", event.CloudEventsVersionV1},
		{"Ce-Type", typ},
		{"Ce-Id", id},
		{"Ce-Source", source},
		{"Ce-Time", t.UTC().Format(time.RFC3339Nano)},
	}, more...) {
		if a.value != "" {
			h[a.header] = []string{a.value}
		}
	}
}

// flagOf is the value of an attribute that says whether something is so.
func flagOf(set bool) string {
	if set {
		return flagSet
	}
	return ""
}

// ReadHTTPRequest reads what NewHTTPRequest wrote, perhaps by way of a broker. It takes binary mode only; its body may
// have at most maxBytes. memory is what ReadHTTPData may use for it. The error wraps ErrTooLarge, ErrMalformed with what is
// wrong, or what reading the body met.
func ReadHTTPRequest(req *http.Request, maxBytes int64, memory []byte) (*Request, error) {
	ev, err := ReadHTTPAttributes(req.Header)
	if err != nil {
		return nil, err
	}
	r, err := requestOf(ev)
	if err != nil {
		return nil, malformed(err)
	}
	if r.Data, err = ReadHTTPData(req, maxBytes, memory); err != nil {
		return nil, err
	}
	if err := r.Validate(); err != nil {
		return nil, malformed(err)
	}
	return r, nil
}

// ParseRequest reads a request event that was kept with its data. The error wraps ErrMalformed with what is wrong.
func ParseRequest(ev *event.Event) (*Request, error) {
	r, err := requestOf(ev)
	if err != nil {
		return nil, malformed(err)
	}
	r.Data = ev.Data()
	if err := r.Validate(); err != nil {
		return nil, malformed(err)
	}
	return r, nil
}

// requestOf reads the attributes of a request event. Their values are still to be checked.
func requestOf(ev *event.Event) (_ *Request, err error) {
	if ev.Type() != TypeRequested {
		return nil, fmt.Errorf("attribute type: %.100q is not %s", ev.Type(), TypeRequested)
	}
	r := &Request{
		ID:            ev.ID(),
		Source:        ev.Source(),
		Time:          ev.Time().UTC(),
		Model:         Extension(ev, ExtModel),
		ReplyTo:       Extension(ev, ExtReplyTo),
		CorrelationID: Extension(ev, ExtCorrelationID),
		TraceParent:   Extension(ev, ExtTraceParent),
		TraceState:    Extension(ev, ExtTraceState),
		ContentType:   ev.DataContentType(),
	}
	if r.Callback, err = flag(ev, ExtCallback); err != nil {
		return nil, err
	}
	if r.Replay, err = flag(ev, ExtReplay); err != nil {
		return nil, err
	}
	if deadline := Extension(ev, ExtDeadline); deadline != "" {
		t, err := time.Parse(time.RFC3339Nano, deadline)
		if err != nil {
			return nil, attributeError(ExtDeadline, "is not an RFC 3339 time")
		}
		r.Deadline = t.UTC()
	}
	return r, nil
}

// flag reads an attribute that is there or not.
func flag(ev *event.Event, name string) (bool, error) {
	switch value := Extension(ev, name); value {
	case "":
		return false, nil
	case flagSet:
		return true, nil
	default:
		return false, attributeError(name, "is %.16q; should be %s or absent", value, flagSet)
	}
}

// ReadHTTPAttributes reads the context attributes of any CloudEvent 1.0 in HTTP binary mode from its headers;
// the event has no data. The error wraps ErrMalformed with what is wrong.
func ReadHTTPAttributes(h http.Header) (*event.Event, error) {
	for name, values := range h {
		if !IsHTTPAttribute(name) {
			continue
		}
		if name == headerPrefix { // the SDK would panic
			return nil, malformed(errors.New("a ce- header has no attribute name"))
		}
		// Two values of one attribute would let a filter see one and a function the other.
		if len(values) != 1 {
			return nil, malformed(fmt.Errorf("header %.64q is there %d times", name, len(values)))
		}
	}
	msg := cehttp.NewMessage(h, nil)
	switch msg.ReadEncoding() {
	case binding.EncodingBinary:
	case binding.EncodingStructured, binding.EncodingBatch:
		return nil, malformed(errors.New("it is in structured or batched mode; send binary mode: attributes in ce- headers, the data as body"))
	default:
		return nil, malformed(errors.New("it is no CloudEvent in binary mode: header ce-specversion is missing or unknown"))
	}
	if v := h.Get("Ce-Specversion"); v != event.CloudEventsVersionV1 {
		return nil, malformed(fmt.Errorf("attribute specversion: %.16q is not %s", v, event.CloudEventsVersionV1))
	}
	ev, err := binding.ToEvent(context.Background(), msg) // it waits for nothing
	if err != nil {
		return nil, malformed(err)
	}
	if err := ev.Validate(); err != nil {
		return nil, malformed(err)
	}
	if Extension(ev, ExtTraceParent) == "" {
		traceOfHeaders(ev, h)
	}
	return ev, nil
}

// traceOfHeaders gives an event without a trace the one of its request: Knative's RabbitMQ dispatcher moves it there. What
// somebody else's headers say wrongly is no fault of the event's.
func traceOfHeaders(ev *event.Event, h http.Header) {
	parent, state := h.Get(ExtTraceParent), h.Get(ExtTraceState)
	if parent == "" || checkTrace(parent, "") != nil {
		return
	}
	if checkTrace(parent, state) != nil {
		state = ""
	}
	setTrace(ev, parent, state)
}

// IsHTTPAttribute says whether a header, by its canonical name, carries a context attribute in binary mode.
func IsHTTPAttribute(name string) bool {
	return strings.HasPrefix(name, headerPrefix) || name == cehttp.ContentType
}

// ReadHTTPData reads an event's data in binary mode: the body, at most maxBytes. When the sender said how many there are it
// reads into memory if that has room for them, whatever is in it, and otherwise into one allocation. The error wraps
// ErrTooLarge, or what reading met.
func ReadHTTPData(req *http.Request, maxBytes int64, memory []byte) ([]byte, error) {
	if req.ContentLength > maxBytes {
		return nil, fmt.Errorf("%w: %d bytes; at most %d are taken", ErrTooLarge, req.ContentLength, maxBytes)
	}
	if req.Body == nil {
		return nil, nil
	}
	if req.ContentLength >= 0 {
		data := memory[:0]
		if n := req.ContentLength; n <= int64(cap(data)) {
			data = data[:n]
		} else {
			data = make([]byte, n)
		}
		if _, err := io.ReadFull(req.Body, data); err != nil {
			return nil, fmt.Errorf("reading the event's data: %w", err)
		}
		return data, nil
	}
	data, err := io.ReadAll(io.LimitReader(req.Body, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading the event's data: %w", err)
	}
	if int64(len(data)) > maxBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, maxBytes)
	}
	return data, nil
}

func newEvent(typ, id, source string, t time.Time) event.Event {
	ev := event.New(event.CloudEventsVersionV1)
	ev.SetType(typ)
	ev.SetID(id)
	ev.SetSource(source)
	ev.SetTime(t.UTC())
	return ev
}

func setTrace(ev *event.Event, parent, state string) {
	if parent == "" {
		return
	}
	ev.SetExtension(ExtTraceParent, parent)
	if state != "" {
		ev.SetExtension(ExtTraceState, state)
	}
}

// Extension returns an extension attribute, "" when it is absent or no text. Transports carry all of ours as text.
func Extension(ev *event.Event, name string) string {
	s, _ := ev.Extensions()[name].(string)
	return s
}

// IsReplay says whether an event is marked as a replay of a dead letter that is still kept.
func IsReplay(ev *event.Event) bool { return Extension(ev, ExtReplay) == flagSet }

func malformed(err error) error {
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}
