package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events/broker"
	"github.com/ebb-inference/ebb/events/trigger"
)

// What every broker does is in the conformance suite; here is what only this one promises.

// measured collects what the Brokers of all tests count; tests keep apart by their Triggers' names.
var measured = metric.NewManualReader()

func TestMain(m *testing.M) {
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(measured)))
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// patience bounds a wait that should not be one.
const patience = time.Minute

// sink is a subscriber: it says what it got, and answers when it is told to.
type sink struct {
	*httptest.Server
	got    chan string // event ids
	answer chan int
}

func newSink(t *testing.T) *sink {
	t.Helper()
	s := &sink{got: make(chan string, 1000), answer: make(chan int, 1000)}
	over := make(chan struct{})
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // so that a client that hangs up is noticed
		s.got <- r.Header.Get("Ce-Id")
		select {
		case status := <-s.answer:
			w.WriteHeader(status)
		case <-r.Context().Done():
		case <-over:
		}
	}))
	t.Cleanup(func() {
		close(over)
		s.Close()
	})
	return s
}

func (s *sink) next(t *testing.T) string {
	t.Helper()
	select {
	case id := <-s.got:
		return id
	case <-time.After(patience):
		require.FailNow(t, "no delivery came")
		return ""
	}
}

func newBroker(t *testing.T, c broker.Config) (*broker.Broker, *httptest.Server) {
	t.Helper()
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	b := broker.New(c)
	server := httptest.NewServer(b)
	t.Cleanup(func() {
		server.Close()
		_ = b.Stop(ended()) // what a test leaves it leaves on purpose
	})
	return b, server
}

// ended is a context that allows no waiting.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func to(name string, filter map[string]string) trigger.Trigger {
	return trigger.Trigger{Name: name, Filter: filter, Delivery: trigger.Delivery{
		Parallelism: 1, Backoff: trigger.Linear, BackoffDelay: time.Millisecond, Timeout: patience,
	}}
}

var tests atomic.Int64

// unique is a Trigger's name that no other test counts by, nor this one when it is run again.
func unique(name string) string { return fmt.Sprintf("%s-%d", name, tests.Add(1)) }

func event(t *testing.T, url, id string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	require.NoError(t, err)
	for name, value := range map[string]string{"Specversion": "1.0", "Type": "t", "Source": "/test", "Id": id} {
		req.Header.Set("Ce-"+name, value)
	}
	return req
}

// post returns the status and the Retry-After header.
func post(t *testing.T, req *http.Request) (int, string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode, resp.Header.Get("Retry-After")
}

func publish(t *testing.T, url, id, data string) int {
	t.Helper()
	status, _ := post(t, event(t, url, id, strings.NewReader(data)))
	return status
}

func TestAFullQueueRefusesUntilThereIsRoom(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]broker.Config{
		"of events": {MaxEvents: 2},
		"of bytes":  {MaxBytes: 70_000, MaxEventBytes: 30_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, server := newBroker(t, c)
			s, dead := newSink(t), newSink(t)
			require.NoError(t, b.Subscribe(to("cat", nil), s.URL, dead.URL))
			picture := strings.Repeat("x", 30_000)
			require.Equal(t, 202, publish(t, server.URL, "1", picture))
			require.Equal(t, "1", s.next(t))
			require.Equal(t, 202, publish(t, server.URL, "2", picture))

			for range 3 { // what is refused leaves no trace
				status, retryAfter := post(t, event(t, server.URL, "3", strings.NewReader(picture)))
				require.Equal(t, 503, status)
				require.Equal(t, "1", retryAfter)
			}
			s.answer <- 200
			require.Equal(t, "2", s.next(t)) // 1 has left
			require.Equal(t, 202, publish(t, server.URL, "4", picture))
			s.answer <- 200
			require.Equal(t, "4", s.next(t))
			s.answer <- 200
			require.NoError(t, b.Stop(t.Context()))
			require.Empty(t, s.got)
			require.Empty(t, dead.got)
		})
	}
}

func TestAnEventThatOneQueueHasNoRoomForIsInNone(t *testing.T) {
	t.Parallel()
	b, server := newBroker(t, broker.Config{MaxEvents: 1})
	open, full, dead := newSink(t), newSink(t), newSink(t)
	require.NoError(t, b.Subscribe(to("open", nil), open.URL, dead.URL))
	require.NoError(t, b.Subscribe(to("full", nil), full.URL, dead.URL))
	open.answer <- 200
	require.Equal(t, 202, publish(t, server.URL, "1", "x"))
	require.Equal(t, "1", open.next(t))
	require.Equal(t, "1", full.next(t))
	require.Equal(t, 503, publish(t, server.URL, "2", "x"))
	full.answer <- 200
	require.NoError(t, b.Stop(t.Context()))
	require.Empty(t, open.got)
	require.Empty(t, full.got)
}

//nolint:tparallel // its subtests run one after the other: each would see what room the others hold
func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	b, server := newBroker(t, broker.Config{MaxEventBytes: 100, MaxEvents: 5})
	s, dead := newSink(t), newSink(t)
	require.NoError(t, b.Subscribe(to("only", map[string]string{"type": "t"}), s.URL, dead.URL))
	long := strings.Repeat("x", 101)
	announced := func() io.Reader { return strings.NewReader(long) }
	unannounced := func(data string) io.Reader { return io.MultiReader(strings.NewReader(data)) }
	nothing := func() io.Reader { return nil }
	chunked := func() io.Reader { return unannounced(long) }
	for name, c := range map[string]struct {
		change func(*http.Request)
		body   func() io.Reader
		want   int
	}{
		"another path":                        {func(r *http.Request) { r.URL.Path = "/ebb/default" }, nothing, 404},
		"GET":                                 {func(r *http.Request) { r.Method = http.MethodGet }, nothing, 405},
		"no event":                            {func(r *http.Request) { r.Header.Del("Ce-Specversion") }, nothing, 400},
		"structured mode":                     {func(r *http.Request) { r.Header.Set("Content-Type", "application/cloudevents+json") }, nothing, 400},
		"an attribute of no name":             {func(r *http.Request) { r.Header["Ce-"] = []string{"x"} }, nothing, 400},
		"an attribute twice":                  {func(r *http.Request) { r.Header.Add("Ce-Type", "u") }, nothing, 400},
		"too large, announced":                {func(*http.Request) {}, announced, 413},
		"too large, not announced":            {func(*http.Request) {}, chunked, 413},
		"too large for nobody":                {func(r *http.Request) { r.Header.Set("Ce-Type", "u") }, announced, 413},
		"too large for nobody, not announced": {func(r *http.Request) { r.Header.Set("Ce-Type", "u") }, chunked, 413},
		"just not too large for nobody":       {func(r *http.Request) { r.Header.Set("Ce-Type", "u") }, func() io.Reader { return unannounced(long[1:]) }, 202},
		"too many attributes":                 {func(r *http.Request) { r.Header.Set("Ce-More", strings.Repeat("x", 32<<10)) }, nothing, 413},
	} {
		t.Run(name, func(t *testing.T) {
			for range 10 { // room that was reserved and not given back would run out
				req := event(t, server.URL, "bad", c.body())
				c.change(req)
				status, _ := post(t, req)
				require.Equal(t, c.want, status)
			}
		})
	}
	s.answer <- 200
	status, _ := post(t, event(t, server.URL, "good", unannounced(long[1:])))
	require.Equal(t, 202, status)
	require.Equal(t, "good", s.next(t))
	require.NoError(t, b.Stop(t.Context()))
	require.Empty(t, s.got)
}

func TestABodyThatEndsTooEarlyGivesItsRoomBack(t *testing.T) {
	t.Parallel()
	b, _ := newBroker(t, broker.Config{MaxEvents: 1})
	s, dead := newSink(t), newSink(t)
	require.NoError(t, b.Subscribe(to("cat", nil), s.URL, dead.URL))
	for range 3 {
		req := event(t, "/", "1", strings.NewReader("short"))
		req.ContentLength = 100
		w := httptest.NewRecorder()
		b.ServeHTTP(w, req)
		require.Equal(t, 400, w.Code)
	}
	w := httptest.NewRecorder()
	b.ServeHTTP(w, event(t, "/", "2", strings.NewReader("whole")))
	require.Equal(t, 202, w.Code)
	require.Equal(t, "2", s.next(t))
	s.answer <- 200
}

func TestAnAnswerIsOnlyAStatus(t *testing.T) {
	t.Parallel()
	b, server := newBroker(t, broker.Config{})
	dead := newSink(t)
	got := make(chan string, 10)
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.URL.Path + " " + r.Header.Get("Ce-Id")
		if r.Header.Get("Ce-Id") == "redirected" {
			http.Redirect(w, r, s.URL+"/elsewhere", http.StatusTemporaryRedirect)
			return
		}
		for name, value := range map[string]string{"Specversion": "1.0", "Type": "t", "Source": "/s", "Id": "an answer"} {
			w.Header().Set("Ce-"+name, value)
		}
		_, _ = io.WriteString(w, strings.Repeat("long", 1<<16)) // more than the broker reads
	}))
	defer s.Close()
	require.NoError(t, b.Subscribe(to("all", nil), s.URL+"/here", dead.URL))
	require.Equal(t, 202, publish(t, server.URL, "redirected", "x"))
	require.Equal(t, 202, publish(t, server.URL, "answered", "x"))
	require.NoError(t, b.Stop(t.Context()))
	close(got)
	var all []string
	for g := range got {
		all = append(all, g)
	}
	require.Equal(t, []string{"/here redirected", "/here answered"}, all)
	require.Empty(t, dead.got)
}

func TestStopDeliversWhatItHolds(t *testing.T) {
	t.Parallel()
	b, server := newBroker(t, broker.Config{})
	s, dead := newSink(t), newSink(t)
	tr := to("cat", nil)
	tr.Delivery.Retry = 1
	require.NoError(t, b.Subscribe(tr, s.URL, dead.URL))
	require.Equal(t, 202, publish(t, server.URL, "0", "x"))
	require.Equal(t, "0", s.next(t))

	stopped := make(chan error, 2)
	for range 2 {
		go func() { stopped <- b.Stop(t.Context()) }()
	}
	accepted := 1
	for publish(t, server.URL, fmt.Sprint(accepted), "x") == 202 {
		accepted++
	}
	status, retryAfter := post(t, event(t, server.URL, "late", nil))
	require.Equal(t, 503, status)
	require.Equal(t, "1", retryAfter)
	require.ErrorContains(t, b.Subscribe(to("late", nil), s.URL, dead.URL), "stopping")
	require.Empty(t, stopped)

	s.answer <- 503 // the retry and the dead letter are part of what it holds
	require.Equal(t, "0", s.next(t))
	s.answer <- 503
	for i := 1; i < accepted; i++ {
		require.Equal(t, fmt.Sprint(i), s.next(t))
		s.answer <- 200
	}
	require.Equal(t, "0", dead.next(t))
	dead.answer <- 200
	require.NoError(t, <-stopped)
	require.NoError(t, <-stopped)
	require.NoError(t, b.Stop(ended()), "what is done stays done")
}

func TestStopReportsWhatItHadNoTimeFor(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	b, server := newBroker(t, broker.Config{Logger: slog.New(slog.NewJSONHandler(&log, nil))})
	s, dead := newSink(t), newSink(t)
	// One in the subscriber's hand and one behind it; one between two attempts; one at the dead letter sink.
	require.NoError(t, b.Subscribe(to("held", map[string]string{"type": "held"}), s.URL, dead.URL))
	pausing := to("pausing", map[string]string{"type": "pausing"})
	pausing.Delivery.Retry, pausing.Delivery.BackoffDelay = 1, 10*time.Minute
	failing := newSink(t)
	require.NoError(t, b.Subscribe(pausing, failing.URL, dead.URL))
	require.NoError(t, b.Subscribe(to("dying", map[string]string{"type": "dying"}), failing.URL, dead.URL))
	for _, e := range []struct {
		id, typ string
		at      *sink
		answer  int
	}{{"in hand", "held", s, 0}, {"pausing", "pausing", failing, 503}, {"dying", "dying", failing, 503}, {"behind", "held", nil, 0}} {
		req := event(t, server.URL, e.id, strings.NewReader("x"))
		req.Header.Set("Ce-Type", e.typ)
		status, _ := post(t, req)
		require.Equal(t, 202, status)
		if e.at != nil {
			require.Equal(t, e.id, e.at.next(t))
		}
		if e.answer != 0 {
			e.at.answer <- e.answer
		}
	}
	require.Equal(t, "dying", dead.next(t))

	err := b.Stop(ended())
	var left *broker.UndeliveredError
	require.ErrorAs(t, err, &left)
	require.ElementsMatch(t, []broker.Undelivered{
		{Trigger: "held", ID: "in hand"}, {Trigger: "held", ID: "behind"}, {Trigger: "pausing", ID: "pausing"}, {Trigger: "dying", ID: "dying"},
	}, left.Events)
	require.EqualError(t, err, "the broker stopped with 4 events undelivered")
	require.Equal(t, err, b.Stop(t.Context()))
	for _, e := range left.Events {
		require.Contains(t, log.String(), fmt.Sprintf(`"msg":"event left undelivered: the broker stops","event_id":%q,"trigger":%q`, e.ID, e.Trigger))
	}
}

func TestAnEventThatEvenTheDeadLetterSinkRefusesIsCountedAndLogged(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	b, server := newBroker(t, broker.Config{Logger: slog.New(slog.NewJSONHandler(&log, nil))})
	s, dead := newSink(t), newSink(t)
	tr := to(unique("hopeless"), nil)
	tr.Delivery.Retry = 2
	require.NoError(t, b.Subscribe(tr, s.URL, dead.URL))
	require.Equal(t, 202, publish(t, server.URL, "1", "a secret picture"))
	for _, at := range []*sink{s, dead} {
		for range 3 {
			require.Equal(t, "1", at.next(t))
			at.answer <- 500
		}
	}
	require.NoError(t, b.Stop(t.Context()))
	require.Contains(t, log.String(), `"level":"ERROR","msg":"event lost: the dead letter sink did not take it","status":500,"error":"answered 500","event_id":"1","trigger":"`+tr.Name+`"`)
	require.NotContains(t, log.String(), "secret")
	require.EqualValues(t, 4, deliveries(t, tr.Name, "retried"))
	require.EqualValues(t, 1, deliveries(t, tr.Name, "lost"))
	require.Zero(t, deliveries(t, tr.Name, "delivered"))
}

func TestMeasurements(t *testing.T) {
	t.Parallel()
	b, server := newBroker(t, broker.Config{})
	s, dead := newSink(t), newSink(t)
	tr := to(unique("measured"), nil)
	require.NoError(t, b.Subscribe(tr, s.URL, dead.URL))
	for _, id := range []string{"1", "2", "3"} {
		require.Equal(t, 202, publish(t, server.URL, id, strings.Repeat("x", 1000)))
	}
	require.Equal(t, "1", s.next(t))
	require.EqualValues(t, 3, gauge(t, "ebb.queue.depth", tr.Name))
	size := gauge(t, "ebb.queue.size", tr.Name)
	require.Greater(t, size, int64(3000))
	require.Less(t, size, int64(4000))

	s.answer <- 200
	s.answer <- 500
	s.answer <- 200
	dead.answer <- 200
	require.Equal(t, "2", dead.next(t))
	require.NoError(t, b.Stop(t.Context()))
	require.EqualValues(t, 2, deliveries(t, tr.Name, "delivered"))
	require.EqualValues(t, 1, deliveries(t, tr.Name, "dead_lettered"))
}

func TestSubscribeRefuses(t *testing.T) {
	t.Parallel()
	b, _ := newBroker(t, broker.Config{})
	const ok = "http://127.0.0.1:1/"
	require.NoError(t, b.Subscribe(to("there", nil), ok, ok))
	for name, c := range map[string]struct {
		change           func(*trigger.Trigger)
		subscriber, dead string
		want             string
	}{
		"no dead letter sink":  {func(*trigger.Trigger) {}, ok, "", "trigger new: dead letter sink: not an absolute"},
		"no subscriber":        {func(*trigger.Trigger) {}, "", ok, "subscriber: not an absolute"},
		"a file":               {func(*trigger.Trigger) {}, "file:///etc/passwd", ok, "subscriber: not an absolute"},
		"a password":           {func(*trigger.Trigger) {}, "http://a:b@c/", ok, "subscriber: not an absolute"},
		"no name":              {func(tr *trigger.Trigger) { tr.Name = "" }, ok, ok, "has no name"},
		"the same name":        {func(tr *trigger.Trigger) { tr.Name = "there" }, ok, ok, "one of that name already"},
		"no parallelism":       {func(tr *trigger.Trigger) { tr.Delivery.Parallelism = 0 }, ok, ok, "parallelism is 0"},
		"too much parallelism": {func(tr *trigger.Trigger) { tr.Delivery.Parallelism = 101 }, ok, ok, "parallelism is 101"},
		"no timeout":           {func(tr *trigger.Trigger) { tr.Delivery.Timeout = 0 }, ok, ok, "has no timeout"},
		"negative retry":       {func(tr *trigger.Trigger) { tr.Delivery.Retry = -1 }, ok, ok, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := to("new", nil)
			c.change(&tr)
			require.ErrorContains(t, b.Subscribe(tr, c.subscriber, c.dead), c.want)
		})
	}
}

// Publishers, subscribers that fail at random and Stop race; every event that was accepted is delivered or reported.
func TestNothingAcceptedIsLostWhenStopRaces(t *testing.T) {
	t.Parallel()
	b, server := newBroker(t, broker.Config{MaxEvents: 50})
	var mu sync.Mutex
	delivered := map[string]bool{}
	calls := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if calls++; calls%7 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		delivered[r.Header.Get("Ce-Id")] = true
	}))
	defer s.Close()
	tr := to("racing", nil)
	tr.Delivery.Parallelism, tr.Delivery.Retry = 8, 3
	require.NoError(t, b.Subscribe(tr, s.URL, s.URL))

	accepted := make([][]string, 4)
	var wg sync.WaitGroup
	enough := make(chan struct{}, len(accepted))
	for p := range accepted {
		wg.Go(func() {
			for i := range 200 {
				id := fmt.Sprintf("%d-%d", p, i)
				w := httptest.NewRecorder()
				req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("x"))
				req.Header = event(t, server.URL, id, nil).Header
				b.ServeHTTP(w, req)
				if w.Code == 202 {
					accepted[p] = append(accepted[p], id)
				}
				if i == 100 {
					enough <- struct{}{}
				}
			}
		})
	}
	<-enough
	err := b.Stop(ended())
	wg.Wait()
	mu.Lock() // the subscriber may still be at an attempt that Stop interrupted
	defer mu.Unlock()
	var left *broker.UndeliveredError
	if err != nil {
		require.ErrorAs(t, err, &left)
		for _, e := range left.Events {
			delivered[e.ID] = true
		}
	}
	for _, ids := range accepted {
		for _, id := range ids {
			require.True(t, delivered[id], "event %s was accepted, and neither delivered nor reported", id)
		}
	}
}

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func collect(t *testing.T, name string) metricdata.Aggregation {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, measured.Collect(t.Context(), &all))
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name == name {
				return m.Data
			}
		}
	}
	require.FailNow(t, "not measured", name)
	return nil
}

func deliveries(t *testing.T, trigger, outcome string) int64 {
	t.Helper()
	want := attribute.NewSet(attribute.String("trigger", trigger), attribute.String("outcome", outcome))
	sum, ok := collect(t, "ebb.broker.deliveries").(metricdata.Sum[int64])
	require.True(t, ok)
	for _, p := range sum.DataPoints {
		if p.Attributes.Equals(&want) {
			return p.Value
		}
	}
	return 0
}

func gauge(t *testing.T, name, trigger string) int64 {
	t.Helper()
	want := attribute.NewSet(attribute.String("trigger", trigger))
	g, ok := collect(t, name).(metricdata.Gauge[int64])
	require.True(t, ok)
	for _, p := range g.DataPoints {
		if p.Attributes.Equals(&want) {
			return p.Value
		}
	}
	require.FailNow(t, "not measured for", trigger)
	return 0
}

var errBenchmark = errors.New("unexpected status")

// BenchmarkPath is one event at a time from its publisher to its subscriber, with and without a broker between: the
// difference is what the broker adds.
func BenchmarkPath(b *testing.B) {
	for _, size := range []int{1 << 10, 150 << 10} {
		for _, direct := range []bool{true, false} {
			name := fmt.Sprintf("%dKB/direct=%v", size>>10, direct)
			b.Run(name, func(b *testing.B) { benchmarkPath(b, size, direct) })
		}
	}
}

func benchmarkPath(b *testing.B, size int, direct bool) {
	b.Helper()
	arrived := make(chan struct{}, 1)
	subscriber := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // a benchmark that fails to read blocks below
		arrived <- struct{}{}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer subscriber.Close()
	url := subscriber.URL
	if !direct {
		br := broker.New(broker.Config{Logger: slog.New(slog.DiscardHandler)})
		server := httptest.NewServer(br)
		defer func() {
			server.Close()
			_ = br.Stop(ended()) // nothing is left: each event has arrived
		}()
		url = server.URL
		tr := to("bench", map[string]string{"type": "t"})
		tr.Delivery.Parallelism = 100
		require.NoError(b, br.Subscribe(tr, subscriber.URL, subscriber.URL))
	}
	picture := make([]byte, size)
	header := http.Header{
		"Ce-Specversion": {"1.0"}, "Ce-Type": {"t"}, "Ce-Source": {"/bench"}, "Ce-Id": {"1"}, "Ce-Time": {"2025-03-04T05:06:07Z"},
		"Ce-Model": {"cat"}, "Ce-Replyto": {"amq.gen-JzTY20BRgKO-HjmUJj0wLg"}, "Ce-Deadline": {"2025-03-04T05:06:07Z"},
	}
	b.ReportAllocs()
	b.SetBytes(int64(size))
	for b.Loop() {
		req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(picture))
		require.NoError(b, err)
		req.Header = header
		resp, err := http.DefaultClient.Do(req)
		require.NoError(b, err)
		require.NoError(b, resp.Body.Close())
		if resp.StatusCode != http.StatusAccepted {
			b.Fatal(errBenchmark)
		}
		<-arrived
	}
}
