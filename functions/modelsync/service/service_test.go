package service_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/functions/modelsync/service"
	"github.com/ebb-inference/ebb/models"
)

// What all tests measure goes here; tests that look at it have networks of names of their own.
var metrics = sdkmetric.NewManualReader()

func TestMain(m *testing.M) {
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(metrics)))
	goleak.VerifyTestMain(m, goleak.Cleanup(os.Exit))
}

// fake rolls nothing out: it says what a test wants.
type fake struct {
	mu      sync.Mutex
	state   rollout.State
	outcome rollout.Outcome
	err     error
	looks   int
	asked   []string
	look    func(context.Context)
}

func (f *fake) State(context.Context) (rollout.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state, nil
}

func (f *fake) Look(ctx context.Context) (rollout.Outcome, error) {
	if f.look != nil {
		f.look(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	return f.outcome, f.err
}

func (f *fake) Rollback(_ context.Context, to int64) (rollout.State, error) {
	f.asked = append(f.asked, fmt.Sprint("rollback ", to))
	return f.state, f.err
}

func (f *fake) Allow(_ context.Context, version int64) (rollout.State, error) {
	f.asked = append(f.asked, fmt.Sprint("allow ", version))
	return f.state, f.err
}

func newService(t *testing.T, f *fake, name string) *service.Service {
	t.Helper()
	f.state.Network = name
	s, err := service.New(service.Config{
		Networks: []service.Network{{
			Network: &models.Network{Name: name, Models: []*models.Model{{Definition: models.Definition{Name: "cat"}}}}, Rollout: f,
		}},
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	return s
}

func ask(t *testing.T, s http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func event(typ string) []string {
	return []string{"Ce-Specversion", "1.0", "Ce-Type", typ, "Ce-Id", "1", "Ce-Source", "/apis/v1/namespaces/ebb/pingsources/modelsync"}
}

func TestAnEventAsksForALookAtAllNetworks(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		headers []string
		outcome rollout.Outcome
		err     error
		status  int
		looks   int
	}{
		{"a ping", event("dev.knative.sources.ping"), rollout.Current, nil, http.StatusNoContent, 1},
		{"by hand", event("dev.ebb.model.look.v1"), rollout.RolledOut, nil, http.StatusNoContent, 1},
		{"one that goes on", event(events.TypePing), rollout.UnderWay, nil, http.StatusAccepted, 1},
		{"while another one is under way", event(events.TypePing), rollout.Busy, nil, http.StatusAccepted, 1},
		{"a failure is for the next one", event(events.TypePing), rollout.Failed, errors.New("source is away"), http.StatusNoContent, 1},
		{"another event", event("dev.ebb.model.serving.v1"), "", nil, http.StatusBadRequest, 0},
		{"no event", nil, "", nil, http.StatusBadRequest, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{outcome: tc.outcome, err: tc.err}
			w := ask(t, newService(t, f, "net"), http.MethodPost, "/", "{}", tc.headers...)
			require.Equal(t, tc.status, w.Code, w.Body)
			require.Equal(t, tc.looks, f.looks)
		})
	}
}

func TestANetworkIsCalledByItsNameOrAModels(t *testing.T) {
	t.Parallel()
	f := &fake{state: rollout.State{Serving: 2, Candidate: &rollout.Progress{
		Version: 3, Phase: rollout.PhaseShift, Counted: map[string]rollout.Tally{"pod": {}},
	}}}
	s := newService(t, f, "net")
	for _, path := range []string{"/v1/networks/net", "/v1/networks/cat"} {
		w := ask(t, s, http.MethodGet, path, "")
		require.Equal(t, http.StatusOK, w.Code)
		require.Contains(t, w.Body.String(), `"serving": 2`)
		require.NotContains(t, w.Body.String(), "counted")
	}
	var all service.Networks
	require.NoError(t, json.Unmarshal(ask(t, s, http.MethodGet, "/v1/networks", "").Body.Bytes(), &all))
	require.Len(t, all.Networks, 1)
	require.EqualValues(t, 3, all.Networks[0].Candidate.Version)
}

func TestCommandsAreReadStrictly(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, path, body string
		status           int
		asked            []string
	}{
		{"back", "/v1/networks/net/rollback", "", 200, []string{"rollback 0"}},
		{"back, in words", "/v1/networks/net/rollback", "{}", 200, []string{"rollback 0"}},
		{"back to", "/v1/networks/cat/rollback", `{"to": 3}`, 200, []string{"rollback 3"}},
		{"back to nothing", "/v1/networks/net/rollback", `{"to": -1}`, 400, nil},
		{"back, with a slip", "/v1/networks/net/rollback", `{"version": 3}`, 400, nil},
		{"back, twice", "/v1/networks/net/rollback", `{}{}`, 400, nil},
		{"back, at length", "/v1/networks/net/rollback", `{"to":` + strings.Repeat(" ", 5000) + `1}`, 400, nil},
		{"allow", "/v1/networks/net/allow", `{"version": 4}`, 200, []string{"allow 4"}},
		{"allow nothing", "/v1/networks/net/allow", ``, 400, nil},
		{"another network", "/v1/networks/other/rollback", ``, 404, nil},
		{"another path", "/v1/networks/net/roll", ``, 404, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{}
			w := ask(t, newService(t, f, "net"), http.MethodPost, tc.path, tc.body)
			require.Equal(t, tc.status, w.Code, w.Body)
			require.Equal(t, tc.asked, f.asked)
			if tc.status >= 400 {
				require.Equal(t, problem.ContentType, w.Header().Get("Content-Type"))
			}
		})
	}
}

func TestAProblemSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err    error
		status int
		code   string
	}{
		{fmt.Errorf("network net: %w", rollout.ErrNothing), 409, "nothing-before"},
		{fmt.Errorf("%w: 3; kept are [1 2]", rollout.ErrGone), 409, "version-gone"},
		{rollout.ErrNotRefused, 409, "not-refused"},
		{errors.New("no route to host"), 503, "failed"},
	} {
		t.Run(tc.code, func(t *testing.T) {
			t.Parallel()
			w := ask(t, newService(t, &fake{err: tc.err}, "net"), http.MethodPost, "/v1/networks/net/rollback", "")
			require.Equal(t, tc.status, w.Code)
			var p problem.Details
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
			require.Equal(t, tc.code, p.Code())
			require.Equal(t, tc.err.Error(), p.Detail)
		})
	}
	w := ask(t, newService(t, &fake{}, "net"), http.MethodDelete, "/v1/networks/net", "")
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
	require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
}

func TestAPageOfAnotherSiteCannotTakeAVersionBack(t *testing.T) {
	t.Parallel()
	f := &fake{}
	s := newService(t, f, "net")
	w := ask(t, s, http.MethodPost, "/v1/networks/net/rollback", "", "Sec-Fetch-Site", "cross-site")
	require.Equal(t, http.StatusForbidden, w.Code)
	require.Empty(t, f.asked)
}

func TestALookByHandSaysWhatCameOfIt(t *testing.T) {
	t.Parallel()
	f := &fake{outcome: rollout.RolledOut, state: rollout.State{Serving: 2}}
	s := newService(t, f, "net")
	w := ask(t, s, http.MethodPost, "/v1/networks/net/look", "")
	require.Equal(t, http.StatusOK, w.Code)
	var looked service.Looked
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &looked))
	require.Equal(t, rollout.RolledOut, looked.Outcome)
	require.EqualValues(t, 2, looked.State.Serving)

	f.outcome = rollout.UnderWay
	require.Equal(t, http.StatusAccepted, ask(t, s, http.MethodPost, "/v1/networks/net/look", "").Code)
	f.err = errors.New("source is away")
	require.Equal(t, http.StatusServiceUnavailable, ask(t, s, http.MethodPost, "/v1/networks/net/look", "").Code)
}

func TestEveryLooksAtAnIntervalUntilItIsEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{outcome: rollout.Current}
		s := newService(t, f, "net")
		ctx, cancel := context.WithTimeout(t.Context(), 35*time.Second)
		defer cancel()
		s.Every(ctx, 10*time.Second)
		require.Equal(t, 4, f.looks)
	})
}

func TestALookHasItsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{outcome: rollout.UnderWay, look: func(ctx context.Context) { <-ctx.Done() }}
		s := newService(t, f, "net")
		began := time.Now()
		require.Equal(t, []rollout.Outcome{rollout.UnderWay}, s.LookAll(t.Context()))
		require.Equal(t, service.DefaultPatience, time.Since(began))
	})
}

func TestWhatHappensIsMeasured(t *testing.T) {
	t.Parallel()
	at := time.Unix(1700000000, 0)
	f := &fake{outcome: rollout.RolledOut, state: rollout.State{
		Serving: 2, Candidate: &rollout.Progress{Version: 3},
		History: []rollout.Entry{{Time: at, Event: rollout.Found, Version: 2}, {Time: at.Add(40 * time.Second), Event: rollout.Serves, Version: 2}},
		Refused: []rollout.Refusal{{Version: 1, By: rollout.ByWatch}},
	}}
	s := newService(t, f, "measured")
	s.LookAll(t.Context())
	f.outcome = rollout.NotTaken
	s.LookAll(t.Context())

	var all metricdata.ResourceMetrics
	require.NoError(t, metrics.Collect(t.Context(), &all))
	found := map[string]any{}
	for _, m := range all.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Gauge[int64]:
			for _, p := range data.DataPoints {
				if of(p.Attributes) == "measured" {
					found[m.Name] = p.Value
				}
			}
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				if of(p.Attributes) == "measured" {
					what, _ := p.Attributes.Value("outcome")
					by, _ := p.Attributes.Value("by")
					found[m.Name+" "+what.AsString()+by.AsString()] = p.Value
				}
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				if of(p.Attributes) == "measured" {
					found[m.Name] = p.Sum
				}
			}
		}
	}
	require.Equal(t, map[string]any{
		"ebb.modelsync.version.serving": int64(2), "ebb.modelsync.version.candidate": int64(3),
		"ebb.modelsync.looks rolled-out": int64(1), "ebb.modelsync.looks refused": int64(1),
		"ebb.modelsync.refused watch": int64(1), "ebb.modelsync.rollout.duration": float64(40),
	}, found)
}

func of(set attribute.Set) string {
	network, _ := set.Value("network")
	return network.AsString()
}

func TestABrokerIsToldWhatHappens(t *testing.T) {
	t.Parallel()
	type told struct{ typ, subject, data string }
	heard := make(chan told, 1)
	broker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ev, err := events.ReadHTTPAttributes(r.Header)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		data, _ := io.ReadAll(r.Body)
		heard <- told{ev.Type(), ev.Subject(), string(data)}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer broker.Close()
	n := &models.Network{Name: "net", Models: []*models.Model{{Definition: models.Definition{Name: "cat"}}}}
	a := &service.Announcer{BrokerURL: broker.URL, Client: broker.Client(), Source: "/ebb/modelsync/r", Logger: slog.New(slog.DiscardHandler)}
	a.For(n)(t.Context(), rollout.Entry{Time: time.Now(), Event: rollout.Refused, Version: 3, Reason: "corrupt"})
	got := <-heard
	require.Equal(t, "dev.ebb.model.refused.v1", got.typ)
	require.Equal(t, "net", got.subject)
	require.JSONEq(t, `{"network": "net", "models": ["cat"], "version": 3, "reason": "corrupt"}`, got.data)
}

func TestABrokerThatIsAwayHoldsNothingUp(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	a := &service.Announcer{
		BrokerURL: "http://127.0.0.1:1", Client: http.DefaultClient, Source: "/ebb/modelsync/r", Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}
	a.For(&models.Network{Name: "net"})(t.Context(), rollout.Entry{Time: time.Now(), Event: rollout.Found, Version: 3})
	require.Contains(t, log.String(), "an event was not sent")
}
