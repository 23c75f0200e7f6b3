package stack_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/local/mirror"
	"github.com/ebb-inference/ebb/functions/local/stack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is what a test waits for something that must happen.
const patience = 2 * time.Minute

// start starts a stack for one test, which shows what its programs said when it fails.
func start(t *testing.T) *stack.Stack {
	t.Helper()
	s, err := stack.Start(t.Context(), stack.Config{})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range []string{"ingress", "dispatch-mirror", "dispatch-negative", "deadletter", "model server"} {
				text, err := s.Log(name)
				t.Logf("=== %s (%v)\n%s", name, err, text[max(0, len(text)-4<<10):])
			}
		}
		require.NoError(t, s.Stop(context.Background()))
	})
	return s
}

func requireReady(t *testing.T, s *stack.Stack) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, s.WaitReady(ctx))
}

// requireAnswers asks all models about picture number n, again as long as it is to be tried again: what is known of the data
// plane's readiness may be a second old.
func requireAnswers(t *testing.T, s *stack.Stack, n int) {
	t.Helper()
	picture, err := mirror.Picture(n)
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var body []byte
	require.Eventually(t, func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+"/v1/infer?model="+strings.Join(mirror.Names, ","), bytes.NewReader(picture))
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		body, err = io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode == http.StatusOK
	}, patience, 10*time.Millisecond)
	var r ask.Response
	require.NoError(t, json.Unmarshal(body, &r))
	require.Len(t, r.Results, len(mirror.Names))
	for _, result := range r.Results {
		require.Nil(t, result.Error)
		require.NoError(t, mirror.Check(result.Model, n, result.Top))
	}
}

func TestWhatIsKilledComesBackAndNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	s := start(t)
	requireAnswers(t, s, 0)
	pids := s.Pids()
	// The model server, ingress, deadletter, a dispatch a model, the broker ingress, and two dispatchers a Trigger.
	require.Len(t, pids, 3+len(mirror.Names)+1+2*(len(mirror.Names)+1))
	require.Error(t, s.Kill("nobody"))
	for name := range pids {
		require.NoError(t, s.Kill(name))
	}
	require.Eventually(t, func() bool {
		for name, pid := range s.Pids() {
			if pids[name] == pid {
				return false
			}
		}
		return len(s.Pids()) == len(pids)
	}, patience, 10*time.Millisecond)
	requireReady(t, s)
	requireAnswers(t, s, 1)

	pids = s.Pids()
	require.NoError(t, s.Stop(t.Context()))
	require.Empty(t, s.Pids())
	for name, pid := range pids {
		require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH, name)
	}
}
