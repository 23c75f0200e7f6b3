package command

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestACommandIsShownAsItWouldBeTyped(t *testing.T) {
	t.Parallel()
	c := New("kubectl", "get", "x", "-o", "jsonpath={.data}", "it's")
	require.Equal(t, `kubectl get x -o 'jsonpath={.data}' 'it'\''s'`, c.String())
	require.Equal(t, "go run ./hack/secret | kubectl create -f -", New("go", "run", "./hack/secret").Pipe(New("kubectl", "create", "-f", "-")).String())
	out, err := exec.CommandContext(t.Context(), "sh", "-c", New("printf", "%s", "$(id); `id` 'x' \"y\"\n*").String()).Output()
	require.NoError(t, err)
	require.Equal(t, "$(id); `id` 'x' \"y\"\n*", string(out), "a shell reads it as it is")
}

func TestWhatOneWritesAnotherReads(t *testing.T) {
	t.Parallel()
	r := &Runner{Env: []string{"WORD=hello"}, Folder: t.TempDir()}
	out, err := r.Output(t.Context(), New("sh", "-c", "echo $WORD").Pipe(New("tr", "a-z", "A-Z")))
	require.NoError(t, err)
	require.Equal(t, "HELLO\n", string(out))
	out, err = r.Output(t.Context(), New("pwd"))
	require.NoError(t, err)
	require.Equal(t, r.Folder+"\n", string(out))
	out, err = r.Output(t.Context(), New("cat"))
	require.NoError(t, err)
	require.Empty(t, out, "nothing is read from the terminal")
}

func TestAnErrorSaysWhichCommandWhatItSaidAndWhatToDo(t *testing.T) {
	t.Parallel()
	r := &Runner{Hints: map[string]string{"no-such-program": "install it"}}
	failing := New("sh", "-c", "seq 30 >&2; exit 3")
	failing.Hint = "ask somebody"
	err := r.Run(t.Context(), failing.Pipe(New("cat")))
	require.ErrorContains(t, err, "sh -c 'seq 30 >&2; exit 3'")
	require.ErrorContains(t, err, "exit status 3")
	require.ErrorContains(t, err, "\n30\n")
	require.ErrorContains(t, err, "what to do: ask somebody")
	e, ok := errors.AsType[*Error](err)
	require.True(t, ok)
	require.Len(t, strings.Split(e.Said, "\n"), said)

	err = r.Run(t.Context(), New("no-such-program"))
	require.ErrorIs(t, err, exec.ErrNotFound)
	require.ErrorContains(t, err, "what to do: install it")
	require.ErrorContains(t, r.Run(t.Context(), New("sh", "-c", "echo only here; exit 1")), "only here")
}

func TestADryRunRunsNothing(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	file := filepath.Join(t.TempDir(), "made")
	r := &Runner{DryRun: true, Log: &log, Env: []string{"KUBECONFIG=a"}}
	r.Say("this is\nwhy")
	out, err := r.Output(t.Context(), New("touch", file))
	require.NoError(t, err)
	require.Empty(t, out)
	require.NoFileExists(t, file)
	require.Equal(t, "# this is\n# why\nKUBECONFIG=a touch "+file+"\n", log.String())
}

func TestAFailureThatPassesIsTriedAgainAndAnyOtherIsNot(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	count := filepath.Join(t.TempDir(), "count")
	r := &Runner{Log: &log, Pause: time.Millisecond, Tries: 4}
	c := New("sh", "-c", `echo x >> "$0"; [ $(wc -l < "$0") -ge 3 ] || { echo "it does not exist yet" >&2; exit 1; }`, count)
	require.Error(t, r.Run(t.Context(), c))
	c.Again = regexp.MustCompile("does not exist")
	require.NoError(t, r.Run(t.Context(), c))
	require.Contains(t, log.String(), "not yet: it does not exist yet")

	always := New("sh", "-c", `echo x >> "$0"; echo does not exist >&2; exit 1`, count+"2")
	always.Again = c.Again
	require.Error(t, r.Run(t.Context(), always))
	lines, err := os.ReadFile(count + "2")
	require.NoError(t, err)
	require.Len(t, lines, 2*4, "four times and no more")
}

// told is a log that says when something is written to it.
type told chan string

func (c told) Write(b []byte) (int, error) {
	select {
	case c <- string(b):
	default:
	}
	return len(b), nil
}

func TestWhatTakesLongIsSaidAndEndsWithItsContext(t *testing.T) {
	t.Parallel()
	log := make(told, 1)
	r := &Runner{Log: log, Interval: time.Millisecond}
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, New("sleep", "600")) }()
	require.Contains(t, <-log, "still at it after 0s: sleep 600")
	why := errors.New("enough")
	cancel(why)
	require.ErrorIs(t, <-ended, why)
}
