package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/broker"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/events/trigger"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/ingress/callback"
	"github.com/ebb-inference/ebb/functions/ingress/fetch"
	"github.com/ebb-inference/ebb/functions/internal/app"
	"github.com/ebb-inference/ebb/models"
)

func TestMain(m *testing.M) {
	otel.SetTracerProvider(sdktrace.NewTracerProvider())
	otel.SetTextMapPropagator(propagation.TraceContext{})
	openapi3filter.RegisterBodyDecoder("image/png", openapi3filter.FileBodyDecoder)
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// The models of these tests: two that answer yes or no, the second bound to a version, and one that only classifies.
func testModels() []*models.Model {
	labels := []string{"tabby", "beagle", "espresso"}
	return []*models.Model{
		{Labels: labels, Definition: models.Definition{
			Name: "cat", Question: "Is it a cat?", Subject: "a cat", Serving: models.Serving{Model: "inception_v3"}, Output: models.Output{Top: 2}}},
		{Labels: labels, Definition: models.Definition{
			Name: "dog", Question: "Is it a dog?", Subject: "a dog", Serving: models.Serving{Model: "inception_v3", Version: 3}, Output: models.Output{Top: 2}}},
		{Labels: labels, Definition: models.Definition{
			Name: "imagenet", Serving: models.Serving{Model: "resnet50"}, Output: models.Output{Top: 5}}},
	}
}

// dot is a picture of one pixel.
var dot = sync.OnceValue(func() []byte {
	var buf bytes.Buffer
	if err := png.Encode(&buf, image.NewGray(image.Rect(0, 0, 1, 1))); err != nil {
		panic(err)
	}
	return buf.Bytes()
})

// portrait is a picture like no other of another n: what comes after a PNG's end is nobody's business.
func portrait(n int) []byte { return binary.BigEndian.AppendUint64(bytes.Clone(dot()), uint64(n)) }

// fingerprint is the label that a picture gets from a model in these tests, and no other does.
func fingerprint(model string, picture []byte) string {
	sum := sha256.Sum256(picture)
	return model + " " + hex.EncodeToString(sum[:8])
}

// yesTo is the answer of these tests to a picture.
func yesTo(picture []byte) (yes bool, probability float64) {
	sum := sha256.Sum256(picture)
	return sum[0] >= 128, float64(sum[1]) / 256
}

func answerTo(r *events.Request) *events.Result {
	a := &events.Answer{
		Top:      []events.Class{{Label: fingerprint(r.Model, r.Data), Probability: 0.5}, {Label: "something else", Probability: 0.25}},
		ServedBy: events.ServedBy{Model: "net-" + r.Model, Version: 3}, Timing: events.Timing{Queue: 1, Decode: 2, Batch: 3, Compute: 4}, BatchSize: 2,
	}
	if r.Model != "imagenet" {
		yes, p := yesTo(r.Data)
		a.Yes, a.Probability = &yes, &p
	}
	return &events.Result{ID: "a-" + r.ID, Source: "/ebb/dispatch/test", Time: time.Now(), RequestID: r.ID, CorrelationID: r.CorrelationID, Model: r.Model, Answer: a}
}

func failureOf(r *events.Request, p *problem.Details) *events.Result {
	f := answerTo(r)
	f.Answer, f.Problem = nil, p
	return f
}

// world is a gateway with everything behind it: the real broker, real events over HTTP, and a subscriber that answers
// by the real reply queue.
type world struct {
	url     string
	service *ask.Service
	hub     *reply.Hub
	broker  *broker.Broker // nil when a test has another
	log     *logs
	doc     *openapi3.T

	mu     sync.Mutex
	events []*events.Request // that were delivered
}

// setup is what a test may change.
type setup struct {
	Config
	ask       ask.Config
	subscribe func(*world, *events.Request) *events.Result // nil result: no answer; default answerTo
	broker    http.Handler                                 // instead of the real one
	server    func(*http.Server)
}

func start(t *testing.T, change func(*setup)) *world {
	t.Helper()
	w := &world{hub: reply.NewHub(), log: &logs{}, doc: document(t)}
	logger := slog.New(app.WithTrace(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	s := &setup{subscribe: func(_ *world, r *events.Request) *events.Result { return answerTo(r) }}
	s.Config = Config{
		Page: http.HandlerFunc(page), Logger: logger, Version: "test",
		Fetcher: fetch.New(fetch.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, MaxBytes: 1000}),
	}
	s.ask = ask.Config{
		Models: testModels(), Replies: w.hub, Mailboxes: w.hub,
		Caller: callback.New(callback.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}),
		Source: "/ebb/ingress/test", Logger: logger, RetryPause: time.Millisecond,
	}
	if change != nil {
		change(s)
	}
	if s.broker == nil {
		s.broker = w.realBroker(t, s.subscribe)
	}
	front := httptest.NewServer(s.broker)
	t.Cleanup(front.Close)
	s.ask.BrokerURL = front.URL

	var err error
	w.service, err = ask.New(s.ask)
	require.NoError(t, err)
	s.Service = w.service
	s.Callbacks = callback.Handler(w.service, logger)
	srv := httptest.NewUnstartedServer(New(s.Config))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	if s.server != nil {
		s.server(srv.Config)
	}
	srv.Start()
	w.url = srv.URL
	if w.broker != nil {
		w.subscribe(t, events.TypeCallbackDue, w.url+"/callbacks", w.url+"/nowhere")
	}
	t.Cleanup(func() {
		require.NoError(t, w.service.Stop(context.Background()))
		srv.Close()
	})
	return w
}

// realBroker delivers every event to a subscriber over HTTP.
func (w *world) realBroker(t *testing.T, subscribe func(*world, *events.Request) *events.Result) http.Handler {
	t.Helper()
	subscriber := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		ev, err := events.ReadHTTPRequest(r, 1<<20, nil)
		if err != nil {
			t.Errorf("delivered: %v", err)
			return
		}
		w.mu.Lock()
		w.events = append(w.events, ev)
		w.mu.Unlock()
		if answer := subscribe(w, ev); answer != nil {
			// The requester may be gone in tests in which it goes.
			_ = w.hub.Respond(r.Context(), ev.ReplyTo, answer)
		}
		if id, ok := reply.MailboxID(ev.ReplyTo); ok && ev.Callback {
			due := &events.CallbackDue{ID: "callback-" + ev.ID, Source: "/ebb/dispatch/test", Time: time.Now(), RequestID: id}
			if err := due.WriteTo(rw.Header()); err != nil {
				t.Error(err)
			}
		}
	}))
	b := broker.New(broker.Config{Logger: slog.New(slog.DiscardHandler)})
	w.broker = b
	w.subscribe(t, events.TypeRequested, subscriber.URL, subscriber.URL)
	t.Cleanup(func() {
		require.NoError(t, b.Stop(context.Background()))
		subscriber.Close()
	})
	return b
}

// subscribe has the real broker deliver the events of a type.
func (w *world) subscribe(t *testing.T, typ, subscriber, deadLetter string) {
	t.Helper()
	require.NoError(t, w.broker.Subscribe(trigger.Trigger{
		Namespace: "test", Name: typ, Broker: "default",
		Filter:   map[string]string{"type": typ},
		Delivery: trigger.Delivery{Parallelism: 8, Retry: 20, Backoff: trigger.Linear, BackoffDelay: time.Millisecond, Timeout: 10 * time.Second},
	}, subscriber, deadLetter))
}

func (w *world) delivered() []*events.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

func page(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", "default-src 'self'")
	_, _ = io.WriteString(w, "page "+r.Method+" "+r.URL.Path)
}

// logs are the lines that were logged.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// of is the line with a message about a request; it is written after the answer, so it is waited for.
func (l *logs) of(t *testing.T, message, request string) map[string]any {
	t.Helper()
	var found map[string]any
	require.Eventually(t, func() bool {
		for line := range strings.Lines(l.String()) {
			var entry map[string]any
			if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == message && entry["request_id"] == request {
				found = entry
				return true
			}
		}
		return false
	}, 10*time.Second, time.Millisecond)
	return found
}

// answer is an HTTP answer, read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a *answer) json(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	require.NoError(t, json.Unmarshal(a.body, &v), "%s", a.body)
	return v
}

func (a *answer) into(t *testing.T, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(v), "%s", a.body)
}

// requireProblem is for Ebb's own API.
func (a *answer) requireProblem(t *testing.T, code string, status int, detail string) {
	t.Helper()
	require.Equal(t, status, a.status, "%s", a.body)
	require.Equal(t, problem.ContentType, a.header.Get("Content-Type"))
	var p problem.Details
	a.into(t, &p)
	require.Equal(t, "urn:ebb:problem:"+code, p.Type)
	require.Equal(t, status, p.Status)
	require.Contains(t, p.Detail, detail)
	require.Equal(t, "urn:uuid:"+a.header.Get("X-Request-Id"), p.Instance)
}

// requireError is for V1 and V2.
func (a *answer) requireError(t *testing.T, status int, text string) {
	t.Helper()
	require.Equal(t, status, a.status, "%s", a.body)
	var e struct{ Error string }
	a.into(t, &e)
	require.Contains(t, e.Error, text)
}

// call sends a request, and holds it, when it succeeds, and its answer, in any case, to the OpenAPI document.
func (w *world) call(t *testing.T, method, path string, body []byte, headers ...string) *answer {
	t.Helper()
	var from io.Reader
	if body != nil {
		from = bytes.NewReader(body)
	}
	return w.send(t, method, path, from, body, headers...)
}

// stream is call with a body of which nobody says how long it is.
func (w *world) stream(t *testing.T, method, path string, body []byte, headers ...string) *answer {
	t.Helper()
	return w.send(t, method, path, io.MultiReader(bytes.NewReader(body)), body, headers...)
}

func (w *world) send(t *testing.T, method, path string, from io.Reader, body []byte, headers ...string) *answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.url+path, from)
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, resp.Body.Close()) }()
	a := &answer{status: resp.StatusCode, header: resp.Header}
	a.body, err = io.ReadAll(resp.Body)
	require.NoError(t, err)
	w.hold(t, req, body, a)
	return a
}

// hold compares a request and its answer with the document.
func (w *world) hold(t *testing.T, req *http.Request, body []byte, a *answer) {
	t.Helper()
	path, item, values := described(w.doc, req.URL.Path)
	if item == nil || req.Method == http.MethodHead || req.Method == http.MethodOptions {
		return
	}
	operation := item.GetOperation(req.Method)
	if operation == nil { // the wrong method; the answer is described where the right one is
		require.Equal(t, http.StatusMethodNotAllowed, a.status)
		for _, other := range item.Operations() {
			operation = other
		}
	}
	copied := req.Clone(t.Context())
	copied.Body = io.NopCloser(bytes.NewReader(body))
	options := &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true}
	in := &openapi3filter.RequestValidationInput{
		Request: copied, PathParams: values, Options: options,
		Route: &routers.Route{Spec: w.doc, Path: path, PathItem: item, Method: req.Method, Operation: operation},
	}
	if a.status < 400 {
		require.NoError(t, openapi3filter.ValidateRequest(t.Context(), in), "the document does not allow a request that was answered")
	}
	require.NoError(t, openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: a.status, Header: a.header, Options: options, Body: io.NopCloser(bytes.NewReader(a.body)),
	}), "%d %s", a.status, a.body)
}

var wildcard = regexp.MustCompile(`\\\{(\w+)\\\}`)

// described finds the path of the document that a request's path is, with the values of its wildcards: the one with the
// most literal text.
func described(doc *openapi3.T, path string) (template string, item *openapi3.PathItem, values map[string]string) {
	templates := slices.SortedFunc(slices.Values(doc.Paths.InMatchingOrder()), func(a, b string) int {
		return len(wildcard.ReplaceAllString(regexp.QuoteMeta(b), "")) - len(wildcard.ReplaceAllString(regexp.QuoteMeta(a), ""))
	})
	for _, template := range templates {
		re := regexp.MustCompile("^" + wildcard.ReplaceAllString(regexp.QuoteMeta(template), `(?P<$1>[^/]+)`) + "$")
		found := re.FindStringSubmatch(path)
		if found == nil {
			continue
		}
		values := map[string]string{}
		for i, name := range re.SubexpNames()[1:] {
			values[name] = found[i+1]
		}
		return template, doc.Paths.Value(template), values
	}
	return "", nil, nil
}

func document(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := loadDocument()
	require.NoError(t, err)
	return doc
}

var loadDocument = sync.OnceValues(func() (*openapi3.T, error) { return openapi3.NewLoader().LoadFromData(openAPI) })
