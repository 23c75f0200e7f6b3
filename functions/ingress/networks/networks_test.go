package networks_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/functions/ingress/networks"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/functions/modelsync/service"
	"github.com/ebb-inference/ebb/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// known is a network whose state is known.
type known struct {
	service.Rollout
	state rollout.State
}

func (k known) State(context.Context) (rollout.State, error) { return k.state, nil }

func TestWhatModelsyncSaysIsUnderstood(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_000, 0).UTC()
	s, err := service.New(service.Config{Logger: slog.New(slog.DiscardHandler), Networks: []service.Network{{
		Network: &models.Network{Name: "net"}, Rollout: known{state: rollout.State{
			Network: "net", Models: []string{"cat"}, Source: "gs://x", Serving: 2, Previous: 1, Since: at, LastCheck: at,
			Candidate:   &rollout.Progress{Version: 4, Phase: rollout.PhaseShift, Percent: 10, Began: at, Since: at},
			Refused:     []rollout.Refusal{{Version: 3, From: 2, Reason: "worse", By: rollout.ByWatch, Time: at}},
			LastFailure: &rollout.Failure{Time: at, Reason: "away"},
			History:     []rollout.Entry{{Time: at, Event: rollout.Shifted, Version: 4, Percent: 10}},
		}},
	}}})
	require.NoError(t, err)
	server := httptest.NewServer(s)
	defer server.Close()
	all, err := networks.New(server.URL + "/").Networks(t.Context())
	require.NoError(t, err)
	require.Equal(t, []networks.Network{{
		Name: "net", Models: []string{"cat"}, Source: "gs://x", Serving: 2, Previous: 1, Since: at, LastCheck: at,
		Candidate:   &networks.Candidate{Version: 4, Phase: "shift", Percent: 10, Began: at},
		Refused:     []networks.Refusal{{Version: 3, From: 2, Reason: "worse", By: "watch", Time: at}},
		LastFailure: &networks.Failure{Time: at, Reason: "away"},
		History:     []networks.Entry{{Time: at, Event: "shifted", Version: 4, Percent: 10}},
	}}, all)
}

func TestAModelsyncThatDoesNotAnswerIsAway(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"an error": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"a page":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"no end":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat(" ", 5<<20)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(answer)
			defer server.Close()
			_, err := networks.New(server.URL).Networks(t.Context())
			require.ErrorIs(t, err, networks.ErrAway)
		})
	}
	_, err := networks.New("http://127.0.0.1:1").Networks(t.Context())
	require.ErrorIs(t, err, networks.ErrAway)
}
