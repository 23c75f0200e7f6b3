package rabbitmq

import (
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, c Config) *Node {
	t.Helper()
	n, err := New(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Remove()) })
	return n
}

func TestAFolderThatIsGivenKeepsWhatIsDurableAndHasOneNodeAtATime(t *testing.T) {
	t.Parallel()
	c := Config{Folder: filepath.Join(t.TempDir(), "node"), Management: true}
	n := start(t, c)
	_, err := New(t.Context(), c)
	require.ErrorIs(t, err, ErrInUse)
	requireStatus(t, http.MethodPut, n.ManagementURL()+"/api/queues/%2F/kept", `{"durable": true}`, http.StatusCreated)
	require.NoError(t, n.Close())
	require.NoError(t, n.Close(), "twice is harmless")

	n = start(t, c)
	requireStatus(t, http.MethodGet, n.ManagementURL()+"/api/queues/%2F/kept", "", http.StatusOK)
	requireStatus(t, http.MethodGet, n.ManagementURL()+"/api/queues/%2F/other", "", http.StatusNotFound)
}

func requireStatus(t *testing.T, method, url, body string, status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, status, resp.StatusCode)
}

func TestANodeStartsStopsComesBackOnItsPortAndSaysWhyWhenItCannot(t *testing.T) {
	t.Parallel()
	n := start(t, Config{})
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
	one, other := start(t, Config{}), start(t, Config{})
	require.NotEqual(t, one.Address(), other.Address())
	folder, pids := one.folder, []int{one.server.Pid(), one.epmd.Pid()}
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
	_, err := New(t.Context(), Config{})
	require.ErrorIs(t, err, ErrNotInstalled)
	require.ErrorContains(t, err, "hack/setup")
}
