package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
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
	"github.com/ebb-inference/ebb/functions/deadletter/sink"
)

func TestMain(m *testing.M) { rabbitmqtest.Main(m) }

const patience = time.Minute

// model answers "cat" over RabbitMQ, unless it is broken.
type model struct {
	broken    atomic.Bool
	asked     atomic.Int64
	responder *amqp.Responder
}

func (m *model) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	m.asked.Add(1)
	r, err := events.ReadHTTPRequest(req, 1<<20, nil)
	if err != nil || m.broken.Load() {
		rw.WriteHeader(http.StatusInternalServerError)
		return
	}
	yes, p := true, 0.977
	err = m.responder.Respond(req.Context(), r.ReplyTo, &events.Result{
		ID: uuid.NewString(), Source: "/ebb/dispatch/cat/test", Time: time.Now(), RequestID: r.ID, CorrelationID: r.CorrelationID, Model: r.Model,
		Answer: &events.Answer{Yes: &yes, Probability: &p, Top: []events.Class{{Label: "tabby", Probability: 0.61}}},
	})
	if err != nil {
		rw.WriteHeader(http.StatusServiceUnavailable)
	}
}

// world is all that a letter meets: a broker, a model, a sink that parks, and a requester with mailboxes.
type world struct {
	env       string // file
	broker    string // URL
	model     *model
	inbox     reply.Inbox
	parking   *amqp.Parking // of the sink
	told      chan *events.Result
	mailboxes *amqp.Mailboxes
	recorded  *records
}

// records is the sink's log, which is where a test sees that a letter has been dealt with.
type records struct{ parked chan string }

func (r *records) Write(line []byte) (int, error) {
	var record struct{ Msg, Parked string }
	if err := json.Unmarshal(line, &record); err == nil && record.Msg == "dead letter" {
		r.parked <- record.Parked
	}
	return len(line), nil
}

func newWorld(t *testing.T, node *rabbitmqtest.Node) *world {
	t.Helper()
	ctx := context.Background()
	w := &world{told: make(chan *events.Result, 16), model: &model{}, recorded: &records{make(chan string, 64)}}
	c := amqp.Config{URL: node.URL()}
	responder, err := amqp.NewResponder(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, responder.Close(ctx)) })
	w.model.responder = responder
	w.mailboxes, err = amqp.NewMailboxes(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.mailboxes.Close(ctx)) })
	requester, err := amqp.NewRequester(c)
	require.NoError(t, err)
	w.inbox, err = requester.Listen(t.Context(), reply.Listener{Reply: func(r *events.Result) { w.told <- r }, Lost: func(string) {}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.inbox.Close()) })
	place, err := amqp.NewParking(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, place.Close(ctx)) })
	w.parking = place

	cat := trigger.Trigger{Name: "cat-" + uuid.NewString(), Filter: map[string]string{"model": "cat"}, Delivery: trigger.Delivery{
		Parallelism: 4, Retry: 2, Backoff: trigger.Linear, BackoffDelay: time.Millisecond, Timeout: patience,
	}}
	letters, err := sink.New(sink.Config{
		Responder: responder, Parking: place, Attempts: trigger.AttemptsBy("model", []trigger.Trigger{cat}),
		Logger: slog.New(slog.NewJSONHandler(w.recorded, nil)),
	})
	require.NoError(t, err)
	b := broker.New(broker.Config{})
	serve := func(h http.Handler) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL
	}
	require.NoError(t, b.Subscribe(cat, serve(w.model), serve(letters)))
	w.broker = serve(b)
	t.Cleanup(func() { require.NoError(t, b.Stop(ctx)) })
	w.env = filepath.Join(t.TempDir(), "env")
	require.NoError(t, os.WriteFile(w.env, []byte("# where things are\nRABBITMQ_URL="+node.URL()+"\n\nBROKER_URL="+w.broker+"\n"), 0o600))
	return w
}

// ask publishes a question as ingress does.
func (w *world) ask(t *testing.T, replyTo string) string {
	t.Helper()
	r := &events.Request{
		ID: uuid.Must(uuid.NewV7()).String(), Source: "/ebb/ingress/test", Time: time.Now(), Model: "cat",
		ReplyTo: replyTo, CorrelationID: "original", Deadline: time.Now().Add(time.Hour), ContentType: "image/png", Data: []byte("picture"),
	}
	req, err := events.NewHTTPRequest(t.Context(), w.broker, r)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusAccepted, res.StatusCode)
	http.DefaultClient.CloseIdleConnections()
	return r.ID
}

// deadletters runs the program.
func (w *world) deadletters(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, log bytes.Buffer
	args = append([]string{args[0], "-env", w.env}, args[1:]...)
	code = run(t.Context(), args, func(string) (string, bool) { return "", false }, &out, &log)
	return code, out.String(), log.String()
}

// waiting is what list says.
func (w *world) waiting(t *testing.T) []entry {
	t.Helper()
	code, out, log := w.deadletters(t, "list", "-json")
	require.Equal(t, exitDone, code, log)
	var entries []entry
	require.NoError(t, json.Unmarshal([]byte(out), &entries))
	return entries
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		require.FailNow(t, "nothing came")
		panic("unreachable")
	}
}

func TestAModelThatAlwaysFailsEndsParkedAndIsReplayedOnceItIsMended(t *testing.T) {
	t.Parallel()
	node := rabbitmqtest.Start(t)
	w := newWorld(t, node)
	w.model.broken.Store(true)
	address, err := w.inbox.Address()
	require.NoError(t, err)

	// It fails, who waits hears why, and it is parked.
	id := w.ask(t, address)
	told := receive(t, w.told)
	require.Equal(t, id, told.RequestID)
	require.Equal(t, "gave-up", told.Problem.Code())
	require.Contains(t, told.Problem.Detail, "3 attempts were made, and the last one was answered with status 500")
	require.Equal(t, 3, told.Problem.Attempts)
	require.Equal(t, "yes", receive(t, w.recorded.parked))
	// So is what somebody asked who comes later.
	now := time.Now()
	box := &reply.Record{ID: uuid.NewString(), Asked: []reply.Asked{{Model: "cat"}}, Time: now, Deadline: now.Add(time.Hour), Expires: now.Add(2 * time.Hour)}
	require.NoError(t, w.mailboxes.Open(t.Context(), box))
	later := w.ask(t, reply.MailboxAddress(box.ID))
	require.Equal(t, "yes", receive(t, w.recorded.parked))

	// It is listed.
	entries := w.waiting(t)
	require.Len(t, entries, 2)
	e := entries[0]
	require.WithinDuration(t, now, e.Parked, time.Hour)
	require.Equal(t, []any{id, "/ebb/ingress/test", events.TypeRequested, "cat", "500", 7, 1, ""},
		[]any{e.ID, e.Source, e.Type, e.Model, e.Status, e.Bytes, e.Copies, e.Problem})
	require.Equal(t, later, entries[1].ID)
	code, out, log := w.deadletters(t, "list")
	require.Equal(t, exitDone, code)
	require.Equal(t, 3, strings.Count(out, "\n"), out)
	for _, want := range []string{id, "cat", e.Destination, "500", e.Parked.Format(time.RFC3339)} {
		require.Contains(t, out, want)
	}
	require.Contains(t, log, "deadletters: list: ")
	require.Contains(t, log, "2 read")

	// A dry run asks nothing and changes nothing.
	asked := w.model.asked.Load()
	for _, command := range []string{"replay", "drop"} {
		code, out, _ = w.deadletters(t, command, "-dry-run", "-all")
		require.Equal(t, exitDone, code)
		require.Contains(t, out, "cat "+id+" would be")
	}
	require.Equal(t, asked, w.model.asked.Load())
	require.Equal(t, entries, w.waiting(t))

	// While it still fails it stays, once.
	code, out, log = w.deadletters(t, "replay", "-model", "cat")
	require.Equal(t, exitFailed, code)
	require.Equal(t, asked+6, w.model.asked.Load(), "both, three times")
	require.Contains(t, out, "cat "+id+" stays parked: The model failed: 3 attempts were made")
	require.Contains(t, log, "stay parked")
	for range 2 {
		require.Equal(t, "no", receive(t, w.recorded.parked), "it is parked already")
	}
	require.Equal(t, entries, w.waiting(t))

	// RabbitMQ may restart meanwhile.
	require.NoError(t, node.Stop())
	require.NoError(t, node.Start(t.Context()))
	require.Eventually(t, func() bool {
		_, err := w.inbox.Address()
		code, out, _ := w.deadletters(t, "list", "-json")
		return err == nil && code == exitDone && strings.Contains(out, later) && w.model.responder.Ready() == nil && w.mailboxes.Ready() == nil &&
			w.parking.Ready() == nil
	}, patience, 50*time.Millisecond)
	require.Equal(t, entries, w.waiting(t))

	// Once it is mended it answers, and the place is empty.
	w.model.broken.Store(false)
	code, out, log = w.deadletters(t, "replay", "-all")
	require.Equal(t, exitDone, code, out+log)
	require.Contains(t, out, "cat "+id+" answered: yes (97.7 %), tabby (61.0 %)")
	require.Contains(t, log, "2 removed, 0 stay")
	require.Empty(t, w.waiting(t))
	_, out, _ = w.deadletters(t, "list")
	require.Equal(t, "No dead letters.\n", out)
	require.Empty(t, w.told, "who waited then has gone")
	mail, err := w.mailboxes.Read(t.Context(), box.ID)
	require.NoError(t, err)
	require.Len(t, mail.Results, 2, "first why there is none, then the answer")
	require.NotNil(t, mail.Results[0].Problem)
	require.Equal(t, []any{later, "original"}, []any{mail.Results[1].RequestID, mail.Results[1].CorrelationID})
	require.InDelta(t, 0.977, *mail.Results[1].Answer.Probability, 0)

	// What nobody wants is dropped, and no more than that.
	w.model.broken.Store(true)
	address, err = w.inbox.Address()
	require.NoError(t, err)
	unwanted, wanted := w.ask(t, address), w.ask(t, address)
	for range 2 {
		require.Equal(t, "yes", receive(t, w.recorded.parked))
	}
	code, out, log = w.deadletters(t, "drop", unwanted, "no-such-id")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "cat "+unwanted+" dropped\n", out)
	require.Contains(t, log, "no letter waits of no-such-id")
	entries = w.waiting(t)
	require.Len(t, entries, 1)
	require.Equal(t, wanted, entries[0].ID)

	// One operator at a time.
	hold, err := amqp.HoldParking(t.Context(), amqp.Config{URL: node.URL()})
	require.NoError(t, err)
	code, _, log = w.deadletters(t, "drop", "-all")
	require.Equal(t, exitFailed, code)
	require.Contains(t, log, "another deadletters is running")
	require.NoError(t, hold.Close())
	code, _, _ = w.deadletters(t, "drop", "-all")
	require.Equal(t, exitDone, code)
	require.Empty(t, w.waiting(t))
}

func TestAReplayThatNobodyAnswersStaysParked(t *testing.T) { //nolint:tparallel // there is one parking place
	t.Parallel()
	node := rabbitmqtest.Start(t)
	ctx := context.Background()
	c := amqp.Config{URL: node.URL()}
	place, err := amqp.NewParking(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, place.Close(ctx)) })
	require.NoError(t, place.Park(t.Context(), letter("1", "cat")))
	for name, tt := range map[string]struct {
		broker func(rw http.ResponseWriter)
		want   string
	}{
		"refused":      {func(rw http.ResponseWriter) { rw.WriteHeader(http.StatusServiceUnavailable) }, "the broker answered with status 503"},
		"not answered": {func(rw http.ResponseWriter) { rw.WriteHeader(http.StatusAccepted) }, "no answer in 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
				r, err := events.ReadHTTPRequest(req, 1<<20, nil)
				if err != nil || !r.Replay || r.Callback || r.ID != letterID("1") || !time.Now().Before(r.Deadline) {
					t.Errorf("what is asked again: %+v, %v", r, err)
				}
				tt.broker(rw)
			}))
			defer s.Close()
			var out, log bytes.Buffer
			code := run(t.Context(), []string{"replay", "-timeout", "1s", letterID("1")}, func(key string) (string, bool) {
				v, ok := map[string]string{"RABBITMQ_URL": node.URL(), "BROKER_URL": s.URL}[key]
				return v, ok
			}, &out, &log)
			require.Equal(t, exitFailed, code)
			require.Contains(t, out.String(), "stays parked: "+tt.want)
		})
	}
	hold, err := amqp.HoldParking(t.Context(), c)
	require.NoError(t, err)
	_, err = hold.Next(t.Context())
	require.NoError(t, err)
	_, err = hold.Next(t.Context())
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, hold.Close())
}
