package gateway

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
)

// accepted asks asynchronously and returns where the answer is to be collected.
func (w *world) accepted(t *testing.T, query string, body []byte, headers ...string) (location string, p *ask.Progress) {
	t.Helper()
	a := w.call(t, http.MethodPost, "/v1/infer"+query, body, append(headers, "Prefer", "respond-async")...)
	require.Equal(t, http.StatusAccepted, a.status, "%s", a.body)
	require.Equal(t, "respond-async", a.header.Get("Preference-Applied"))
	require.Equal(t, "1", a.header.Get("Retry-After"))
	p = &ask.Progress{}
	a.into(t, p)
	require.Equal(t, p.ID, a.header.Get("X-Request-Id"))
	require.Equal(t, "/v1/requests/"+p.ID, a.header.Get("Location"))
	return a.header.Get("Location"), p
}

// collected looks for an answer until it is whole.
func (w *world) collected(t *testing.T, location string) *answer {
	t.Helper()
	var last *answer
	require.Eventually(t, func() bool {
		last = w.call(t, http.MethodGet, location, nil)
		return last.status != http.StatusAccepted
	}, 10*time.Second, time.Millisecond)
	return last
}

func TestAnAsynchronousRequestIsAcceptedCollectedAndDropped(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	w := start(t, func(s *setup) {
		s.subscribe = func(_ *world, r *events.Request) *events.Result {
			if r.Model == "dog" {
				<-answer
			}
			return answerTo(r)
		}
	})
	pic := portrait(1)
	location, p := w.accepted(t, "?model=dog,imagenet", pic)
	require.Equal(t, &ask.Progress{ID: p.ID, Status: "waiting", Models: []string{"dog", "imagenet"}, Waiting: []string{"dog", "imagenet"}}, p)
	require.Eventually(t, func() bool {
		a := w.call(t, http.MethodGet, location, nil)
		require.Equal(t, http.StatusAccepted, a.status)
		require.Equal(t, "1", a.header.Get("Retry-After"))
		a.into(t, p)
		return len(p.Results) == 1
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, []string{"dog"}, p.Waiting)
	require.Equal(t, "imagenet", p.Results[0].Model)
	close(answer)

	first := w.collected(t, location)
	requireAnswers(t, first, pic, "dog", "imagenet")
	for range 3 { // also several at once
		var getting sync.WaitGroup
		for range 4 {
			getting.Go(func() {
				if a := w.call(t, http.MethodGet, location, nil); string(a.body) != string(first.body) {
					t.Errorf("%d %s", a.status, a.body)
				}
			})
		}
		getting.Wait()
	}

	require.Equal(t, http.StatusNoContent, w.call(t, http.MethodDelete, location, nil).status)
	w.call(t, http.MethodGet, location, nil).requireProblem(t, ask.CodeRequestGone, 410, "Ask again")
	w.call(t, http.MethodDelete, location, nil).requireProblem(t, ask.CodeRequestGone, 410, "Ask again")
	w.call(t, http.MethodGet, "/v1/requests/"+uuid.NewString(), nil).requireProblem(t, ask.CodeUnknownRequest, 404, "")
	w.call(t, http.MethodGet, "/v1/requests/cat", nil).requireProblem(t, ask.CodeRequestID, 400, "UUID")
}

func TestAnAsynchronousRequestThatFailsHasTheStatusOfItsError(t *testing.T) {
	t.Parallel()
	w := start(t, func(s *setup) {
		s.subscribe = func(_ *world, r *events.Request) *events.Result {
			p := problem.New("model-unavailable", http.StatusServiceUnavailable, "Away", "Away.")
			p.RetryAfter = 10
			return failureOf(r, p)
		}
	})
	location, p := w.accepted(t, "?model=cat", dot())
	a := w.collected(t, location)
	require.Equal(t, http.StatusServiceUnavailable, a.status)
	require.Equal(t, "10", a.header.Get("Retry-After"))
	var r ask.Response
	a.into(t, &r)
	require.Equal(t, p.ID, r.ID)
	require.Equal(t, p.ID, r.Results[0].Error.RequestID())
}

func TestWhatIsRefusedIsRefusedAsynchronouslyToo(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	async := []string{"Prefer", "respond-async"}
	w.call(t, http.MethodPost, "/v1/infer?model=wolf", dot(), async...).requireProblem(t, ask.CodeUnknownModel, 404, "wolf")
	w.call(t, http.MethodPost, "/v1/infer?model=cat", []byte("no picture"), async...).requireProblem(t, ask.CodeNotPicture, 415, "")
	id := uuid.Must(uuid.NewV7()).String()
	w.accepted(t, "?model=cat", dot(), "X-Request-Id", id)
	w.call(t, http.MethodPost, "/v1/infer?model=cat", dot(), append(async, "X-Request-Id", id)...).requireProblem(t, ask.CodeRequestExists, 409, "Idempotency-Key")
}

func TestWhereNothingIsKeptThePreferenceIsPassedOver(t *testing.T) {
	t.Parallel()
	w := start(t, func(s *setup) { s.ask.Mailboxes = nil })
	a := w.call(t, http.MethodPost, "/v1/infer?model=cat", dot(), "Prefer", "respond-async")
	requireAnswers(t, a, dot(), "cat")
	require.Empty(t, a.header.Get("Preference-Applied"))
	w.call(t, http.MethodGet, "/v1/requests/"+uuid.NewString(), nil).requireProblem(t, ask.CodeNotLater, 501, "")
}

func TestPreferences(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	for prefer, status := range map[string]int{
		"respond-async": 202, "Respond-Async": 202, "respond-async, wait=10": 202, "wait=10, respond-async": 202, "respond-async;x=y": 202,
		"handling=lenient": 200, "wait=10": 200, "respond": 200, "respond-async-not": 200,
	} {
		a := w.call(t, http.MethodPost, "/v1/infer?model=cat", dot(), "Prefer", prefer)
		require.Equal(t, status, a.status, prefer)
	}
}

// hook is a receiver of callbacks.
type hook struct {
	url   string
	calls chan *answer // as header and body
	seen  atomic.Int64
}

func newHook(t *testing.T, say func(n int64) int) *hook {
	t.Helper()
	h := &hook{calls: make(chan *answer, 100)}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.calls <- &answer{header: r.Header, body: body}
		w.WriteHeader(say(h.seen.Add(1)))
	}))
	t.Cleanup(s.Close)
	h.url = s.URL
	return h
}

func (h *hook) next(t *testing.T) *answer {
	t.Helper()
	select {
	case a := <-h.calls:
		return a
	case <-time.After(10 * time.Second):
		t.Fatal("nobody called")
		return nil
	}
}

func TestACallbackIsBroughtTheAnswer(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	pic := portrait(1)
	for name, send := range map[string]func(address string) (location string, p *ask.Progress){
		"query": func(address string) (string, *ask.Progress) {
			return w.accepted(t, "?model=cat&model=dog&callback="+address, pic)
		},
		"form": func(address string) (string, *ask.Progress) {
			form, contentType := multipartForm(t, part{"image", "image/png", string(pic)}, part{"model", "", "cat,dog"}, part{"callback", "", address})
			return w.accepted(t, "", form, "Content-Type", contentType)
		},
		"JSON": func(address string) (string, *ask.Progress) {
			body, err := json.Marshal(map[string]any{"image": pic, "models": []string{"cat", "dog"}, "callback": address})
			require.NoError(t, err)
			return w.accepted(t, "", body, "Content-Type", "application/json")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHook(t, func(n int64) int {
				if n < 3 { // the broker brings it again
					return http.StatusServiceUnavailable
				}
				return http.StatusNoContent
			})
			location, p := send(h.url)
			var called *answer
			for range 3 {
				called = h.next(t)
				require.Equal(t, p.ID, called.header.Get("Ce-Id"))
				require.Equal(t, events.TypeCompleted, called.header.Get("Ce-Type"))
			}
			kept := w.collected(t, location)
			requireAnswers(t, kept, pic, "cat", "dog")
			require.JSONEq(t, string(kept.body), string(called.body))

			// Anybody may say that it is due; it is not.
			due := http.Header{}
			require.NoError(t, (&events.CallbackDue{ID: "x", Source: "/x", Time: time.Now(), RequestID: p.ID}).WriteTo(due))
			var headers []string
			for name := range due {
				headers = append(headers, name, due.Get(name))
			}
			require.Eventually(t, func() bool {
				return w.call(t, http.MethodPost, "/callbacks", nil, headers...).status == http.StatusNoContent
			}, 10*time.Second, time.Millisecond)
			require.EqualValues(t, 3, h.seen.Load())
		})
	}
}

func TestCallbacksThatCannotBe(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	async := []string{"Prefer", "respond-async"}
	w.call(t, http.MethodPost, "/v1/infer?model=cat&callback=http://example.com", dot()).requireProblem(t, codeRequest, 400, "respond-async")
	w.call(t, http.MethodPost, "/v1/infer?model=cat&callback=", dot(), async...).requireProblem(t, codeRequest, 400, "empty")
	w.call(t, http.MethodPost, "/v1/infer?model=cat&callback=http://a.test&callback=http://b.test", dot(), async...).requireProblem(t, codeRequest, 400, "several")
	w.call(t, http.MethodPost, "/v1/infer?model=cat&callback=ftp://a.test", dot(), async...).requireProblem(t, "bad-callback", 400, "http://")
	w.call(t, http.MethodPost, "/v1/infer?model=cat&callback=http://"+strings.Repeat("a", 3000), dot(), async...).requireProblem(t, "bad-callback", 400, "2048")
	body, contentType := multipartForm(t, part{"image", "image/png", string(dot())}, part{"callback", "", strings.Repeat("a", 5000)})
	w.call(t, http.MethodPost, "/v1/infer?model=cat", body, append(async, "Content-Type", contentType)...).requireProblem(t, codeTooLarge, 413, "callback")
	w.call(t, http.MethodPost, "/callbacks", nil).requireCode(t, "malformed-event", 400)
	require.Empty(t, w.delivered())
}

// requireCode is requireProblem for who does not know the request's id.
func (a *answer) requireCode(t *testing.T, code string, status int) {
	t.Helper()
	require.Equal(t, status, a.status, "%s", a.body)
	var p problem.Details
	a.into(t, &p)
	require.Equal(t, code, p.Code())
}

func TestAnIdempotencyKeyNamesTheRequest(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	pic := portrait(1)
	key := []string{"Idempotency-Key", "order-1"}
	ids := map[string]bool{}
	for range 2 {
		a := w.call(t, http.MethodPost, "/v1/infer?model=cat", pic, key...)
		requireAnswers(t, a, pic, "cat")
		var r ask.Response
		a.into(t, &r)
		require.Equal(t, r.ID, a.header.Get("X-Request-Id"))
		ids[r.ID] = true
	}
	_, p := w.accepted(t, "?model=cat", pic, key...)
	ids[p.ID] = true
	_, p = w.accepted(t, "?model=cat", pic, key...)
	ids[p.ID] = true
	require.Len(t, ids, 1)
	eventIDs := map[string]bool{}
	for _, r := range w.delivered() {
		eventIDs[r.ID] = true
	}
	require.Len(t, eventIDs, 1)

	_, other := w.accepted(t, "?model=cat", portrait(2), key...)
	require.False(t, ids[other.ID], "another question is another request")

	for _, bad := range []string{"", "two words", strings.Repeat("k", 256), "ü"} {
		w.call(t, http.MethodPost, "/v1/infer?model=cat", pic, "Idempotency-Key", bad).requireProblem(t, codeRequest, 400, "Idempotency-Key")
	}
	w.call(t, http.MethodPost, "/v1/infer?model=cat", pic, append(key, "Idempotency-Key", "order-2")...).requireProblem(t, codeRequest, 400, "one of")
}

func TestEqualRequestsAtOnceAreAskedOnce(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	w := start(t, func(s *setup) {
		s.subscribe = func(_ *world, r *events.Request) *events.Result {
			<-answer
			return answerTo(r)
		}
	})
	pic := portrait(1)
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			a := w.call(t, http.MethodPost, "/v1/infer?model=cat", pic, "Idempotency-Key", "k")
			if a.status != http.StatusOK {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	require.Eventually(t, func() bool { return len(w.delivered()) > 0 }, 10*time.Second, time.Millisecond)
	close(answer)
	asking.Wait()
	ids := map[string]bool{}
	for _, r := range w.delivered() {
		ids[r.ID] = true
	}
	require.Len(t, ids, 1)
}
