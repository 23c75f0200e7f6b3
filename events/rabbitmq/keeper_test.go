package rabbitmq

import (
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// lines is a log that a test can wait for.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func (l lines) expect(t *testing.T, text string) {
	t.Helper()
	select {
	case line := <-l:
		require.Contains(t, line, text)
	case <-time.After(startTimeout):
		t.Fatalf("not logged: %s", text)
	}
}

func TestAKeptNodeThatIsKilledComesBackOnItsPort(t *testing.T) {
	t.Parallel()
	n := start(t, Config{})
	address, pid := n.Address(), n.server.Pid()
	log := make(lines, 10)
	k := Keep(n, slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() { require.NoError(t, k.Close()) })
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	log.expect(t, `msg="RabbitMQ ended; it is started again" state="signal: killed"`)
	log.expect(t, `msg="RabbitMQ is back"`)
	require.Equal(t, address, n.Address())
	require.True(t, n.speaksAMQP(t.Context()))
	require.NoError(t, k.Close())
	require.False(t, n.speaksAMQP(t.Context()))
	require.NoError(t, k.Close(), "twice is harmless")
}

func TestAKeptNodeThatCannotStartIsTriedAgainUntilItIsClosed(t *testing.T) {
	t.Parallel()
	n := start(t, Config{})
	pid := n.server.Pid()
	n.scripts = t.TempDir() // where there is no program
	log := make(lines, 10)
	k := Keep(n, slog.New(slog.NewTextHandler(log, nil)))
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	log.expect(t, "RabbitMQ ended")
	for range 2 {
		log.expect(t, "RabbitMQ did not start; it is tried again")
	}
	require.NoError(t, k.Close())
	for len(log) > 0 {
		require.Contains(t, <-log, "did not start")
	}
}
