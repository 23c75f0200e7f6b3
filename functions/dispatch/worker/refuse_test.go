package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/functions/dispatch/worker"
	"github.com/ebb-inference/ebb/models/tfserving"
)

func TestWhatIsNoUsableEventIsNeverComputed(t *testing.T) {
	t.Parallel()
	header := func(name, value string) func(*http.Request) {
		return func(req *http.Request) { req.Header.Set(name, value) }
	}
	body := func(data []byte) func(*http.Request) {
		return func(req *http.Request) {
			req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
		}
	}
	for _, tt := range []struct {
		name    string
		change  func(*http.Request)
		status  int    // of the delivery's answer
		told    string // code of the problem that the requester is told; "" when it is not
		outcome string
	}{
		{"other type", header("Ce-Type", "com.example.other"), 400, "", "refused"},
		{"no event", func(req *http.Request) { req.Header = http.Header{} }, 400, "", "refused"},
		{"structured mode", header("Content-Type", "application/cloudevents+json"), 400, "", "refused"},
		{"attribute twice", func(req *http.Request) { req.Header.Add("Ce-Model", "x") }, 400, "", "refused"},
		{"no id", func(req *http.Request) { req.Header.Del("Ce-Id") }, 400, "", "refused"},
		{"id of another form", header("Ce-Id", "1"), 400, "", "refused"},
		{"no correlation id", func(req *http.Request) { req.Header.Del("Ce-Correlationid") }, 400, "", "refused"},
		{"deadline of another form", header("Ce-Deadline", "tomorrow"), 204, "malformed-event", "failed"},
		{"no deadline", func(req *http.Request) { req.Header.Del("Ce-Deadline") }, 204, "malformed-event", "failed"},
		{"trace of another form", header("Ce-Traceparent", "00-zz"), 204, "malformed-event", "failed"},
		{"not a picture's type", header("Content-Type", "text/html"), 204, "malformed-event", "failed"},
		{"no data", body(nil), 204, "malformed-event", "failed"},
		{"too much data", body(make([]byte, 5<<10)), 204, "picture-too-large", "failed"},
		{"too much data, length unknown", func(req *http.Request) {
			body(make([]byte, 5<<10))(req)
			req.ContentLength = -1
		}, 204, "picture-too-large", "failed"},
		{"other model", header("Ce-Model", "other"), 204, "misrouted", "failed"},
		{"not a picture", body([]byte("hello")), 204, "not-a-picture", "failed"},
		{"damaged picture", func(req *http.Request) { body(picture(t, 1)[:50])(req) }, 204, "picture-damaged", "failed"},
		{"any queue's name", header("Ce-Replyto", "ebb.cat.queue"), 400, "", "refused"},
		{"any queue's name in a malformed event", func(req *http.Request) {
			req.Header.Set("Ce-Replyto", "ebb.cat.queue")
			req.Header.Del("Ce-Deadline")
		}, 400, "", "refused"},
		{"deadline passed", header("Ce-Deadline", "2020-01-01T00:00:00Z"), 204, "", "expired"},
		{"requester gone", func(req *http.Request) {
			req.Header.Set("Ce-Replyto", "amq.gen-"+strings.Repeat("A", 22))
			req.Header.Del("Ce-Deadline")
		}, 204, "", "unroutable"},
		{"cut off on its way", func(req *http.Request) { req.Body = io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF)) }, 503, "", "retried"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := &predictor{predict: network}
			w := newWorld(t, worker.Config{Model: newModel(t, pixels), Predictor: p, MaxBytes: 4 << 10})
			req := w.request(w.event(picture(t, 1)))
			id := req.Header.Get("Ce-Id")
			tt.change(req)
			res := w.deliver(req)
			require.Equal(t, tt.status, res.Code)
			require.Equal(t, res.Code == http.StatusServiceUnavailable, res.Header().Get("Retry-After") != "")
			if tt.told == "" {
				require.Empty(t, w.replies)
			} else {
				r := <-w.replies
				require.Equal(t, "urn:ebb:problem:"+tt.told, r.Problem.Type)
				require.Equal(t, "urn:uuid:"+id, r.Problem.Instance)
				require.Equal(t, id, r.RequestID)
				require.Equal(t, "c-"+id, r.CorrelationID)
			}
			require.Zero(t, p.calls.Load())
			require.Equal(t, map[string]int64{tt.outcome: 1}, w.outcomes())
		})
	}
}

func TestARefusalThatCannotBeSentNowComesAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worker.Config{
		Model: newModel(t, pixels), Predictor: &predictor{predict: network},
		Responder: responderFunc(func(context.Context, string, *events.Result) error { return errors.New("connection lost") }),
	})
	req := w.request(w.event(picture(t, 1)))
	req.Header.Del("Ce-Deadline")
	require.Equal(t, http.StatusServiceUnavailable, w.deliver(req).Code)
	require.Equal(t, map[string]int64{"retried": 1}, w.outcomes())
}

func TestOnlyPostDelivers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worker.Config{Model: newModel(t, pixels), Predictor: &predictor{predict: network}})
	req := w.request(w.event(picture(t, 1)))
	req.Method = http.MethodPut
	res := w.deliver(req)
	require.Equal(t, http.StatusMethodNotAllowed, res.Code)
	require.Equal(t, http.MethodPost, res.Header().Get("Allow"))
	require.Empty(t, w.replies)
}

// answers is a model server that always answers the same.
func answers(t tfserving.Tensor, err error) *predictor {
	return &predictor{predict: func(context.Context, tfserving.Tensor) (tfserving.Tensor, error) { return t, err }}
}

func TestWhatTheModelServerAnswersDecidesWhatBecomesOfAnEvent(t *testing.T) {
	t.Parallel()
	nan := float32(math.NaN())
	for _, tt := range []struct {
		name      string
		predictor *predictor
		status    int    // of the delivery's answer
		told      string // code of the problem that the requester is told
		outcome   string
	}{
		{"NaN", answers(floats([]float32{nan, 1}), nil), 204, "bad-output", "failed"},
		{"infinite", answers(floats([]float32{0, float32(math.Inf(1))}), nil), 204, "bad-output", "failed"},
		{"not probabilities", answers(floats([]float32{3, 4}), nil), 204, "bad-output", "failed"},
		{"too many rows", answers(floats([]float32{0, 1}, []float32{0, 1}), nil), 204, "bad-output", "failed"},
		{"row too long", answers(floats([]float32{0, 1, 0}), nil), 204, "bad-output", "failed"},
		{"row too short", answers(floats([]float32{1}), nil), 204, "bad-output", "failed"},
		{"no batch dimension", answers(tfserving.Tensor{DType: tfserving.Float32, Data: make([]byte, 4)}, nil), 204, "bad-output", "failed"},
		{"strings", answers(tfserving.Tensor{DType: tfserving.String, Shape: []int64{1}, Strings: [][]byte{[]byte("cat")}}, nil), 204, "bad-output", "failed"},
		{"malformed", answers(tfserving.Tensor{}, tfserving.ErrAnswer), 204, "bad-output", "failed"},
		{"invalid argument", answers(tfserving.Tensor{}, tfserving.ErrInvalid), 204, "input-refused", "failed"},
		{"no such signature", answers(tfserving.Tensor{}, status.Error(codes.FailedPrecondition, "secret")), 204, "bad-serving", "failed"},
		{"no such method", answers(tfserving.Tensor{}, status.Error(codes.Unimplemented, "secret")), 204, "bad-serving", "failed"},
		{"not loaded yet", answers(tfserving.Tensor{}, tfserving.ErrNotFound), 503, "", "retried"},
		{"no room", answers(tfserving.Tensor{}, status.Error(codes.ResourceExhausted, "secret")), 503, "", "overloaded"},
		{"its own fault", answers(tfserving.Tensor{}, status.Error(codes.Internal, "secret")), 500, "", "retried"},
		{"its own fault without a name", answers(tfserving.Tensor{}, fmt.Errorf("predict: %w", status.Error(codes.Unknown, "secret"))), 500, "", "retried"},
		{"its own time-out", answers(tfserving.Tensor{}, context.DeadlineExceeded), 503, "", "retried"},
		{"anything", answers(tfserving.Tensor{}, errors.New("secret")), 503, "", "retried"},
		{"panic", &predictor{predict: func(context.Context, tfserving.Tensor) (tfserving.Tensor, error) { panic("secret") }}, 503, "", "retried"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worker.Config{Model: newModel(t, pixels), Predictor: tt.predictor})
			res := w.deliver(w.request(w.event(picture(t, 1))))
			require.Equal(t, tt.status, res.Code)
			require.Equal(t, res.Code == http.StatusServiceUnavailable, res.Header().Get("Retry-After") != "")
			if tt.told == "" {
				require.Empty(t, w.replies)
				require.NotContains(t, res.Body.String(), "secret")
			} else {
				r := <-w.replies
				require.Equal(t, "urn:ebb:problem:"+tt.told, r.Problem.Type)
				require.NotContains(t, r.Problem.Detail, "secret")
			}
			require.EqualValues(t, 1, tt.predictor.calls.Load())
			require.Equal(t, map[string]int64{tt.outcome: 1}, w.outcomes())
		})
	}
}

func TestAnAnswerWhoseRequesterIsGoneIsDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worker.Config{Model: newModel(t, pixels), Predictor: &predictor{predict: network}})
	req := w.request(w.event(picture(t, 1)))
	w.hub.Break()
	require.Equal(t, http.StatusNoContent, w.deliver(req).Code)
	require.Empty(t, w.replies)
	require.Equal(t, map[string]int64{"unroutable": 1}, w.outcomes())
}

func TestWhetherDeliveriesAreAnsweredIsTheModelServers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		versions []tfserving.VersionStatus
		err      error
		want     string
	}{
		{"available", []tfserving.VersionStatus{{Version: 1, State: 50}, {Version: 2, State: 30}}, nil, ""},
		{"loading", []tfserving.VersionStatus{{Version: 2, State: 20}}, nil, "net is not available yet"},
		{"failed to load", []tfserving.VersionStatus{{Version: 2, State: 50, Err: errors.New("no memory")}}, nil, "version 2 is END: no memory"},
		{"nothing", nil, nil, "net is not available yet"},
		{"away", nil, tfserving.ErrUnavailable, "localhost:8500: model server unavailable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := &predictor{status: func() ([]tfserving.VersionStatus, error) { return tt.versions, tt.err }}
			w := newWorld(t, worker.Config{Model: newModel(t, pixels), Predictor: p})
			var log bytes.Buffer
			worker.Rouse(t.Context(), w.model, p, slog.New(slog.NewTextHandler(&log, nil)))
			if err := w.worker.Served(); tt.want == "" {
				require.NoError(t, err)
				require.Contains(t, log.String(), "the model server serves the model")
			} else {
				require.ErrorContains(t, err, tt.want)
				require.Contains(t, log.String(), tt.want)
			}
			require.NoError(t, w.worker.Ready(), "whether they are taken is not")
		})
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	full := worker.Config{Model: newModel(t, pixels), Predictor: &predictor{}, Responder: reply.NewHub()}
	for name, change := range map[string]func(*worker.Config){
		"no model":     func(c *worker.Config) { c.Model = nil },
		"no predictor": func(c *worker.Config) { c.Predictor = nil },
		"no responder": func(c *worker.Config) { c.Responder = nil },
	} {
		c := full
		change(&c)
		_, err := worker.New(c)
		require.ErrorContains(t, err, name)
	}
	w, err := worker.New(full)
	require.NoError(t, err)
	require.NotEmpty(t, w.Replica)
	require.Equal(t, time.Minute, w.Timeout)
	require.NoError(t, w.Stop(t.Context()))
}
