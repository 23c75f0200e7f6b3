package conformance

import (
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
)

// maxPicture is more than any test sends.
const maxPicture = 8 << 20

// subscriber is an HTTP server whose every request a test takes with next and answers itself. A request that no test took
// is a failure at the end.
type subscriber struct {
	url     string
	address string
	calls   chan *call
	over    chan struct{} // closed at the end of the test

	inside atomic.Int32 // requests under way
	most   atomic.Int32 // and the most there were at once

	mu       sync.Mutex
	server   *http.Server // nil while it is down
	served   chan struct{}
	forgiven map[string]bool // ids of events that may come again after the test
}

// call is one delivery.
type call struct {
	event  *events.Request
	header http.Header
	gaveUp <-chan struct{} // closed when the broker hung up
	answer chan int        // the status to answer with; cut instead of an answer
	with   http.Header     // of the answer; to be set before answer
}

// cut ends the connection in place of an answer, as a crash would.
const cut = 0

func newSubscriber(t *testing.T) *subscriber {
	t.Helper()
	s := &subscriber{calls: make(chan *call, 4096), over: make(chan struct{}), address: "127.0.0.1:0"}
	s.up(t)
	s.url = "http://" + s.address + "/deliver"
	t.Cleanup(func() {
		close(s.over)
		s.down(t)
		for {
			select {
			case c := <-s.calls:
				if s.forgiven[c.event.ID] {
					continue
				}
				t.Errorf("a delivery that nothing asked for: event %s of model %s", c.event.ID, c.event.Model)
			default:
				return
			}
		}
	})
	return s
}

// up starts to serve, the second time at the same address as the first.
func (s *subscriber) up(t *testing.T) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", s.address)
	require.NoError(t, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.address = ln.Addr().String()
	s.server = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: Patience}
	s.served = make(chan struct{})
	go func(server *http.Server, served chan struct{}) {
		defer close(served)
		_ = server.Serve(ln) // always ErrServerClosed: down closes it
	}(s.server, s.served)
}

// down closes the listener and every connection.
func (s *subscriber) down(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return
	}
	require.NoError(t, s.server.Close())
	<-s.served
	s.server = nil
}

func (s *subscriber) serve(w http.ResponseWriter, r *http.Request) {
	now := s.inside.Add(1)
	defer s.inside.Add(-1)
	for most := s.most.Load(); now > most && !s.most.CompareAndSwap(most, now); most = s.most.Load() {
	}
	event, err := events.ReadHTTPRequest(r, maxPicture, nil)
	if due, none := events.ReadCallbackDue(r.Header); none == nil {
		event, err = &events.Request{ID: due.ID, Source: due.Source, Time: due.Time, CorrelationID: due.RequestID}, nil
	}
	if err != nil { // a status that no test uses, and an error that every test sees
		event = &events.Request{ID: err.Error(), Model: "unreadable"}
	}
	c := &call{event: event, header: r.Header, gaveUp: r.Context().Done(), answer: make(chan int, 1), with: http.Header{}}
	s.calls <- c
	status := http.StatusServiceUnavailable
	select {
	case status = <-c.answer:
	case <-s.over:
	}
	if status != cut {
		maps.Copy(w.Header(), c.with)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, http.StatusText(status)) // the broker may have gone
		return
	}
	panic(http.ErrAbortHandler) // closes the connection without an answer
}

// next waits for a delivery.
func (s *subscriber) next(t *testing.T) *call {
	t.Helper()
	select {
	case c := <-s.calls:
		return c
	case <-time.After(Patience):
		require.FailNow(t, "no delivery came")
		return nil
	}
}

// forgive lets events come again that a test has done with, where delivery at least once allows it.
func (s *subscriber) forgive(all ...*events.Request) {
	s.forgiven = make(map[string]bool, len(all))
	for _, r := range all {
		s.forgiven[r.ID] = true
	}
}

// expect waits for a delivery of event and answers it.
func (s *subscriber) expect(t *testing.T, event *events.Request, status int) *call {
	t.Helper()
	c := s.next(t)
	require.Equal(t, event, c.event)
	c.answer <- status
	return c
}

// expectAll waits for the deliveries of all of these, in any order, and answers them.
func (s *subscriber) expectAll(t *testing.T, status int, all ...*events.Request) {
	t.Helper()
	got := make([]*events.Request, 0, len(all))
	for range all {
		c := s.next(t)
		c.answer <- status
		got = append(got, c.event)
	}
	require.ElementsMatch(t, all, got)
}

// wait waits for something else to happen.
func wait[T any](t *testing.T, on <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-on:
		return v
	case <-time.After(Patience):
		require.FailNow(t, "waited in vain", what)
		panic("unreachable")
	}
}
