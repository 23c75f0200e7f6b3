package edge_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// operator is held while the tool for dead letters runs: it lets in one at a time.
var operator sync.Mutex

// operate runs the operator's tool for dead letters, and returns what it wrote and its exit status.
func operate(t *testing.T, args ...string) (stdout string, status int) {
	t.Helper()
	operator.Lock()
	defer operator.Unlock()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"run", "./hack/deadletters"}, args...)...)
	cmd.Dir = "../../.."
	var progress strings.Builder
	cmd.Stderr = &progress
	out, _ := cmd.Output() // how it ended is in its state
	t.Logf("deadletters %s: %s", strings.Join(args, " "), progress.String())
	return string(out), cmd.ProcessState.ExitCode()
}

// waiting is how many letters of a model wait.
func waiting(t *testing.T, model string) int {
	t.Helper()
	out, status := operate(t, "list", "-env", tools, "-json", "-model", model)
	require.Zero(t, status)
	var letters []struct{ Model, Status string }
	require.NoError(t, json.Unmarshal([]byte(out), &letters), "%s", out)
	for _, l := range letters {
		require.Equal(t, model, l.Model)
		require.Equal(t, "500", l.Status)
	}
	return len(letters)
}

func TestAReplayAnswersWhoAskedOnceTheModelIsMended(t *testing.T) {
	t.Parallel()
	accepted := infer(t, broken, picture(t, 1), "respond-async")
	require.Equal(t, http.StatusAccepted, accepted.Code, "%s", accepted.Body)
	look := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		ebb.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, accepted.Header().Get("Location"), nil))
		return w
	}
	require.Eventually(t, func() bool { return look().Code != http.StatusAccepted }, patience, interval)
	require.Equal(t, http.StatusBadGateway, look().Code)
	p := failure(t, look())
	require.Equal(t, "gave-up", p.Code())
	require.Equal(t, 3, p.Attempts)
	requireCounts(t, deadLetters, broken, map[string]int{"told": 1})

	require.Equal(t, 1, waiting(t, broken))
	out, status := operate(t, "replay", "-env", tools, "-model", broken)
	require.Equal(t, 1, status, "it fails again, and stays: %s", out)
	require.Equal(t, 1, waiting(t, broken))

	serving.mended.Store(true)
	out, status = operate(t, "replay", "-env", tools, "-model", broken)
	require.Zero(t, status, "%s", out)
	require.Zero(t, waiting(t, broken))
	answer(t, look(), 1)
}
