package sink_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/functions/deadletter/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a sink with a requester.
type world struct {
	hub     *reply.Hub
	address string
	replies chan *events.Result
	log     bytes.Buffer
	place   *place // nil: letters are not kept
	sink    *sink.Sink
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{hub: reply.NewHub(), replies: make(chan *events.Result, 4)}
	inbox, err := w.hub.Listen(t.Context(), reply.Listener{
		Reply: func(r *events.Result) { w.replies <- r },
		Lost:  func(string) {},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, inbox.Close()) })
	w.address, err = inbox.Address()
	require.NoError(t, err)
	w.use(t, w.hub)
	return w
}

func (w *world) use(t *testing.T, r reply.Responder) {
	t.Helper()
	var err error
	c := sink.Config{
		Responder: r, Replica: "r1", MaxBytes: 1 << 10, Logger: slog.New(slog.NewJSONHandler(&w.log, nil)),
		Attempts: map[string]int{"cat": 6, "dog": 1},
	}
	if w.place != nil {
		c.Parking = w.place
	}
	w.sink, err = sink.New(c)
	require.NoError(t, err)
}

// letter is a dead letter as the data plane sends it.
func (w *world) letter(t *testing.T, code string) *http.Request {
	t.Helper()
	req, err := events.NewHTTPRequest(t.Context(), "http://deadletter.test/", &events.Request{
		ID: uuid.Must(uuid.NewV7()).String(), Source: "/ebb/ingress/i1", Time: time.Now(), Model: "cat",
		ReplyTo: w.address, CorrelationID: "c1", Deadline: time.Now().Add(time.Hour),
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", ContentType: "image/png", Data: []byte("secret picture"),
	})
	require.NoError(t, err)
	if code != "" {
		req.Header.Set("Ce-Knativeerrorcode", code)
		req.Header.Set("Ce-Knativeerrordest", "http://dispatch-cat.ebb.svc/")
	}
	return req
}

func (w *world) send(req *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	w.sink.ServeHTTP(rec, req)
	return rec
}

// record is the one line in the log.
func (w *world) record(t *testing.T) map[string]any {
	t.Helper()
	require.Equal(t, 1, strings.Count(w.log.String(), "\n"), w.log.String())
	require.NotContains(t, w.log.String(), "secret")
	var line map[string]any
	require.NoError(t, json.Unmarshal(w.log.Bytes(), &line))
	return line
}

func TestTheRequesterIsToldWhyThereIsNoAnswer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, code string
		status     int
		typ        string
		detail     string
		retryAfter bool
	}{
		{"no answer", "-1", 504, "urn:ebb:problem:no-answer", "no answer in time", false},
		{"gateway time-out", "504", 504, "urn:ebb:problem:no-answer", "no answer in time", false},
		{"overloaded", "503", 503, "urn:ebb:problem:model-unavailable", "status 503", true},
		{"too many", "429", 503, "urn:ebb:problem:model-unavailable", "status 429", true},
		{"failed", "500", 502, "urn:ebb:problem:gave-up", "6 attempts were made, and the last one was answered with status 500", false},
		{"not there", "404", 502, "urn:ebb:problem:gave-up", "status 404", false},
		{"not said", "", 502, "urn:ebb:problem:gave-up", "does not say why", false},
		{"nonsense", "99999999999999999999", 502, "urn:ebb:problem:gave-up", "does not say why", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			req := w.letter(t, tt.code)
			id := req.Header.Get("Ce-Id")
			require.Equal(t, http.StatusNoContent, w.send(req).Code)

			r := <-w.replies
			require.Equal(t, id, r.RequestID)
			require.Equal(t, "c1", r.CorrelationID)
			require.Equal(t, "cat", r.Model)
			require.Equal(t, "/ebb/deadletter/r1", r.Source)
			require.Contains(t, r.TraceParent, "0af7651916cd43dd8448eb211c80319c")
			require.Equal(t, tt.status, r.Problem.Status)
			require.Equal(t, tt.typ, r.Problem.Type)
			require.Contains(t, r.Problem.Detail, tt.detail)
			require.Equal(t, tt.retryAfter, r.Problem.RetryAfter > 0)
			attempts := 6
			if strings.Contains(tt.detail, "does not say") { // then it may never have been tried
				attempts = 0
			}
			require.Equal(t, attempts, r.Problem.Attempts)
			require.Equal(t, "urn:uuid:"+id, r.Problem.Instance)

			line := w.record(t)
			require.Equal(t, "told", line["outcome"])
			require.Equal(t, id, line["event_id"])
			require.Equal(t, "cat", line["model"])
			require.InDelta(t, len("secret picture"), line["bytes"], 0)
			if tt.code != "" {
				require.Equal(t, "http://dispatch-cat.ebb.svc/", line["destination"])
			}
		})
	}
}

// responderFunc is a reply transport that fails as a test wants.
type responderFunc func(ctx context.Context, to string, r *events.Result) error

func (f responderFunc) Respond(ctx context.Context, to string, r *events.Result) error {
	return f(ctx, to, r)
}

func TestALetterWhoseRequesterCannotBeToldNowComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.use(t, responderFunc(func(context.Context, string, *events.Result) error { return errors.New("connection lost") }))
	res := w.send(w.letter(t, "503"))
	require.Equal(t, http.StatusServiceUnavailable, res.Code)
	require.NotEmpty(t, res.Header().Get("Retry-After"))
	line := w.record(t)
	require.Equal(t, "retried", line["outcome"])
	require.Contains(t, line["error"], "connection lost")
}

func TestALetterThatNobodyWaitsForIsRecordedAndDone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, outcome string
		change        func(w *world, req *http.Request)
	}{
		{"requester is gone", "unroutable", func(w *world, _ *http.Request) { w.hub.Break() }},
		{"deadline passed", "expired", func(_ *world, req *http.Request) { req.Header.Set("Ce-Deadline", "2020-01-01T00:00:00Z") }},
		{"no deadline", "unknown", func(_ *world, req *http.Request) { req.Header.Del("Ce-Deadline") }},
		{"reply address of another kind", "unknown", func(_ *world, req *http.Request) { req.Header.Set("Ce-Replyto", "ebb.cat.queue") }},
		{"no correlation id", "unknown", func(_ *world, req *http.Request) { req.Header.Del("Ce-Correlationid") }},
		{"model of another form", "unknown", func(_ *world, req *http.Request) { req.Header.Set("Ce-Model", strings.Repeat("x", 5000)) }},
		{"model of another form, long ago", "unknown", func(_ *world, req *http.Request) {
			req.Header.Set("Ce-Model", "Not a label")
			req.Header.Set("Ce-Deadline", "2020-01-01T00:00:00Z")
		}},
		{"other type", "unknown", func(_ *world, req *http.Request) { req.Header.Set("Ce-Type", "com.example.other") }},
		{"attribute given twice", "unknown", func(_ *world, req *http.Request) { req.Header.Add("Ce-Replyto", "other") }},
		{"no event at all", "unknown", func(_ *world, req *http.Request) { req.Header = http.Header{} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			req := w.letter(t, "500")
			tt.change(w, req)
			require.Equal(t, http.StatusNoContent, w.send(req).Code)
			require.Empty(t, w.replies)
			require.Equal(t, tt.outcome, w.record(t)["outcome"])
			require.Less(t, w.log.Len(), 4<<10)
		})
	}
}

func TestALetterThatIsTooLargeIsStillTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	req := w.letter(t, "500")
	req.Body = io.NopCloser(strings.NewReader(strings.Repeat("x", 1<<20)))
	require.Equal(t, http.StatusNoContent, w.send(req).Code)
	require.Equal(t, 502, (<-w.replies).Problem.Status)
	line := w.record(t)
	require.InDelta(t, 1<<10, line["bytes"], 0)
	require.Contains(t, line["error"], "too large")
}

func TestOnlyPostDelivers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	req := w.letter(t, "500")
	req.Method = http.MethodGet
	res := w.send(req)
	require.Equal(t, http.StatusMethodNotAllowed, res.Code)
	require.Equal(t, http.MethodPost, res.Header().Get("Allow"))
	require.Empty(t, w.replies)
}

func TestASinkNeedsAResponder(t *testing.T) {
	t.Parallel()
	_, err := sink.New(sink.Config{})
	require.ErrorContains(t, err, "no responder")
	s, err := sink.New(sink.Config{Responder: reply.NewHub()})
	require.NoError(t, err)
	require.NotEmpty(t, s.Replica)
}

func TestWhoAskedAsynchronouslyIsToldLateAsWellAndCalled(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		late, callback bool
		status         int
	}{
		"in time, without a callback": {false, false, http.StatusNoContent},
		"in time, with a callback":    {false, true, http.StatusOK},
		"late, with a callback":       {true, true, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			id, now := uuid.NewString(), time.Now()
			require.NoError(t, w.hub.Open(t.Context(), &reply.Record{
				ID: id, Asked: []reply.Asked{{Model: "cat"}}, Time: now, Deadline: now, Expires: now.Add(time.Hour),
			}))
			w.address = reply.MailboxAddress(id)
			req := w.letter(t, "503")
			if tt.late {
				req.Header.Set("Ce-Deadline", now.Add(-time.Minute).Format(time.RFC3339Nano))
			}
			if tt.callback {
				req.Header.Set("Ce-Callback", "true")
			}
			rec := w.send(req)
			require.Equal(t, tt.status, rec.Code)
			mail, err := w.hub.Read(t.Context(), id)
			require.NoError(t, err)
			require.Len(t, mail.Results, 1)
			require.Equal(t, "model-unavailable", mail.Results[0].Problem.Code())
			if !tt.callback {
				require.Empty(t, rec.Header())
				return
			}
			due, err := events.ReadCallbackDue(rec.Header())
			require.NoError(t, err)
			require.Equal(t, id, due.RequestID)
		})
	}
}

func TestNobodyIsCalledAboutARequestThatWasDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.address = reply.MailboxAddress(uuid.NewString())
	req := w.letter(t, "503")
	req.Header.Set("Ce-Callback", "true")
	rec := w.send(req)
	require.Equal(t, http.StatusNoContent, rec.Code)
	require.Empty(t, rec.Header())
}
