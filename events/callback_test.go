package events_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
)

func due() *events.CallbackDue {
	return &events.CallbackDue{
		ID: "callback-1", Source: "/ebb/dispatch/cat/test", Time: time.Now().UTC(), RequestID: uuid.NewString(),
		TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", TraceState: "vendor=value",
	}
}

func TestCallbackDueArrivesAsItWasWritten(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*events.CallbackDue){
		func(*events.CallbackDue) {},
		func(c *events.CallbackDue) { c.TraceParent, c.TraceState = "", "" },
	} {
		sent := due()
		change(sent)
		h := http.Header{}
		require.NoError(t, sent.WriteTo(h))
		got, err := events.ReadCallbackDue(h)
		require.NoError(t, err)
		require.Equal(t, sent, got)
	}
}

func TestCallbackDueThatIsNoneIsNeitherWrittenNorRead(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*events.CallbackDue){
		"id":          func(c *events.CallbackDue) { c.ID = "" },
		"source":      func(c *events.CallbackDue) { c.Source = "a b" },
		"time":        func(c *events.CallbackDue) { c.Time = time.Time{} },
		"subject":     func(c *events.CallbackDue) { c.RequestID = "cat" },
		"traceparent": func(c *events.CallbackDue) { c.TraceParent = "00" },
	} {
		c := due()
		change(c)
		h := http.Header{}
		require.ErrorContains(t, c.WriteTo(h), "attribute "+name)
		require.Empty(t, h)
	}
	for header, value := range map[string]string{
		"Ce-Type": events.TypeRequested, "Ce-Subject": "cat", "Ce-Specversion": "0.3", "Ce-Id": "", "Ce-Time": "today",
	} {
		h := http.Header{}
		require.NoError(t, due().WriteTo(h))
		h.Set(header, value)
		_, err := events.ReadCallbackDue(h)
		require.ErrorIs(t, err, events.ErrMalformed, header)
	}
}

func TestRequestSaysWhetherSomebodyIsToBeCalled(t *testing.T) {
	t.Parallel()
	for _, callback := range []bool{true, false} {
		r := newRequest()
		r.Callback = callback
		req, err := events.NewHTTPRequest(t.Context(), "http://broker.test/", r)
		require.NoError(t, err)
		got, err := events.ReadHTTPRequest(req, 1<<20, nil)
		require.NoError(t, err)
		require.Equal(t, callback, got.Callback)
	}
	req, err := events.NewHTTPRequest(t.Context(), "http://broker.test/", newRequest())
	require.NoError(t, err)
	req.Header.Set("Ce-Callback", "http://example.com")
	_, err = events.ReadHTTPRequest(req, 1<<20, nil)
	require.ErrorIs(t, err, events.ErrMalformed)
}
