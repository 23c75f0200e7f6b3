package sink_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/parking"
	"github.com/ebb-inference/ebb/events/reply"
)

// place is a parking place in memory.
type place struct {
	mu      sync.Mutex
	letters []*parking.Letter
	err     error         // instead of parking
	wait    chan struct{} // nil, or what parking waits for
}

func (p *place) Park(ctx context.Context, l *parking.Letter) error {
	if p.wait != nil {
		select {
		case <-p.wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	p.letters = append(p.letters, l)
	return nil
}

// newParkingWorld is a sink with a requester and a parking place.
func newParkingWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.place = &place{}
	w.use(t, w.hub)
	return w
}

func TestALetterIsParkedAsItCame(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		outcome string
		change  func(w *world, req *http.Request)
	}{
		"requester told":         {"told", func(*world, *http.Request) {}},
		"requester gone":         {"unroutable", func(w *world, _ *http.Request) { w.hub.Break() }},
		"deadline passed":        {"expired", func(_ *world, req *http.Request) { req.Header.Set("Ce-Deadline", "2020-01-01T00:00:00Z") }},
		"no deadline":            {"unknown", func(_ *world, req *http.Request) { req.Header.Del("Ce-Deadline") }},
		"no reply address":       {"unknown", func(_ *world, req *http.Request) { req.Header.Set("Ce-Replyto", "ebb.cat.queue") }},
		"event of another type":  {"unknown", func(_ *world, req *http.Request) { req.Header.Set("Ce-Type", "com.example.other") }},
		"a replay of a sort":     {"told", func(_ *world, req *http.Request) { req.Header.Set("Ce-Replay", "yes") }},
		"more than what is said": {"told", func(_ *world, req *http.Request) { req.ContentLength = -1 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newParkingWorld(t)
			req := w.letter(t, "500")
			tt.change(w, req)
			require.Equal(t, http.StatusNoContent, w.send(req).Code)
			require.Len(t, w.place.letters, 1)
			l := w.place.letters[0]
			require.Equal(t, parking.Key{Source: "/ebb/ingress/i1", ID: req.Header.Get("Ce-Id")}, l.Key())
			require.Equal(t, "cat", l.Model())
			require.Equal(t, "http://dispatch-cat.ebb.svc/", l.Destination())
			require.Equal(t, 500, l.Status())
			require.Equal(t, "secret picture", string(l.Event.Data()))
			require.Equal(t, "image/png", l.Event.DataContentType())
			require.Equal(t, req.Header.Get("Ce-Replyto"), events.Extension(&l.Event, events.ExtReplyTo))
			line := w.record(t)
			require.Equal(t, tt.outcome, line["outcome"])
			require.Equal(t, "yes", line["parked"])
			require.InDelta(t, len("secret picture"), line["bytes"], 0)
		})
	}
}

func TestWhatIsNotWorthParkingIsRecordedAndDone(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		parked string
		change func(w *world, req *http.Request)
	}{
		"no event":                  {"no", func(_ *world, req *http.Request) { req.Header.Del("Ce-Id") }},
		"the letter of a replay":    {"no", func(_ *world, req *http.Request) { req.Header.Set("Ce-Replay", "true") }},
		"a callback that was due":   {"no", func(_ *world, req *http.Request) { req.Header.Set("Ce-Type", events.TypeCallbackDue) }},
		"too large, and says so":    {"too large", func(_ *world, req *http.Request) { req.ContentLength = 1<<10 + 1 }},
		"attributes that are large": {"too large", func(w *world, _ *http.Request) { w.place.err = fmt.Errorf("%w: attributes", events.ErrTooLarge) }},
		"too large, and does not say so": {"too large", func(_ *world, req *http.Request) {
			req.ContentLength, req.Body = -1, io.NopCloser(strings.NewReader(strings.Repeat("x", 1<<10+1)))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newParkingWorld(t)
			req := w.letter(t, "500")
			tt.change(w, req)
			require.Equal(t, http.StatusNoContent, w.send(req).Code)
			require.Empty(t, w.place.letters)
			require.Equal(t, tt.parked, w.record(t)["parked"])
		})
	}
}

func TestALetterThatCannotBeParkedNowComesBack(t *testing.T) {
	t.Parallel()
	w := newParkingWorld(t)
	w.place.err = parking.ErrFull
	req := w.letter(t, "500")
	req.Header.Set("Ce-Callback", "true")
	res := w.send(req)
	require.Equal(t, http.StatusServiceUnavailable, res.Code)
	require.NotEmpty(t, res.Header().Get("Retry-After"))
	require.Empty(t, res.Header().Get("Ce-Type"), "nobody is called twice")
	line := w.record(t)
	require.Equal(t, "failed", line["parked"])
	require.Contains(t, line["error"], "full")
	require.Equal(t, 502, (<-w.replies).Problem.Status, "the requester does not wait for room")
}

func TestALetterWithoutAllOfItsDataIsNotParked(t *testing.T) {
	t.Parallel()
	w := newParkingWorld(t)
	req := w.letter(t, "500")
	req.Body = io.NopCloser(io.MultiReader(strings.NewReader("secr"), iotest.ErrReader(errors.New("hung up"))))
	require.Equal(t, http.StatusServiceUnavailable, w.send(req).Code)
	require.Empty(t, w.place.letters)
	require.Contains(t, w.record(t)["error"], "hung up")
}

func TestALetterIsNotParkedBeforeItsRequesterIsTold(t *testing.T) {
	t.Parallel()
	w := newParkingWorld(t)
	w.use(t, responderFunc(func(context.Context, string, *events.Result) error { return reply.ErrDown }))
	require.Equal(t, http.StatusServiceUnavailable, w.send(w.letter(t, "500")).Code)
	require.Empty(t, w.place.letters, "it would be there twice")
	require.Equal(t, "no", w.record(t)["parked"])
}

func TestOnlySoManyLettersAreInMemoryAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newParkingWorld(t)
		w.replies = make(chan *events.Result, 16)
		w.place.wait = make(chan struct{})
		var read sync.Map // of the bodies
		codes := make(chan int, 9)
		for i := range cap(codes) {
			req := w.letter(t, "500")
			body := req.Body
			req.Body = readCloser{io.TeeReader(body, writerFunc(func() { read.Store(i, true) })), body}
			go func() {
				rec := httptest.NewRecorder()
				w.sink.ServeHTTP(rec, req)
				codes <- rec.Code
			}()
		}
		synctest.Wait()
		begun := 0
		read.Range(func(any, any) bool { begun++; return true })
		require.Equal(t, 8, begun)
		time.Sleep(10 * time.Second) // the time-out of all of them
		for range cap(codes) {
			require.Equal(t, http.StatusServiceUnavailable, <-codes)
		}
	})
}

type readCloser struct {
	io.Reader
	io.Closer
}

type writerFunc func()

func (f writerFunc) Write(p []byte) (int, error) { f(); return len(p), nil }

func TestNobodyIsToldANumberOfAttemptsThatIsNotKnown(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		model    string
		attempts int
		detail   string
	}{
		"once":      {"dog", 1, "One attempt was made, and it was answered with status 500."},
		"often":     {"cat", 6, "6 attempts were made, and the last one was answered with status 500."},
		"not known": {"wolf", 0, "The last attempt was answered with status 500."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			req := w.letter(t, "500")
			req.Header.Set("Ce-Model", tt.model)
			require.Equal(t, http.StatusNoContent, w.send(req).Code)
			p := (<-w.replies).Problem
			require.Equal(t, tt.attempts, p.Attempts)
			require.Contains(t, p.Detail, tt.detail)
		})
	}
}
