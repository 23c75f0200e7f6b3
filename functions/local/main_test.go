package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// deadline bounds each test; nothing waits for it unless something is broken.
const deadline = time.Minute

// start compiles and starts the program as `make run` does, on a port of its own, and returns the address that it greets
// with.
func start(t *testing.T, env ...string) (cmd *exec.Cmd, page string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "local")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, program)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), append([]string{"PORT=0"}, env...)...)
	cmd.Stderr = t.Output()
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // when the test has failed; otherwise it is gone
	lines := bufio.NewScanner(stdout)
	address := regexp.MustCompile(`http://\S+/home`)
	for lines.Scan() {
		if page = address.FindString(lines.Text()); page != "" {
			go func() { _, _ = io.Copy(io.Discard, stdout) }() // it must never block on a full pipe; ends with the program
			return cmd, page
		}
	}
	require.NoError(t, lines.Err())
	t.Fatal("the program ended without printing its page's address")
	return nil, ""
}

func TestInterruptAnswersWhatIsUnderWayAndEndsWithSuccess(t *testing.T) {
	t.Parallel()
	cmd, page := start(t)
	picture, err := os.ReadFile("../../.ebb/pictures/chelsea.png")
	require.NoError(t, err, "`make pictures` fetches it")
	base := page[:len(page)-len("/home")]

	// The body is held back until the program drains, so that the request is under way for certain.
	body, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v1/infer?model=cat", body)
	require.NoError(t, err)
	type answer struct {
		status int
		body   []byte
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			answered <- answer{err: err}
			return
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		answered <- answer{resp.StatusCode, data, err}
	}()
	_, err = send.Write(picture[:1000])
	require.NoError(t, err)
	requireStatus(t, base+"/health/readiness", http.StatusOK)

	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	_, err = io.Copy(send, bytes.NewReader(picture[1000:]))
	require.NoError(t, err)
	require.NoError(t, send.Close())
	got := <-answered
	require.NoError(t, got.err)
	require.Equal(t, http.StatusOK, got.status, "%s", got.body)
	var response struct {
		Results []struct{ Answer bool }
	}
	require.NoError(t, json.Unmarshal(got.body, &response))
	require.Len(t, response.Results, 1)
	require.True(t, response.Results[0].Answer)
	require.NoError(t, cmd.Wait(), "exit code 0")
}

func TestMetricsAreServedOnThePort(t *testing.T) {
	t.Parallel()
	cmd, page := start(t)
	requireStatus(t, page[:len(page)-len("/home")]+"/metrics", http.StatusOK)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), "exit code 0")
}

func requireStatus(t *testing.T, url string, status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, status, resp.StatusCode)
}

func TestOverRabbitMQAnInterruptEndsEveryProcessWithSuccess(t *testing.T) {
	t.Parallel()
	cmd, page := start(t, "BROKER=rabbitmq", "RABBITMQ_FOLDER="+filepath.Join(t.TempDir(), "rabbitmq"))
	requireStatus(t, page[:len(page)-len("/home")]+"/health/readiness", http.StatusOK)
	pids := children(t, cmd.Process.Pid)
	require.Len(t, pids, 1+2*4+2, "the broker's ingress, two dispatchers for each Trigger of config, RabbitMQ and epmd")
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	require.NoError(t, cmd.Wait(), "exit code 0")
	for _, pid := range pids {
		require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
	}
}

// children are the processes that a process has started, as the kernel lists them.
func children(t *testing.T, parent int) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/status")
	require.NoError(t, err)
	for _, file := range files {
		status, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(status, fmt.Appendf(nil, "\nPPid:\t%d\n", parent)) {
			continue // it has ended meanwhile, or is somebody else's
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		require.NoError(t, err)
		pids = append(pids, pid)
	}
	return pids
}
