package load_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/local/load"
	"github.com/ebb-inference/ebb/functions/local/mirror"
)

// account asks once, and collects, at a server that answers so.
func account(t *testing.T, later int, gateway bool, post, get http.HandlerFunc) load.Account {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/infer", post)
	if get != nil {
		mux.HandleFunc("GET /v1/requests/1", get)
	}
	server := httptest.NewServer(mux)
	defer server.Close()
	l := load.New(load.Plan{URL: server.URL, Requests: 1, Rate: 1000, Later: later, Question: load.Mirror, Gateway: gateway})
	l.Send(t.Context())
	return l.Collect(t.Context())
}

func respond(status int, results ...ask.Result) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(ask.Response{ID: "1", Results: results}) // a part of it would be no answer
	}
}

func fail(p *problem.Details) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { problem.Write(w, p) }
}

func accept(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Location", "/v1/requests/1")
	w.WriteHeader(http.StatusAccepted)
}

// once answers first, and then as next does.
func once(first, next http.HandlerFunc) http.HandlerFunc {
	var asked atomic.Bool
	return func(w http.ResponseWriter, r *http.Request) {
		if asked.CompareAndSwap(false, true) {
			first(w, r)
			return
		}
		next(w, r)
	}
}

func TestEveryResponseIsInTheAccountAsWhatItIs(t *testing.T) {
	t.Parallel()
	right := ask.Result{Model: mirror.Plain}
	for i, p := range mirror.Values(0) {
		right.Top = append(right.Top, events.Class{Label: mirror.Label(i), Probability: float64(p) / 255})
	}
	other, short := right, right
	other.Model = mirror.Negative
	short.Top = right.Top[1:]
	gaveUp := ask.Result{Model: mirror.Plain, Error: problem.New("gave-up", http.StatusBadGateway, "", "")}
	late := ask.Result{Model: mirror.Plain, Error: problem.New(ask.CodeNoAnswerInTime, http.StatusGatewayTimeout, "", "")}
	away := problem.New("replies-down", http.StatusServiceUnavailable, "", "")
	away.RetryAfter = 1
	hangUp := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	none := map[string]int{}
	for _, tc := range []struct {
		name      string
		later     int
		gateway   bool
		post, get http.HandlerFunc
		want      load.Account
		lost, bad int
	}{
		{"answered", 0, false, respond(200, right), nil, load.Account{Answered: 1, Problems: none}, 0, 0},
		{"answered when asked again", 0, false, once(hangUp, respond(200, right)), nil, load.Account{Answered: 1, Broken: 1, Problems: none}, 0, 0},
		{"another model's answer", 0, false, respond(200, other), nil, load.Account{Problems: none}, 0, 1},
		{"half an answer", 0, false, respond(200, short), nil, load.Account{Problems: none}, 0, 1},
		{"two answers", 0, false, respond(200, right, right), nil, load.Account{Problems: none}, 0, 1},
		{"accepted without being asked to", 0, false, accept, nil, load.Account{Problems: none}, 0, 1},
		{"refused", 0, false, fail(away), nil, load.Account{Problems: map[string]int{"replies-down": 1}}, 0, 0},
		{"a dead letter", 0, false, respond(502, gaveUp), nil, load.Account{Problems: map[string]int{"gave-up": 1}}, 0, 0},
		{"no clear word", 0, false, respond(503), nil, load.Account{Problems: none}, 0, 1},
		{"a gateway's words for a connection that broke", 0, true, once(respond(502), respond(200, right)), nil, load.Account{Answered: 1, Broken: 1, Problems: none}, 0, 0},
		{"ingress' own words behind a gateway", 0, true, once(fail(away), respond(200, right)), nil, load.Account{Problems: map[string]int{"replies-down": 1}}, 0, 0},
		{"nothing but a gateway's words", 0, true, respond(503), nil, load.Account{Broken: 20, Problems: none}, 0, 1},
		{"collected behind a gateway", 1, true, accept, once(respond(503), respond(200, right)), load.Account{Accepted: 1, Collected: 1, Problems: none}, 0, 0},
		{"the caller's fault", 0, false, fail(problem.New("no-model", 400, "", "")), nil, load.Account{Problems: none}, 0, 1},
		{"collected", 1, false, accept, once(accept, once(fail(away), respond(200, right))), load.Account{Accepted: 1, Collected: 1, Problems: none}, 0, 0},
		{"collected from another", 1, false, accept, respond(200, other), load.Account{Accepted: 1, Problems: none}, 0, 1},
		{"told", 1, false, accept, respond(502, gaveUp), load.Account{Accepted: 1, Told: 1, Problems: none}, 0, 0},
		{"too late", 1, false, accept, respond(504, late), load.Account{Accepted: 1, Problems: none}, 1, 0},
		{"forgotten", 1, false, accept, nil, load.Account{Accepted: 1, Problems: none}, 1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := account(t, tc.later, tc.gateway, tc.post, tc.get)
			require.Len(t, got.Lost, tc.lost, "%s", got.Lost)
			require.Len(t, got.Wrong, tc.bad, "%s", got.Wrong)
			require.Equal(t, got.Broken > 0, got.Break != "")
			require.Len(t, got.Took, tc.want.Answered)
			got.Lost, got.Wrong, got.Break, got.Took = nil, nil, "", nil
			tc.want.Sent = 1
			require.Equal(t, tc.want, got)
		})
	}
}

func TestNothingIsSentAfterItIsEnough(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(fail(problem.New("replies-down", http.StatusServiceUnavailable, "", "")))
	defer server.Close()
	enough := make(chan struct{})
	l := load.New(load.Plan{
		URL: server.URL, Requests: 1000, Rate: 1, Question: load.Mirror, Enough: enough,
		Before: func(int) { close(enough) },
	})
	l.Send(t.Context())
	require.Equal(t, 1, l.Collect(t.Context()).Sent)
}
