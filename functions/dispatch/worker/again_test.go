package worker_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/functions/dispatch/worker"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// keyed is an event whose id is made of what is asked, in one of its askings.
func (w *world) keyed(data []byte, asking string) *events.Request {
	r := w.event(data)
	r.ID, r.CorrelationID, r.Source = "0192a3b4-c5d6-8e7f-8a9b-0c1d2e3f4a5b", asking, "/ebb/ingress/"+asking
	return r
}

func TestWhatIsAskedAgainIsComputedOnceAndAnsweredToEach(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		p := newBlocked()
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		data := picture(t, 9)
		first := w.begin(w.request(w.keyed(data, "one")))
		second := w.begin(w.request(w.keyed(data, "two")))
		redelivery := w.begin(w.request(w.keyed(data, "two")))
		close(p.let)
		for _, status := range []<-chan int{first, second, redelivery} {
			require.Equal(t, http.StatusNoContent, <-status)
		}
		require.Equal(t, http.StatusNoContent, w.deliver(w.request(w.keyed(data, "three"))).Code, "when it is done, too")
		answered := map[string]bool{}
		for range 3 {
			r := <-w.replies
			require.InDelta(t, 9./65535, *r.Answer.Probability, 1e-6)
			answered[r.CorrelationID] = true
		}
		require.Equal(t, map[string]bool{"one": true, "two": true, "three": true}, answered)
		require.Empty(t, w.replies, "a redelivery answers nobody twice")
		require.EqualValues(t, 1, p.calls.Load())
	})
}

func TestAnotherPictureUnderTheSameIDIsAnotherQuestion(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		p := &predictor{predict: network}
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		for i, asking := range []string{"one", "two"} {
			require.Equal(t, http.StatusNoContent, w.deliver(w.request(w.keyed(picture(t, i), asking))).Code)
			require.InDelta(t, float64(i)/65535, *(<-w.replies).Answer.Probability, 1e-6)
		}
		require.EqualValues(t, 2, p.calls.Load())
	})
}

func TestAnIDThatIsNotMadeOfTheQuestionIsNoQuestion(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		p := &predictor{predict: network}
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		one := w.event(picture(t, 1))
		two := *one
		two.CorrelationID = "another"
		for _, r := range []*events.Request{one, &two} {
			require.Equal(t, http.StatusNoContent, w.deliver(w.request(r)).Code)
		}
		require.EqualValues(t, 2, p.calls.Load())
	})
}

func TestAReplayIsComputedThoughTheSameEventFailed(t *testing.T) {
	t.Parallel()
	for name, id := range map[string]func(*world, []byte) *events.Request{
		"an id of its own": func(w *world, data []byte) *events.Request { return w.event(data) },
		"an id of a key":   func(w *world, data []byte) *events.Request { return w.keyed(data, "one") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, "", func(t *testing.T, m *models.Model) {
				t.Helper()
				p := &predictor{predict: func(context.Context, tfserving.Tensor) (tfserving.Tensor, error) {
					return tfserving.Tensor{}, tfserving.ErrNotFound
				}}
				w := newWorld(t, worker.Config{Model: m, Predictor: p})
				failed := id(w, picture(t, 7))
				require.Equal(t, http.StatusServiceUnavailable, w.deliver(w.request(failed)).Code)
				p.predict = network
				replayed := *failed
				replayed.CorrelationID, replayed.Replay, replayed.Deadline = "replay", true, time.Now().Add(time.Minute)
				require.Equal(t, http.StatusNoContent, w.deliver(w.request(&replayed)).Code)
				r := <-w.replies
				require.Equal(t, "replay", r.CorrelationID)
				require.NotNil(t, r.Answer)
			})
		})
	}
}

func TestWhoAsksWhatFailedForAnotherHasItComputed(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		fail := make(chan struct{})
		p := &predictor{predict: func(context.Context, tfserving.Tensor) (tfserving.Tensor, error) {
			<-fail
			return tfserving.Tensor{}, tfserving.ErrNotFound
		}}
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		data := picture(t, 9)
		first := w.begin(w.request(w.keyed(data, "one")))
		second := w.begin(w.request(w.keyed(data, "two")))
		impatient := w.keyed(data, "three")
		impatient.Deadline = time.Now().Add(time.Second)
		third := w.begin(w.request(impatient))
		require.Equal(t, http.StatusNoContent, <-third, "it expired while it waited for the other")
		p.predict = network
		close(fail)
		require.Equal(t, http.StatusServiceUnavailable, <-first)
		require.Equal(t, http.StatusNoContent, <-second)
		require.Equal(t, "two", (<-w.replies).CorrelationID)
		require.EqualValues(t, 2, p.calls.Load())
	})
}

func TestSoManyAnswersAreRememberedAndNoMore(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		p := &predictor{predict: network}
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		ask := func(i int, asking string) {
			r := w.keyed(picture(t, i), asking)
			id := uuid.NewSHA1(uuid.Nil, r.Data)
			id[6] = id[6]&0x0f | 0x80
			r.ID = id.String()
			require.Equal(t, http.StatusNoContent, w.deliver(w.request(r)).Code)
			require.InDelta(t, float64(i)/65535, *(<-w.replies).Answer.Probability, 1e-6)
		}
		const remembered = 1024
		for i := range remembered + 1 {
			ask(i, "one")
		}
		ask(1, "two")
		require.EqualValues(t, remembered+1, p.calls.Load())
		ask(0, "two")
		require.EqualValues(t, remembered+2, p.calls.Load(), "the oldest is forgotten")
	})
}

// mailbox opens a mailbox and makes an event to be answered there.
func (w *world) mailbox(data []byte) (*events.Request, string) {
	w.tb.Helper()
	now := time.Now()
	id := uuid.Must(uuid.NewV7()).String()
	require.NoError(w.tb, w.hub.Open(w.tb.Context(), &reply.Record{
		ID: id, Asked: []reply.Asked{{Model: w.model.Name}}, Time: now, Deadline: now.Add(30 * time.Second), Expires: now.Add(time.Hour),
	}))
	r := w.event(data)
	r.ReplyTo, r.Callback = reply.MailboxAddress(id), true
	return r, id
}

func (w *world) results(id string) []*events.Result {
	w.tb.Helper()
	mail, err := w.hub.Read(w.tb.Context(), id)
	require.NoError(w.tb, err)
	return mail.Results
}

func TestTheBrokerIsToldOfACallbackWithEachDeliveryThatIsDone(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		w := newWorld(t, worker.Config{Model: m, Predictor: &predictor{predict: network}})
		r, id := w.mailbox(picture(t, 9))
		r.TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
		var first *events.CallbackDue
		for range 2 {
			rec := w.deliver(w.request(r))
			require.Equal(t, http.StatusOK, rec.Code)
			require.Zero(t, rec.Body.Len())
			due, err := events.ReadCallbackDue(rec.Header())
			require.NoError(t, err)
			require.Equal(t, id, due.RequestID)
			require.Equal(t, r.TraceParent, due.TraceParent)
			if first == nil {
				first = due
			}
			require.Equal(t, first.ID, due.ID)
		}
		require.Len(t, w.results(id), 1)

		bad, badID := w.mailbox([]byte("no picture"))
		rec := w.deliver(w.request(bad))
		require.Equal(t, http.StatusOK, rec.Code, "a failure is a result, too")
		require.Equal(t, badID, rec.Header().Get("Ce-Subject"))
		require.NotNil(t, w.results(badID)[0].Problem)
	})
}

func TestWithoutSomebodyToCallTheBrokerIsToldNothing(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		p := &predictor{predict: network}
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		quiet, quietID := w.mailbox(picture(t, 1))
		quiet.Callback = false
		waits := w.event(picture(t, 2)) // nobody is called who waits
		waits.Callback = true
		dropped, droppedID := w.mailbox(picture(t, 3))
		require.NoError(t, w.hub.Delete(t.Context(), droppedID))
		for _, r := range []*events.Request{quiet, waits, dropped} {
			rec := w.deliver(w.request(r))
			require.Equal(t, http.StatusNoContent, rec.Code)
			require.Empty(t, rec.Header())
		}
		require.Len(t, w.results(quietID), 1)
		require.Len(t, w.replies, 1)

		p.predict = func(context.Context, tfserving.Tensor) (tfserving.Tensor, error) {
			return tfserving.Tensor{}, tfserving.ErrNotFound
		}
		again, _ := w.mailbox(picture(t, 4))
		rec := w.deliver(w.request(again))
		require.Equal(t, http.StatusServiceUnavailable, rec.Code)
		require.Empty(t, rec.Header().Get("Ce-Type"))
	})
}

func TestWhoComesLaterIsToldThatTheirTimeWasOver(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		p := newBlocked()
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		late, lateID := w.mailbox(picture(t, 1))
		late.Deadline = time.Now().Add(-time.Second)
		computing, computingID := w.mailbox(picture(t, 2))
		for _, c := range []struct {
			event *events.Request
			id    string
		}{{late, lateID}, {computing, computingID}} {
			rec := w.deliver(w.request(c.event))
			require.Equal(t, http.StatusOK, rec.Code)
			require.Equal(t, c.id, rec.Header().Get("Ce-Subject"))
			results := w.results(c.id)
			require.Len(t, results, 1)
			require.Equal(t, "no-answer-in-time", results[0].Problem.Code())
		}
		require.Equal(t, map[string]int64{"expired": 2}, w.outcomes())
	})
}

func TestAMailboxThatTakesNothingNowIsToldAgain(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, m *models.Model) {
		t.Helper()
		w := newWorld(t, worker.Config{Model: m, Predictor: &predictor{predict: network}, Responder: responderFunc(
			func(context.Context, string, *events.Result) error { return reply.ErrDown })})
		late, _ := w.mailbox(picture(t, 1))
		late.Deadline = time.Now().Add(-time.Second)
		rec := w.deliver(w.request(late))
		require.Equal(t, http.StatusServiceUnavailable, rec.Code)
		require.Equal(t, problem.ContentType, rec.Header().Get("Content-Type"))
	})
}
