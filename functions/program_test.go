package functions_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience bounds each program's life and each wait; nothing waits for it unless something is broken.
const patience = 2 * time.Minute

// programs are the functions, compiled once for all tests.
var programs struct {
	once   sync.Once
	folder string
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if programs.folder != "" {
		_ = os.RemoveAll(programs.folder) // it is a temporary one
	}
	os.Exit(code)
}

func compile() {
	if programs.folder, programs.err = os.MkdirTemp("", "ebb"); programs.err != nil {
		return
	}
	build := exec.Command("go", "build", "-o", programs.folder+"/", "./ingress", "./dispatch", "./deadletter")
	if out, err := build.CombinedOutput(); err != nil {
		programs.err = fmt.Errorf("%w: %s", err, out)
	}
}

// command is a function's program that is not started yet, with nothing but env in its environment.
func command(t *testing.T, name string, env ...string) *exec.Cmd {
	t.Helper()
	programs.once.Do(compile)
	require.NoError(t, programs.err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, filepath.Join(programs.folder, name))
	cmd.Env = append([]string{"HOST=127.0.0.1", "PORT=0", "METRICS_PORT=0", "POD_NAME=" + name + "-0"}, env...)
	return cmd
}

// program is a function's program that runs.
type program struct {
	cmd *exec.Cmd
	url string
	log strings.Builder // written until said is closed
	// said is closed when the program has said its last word.
	said chan struct{}
}

// start starts a program and returns when it listens.
func start(t *testing.T, name string, env ...string) *program {
	t.Helper()
	p := &program{cmd: command(t, name, env...), said: make(chan struct{})}
	stderr, err := p.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill() }) // when the test has failed; otherwise it is gone
	address := make(chan string, 1)
	go func() {
		defer close(p.said)
		defer close(address)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(&p.log, lines.Text())
			fmt.Fprintln(t.Output(), name, lines.Text())
			var line struct{ Msg, Address string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
				address <- line.Address
			}
		}
	}()
	a, ok := <-address
	require.True(t, ok, "it ended early")
	p.url = "http://" + a
	return p
}

// term tells a program to end.
func (p *program) term(t *testing.T) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
}

// ended waits for a program to end, and wants it to say that all went well.
func (p *program) ended(t *testing.T) {
	t.Helper()
	<-p.said
	require.NoError(t, p.cmd.Wait(), "exit code 0")
	require.NotContains(t, p.log.String(), "guest:guest", "a password is nobody's business")
}

// client keeps no connections, so that no program waits for them.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: patience}}

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func do(req *http.Request) answer {
	resp, err := client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body), errors.Join(err, resp.Body.Close())}
}

func get(t *testing.T, url string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	a := do(req)
	require.NoError(t, a.err)
	return a
}

// requireReady waits until a program is ready.
func (p *program) requireReady(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return get(t, p.url+"/health/readiness").status == http.StatusOK }, patience, 20*time.Millisecond)
}

// held is a request of which the program has a part.
type held struct {
	send     *io.PipeWriter
	rest     []byte
	answered chan answer
}

// hold posts a body of which the second half is kept back, and returns when the program has read of the first.
func hold(t *testing.T, url string, header http.Header, body []byte) *held {
	t.Helper()
	receive, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, receive)
	require.NoError(t, err)
	req.Header = header
	req.ContentLength = int64(len(body))
	req.Header.Set("Expect", "100-continue") // so the body is not sent before the program wants to read it
	h := &held{send, body[len(body)/2:], make(chan answer, 1)}
	go func() { h.answered <- do(req) }()
	_, err = send.Write(body[:len(body)/2])
	require.NoError(t, err)
	return h
}

// finish sends the rest and returns the answer.
func (h *held) finish(t *testing.T) answer {
	t.Helper()
	_, err := h.send.Write(h.rest)
	require.NoError(t, err)
	require.NoError(t, h.send.Close())
	a := <-h.answered
	require.NoError(t, a.err)
	return a
}
