package rabbitmqtest

import (
	"io/fs"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestANodeStartsStopsComesBackOnItsPortAndSaysWhyWhenItCannot(t *testing.T) {
	t.Parallel()
	n := Start(t)
	address := n.Address()
	require.True(t, n.speaksAMQP(t.Context()))
	require.Error(t, n.Start(t.Context()), "it runs already")

	for _, end := range []func() error{n.Stop, n.Kill} {
		require.NoError(t, end())
		require.False(t, n.speaksAMQP(t.Context()))
		require.NoError(t, end(), "twice is harmless")
		require.NoError(t, n.Start(t.Context()))
		require.Equal(t, address, n.Address())
		require.True(t, n.speaksAMQP(t.Context()))
	}
	out, err := n.Control(t.Context(), "list_users")
	require.NoError(t, err)
	require.Contains(t, out, "guest")
	_, err = n.Control(t.Context(), "no_such_command")
	require.ErrorContains(t, err, "no_such_command")

	require.NoError(t, n.Kill())
	require.NoError(t, os.Remove(n.path("rabbitmq.conf")))
	require.NoError(t, os.WriteFile(n.path("rabbitmq.conf"), []byte("no_such_setting = 1\n"), 0o600))
	require.ErrorContains(t, n.Start(t.Context()), "no_such_setting")
}

func TestNodesLiveSideBySideAndLeaveNothing(t *testing.T) {
	t.Parallel()
	one, other := Start(t), Start(t)
	require.NotEqual(t, one.Address(), other.Address())
	folder, pids := one.folder, []int{one.server.child.Pid, one.epmd.child.Pid}
	require.NoError(t, one.Remove())
	require.True(t, other.speaksAMQP(t.Context()), "it does not care")

	_, err := os.Stat(folder)
	require.ErrorIs(t, err, fs.ErrNotExist)
	for _, pid := range pids {
		require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
	}
	ln, err := net.Listen("tcp", one.Address())
	require.NoError(t, err)
	require.NoError(t, ln.Close())
}

func TestWithoutRabbitMQTheErrorSaysWhatToDo(t *testing.T) {
	t.Setenv("RABBITMQ_SCRIPTS", t.TempDir())
	_, err := New(t.Context())
	require.ErrorIs(t, err, ErrNotInstalled)
	require.ErrorContains(t, err, "make test")
}
