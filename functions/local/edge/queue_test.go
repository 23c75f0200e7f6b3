package edge_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/events/rabbitmq/topology"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/local/mirror"
)

// answer reads an answer and wants it to be to picture number n.
func answer(t *testing.T, w *httptest.ResponseRecorder, n int) ask.Result {
	t.Helper()
	require.Equal(t, http.StatusOK, w.Code, "%s", w.Body)
	var got ask.Response
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	require.NoError(t, mirror.Check(mirror.Plain, n, got.Results[0].Top))
	return got.Results[0]
}

// failure is why there is no answer: of the request, or of its one model.
func failure(t *testing.T, w *httptest.ResponseRecorder) *problem.Details {
	t.Helper()
	var got struct {
		problem.Details
		ask.Response
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got), "%s", w.Body)
	if len(got.Results) == 0 {
		return &got.Details
	}
	require.NotNil(t, got.Results[0].Error, "%s", w.Body)
	return got.Results[0].Error
}

// requireRefusal wants what a client gets while the queue takes nothing: a word, and when to come back.
func requireRefusal(t *testing.T, w *httptest.ResponseRecorder, code string) {
	t.Helper()
	require.Equal(t, http.StatusServiceUnavailable, w.Code, "%s", w.Body)
	require.NotEmpty(t, w.Header().Get("Retry-After"))
	require.Equal(t, code, failure(t, w).Code(), "%s", w.Body)
}

// It has everything to itself: no other test runs before it has ended.
func TestWhileRabbitMQIsShortOfMemoryCallersAreRefusedAtOnceAndThenAnsweredAgain(t *testing.T) { //nolint:paralleltest // see above
	r := newRequester(t)
	answer(t, infer(t, plain, picture(t, 1), ""), 1)
	gate := serving.hold(plain)
	computed, second := make(chan *httptest.ResponseRecorder, 1), picture(t, 2)
	go func() { computed <- infer(t, plain, second, "") }()
	<-gate.came
	before := serving.computed(plain)
	_, err := node.Control(t.Context(), "set_vm_memory_high_watermark", "absolute", "1")
	require.NoError(t, err)

	// What is computed cannot be answered. Who publishes past ingress hangs, and so would ingress.
	close(gate.open)
	hanging := r.event(t, plain, 3)
	hung := make(chan error, 1)
	go func() {
		status, _, err := post(t.Context(), hanging, nil)
		if err == nil && status != http.StatusAccepted {
			err = fmt.Errorf("status %d", status)
		}
		hung <- err
	}()
	require.Eventually(t, func() bool { return infer(t, plain, picture(t, 4), "").Code != http.StatusOK }, patience, interval)
	for _, prefer := range []string{"", "wait=20", "respond-async"} {
		requireRefusal(t, infer(t, plain, picture(t, 4), prefer), ask.CodeOverloaded)
	}
	require.Equal(t, http.StatusUnsupportedMediaType, infer(t, plain, []byte("no picture"), "").Code)
	require.Equal(t, before, serving.computed(plain))
	ready := httptest.NewRecorder()
	ebb.ServeHTTP(ready, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/health/readiness", http.NoBody))
	require.Equal(t, http.StatusOK, ready.Code, "who is not ready is not asked, and cannot refuse: %s", ready.Body)

	_, err = node.Control(t.Context(), "set_vm_memory_high_watermark", "0.6")
	require.NoError(t, err)
	answer(t, <-computed, 2)
	require.NoError(t, <-hung)
	require.Eventually(t, func() bool { return len(r.got(hanging.ID)) > 0 }, patience, interval)
	r.requireAnswer(t, hanging.ID, 3)
	require.Eventually(t, func() bool { return infer(t, plain, picture(t, 5), "").Code == http.StatusOK }, patience, interval)
	answer(t, infer(t, plain, picture(t, 6), ""), 6)
}

func TestWhatAFullQueueTookIsAnsweredAndTheRestIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	r := newRequester(t)
	gate := serving.hold(stuck)
	accepted := map[string]int{} // the pictures' numbers by the events' ids
	first := r.event(t, stuck, 0)
	status, _ := publish(t, first, nil)
	require.Equal(t, http.StatusAccepted, status)
	accepted[first.ID] = 0
	<-gate.came

	// Some of those that wait have no time to wait: they are past the batch that comes next.
	const patient, hurried = 50, 5
	soon := time.Now().Add(time.Second)
	n := 1
	for ; status == http.StatusAccepted && n < 10*(100+queueEvents); n++ {
		e := r.event(t, stuck, n)
		late := n >= patient && n < patient+hurried
		if late {
			e.Deadline = soon
		}
		var body []byte
		if status, body = publish(t, e, nil); status == http.StatusAccepted && !late {
			accepted[e.ID] = n
		}
		require.Empty(t, body, "nothing tells a full queue from a broker that is away")
	}
	require.Equal(t, http.StatusInternalServerError, status)
	require.Greater(t, len(accepted), patient+hurried+queueEvents)
	for _, prefer := range []string{"", "wait=20", "respond-async"} {
		w := infer(t, stuck, picture(t, n), prefer)
		requireRefusal(t, w, ask.CodeBrokerDown)
		require.Contains(t, failure(t, w).Detail, "full")
	}
	require.Zero(t, r.answered())

	require.Eventually(t, func() bool { return time.Now().After(soon) }, patience, interval)
	close(gate.open)
	require.Eventually(t, func() bool { return r.answered() >= len(accepted) }, patience, interval)
	for id, n := range accepted {
		r.requireAnswer(t, id, n)
	}
	answer(t, infer(t, stuck, picture(t, n), ""), n)
	require.Equal(t, len(accepted), r.answered())
	require.Equal(t, len(accepted)+1, serving.computed(stuck), "who does not wait any more costs no computation")
	requireCounts(t, deliveries, stuck, map[string]int{"completed": len(accepted) + 1, "expired": hurried})
	require.Empty(t, count(t, deadLetters, stuck))
}

func TestARequestThatNoTriggerSelectsIsOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	answer(t, infer(t, orphan, picture(t, 1), ""), 1)
	require.NoError(t, channel(t).QueueUnbind(queues(orphan).Queue, "", topology.NewBroker("ebb", "ebb").Exchange(), amqp091.Table{
		"x-match": "all", "x-knative-trigger": orphan, "type": events.TypeRequested, "model": orphan,
	}))

	w := infer(t, orphan, picture(t, 2), "wait=1")
	require.Equal(t, http.StatusGatewayTimeout, w.Code, "%s", w.Body)
	p := failure(t, w)
	require.Equal(t, ask.CodeNoAnswerInTime, p.Code())
	require.Contains(t, p.Detail, "outcome is unknown")
	require.Equal(t, 1, serving.computed(orphan))
}
