package app_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// child is a function's process.
type child struct {
	cmd    *exec.Cmd
	out    *bufio.Reader
	stderr bytes.Buffer
}

// start runs the function of that name in a process of its own, with only env in its environment.
func start(t *testing.T, name string, env ...string) *child {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	c := &child{cmd: exec.CommandContext(t.Context(), exe)}
	c.cmd.Env = append([]string{childVar + "=" + name, "GOCOVERDIR=" + t.TempDir()}, env...) // go test -cover would warn
	c.cmd.Stderr = &c.stderr
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.out = bufio.NewReader(out)
	require.NoError(t, c.cmd.Start())
	return c
}

// says waits for a line on stdout.
func (c *child) says(t *testing.T, want string) {
	t.Helper()
	line, err := c.out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, want, strings.TrimSpace(line))
}

// exits waits for the end and returns the exit code and what was logged, a JSON object a line.
func (c *child) exits(t *testing.T) (int, []map[string]any) {
	t.Helper()
	_, err := io.Copy(io.Discard, c.out)
	require.NoError(t, err)
	if err := c.cmd.Wait(); err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
	}
	var lines []map[string]any
	for line := range strings.Lines(c.stderr.String()) {
		var fields map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &fields), line)
		lines = append(lines, fields)
	}
	return c.cmd.ProcessState.ExitCode(), lines
}

func TestMainExitsZeroAndSilentlyWhenAllIsWell(t *testing.T) {
	t.Parallel()
	code, log := start(t, "clean").exits(t)
	require.Zero(t, code)
	require.Empty(t, log)
}

func TestMainExitsOneWithOneLineThatSaysWhy(t *testing.T) {
	t.Parallel()
	code, log := start(t, "failing").exits(t)
	require.Equal(t, 1, code)
	require.Len(t, log, 1)
	require.Equal(t, "ERROR", log[0]["level"])
	require.Equal(t, "failing", log[0]["function"])
	require.Equal(t, "connect to the broker: refused", log[0]["error"])
}

func TestMainRefusesALoggerItCannotMake(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, env, want string }{
		{"level", "LOG_LEVEL=loud", `LOG_LEVEL is "loud"; want debug, info, warn or error`},
		{"format", "LOG_FORMAT=xml", `LOG_FORMAT is "xml"; want json or text`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := start(t, "clean", tt.env)
			require.Error(t, c.cmd.Wait())
			require.Equal(t, 1, c.cmd.ProcessState.ExitCode())
			require.Contains(t, c.stderr.String(), tt.want)
			require.Equal(t, 1, strings.Count(c.stderr.String(), "\n"))
		})
	}
}

func TestMainDrainsOnTheFirstSignal(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			c := start(t, "draining")
			c.says(t, "started")
			require.NoError(t, c.cmd.Process.Signal(s))
			c.says(t, "drained")
			code, log := c.exits(t)
			require.Zero(t, code, log)
		})
	}
}

func TestMainExitsAtOnceOnTheSecondSignal(t *testing.T) {
	t.Parallel()
	c := start(t, "hanging")
	c.says(t, "started")
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGTERM))
	c.says(t, "stopping")
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGTERM))
	code, log := c.exits(t)
	require.Equal(t, 1, code)
	require.Len(t, log, 2)
	require.Contains(t, log[1]["msg"], "second signal")
}

func TestLogLinesCarryTheTrace(t *testing.T) {
	t.Parallel()
	code, log := start(t, "logging").exits(t)
	require.Zero(t, code)
	require.Len(t, log, 1, "debug is not logged by default")
	require.Len(t, log[0]["trace_id"], 32)
	require.Equal(t, log[0]["expected"], log[0]["trace_id"])
	require.Len(t, log[0]["span_id"], 16)

	_, log = start(t, "logging", "LOG_LEVEL=debug").exits(t)
	require.Len(t, log, 2)
	require.Equal(t, "DEBUG", log[1]["level"])
}

func TestLogFormatText(t *testing.T) {
	t.Parallel()
	c := start(t, "logging", "LOG_FORMAT=text")
	require.NoError(t, c.cmd.Wait())
	require.Contains(t, c.stderr.String(), `level=INFO msg="with a span" function=logging`)
}

func TestMainTellsAPersonPlainlyWhyItEnds(t *testing.T) {
	t.Parallel()
	c := start(t, "misconfigured", "LOG_FORMAT=text")
	require.Error(t, c.cmd.Wait())
	require.Equal(t, 1, c.cmd.ProcessState.ExitCode())
	require.Equal(t, "misconfigured: cat.yaml:3: colour: is no field\nmisconfigured: the model \"dog\" has no Trigger\n", c.stderr.String())
}
