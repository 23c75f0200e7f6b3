package conformance

import (
	"bytes"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/events/trigger"
)

// nobody is an address to which no reply is sent.
const nobody = "amq.gen-nobody-listens-here-00"

// request makes an event of whole seconds: a broker may keep no more of the attribute time.
func request(model string) *events.Request {
	id := uuid.Must(uuid.NewV7()).String()
	now := time.Now().UTC().Truncate(time.Second)
	return &events.Request{
		ID: id, Source: "/ebb/conformance", Time: now, Model: model, ReplyTo: nobody, CorrelationID: "about-" + id,
		Deadline: now.Add(time.Hour).Add(123 * time.Millisecond), ContentType: "image/png",
		Data: []byte("the picture of " + id + "\x00\xff\r\n"),
	}
}

func requests(model string, n int) []*events.Request {
	all := make([]*events.Request, n)
	for i := range all {
		all[i] = request(model)
		all[i].CorrelationID = "number-" + strconv.Itoa(i)
		all[i].Data = bytes.Repeat([]byte(all[i].ID), 1+i%50)
	}
	return all
}

// publish sends events and wants each to be accepted.
func (s *System) publish(t *testing.T, all ...*events.Request) {
	t.Helper()
	for _, r := range all {
		req, err := events.NewHTTPRequest(t.Context(), s.URL, r)
		require.NoError(t, err)
		require.Equal(t, http.StatusAccepted, send(t, req))
	}
}

func send(t *testing.T, req *http.Request) (status int) {
	t.Helper()
	req.Close = true // a test leaves no connection behind
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

// trier is a Trigger for model that tries retry times more, within a moment.
func trier(model string, retry int) trigger.Trigger {
	return trigger.Trigger{
		Namespace: "ebb", Name: "to-" + model, Broker: "ebb",
		Filter: map[string]string{"type": events.TypeRequested, "model": model},
		Delivery: trigger.Delivery{
			Parallelism: 1, Retry: retry, Backoff: trigger.Linear, BackoffDelay: 10 * time.Millisecond, Timeout: Patience,
		},
	}
}

// patient is a Trigger for model that keeps trying for as long as a test may take.
func patient(model string) trigger.Trigger {
	tr := trier(model, trigger.MaxRetry)
	tr.Delivery.BackoffDelay = 100 * time.Millisecond // 100 ms * (1 + 2 + ... + 100) is eight minutes
	return tr
}

// result answers the request that correlationID names; its detail repeats the id, so that a mix-up shows.
func result(correlationID string) *events.Result {
	return &events.Result{
		ID: uuid.NewString(), Source: "/ebb/conformance", Time: time.Now().UTC().Truncate(time.Second),
		RequestID: uuid.NewString(), CorrelationID: correlationID, Model: "cat",
		Problem: problem.New("conformance", http.StatusUnprocessableEntity, "Conformance", "about "+correlationID),
	}
}
