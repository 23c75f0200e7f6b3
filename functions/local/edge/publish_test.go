package edge_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/rabbitmq/topology"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/events/reply/amqp"
	"github.com/ebb-inference/ebb/events/trigger"
	"github.com/ebb-inference/ebb/functions/local/mirror"
)

// payload is what is in the data of hostile events, and nowhere else.
const payload = "<script>alert('payload')</script>"

// requester is somebody who publishes request events past ingress.
type requester struct {
	address string

	mu      sync.Mutex
	results map[string][]*events.Result // by the event's id
}

func newRequester(t *testing.T) *requester {
	t.Helper()
	q, err := amqp.NewRequester(amqp.Config{URL: node.URL(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	r := &requester{results: map[string][]*events.Result{}}
	inbox, err := q.Listen(t.Context(), reply.Listener{Reply: r.receive, Lost: func(string) {}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, inbox.Close()) })
	r.address, err = inbox.Address()
	require.NoError(t, err)
	return r
}

func (r *requester) receive(result *events.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results[result.RequestID] = append(r.results[result.RequestID], result)
}

// got is the results to one event.
func (r *requester) got(id string) []*events.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.results[id]
}

// answered is how many events have a result.
func (r *requester) answered() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.results)
}

// event is a good request for a model to look at picture number n.
func (r *requester) event(t *testing.T, model string, n int) *events.Request {
	t.Helper()
	return &events.Request{
		ID: uuid.Must(uuid.NewV7()).String(), Source: "/ebb/test", Time: time.Now().UTC(), Model: model, ReplyTo: r.address,
		CorrelationID: uuid.NewString(), Deadline: time.Now().Add(patience), ContentType: "image/png", Data: picture(t, n),
	}
}

func picture(t *testing.T, n int) []byte {
	t.Helper()
	data, err := mirror.Picture(n)
	require.NoError(t, err)
	return data
}

// publish hands an event to the broker, changed in the form in which it travels, and returns the broker's answer.
func publish(t *testing.T, e *events.Request, change func(*http.Request)) (status int, body []byte) {
	t.Helper()
	status, body, err := post(t.Context(), e, change)
	require.NoError(t, err)
	return status, body
}

func post(ctx context.Context, e *events.Request, change func(*http.Request)) (status int, body []byte, err error) {
	req, err := events.NewHTTPRequest(ctx, broker, e)
	if err != nil {
		return 0, nil, err
	}
	if change != nil {
		change(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// requireAnswer wants the one answer to an event, and that it is to picture number n.
func (r *requester) requireAnswer(t *testing.T, id string, n int) *events.Answer {
	t.Helper()
	results := r.got(id)
	require.Len(t, results, 1)
	require.Nil(t, results[0].Problem)
	require.NoError(t, mirror.Check(mirror.Plain, n, results[0].Answer.Top))
	return results[0].Answer
}

func header(name, value string) func(*http.Request) {
	return func(req *http.Request) { req.Header[http.CanonicalHeaderKey(name)] = []string{value} }
}

func without(name string) func(*http.Request) {
	return func(req *http.Request) { req.Header.Del(name) }
}

func data(b string) func(*http.Request) {
	return func(req *http.Request) {
		req.Body, req.ContentLength, req.GetBody = io.NopCloser(bytes.NewReader([]byte(b))), int64(len(b)), nil
	}
}

func both(changes ...func(*http.Request)) func(*http.Request) {
	return func(req *http.Request) {
		for _, change := range changes {
			change(req)
		}
	}
}

// channel is an AMQP channel on a connection of its own.
func channel(t *testing.T) *amqp091.Channel {
	t.Helper()
	conn, err := amqp091.Dial(node.URL())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	ch, err := conn.Channel()
	require.NoError(t, err)
	return ch
}

// queues are those of a model's Trigger.
func queues(model string) topology.Names {
	return topology.NewBroker("ebb", "ebb").Trigger(trigger.Trigger{Namespace: "ebb", Name: model})
}
