package events

import (
	"fmt"
	"net/http"
)

// WriteTo writes c into the headers of an answer, as a CloudEvent in HTTP binary mode without data. It refuses a
// CallbackDue that is not valid, and has written nothing then.
func (c *CallbackDue) WriteTo(h http.Header) error {
	if err := c.validate(); err != nil {
		return fmt.Errorf("callback event: %w", err)
	}
	writeAttributes(h, TypeCallbackDue, c.ID, c.Source, c.Time, []attribute{
		{"Ce-Subject", c.RequestID}, {"Ce-Traceparent", c.TraceParent}, {"Ce-Tracestate", c.TraceState},
	})
	return nil
}

// ReadCallbackDue reads what WriteTo wrote, as a broker delivers it. Data is passed over. The error wraps ErrMalformed.
func ReadCallbackDue(h http.Header) (*CallbackDue, error) {
	ev, err := ReadHTTPAttributes(h)
	if err != nil {
		return nil, err
	}
	if ev.Type() != TypeCallbackDue {
		return nil, malformed(fmt.Errorf("attribute type: %.100q is not %s", ev.Type(), TypeCallbackDue))
	}
	c := &CallbackDue{
		ID: ev.ID(), Source: ev.Source(), Time: ev.Time().UTC(), RequestID: ev.Subject(),
		TraceParent: Extension(ev, ExtTraceParent), TraceState: Extension(ev, ExtTraceState),
	}
	if err := c.validate(); err != nil {
		return nil, malformed(err)
	}
	return c, nil
}

func (c *CallbackDue) validate() error {
	return firstError(
		checkVisible("id", c.ID, MaxCorrelationIDLength),
		checkSource(c.Source),
		checkTime("time", c.Time),
		checkUUID("subject", c.RequestID),
		checkTrace(c.TraceParent, c.TraceState),
	)
}
