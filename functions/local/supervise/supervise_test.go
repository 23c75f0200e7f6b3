package supervise_test

import (
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/functions/local/supervise"
)

// childVar makes the test binary be a program that says its number, and what ends it.
const childVar = "SUPERVISE_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVar) != "" {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		_, _ = os.Stdout.WriteString("began\n")
		<-signals
		_, _ = os.Stdout.WriteString("ended\n")
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// lines is what a program says.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		l <- strings.TrimSpace(line)
	}
	return len(p), nil
}

func start(t *testing.T, grace time.Duration) (*supervise.Process, lines) {
	t.Helper()
	said := make(lines, 16)
	p := supervise.Start(supervise.Program{
		Name: "child", Path: os.Args[0], Env: []string{childVar + "=1"}, Output: said, Grace: grace,
	}, slog.New(slog.DiscardHandler))
	t.Cleanup(p.Stop)
	require.Equal(t, "child", p.Name())
	return p, said
}

func TestWhatIsKilledIsStartedAgain(t *testing.T) {
	t.Parallel()
	p, said := start(t, time.Minute)
	require.Equal(t, "began", <-said)
	first := p.Pid()
	require.NotZero(t, first)
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	require.Equal(t, "began", <-said)
	require.NotEqual(t, first, p.Pid())
}

func TestStopLetsAProgramFinishOrKillsIt(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		grace time.Duration
		want  []string
	}{
		{"with grace", time.Minute, []string{"ended"}},
		{"without", 0, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p, said := start(t, tc.grace)
			require.Equal(t, "began", <-said)
			p.Stop()
			require.Zero(t, p.Pid())
			close(said)
			var rest []string
			for line := range said {
				rest = append(rest, line)
			}
			require.Equal(t, tc.want, rest)
		})
	}
}

func TestWhatDoesNotStartIsTriedAgainUntilStop(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "program")
	said, logged := make(lines, 16), make(lines, 64)
	p := supervise.Start(supervise.Program{Name: "late", Path: program, Env: []string{childVar + "=1"}, Output: said},
		slog.New(slog.NewTextHandler(logged, nil)))
	t.Cleanup(p.Stop)
	require.Contains(t, <-logged, "process did not start")
	require.NoError(t, os.Symlink(os.Args[0], program))
	require.Equal(t, "began", <-said)
}
