package functions_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/broker"
	"github.com/ebb-inference/ebb/events/rabbitmqtest"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/events/reply/amqp"
	"github.com/ebb-inference/ebb/events/trigger"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/internal/app"
	"github.com/ebb-inference/ebb/functions/local/mirror"
	"github.com/ebb-inference/ebb/functions/modelserver/onnx"
	"github.com/ebb-inference/ebb/functions/modelserver/onnx/onnxtest"
	"github.com/ebb-inference/ebb/functions/modelserver/server"
)

var quiet = slog.New(slog.DiscardHandler)

// modelServer has the mirror's networks at an address that nobody answers at until serve is called.
func modelServer(t *testing.T) (address string, serve func()) {
	t.Helper()
	base := t.TempDir()
	require.NoError(t, mirror.WriteNetworks(base))
	s, err := server.New(server.Config{Base: base, Loader: server.Networks(onnxtest.Loader(t, onnx.Options{})), Logger: quiet})
	require.NoError(t, err)
	ln, err := app.Listen(t.Context(), "127.0.0.1", 0)
	require.NoError(t, err)
	served := make(chan error, 1)
	serve = sync.OnceFunc(func() { go func() { served <- s.ServeGRPC(ln) }() })
	t.Cleanup(func() {
		serve() // it closes the listener
		require.NoError(t, s.Stop(context.Background()))
		require.NoError(t, <-served)
	})
	return ln.Addr().String(), serve
}

// subscribe gives a broker a Trigger for a model's requests.
func subscribe(t *testing.T, b *broker.Broker, model, subscriber, deadLetter string) {
	t.Helper()
	require.NoError(t, b.Subscribe(trigger.Trigger{
		Name: model, Filter: map[string]string{"type": events.TypeRequested, events.ExtModel: model},
		Delivery: trigger.Delivery{
			Parallelism: 10, Backoff: trigger.Linear, BackoffDelay: 10 * time.Millisecond, Timeout: patience, DeadLetter: &trigger.Destination{},
		},
	}, subscriber, deadLetter))
}

// The life of the three programs in one test: RabbitMQ takes seconds to start, and each part of it needs the one before.
func TestTheProgramsTogether(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	require.NoError(t, mirror.WriteDefinitions(folder))
	serving, serve := modelServer(t)
	woken := make(chan string, 1)
	waking := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case woken <- r.URL.Path:
		default: // nobody wants to know any more
		}
	}))
	t.Cleanup(waking.Close)
	b := broker.New(broker.Config{Logger: quiet})
	brokerServer := httptest.NewServer(b)
	t.Cleanup(brokerServer.Close)
	t.Cleanup(func() { require.NoError(t, b.Stop(context.Background())) })

	// Nobody is there yet.
	node := rabbitmqtest.Start(t)
	require.NoError(t, node.Stop())
	rabbit := "RABBITMQ_URL=" + node.URL()
	ingress := start(t, "ingress", rabbit, "BROKER_URL="+brokerServer.URL, "MODELS="+folder, "CALLBACK_ALLOW=127.0.0.0/8",
		"WAKE_URL="+waking.URL+"/{model}")
	dispatch := start(t, "dispatch", rabbit, "MODEL="+mirror.DefinitionFile(folder, mirror.Plain), "SERVING_ADDRESS="+serving)
	deadletter := start(t, "deadletter", rabbit)
	all := []*program{ingress, dispatch, deadletter}
	for _, p := range all {
		require.Equal(t, http.StatusOK, get(t, p.url+"/health/liveness").status)
		require.Equal(t, http.StatusServiceUnavailable, get(t, p.url+"/health/readiness").status)
		require.Equal(t, http.StatusServiceUnavailable, get(t, p.url+"/").status)
	}
	subscribe(t, b, mirror.Plain, dispatch.url, deadletter.url)
	subscribe(t, b, mirror.Negative, ingress.url+"/there/is/no/such/path", deadletter.url)
	callbacks := callbackTrigger(t)
	require.Equal(t, "ingress", callbacks.Subscriber.Name)
	require.NoError(t, b.Subscribe(callbacks, ingress.url+callbacks.Subscriber.Path, deadletter.url))

	// RabbitMQ comes.
	require.NoError(t, node.Start(t.Context()))
	for _, p := range all {
		p.requireReady(t)
	}
	require.Equal(t, http.StatusNotFound, get(t, dispatch.url+"/other").status)

	whoAsksBeforeTheModelServerIsThereIsAnswered(t, ingress, woken, serve)
	whoWaitsIsAnswered(t, ingress)
	whoDoesNotWaitIsCalled(t, ingress)
	whoCannotBeAnsweredIsTold(t, ingress)

	// What each has in hand when it is told to end is finished.
	ingressEndsWithARequest(t, ingress)
	dispatchEndsWithADelivery(t, dispatch, node.URL())
	deadletterEndsWithADeadLetter(t, deadletter, node.URL())
}

func whoAsksBeforeTheModelServerIsThereIsAnswered(t *testing.T, ingress *program, woken <-chan string, serve func()) {
	t.Helper()
	req := question(t, ingress, mirror.Plain, 5)
	answered := make(chan answer, 1)
	go func() { answered <- do(req) }()
	require.Equal(t, "/"+mirror.Plain, <-woken)
	require.Empty(t, answered)
	serve()
	a := <-answered
	require.NoError(t, a.err)
	require.Equal(t, http.StatusOK, a.status, a.body)
	requireAnswer(t, 5, a.body)
}

func whoWaitsIsAnswered(t *testing.T, ingress *program) {
	t.Helper()
	a := infer(t, ingress, mirror.Plain, 1, nil)
	require.Equal(t, http.StatusOK, a.status, a.body)
	requireAnswer(t, 1, a.body)
}

func whoDoesNotWaitIsCalled(t *testing.T, ingress *program) {
	t.Helper()
	called := make(chan string, 1)
	caller := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		_, _ = body.ReadFrom(r.Body) // a part of it would be no JSON
		called <- body.String()
	}))
	defer caller.Close()
	a := infer(t, ingress, mirror.Plain+"&callback="+caller.URL, 2, http.Header{"Prefer": {"respond-async"}})
	require.Equal(t, http.StatusAccepted, a.status, a.body)
	requireAnswer(t, 2, <-called)
	a = get(t, ingress.url+a.header.Get("Location"))
	require.Equal(t, http.StatusOK, a.status, a.body)
	requireAnswer(t, 2, a.body)
}

func whoCannotBeAnsweredIsTold(t *testing.T, ingress *program) {
	t.Helper()
	a := infer(t, ingress, mirror.Negative, 3, nil)
	require.Equal(t, http.StatusBadGateway, a.status, a.body)
	require.Contains(t, a.body, "gave-up")
}

func ingressEndsWithARequest(t *testing.T, ingress *program) {
	t.Helper()
	picture, err := mirror.Picture(4)
	require.NoError(t, err)
	request := hold(t, ingress.url+"/v1/infer?model="+mirror.Plain, http.Header{"Content-Type": {"image/png"}}, picture)
	ingress.term(t)
	a := request.finish(t)
	require.Equal(t, http.StatusOK, a.status, a.body)
	requireAnswer(t, 4, a.body)
	ingress.ended(t)
}

func dispatchEndsWithADelivery(t *testing.T, dispatch *program, rabbit string) {
	t.Helper()
	delivery, result := deliver(t, rabbit, dispatch.url, nil)
	dispatch.term(t)
	a := delivery.finish(t)
	require.Equal(t, http.StatusNoContent, a.status, a.body)
	dispatch.ended(t)
	require.NoError(t, mirror.Check(mirror.Plain, 4, (<-result).Answer.Top))
}

func deadletterEndsWithADeadLetter(t *testing.T, deadletter *program, rabbit string) {
	t.Helper()
	delivery, result := deliver(t, rabbit, deadletter.url, http.Header{"Ce-Knativeerrorcode": {"500"}})
	deadletter.term(t)
	a := delivery.finish(t)
	require.Equal(t, http.StatusNoContent, a.status, a.body)
	deadletter.ended(t)
	require.Equal(t, "gave-up", (<-result).Problem.Code())
}

// deliver delivers, as a broker does, half of a request event about picture number 4, and returns where its result arrives.
func deliver(t *testing.T, rabbit, url string, more http.Header) (*held, <-chan *events.Result) {
	t.Helper()
	requester, err := amqp.NewRequester(amqp.Config{URL: rabbit, Logger: quiet})
	require.NoError(t, err)
	results := make(chan *events.Result, 1)
	inbox, err := requester.Listen(t.Context(), reply.Listener{
		Reply: func(r *events.Result) { results <- r }, Lost: func(string) { close(results) },
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, inbox.Close()) })
	address, err := inbox.Address()
	require.NoError(t, err)
	picture, err := mirror.Picture(4)
	require.NoError(t, err)
	now := time.Now().UTC()
	req, err := events.NewHTTPRequest(t.Context(), url, &events.Request{
		ID: uuid.NewString(), Source: "/test", Time: now, Deadline: now.Add(patience), Model: mirror.Plain,
		ReplyTo: address, CorrelationID: "four", ContentType: "image/png", Data: picture,
	})
	require.NoError(t, err)
	maps.Copy(req.Header, more)
	return hold(t, url, req.Header, picture), results
}

// callbackTrigger is the Trigger of the project's own manifest.
func callbackTrigger(t *testing.T) trigger.Trigger {
	t.Helper()
	const file = "../config/500-callbacks.yaml"
	manifest, err := os.ReadFile(file)
	require.NoError(t, err)
	all, err := trigger.Parse(bytes.NewReader(manifest), file)
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, map[string]string{"type": events.TypeCallbackDue}, all[0].Filter)
	return all[0]
}

// question is a request about picture number n.
func question(t *testing.T, ingress *program, query string, n int) *http.Request {
	t.Helper()
	picture, err := mirror.Picture(n)
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, ingress.url+"/v1/infer?model="+query, bytes.NewReader(picture))
	require.NoError(t, err)
	return req
}

// infer asks about picture number n.
func infer(t *testing.T, ingress *program, query string, n int, header http.Header) answer {
	t.Helper()
	req := question(t, ingress, query, n)
	if header != nil {
		req.Header = header
	}
	a := do(req)
	require.NoError(t, a.err)
	return a
}

// requireAnswer wants the mirror's answer to picture number n.
func requireAnswer(t *testing.T, n int, body string) {
	t.Helper()
	var r ask.Response
	require.NoError(t, json.Unmarshal([]byte(body), &r))
	require.Len(t, r.Results, 1)
	require.NoError(t, mirror.Check(mirror.Plain, n, r.Results[0].Top))
}

func TestAWrongSettingIsNamed(t *testing.T) {
	t.Parallel()
	folder, empty := t.TempDir(), t.TempDir()
	require.NoError(t, mirror.WriteDefinitions(folder))
	const rabbit, away = "RABBITMQ_URL=amqp://guest:guest@127.0.0.1:1/", "BROKER_URL=http://127.0.0.1:1"
	for _, tc := range []struct {
		name, program string
		env           []string
		want          string
	}{
		{"no RabbitMQ", "deadletter", nil, "RABBITMQ_URL is not set"},
		{"no address of RabbitMQ", "deadletter", []string{"RABBITMQ_URL=http://guest:guest@127.0.0.1"}, "RABBITMQ_URL: RabbitMQ's URL: want amqp://"},
		{"no port", "deadletter", []string{rabbit, "PORT=http"}, "PORT is"},
		{"no model", "dispatch", []string{rabbit, "MODEL=" + filepath.Join(empty, "model.yaml")}, "MODEL: "},
		{"no broker", "ingress", []string{rabbit, "MODELS=" + folder}, "BROKER_URL is not set"},
		{"no address of a broker", "ingress", []string{rabbit, "MODELS=" + folder, "K_SINK=broker"}, "BROKER_URL: "},
		{"no models", "ingress", []string{rabbit, away, "MODELS=" + empty}, "MODELS: no model in " + empty},
		{"no folder of models", "ingress", []string{rabbit, away, "MODELS=" + empty + "/none"}, "MODELS: "},
		{"no network", "ingress", []string{rabbit, away, "MODELS=" + folder, "FETCH_ALLOW=10.1.0.0"}, "FETCH_ALLOW is "},
		{"no time", "ingress", []string{rabbit, away, "MODELS=" + folder, "TIMEOUT=-1s"}, "TIMEOUT is -1s"},
		{"more time than it is kept", "ingress", []string{rabbit, away, "MODELS=" + folder, "ASYNC_TIMEOUT=2h"}, "ASYNC_TIMEOUT is 2h0m0s"},
		{"no address to wake", "ingress", []string{rabbit, away, "MODELS=" + folder, "WAKE_URL=dispatch-{model}"}, "WAKE_URL, for the model "},
		{"servers of which model", "ingress", []string{rabbit, away, "MODELS=" + folder, "WAKE_SERVERS=cat"}, `WAKE_SERVERS is "cat"; want true or false`},
		{"too many", "ingress", []string{rabbit, away, "MODELS=" + folder, "PENDING_LIMIT=-1"}, "PENDING_LIMIT is "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cmd := command(t, tc.program, append(tc.env, "LOG_FORMAT=text")...)
			out, err := cmd.CombinedOutput()
			require.Error(t, err)
			require.Equal(t, 1, cmd.ProcessState.ExitCode())
			require.Contains(t, string(out), "environment variable ")
			require.Contains(t, string(out), tc.want)
			require.NotContains(t, string(out), "guest:guest")
		})
	}
}
