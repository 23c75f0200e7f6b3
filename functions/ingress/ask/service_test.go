package ask

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/picture"
)

var measured = sdkmetric.NewManualReader()

func TestMain(m *testing.M) {
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(measured)))
	otel.SetTracerProvider(sdktrace.NewTracerProvider())
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func model(name string) *models.Model {
	return &models.Model{Definition: models.Definition{Name: name, Question: "Is it a " + name + "?"}, Labels: []string{"x"}}
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
func portrait(n int) []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(dot()), uint64(n))
}

// fingerprint is the label that a picture gets from a model in these tests, and no other does.
func fingerprint(model string, picture []byte) string {
	sum := sha256.Sum256(picture)
	return model + " " + hex.EncodeToString(sum[:8])
}

func answerTo(r *events.Request) *events.Result {
	yes, p := true, 0.75
	return &events.Result{
		ID: "answer-" + r.ID, Source: "/ebb/dispatch/test", Time: time.Now(), RequestID: r.ID, CorrelationID: r.CorrelationID, Model: r.Model,
		Answer: &events.Answer{
			Yes: &yes, Probability: &p, Top: []events.Class{{Label: fingerprint(r.Model, r.Data), Probability: 0.5}},
			ServedBy: events.ServedBy{Model: "net", Version: 7}, Timing: events.Timing{Queue: 1, Decode: 2, Batch: 3, Compute: 4}, BatchSize: 2,
		},
	}
}

func failureOf(r *events.Request, p *problem.Details) *events.Result {
	f := answerTo(r)
	f.Answer, f.Problem = nil, p
	return f
}

// broker is what stands behind a Service in these tests: take is called with each event that is published, and says what
// the broker answers.
type broker struct {
	*Service
	hub  *reply.Hub
	take func(ctx context.Context, r *events.Request) (*http.Response, error)

	mu    sync.Mutex
	taken []*events.Request
}

func (b *broker) RoundTrip(req *http.Request) (*http.Response, error) {
	r, err := events.ReadHTTPRequest(req, 1<<20, nil)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.taken = append(b.taken, r)
	b.mu.Unlock()
	return b.take(req.Context(), r)
}

func (b *broker) published() []*events.Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]*events.Request(nil), b.taken...)
}

func (b *broker) respond(ctx context.Context, t *testing.T, to string, r *events.Result) {
	t.Helper()
	require.NoError(t, b.hub.Respond(ctx, to, r))
}

func status(code int) (*http.Response, error) {
	return &http.Response{StatusCode: code, Status: fmt.Sprint(code, " ", http.StatusText(code)), Header: http.Header{}, Body: http.NoBody}, nil
}

// answer takes every event and answers it as answerTo does.
func (b *broker) answer(ctx context.Context, r *events.Request) (*http.Response, error) {
	if err := b.hub.Respond(ctx, r.ReplyTo, answerTo(r)); err != nil {
		return nil, err
	}
	return status(http.StatusAccepted)
}

// taking takes every event and answers none.
func taking(context.Context, *events.Request) (*http.Response, error) {
	return status(http.StatusAccepted)
}

func start(t *testing.T, change func(*Config, *broker)) *broker {
	t.Helper()
	b := &broker{hub: reply.NewHub()}
	b.take = b.answer
	c := Config{
		Models: []*models.Model{model("cat"), model("dog"), model("cow"), model("hen")}, Replies: b.hub, BrokerURL: "http://broker.test/",
		Source: "/ebb/ingress/test", HTTPClient: &http.Client{Transport: b}, Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&c, b)
	}
	var err error
	b.Service, err = New(c)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, b.Stop(context.Background()))
		require.Zero(t, b.pending.Len(), "entries stayed behind")
	})
	return b
}

func problemOf(t *testing.T, err error) *problem.Details {
	t.Helper()
	var p *problem.Details
	require.ErrorAs(t, err, &p)
	return p
}

func requireProblem(t *testing.T, err error, code string, status int) {
	t.Helper()
	p := problemOf(t, err)
	require.Equal(t, "urn:ebb:problem:"+code, p.Type, p.Error())
	require.Equal(t, status, p.Status)
	require.NotEmpty(t, p.Title)
	require.NotEmpty(t, p.Detail)
}

func TestAskGathersEachModelsAnswerInTheOrderAsked(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	pic := portrait(1)
	id := uuid.Must(uuid.NewV7()).String()
	got, err := b.Ask(t.Context(), Question{ID: id, Picture: pic, Models: []string{"hen", "cat", "dog"}})
	require.NoError(t, err)
	require.Equal(t, id, got.ID)
	require.Len(t, got.Results, 3)
	for i, name := range []string{"hen", "cat", "dog"} {
		r := got.Results[i]
		require.Equal(t, name, r.Model)
		require.Equal(t, "Is it a "+name+"?", r.Question)
		require.Nil(t, r.Error)
		require.True(t, *r.Answer)
		require.InDelta(t, 0.75, *r.Probability, 0)
		require.Equal(t, []events.Class{{Label: fingerprint(name, pic), Probability: 0.5}}, r.Top)
		require.Equal(t, &events.ServedBy{Model: "net", Version: 7}, r.ServedBy)
		require.Equal(t, events.Timing{Queue: 1, Decode: 2, Batch: 3, Compute: 4}, r.Timing.Timing)
		require.Positive(t, r.Timing.Total)
		require.Equal(t, 2, r.BatchSize)
	}
	require.Equal(t, http.StatusOK, Status(got))
}

func TestAskPublishesOneEventAModel(t *testing.T) {
	t.Parallel()
	before := time.Now()
	b := start(t, nil)
	pic := portrait(2)
	_, err := b.Ask(t.Context(), Question{Picture: pic, Models: []string{"cat", "dog"}})
	require.NoError(t, err)
	sent := b.published()
	require.Len(t, sent, 2)
	seen := map[string]bool{}
	for _, r := range sent {
		seen[r.Model] = true
		require.NoError(t, uuid.Validate(r.ID))
		require.Equal(t, r.ID, r.CorrelationID)
		require.Equal(t, "/ebb/ingress/test", r.Source)
		require.True(t, reply.ValidAddress(r.ReplyTo))
		require.Equal(t, "image/png", r.ContentType)
		require.Equal(t, pic, r.Data)
		require.WithinRange(t, r.Time, before.Add(-time.Second), time.Now())
		require.WithinRange(t, r.Deadline, before.Add(DefaultTimeout), time.Now().Add(DefaultTimeout))
		require.Regexp(t, "^00-[0-9a-f]{32}-[0-9a-f]{16}-01$", r.TraceParent)
	}
	require.Equal(t, map[string]bool{"cat": true, "dog": true}, seen)
	require.NotEqual(t, sent[0].ID, sent[1].ID)
	require.Equal(t, sent[0].TraceParent[3:35], sent[1].TraceParent[3:35], "one trace")
}

func TestAskAsksAModelOnceThatIsNamedTwice(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	got, err := b.Ask(t.Context(), Question{Picture: portrait(3), Models: []string{"dog", "cat", "dog", "dog"}})
	require.NoError(t, err)
	require.Len(t, got.Results, 2)
	require.Equal(t, "dog", got.Results[0].Model)
	require.Equal(t, "cat", got.Results[1].Model)
	require.Len(t, b.published(), 2)
}

func TestAskRefusesBeforeAnythingIsQueued(t *testing.T) {
	t.Parallel()
	pic := portrait(4)
	for name, tc := range map[string]struct {
		question Question
		code     string
		status   int
		detail   string
	}{
		"no model":        {Question{Picture: pic}, CodeNoModel, 400, "cat, dog, cow, hen"},
		"unknown model":   {Question{Picture: pic, Models: []string{"cat", "cta"}}, CodeUnknownModel, 404, `"cta". The models are: cat, dog, cow, hen`},
		"endless name":    {Question{Picture: pic, Models: []string{string(bytes.Repeat([]byte("é"), 1000))}}, CodeUnknownModel, 404, "…"},
		"too many models": {Question{Picture: pic, Models: []string{"cat", "dog", "cow", "hen"}}, CodeTooManyModels, 400, "at most 3"},
		"no picture":      {Question{Models: []string{"cat"}}, CodeNoPicture, 400, "Send the picture's bytes"},
		"not a picture":   {Question{Picture: []byte("<html>"), Models: []string{"cat"}}, CodeNotPicture, 415, "JPEG"},
		"too many pixels": {Question{Picture: bomb(), Models: []string{"cat"}}, CodePictureTooLarge, 422, "smaller version"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t, func(c *Config, _ *broker) { c.MaxModels = 3 })
			tc.question.ID = "0198c2a4-0000-7000-8000-000000000001"
			_, err := b.Ask(t.Context(), tc.question)
			requireProblem(t, err, tc.code, tc.status)
			p := problemOf(t, err)
			require.Contains(t, p.Detail, tc.detail)
			require.Less(t, len(p.Detail), 500)
			require.Equal(t, "urn:uuid:0198c2a4-0000-7000-8000-000000000001", p.Instance)
			require.Empty(t, b.published())
		})
	}
}

// bomb is the beginning of a PNG that says that it has 100000 x 100000 pixels.
func bomb() []byte {
	b, _ := hex.DecodeString("89504e470d0a1a0a0000000d49484452000186a0000186a00806000000")
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[12:]))
}

func TestBadPictureNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err    error
		code   string
		status int
	}{
		{picture.ErrNotPicture, CodeNotPicture, 415},
		{fmt.Errorf("jpeg: %w", picture.ErrUnsupported), CodePictureFormat, 415},
		{picture.ErrTooManyPixels, CodePictureTooLarge, 422},
		{errors.New("header cut off"), CodePictureDamaged, 422},
	} {
		requireProblem(t, badPicture(tc.err, picture.DefaultLimits), tc.code, tc.status)
	}
}

func TestAskKeepsOneModelsFailureToThatModel(t *testing.T) {
	t.Parallel()
	broken := &problem.Details{
		Type: "urn:ebb:problem:picture-damaged", Title: "Damaged", Status: 422, Detail: "Send another.", Instance: "urn:uuid:of-the-event",
	}
	b := start(t, func(_ *Config, b *broker) {
		b.take = func(ctx context.Context, r *events.Request) (*http.Response, error) {
			if r.Model == "dog" {
				b.respond(ctx, t, r.ReplyTo, failureOf(r, broken))
				return status(http.StatusAccepted)
			}
			return b.answer(ctx, r)
		}
	})
	pic := portrait(5)
	got, err := b.Ask(t.Context(), Question{Picture: pic, Models: []string{"dog", "cat"}})
	require.NoError(t, err)
	requireProblem(t, got.Results[0].Error, "picture-damaged", 422)
	require.Equal(t, "urn:uuid:"+got.ID, got.Results[0].Error.Instance)
	require.Nil(t, got.Results[0].Top)
	require.Nil(t, got.Results[0].Timing)
	require.Equal(t, fingerprint("cat", pic), got.Results[1].Top[0].Label)
	require.Equal(t, http.StatusOK, Status(got))

	got, err = b.Ask(t.Context(), Question{Picture: pic, Models: []string{"dog"}})
	require.NoError(t, err)
	require.Equal(t, 422, Status(got))
}

func TestAskDoesNotTakeAnotherModelsReply(t *testing.T) {
	t.Parallel()
	b := start(t, func(_ *Config, b *broker) {
		b.take = func(ctx context.Context, r *events.Request) (*http.Response, error) {
			answer := answerTo(r)
			answer.Model = "dog"
			b.respond(ctx, t, r.ReplyTo, answer)
			return status(http.StatusAccepted)
		}
	})
	got, err := b.Ask(t.Context(), Question{Picture: portrait(6), Models: []string{"cat"}})
	require.NoError(t, err)
	requireProblem(t, got.Results[0].Error, CodeBadReply, 502)
}

func TestAskAnswers503WhenAsManyWaitAsMayWait(t *testing.T) {
	t.Parallel()
	arrived := make(chan *events.Request, 2)
	b := start(t, func(c *Config, b *broker) {
		c.PendingLimit = 2
		b.take = func(_ context.Context, r *events.Request) (*http.Response, error) {
			arrived <- r
			return status(http.StatusAccepted)
		}
	})
	pic := portrait(7)
	answered := make(chan *Response)
	go func() {
		got, err := b.Ask(t.Context(), Question{Picture: pic, Models: []string{"cat", "dog"}})
		if err != nil {
			t.Error(err)
		}
		answered <- got
	}()
	first, second := <-arrived, <-arrived
	_, err := b.Ask(t.Context(), Question{Picture: pic, Models: []string{"hen"}})
	requireProblem(t, err, CodeOverloaded, 503)
	p := problemOf(t, err)
	require.Positive(t, p.RetryAfter)

	// One place is not enough for two models, and is free again afterwards.
	b.respond(t.Context(), t, first.ReplyTo, answerTo(first))
	_, err = b.Ask(t.Context(), Question{Picture: pic, Models: []string{"hen", "cow"}})
	requireProblem(t, err, CodeOverloaded, 503)
	require.Equal(t, 1, b.pending.Len())
	b.respond(t.Context(), t, second.ReplyTo, answerTo(second))
	got := <-answered
	require.Equal(t, fingerprint("cat", pic), got.Results[0].Top[0].Label)
	require.Equal(t, fingerprint("dog", pic), got.Results[1].Top[0].Label)
	require.Len(t, b.published(), 2)
}

func TestAskFailsAtOnceWhenTheReplyQueueIsLost(t *testing.T) {
	t.Parallel()
	b := start(t, func(_ *Config, b *broker) {
		b.take = func(ctx context.Context, r *events.Request) (*http.Response, error) {
			if r.Model == "cat" {
				b.hub.Break()
				return status(http.StatusAccepted)
			}
			return b.answer(ctx, r)
		}
	})
	got, err := b.Ask(t.Context(), Question{Picture: portrait(8), Models: []string{"cat"}})
	require.NoError(t, err)
	requireProblem(t, got.Results[0].Error, CodeReplyLost, 503)
	require.Positive(t, problemOf(t, got.Results[0].Error).RetryAfter)

	got, err = b.Ask(t.Context(), Question{Picture: portrait(9), Models: []string{"dog"}})
	require.NoError(t, err)
	require.Nil(t, got.Results[0].Error, "the new queue works")
}

// down is a Requester whose queue is being made again.
type down struct{}

func (down) Listen(context.Context, reply.Listener) (reply.Inbox, error) { return down{}, nil }
func (down) Address() (string, error)                                    { return "", reply.ErrDown }
func (down) Close() error                                                { return nil }

func TestAskSendsNothingWhileTheReplyQueueIsDown(t *testing.T) {
	t.Parallel()
	b := start(t, func(c *Config, _ *broker) { c.Replies = down{} })
	_, err := b.Ask(t.Context(), Question{Picture: portrait(10), Models: []string{"cat"}})
	requireProblem(t, err, CodeRepliesDown, 503)
	require.Positive(t, problemOf(t, err).RetryAfter)
	require.ErrorIs(t, b.Ready(), reply.ErrDown)
	require.Empty(t, b.published())
}

func TestAskGivesUpAtItsDeadline(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ service, caller, want time.Duration }{
		"the service's":         {30 * time.Second, 0, 30 * time.Second},
		"the caller's, earlier": {30 * time.Second, 2 * time.Second, 2 * time.Second},
		"the caller's, later":   {3 * time.Second, time.Hour, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := start(t, func(c *Config, b *broker) {
					c.Timeout = tc.service
					b.take = taking
				})
				ctx := t.Context()
				if tc.caller > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tc.caller)
					defer cancel()
				}
				began := time.Now()
				got, err := b.Ask(ctx, Question{Picture: portrait(11), Models: []string{"cat", "dog"}})
				require.NoError(t, err)
				require.Equal(t, tc.want, time.Since(began))
				for _, r := range got.Results {
					requireProblem(t, r.Error, CodeNoAnswerInTime, 504)
					require.Contains(t, r.Error.Detail, "outcome is unknown")
				}
				require.Equal(t, 504, Status(got))
				for _, r := range b.published() {
					require.WithinDuration(t, began.Add(tc.want), r.Deadline, 0)
					b.respond(t.Context(), t, r.ReplyTo, answerTo(r)) // too late, and harmless
				}
			})
		})
	}
}

func TestAskEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	b := start(t, func(_ *Config, b *broker) {
		b.take = func(ctx context.Context, r *events.Request) (*http.Response, error) {
			if r.Model == "dog" {
				cancel()
				<-ctx.Done() // the broker hangs, and the caller's end is the end of that, too
				return nil, ctx.Err()
			}
			return status(http.StatusAccepted)
		}
	})
	_, err := b.Ask(ctx, Question{Picture: portrait(12), Models: []string{"cat", "dog"}})
	requireProblem(t, err, CodeCallerGone, StatusClientGone)
	require.Zero(t, b.pending.Len())
}

func TestPublishingIsTriedTwiceWithTheSameEvent(t *testing.T) {
	t.Parallel()
	const hang = -1
	refused := func() (*http.Response, error) { return nil, &net.OpError{Op: "dial", Err: errors.New("refused")} }
	for name, tc := range map[string]struct {
		answers  []int // of the broker; 0 refuses the connection, hang says nothing
		answered bool  // the first event is answered although the broker did not say so
		code     string
		status   int
		attempts int
		after    time.Duration
	}{
		"stored":                           {answers: []int{202}, answered: true, attempts: 1},
		"stored at the second attempt":     {answers: []int{500, 202}, answered: true, attempts: 2, after: DefaultRetryPause},
		"connected at the second attempt":  {answers: []int{0, 202}, answered: true, attempts: 2, after: DefaultRetryPause},
		"failed twice":                     {answers: []int{500, 500}, code: CodeBrokerDown, status: 503, attempts: 2, after: DefaultRetryPause},
		"never connected":                  {answers: []int{0, 0}, code: CodeBrokerDown, status: 503, attempts: 2, after: DefaultRetryPause},
		"full":                             {answers: []int{503}, code: CodeOverloaded, status: 503, attempts: 1},
		"too fast":                         {answers: []int{429}, code: CodeOverloaded, status: 503, attempts: 1},
		"refused for good":                 {answers: []int{400}, code: CodeBrokerRefused, status: 502, attempts: 1},
		"redirected":                       {answers: []int{302}, code: CodeBrokerRefused, status: 502, attempts: 1},
		"silent, then stored":              {answers: []int{hang, 202}, answered: true, attempts: 2, after: DefaultPublishTimeout + DefaultRetryPause},
		"silent twice, and no answer":      {answers: []int{hang, hang}, code: CodeBrokerDown, status: 503, attempts: 2, after: DefaultTimeout},
		"silent, then failed, but answers": {answers: []int{hang, 500}, answered: true, attempts: 2, after: DefaultPublishTimeout + DefaultRetryPause},
		"a proxy gave up, but answers":     {answers: []int{504, 503}, answered: true, attempts: 2, after: DefaultRetryPause},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var attempts atomic.Int64
				b := start(t, func(_ *Config, b *broker) {
					b.take = func(ctx context.Context, r *events.Request) (*http.Response, error) {
						n := int(attempts.Add(1))
						if n == len(tc.answers) && tc.answered {
							b.respond(ctx, t, r.ReplyTo, answerTo(r))
						}
						switch code := tc.answers[n-1]; code {
						case 0:
							return refused()
						case hang:
							<-ctx.Done()
							return nil, ctx.Err()
						default:
							return status(code)
						}
					}
				})
				began := time.Now()
				pic := portrait(13)
				got, err := b.Ask(t.Context(), Question{Picture: pic, Models: []string{"cat"}})
				require.NoError(t, err)
				require.Equal(t, tc.after, time.Since(began))
				sent := b.published()
				require.Len(t, sent, tc.attempts)
				require.Equal(t, sent[0], sent[len(sent)-1])
				if tc.answered {
					require.Nil(t, got.Results[0].Error)
					require.Equal(t, fingerprint("cat", pic), got.Results[0].Top[0].Label)
					return
				}
				requireProblem(t, got.Results[0].Error, tc.code, tc.status)
				p := problemOf(t, got.Results[0].Error)
				if tc.status == 503 {
					require.Positive(t, p.RetryAfter)
				}
			})
		})
	}
}

func TestNothingIsSentToABrokerThatTakesNothing(t *testing.T) {
	t.Parallel()
	b := start(t, func(c *Config, _ *broker) {
		c.Blocked = func(context.Context) error { return errors.New("out of memory") }
	})
	got, err := b.Ask(t.Context(), Question{Picture: dot(), Models: []string{"cat", "dog"}})
	require.NoError(t, err)
	for _, r := range got.Results {
		requireProblem(t, r.Error, CodeOverloaded, 503)
		require.Equal(t, aWhile, r.Error.RetryAfter)
	}
	require.Empty(t, b.published())
	require.Zero(t, b.pending.Len())
	_, err = b.Ask(t.Context(), Question{Picture: []byte("x"), Models: []string{"cat"}})
	requireProblem(t, err, CodeNotPicture, 415)
}

func TestWhoHangsWhenTheBrokerBeginsToTakeNothingIsToldSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var blocked atomic.Bool
		b := start(t, func(c *Config, b *broker) {
			c.Blocked = func(context.Context) error {
				if blocked.Load() {
					return errors.New("out of memory")
				}
				return nil
			}
			b.take = func(ctx context.Context, _ *events.Request) (*http.Response, error) {
				blocked.Store(true)
				<-ctx.Done()
				return nil, ctx.Err()
			}
		})
		began := time.Now()
		got, err := b.Ask(t.Context(), Question{Picture: dot(), Models: []string{"cat"}})
		require.NoError(t, err)
		require.Equal(t, DefaultPublishTimeout+DefaultRetryPause, time.Since(began))
		requireProblem(t, got.Results[0].Error, CodeBrokerDown, 503)
		require.Contains(t, got.Results[0].Error.Detail, "outcome is unknown")
		require.Len(t, b.published(), 1)
		require.Zero(t, b.pending.Len())
	})
}

func TestAskPassesTheBrokersRetryAfterOn(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]int{"7": 7, "": 1, "0": 1, "-5": 1, "86400": 60, "Wed, 21 Oct 2037 07:28:00 GMT": 1} {
		b := start(t, func(_ *Config, b *broker) {
			b.take = func(context.Context, *events.Request) (*http.Response, error) {
				r, err := status(http.StatusServiceUnavailable)
				r.Header.Set("Retry-After", header)
				return r, err
			}
		})
		got, err := b.Ask(t.Context(), Question{Picture: portrait(14), Models: []string{"cat"}})
		require.NoError(t, err)
		require.Equal(t, want, got.Results[0].Error.RetryAfter, header)
	}
}

// The default client, over a real connection, with the event on the wire.
func TestAskPublishesOverHTTP(t *testing.T) {
	t.Parallel()
	hub := reply.NewHub()
	var redirected atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			redirected.Store(true)
		}
		ev, err := events.ReadHTTPRequest(r, 1<<20, nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if ev.Model == "dog" {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "stored")
		if err := hub.Respond(r.Context(), ev.ReplyTo, answerTo(ev)); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(srv.Close)
	b := start(t, func(c *Config, _ *broker) {
		c.Replies, c.BrokerURL, c.HTTPClient = hub, srv.URL, nil
	})
	pic := portrait(15)
	got, err := b.Ask(t.Context(), Question{Picture: pic, Models: []string{"cat", "dog"}})
	require.NoError(t, err)
	require.Equal(t, fingerprint("cat", pic), got.Results[0].Top[0].Label)
	requireProblem(t, got.Results[1].Error, CodeBrokerRefused, 502)
	require.False(t, redirected.Load(), "pictures go to the broker and nowhere else")
}

func TestAnswersGoToTheQuestionsThatTheyAnswer(t *testing.T) {
	t.Parallel()
	const askers, each = 32, 25
	// Events are held back and answered in an order of their own, some of them twice.
	held := make(chan *events.Request, 64)
	b := start(t, func(_ *Config, b *broker) {
		b.take = func(_ context.Context, r *events.Request) (*http.Response, error) {
			held <- r
			return status(http.StatusAccepted)
		}
	})
	var answerers sync.WaitGroup
	for range 4 {
		answerers.Go(func() {
			var previous *events.Request
			for r := range held {
				b.respond(t.Context(), t, r.ReplyTo, answerTo(r))
				if previous != nil {
					b.respond(t.Context(), t, previous.ReplyTo, answerTo(previous))
				}
				previous = r
			}
		})
	}
	var all sync.WaitGroup
	for a := range askers {
		all.Go(func() {
			for i := range each {
				pic := portrait(a*each + i)
				got, err := b.Ask(t.Context(), Question{Picture: pic, Models: []string{"cat", "dog"}})
				if err != nil {
					t.Error(err)
					return
				}
				for _, r := range got.Results {
					if r.Error != nil || r.Top[0].Label != fingerprint(r.Model, pic) {
						t.Errorf("question %d of %d got %v, %v", i, a, r.Top, r.Error)
					}
				}
			}
		})
	}
	all.Wait()
	close(held)
	answerers.Wait()
}

func TestStopWaitsForWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(_ *Config, b *broker) { b.take = taking })
		pic := portrait(16)
		answered := make(chan *Response, 1)
		go func() {
			got, err := b.Ask(t.Context(), Question{Picture: pic, Models: []string{"cat"}})
			if err != nil {
				t.Error(err)
			}
			answered <- got
		}()
		synctest.Wait()
		stopped := make(chan error, 1)
		go func() { stopped <- b.Stop(t.Context()) }()
		synctest.Wait()
		require.Error(t, b.Ready())
		_, err := b.Ask(t.Context(), Question{Picture: pic, Models: []string{"cat"}})
		requireProblem(t, err, CodeStopping, 503)
		require.Empty(t, stopped, "a question is under way")

		r := b.published()[0]
		b.respond(t.Context(), t, r.ReplyTo, answerTo(r))
		require.NoError(t, <-stopped)
		require.Equal(t, fingerprint("cat", pic), (<-answered).Results[0].Top[0].Label)
		require.ErrorIs(t, b.hub.Respond(t.Context(), r.ReplyTo, answerTo(r)), reply.ErrNoRequester, "the queue is gone")
	})
}

func TestStopAnswersWhatIsUnderWayWhenItHasNoMoreTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(_ *Config, b *broker) { b.take = taking })
		answered := make(chan *Response, 1)
		go func() {
			got, err := b.Ask(t.Context(), Question{Picture: portrait(17), Models: []string{"cat"}})
			if err != nil {
				t.Error(err)
			}
			answered <- got
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, b.Stop(ctx), context.DeadlineExceeded)
		requireProblem(t, (<-answered).Results[0].Error, CodeStopping, 503)
	})
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	good := Config{Models: []*models.Model{model("cat")}, Replies: reply.NewHub(), BrokerURL: "http://broker.test", Source: "/ebb/ingress/1"}
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no models":   {func(c *Config) { c.Models = nil }, "no models"},
		"same names":  {func(c *Config) { c.Models = append(c.Models, model("cat")) }, `two models are named "cat"`},
		"no replies":  {func(c *Config) { c.Replies = nil }, "no reply queue"},
		"no source":   {func(c *Config) { c.Source = "" }, "no source"},
		"no broker":   {func(c *Config) { c.BrokerURL = "" }, "broker URL"},
		"bad broker":  {func(c *Config) { c.BrokerURL = "http://%" }, "broker URL"},
		"amqp broker": {func(c *Config) { c.BrokerURL = "amqp://u:secret@h" }, "amqp://u:xxxxx@h"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := good
			tc.change(&c)
			_, err := New(c)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestModelsAreListedInOrder(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	list := b.Models()
	require.Len(t, list, 4)
	require.Equal(t, "cat", list[0].Name)
	list[0] = model("changed")
	require.Equal(t, "cat", b.Models()[0].Name, "the list is the caller's own")
	require.NoError(t, b.Ready())
}

func TestRequestsAreCountedByModelAndOutcome(t *testing.T) {
	t.Parallel()
	b := start(t, func(c *Config, b *broker) {
		c.Models = []*models.Model{model("counted"), model("counted-failing"), model("counted-refused")}
		b.take = func(ctx context.Context, r *events.Request) (*http.Response, error) {
			switch r.Model {
			case "counted-failing":
				b.respond(ctx, t, r.ReplyTo, failureOf(r, problem.New("whatever", 422, "No", "Never.")))
			case "counted-refused":
				return status(http.StatusBadRequest)
			default:
				b.respond(ctx, t, r.ReplyTo, answerTo(r))
				b.respond(ctx, t, r.ReplyTo, answerTo(r)) // a redelivery
			}
			return status(http.StatusAccepted)
		}
	})
	changes := map[[3]string]int64{ // by metric, model, outcome
		{"ebb.requests", "counted", outcomeAnswered}:           3,
		{"ebb.requests", "counted-failing", outcomeFailed}:     3,
		{"ebb.requests", "counted-refused", CodeBrokerRefused}: 3,
		{"ebb.requests", "counted", CodeNotPicture}:            1,
		{"ebb.replies.unclaimed", "counted", ""}:               3,
	}
	before := map[[3]string]int64{}
	for key := range changes {
		before[key] = counted(t, key)
	}
	for range 3 {
		_, err := b.Ask(t.Context(), Question{Picture: portrait(18), Models: []string{"counted", "counted-failing", "counted-refused"}})
		require.NoError(t, err)
	}
	_, err := b.Ask(t.Context(), Question{Picture: []byte("nothing"), Models: []string{"counted"}})
	require.Error(t, err)
	for key, change := range changes {
		require.Equal(t, change, counted(t, key)-before[key], key)
	}
}

// counted is the value of a counter.
func counted(t *testing.T, key [3]string) int64 {
	t.Helper()
	name, model, outcome := key[0], key[1], key[2]
	var all metricdata.ResourceMetrics
	require.NoError(t, measured.Collect(t.Context(), &all))
	var n int64
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			if m.Name != name || !ok {
				continue
			}
			for _, p := range sum.DataPoints {
				ofModel, _ := p.Attributes.Value(attribute.Key("model"))
				of, _ := p.Attributes.Value(attribute.Key("outcome"))
				if ofModel.AsString() == model && of.AsString() == outcome {
					n += p.Value
				}
			}
		}
	}
	return n
}

func TestNamesThatAreExpectedAreThoseThatAskTakes(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	require.NoError(t, b.Expect([]string{"cat", "hen", "cat"}))
	requireProblem(t, b.Expect(nil), CodeNoModel, 400)
	requireProblem(t, b.Expect([]string{"cat", "cta"}), CodeUnknownModel, 404)
}

// cheap is a broker that costs as little as can be: it looks at the attributes that it needs and not at the picture.
type cheap struct{ hub *reply.Hub }

func (c cheap) RoundTrip(r *http.Request) (*http.Response, error) {
	h := r.Header
	answer := answerTo(&events.Request{ID: h.Get("Ce-Id"), CorrelationID: h.Get("Ce-Correlationid"), Model: h.Get("Ce-Model")})
	if err := c.hub.Respond(r.Context(), h.Get("Ce-Replyto"), answer); err != nil {
		return nil, err
	}
	return status(http.StatusAccepted)
}

// BenchmarkAsk is what a question costs beside the broker and the models: validating, the event, the pending table and
// the reply.
func BenchmarkAsk(b *testing.B) {
	hub := reply.NewHub()
	s, err := New(Config{
		Models: []*models.Model{model("cat")}, Replies: hub, BrokerURL: "http://broker.test/", Source: "/ebb/ingress/test",
		HTTPClient: &http.Client{Transport: cheap{hub}}, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(b, err)
	q := Question{Picture: portrait(1), Models: []string{"cat"}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Ask(b.Context(), q); err != nil {
			b.Fatal(err)
		}
	}
	require.NoError(b, s.Stop(context.Background()))
}
