// Package standintest lets a test run a tool with hack/standin in the place of the programs that the tool runs.
package standintest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/hack/command"
)

// programs are what it stands in for.
var programs = []string{"gcloud", "kubectl", "ko", "kind", "docker", "curl", "tar", "go"}

// Main runs the tests of a package with the stand-in alone on the PATH, and fails when they leave a goroutine behind.
func Main(m *testing.M) int {
	bin, err := os.MkdirTemp("", "standin")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(bin) }() // a temporary folder of the tests
	build := exec.CommandContext(context.Background(), "go", "build", "-o", filepath.Join(bin, "standin"), "github.com/ebb-inference/ebb/hack/standin")
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v: %s", err, out))
	}
	for _, name := range programs {
		if err := os.Symlink("standin", filepath.Join(bin, name)); err != nil {
			panic(err)
		}
	}
	if err := os.Setenv("PATH", bin); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// World is where what the stand-in keeps is.
type World struct{ folder string }

// New is a World in which nothing is.
func New(t *testing.T) World {
	t.Helper()
	return World{t.TempDir()}
}

// Environ is the environment by which the stand-in finds the World.
func (w World) Environ(more ...string) []string {
	return append([]string{"STANDIN=" + w.folder, "PATH=" + os.Getenv("PATH")}, more...)
}

// Fail lets a change fail: "3 before" is the third, which is not made, and "3 after" is made and reported as a failure; "" lets none.
func (w World) Fail(t *testing.T, how string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(w.folder, "fail"), []byte(how), 0o600))
}

// FailEach lets every change fail once, before or after it is made, each run going on where the one before failed, until a run ends
// well. It returns the commands that failed; changing are those that change something.
func (w World) FailEach(t *testing.T, when string, changing func([]string) []string, run func() error) (failed []string) {
	t.Helper()
	for more := 1; ; {
		w.Fail(t, fmt.Sprintf("%d %s", w.State(t).Changes+more, when))
		err := run()
		commands := changing(w.Commands(t))
		if err == nil {
			w.Fail(t, "")
			return failed
		}
		require.ErrorContains(t, err, "this command failed: ")
		require.ErrorContains(t, err, "the stand-in was told to fail")
		// What is done again without a look, as what was downloaded and not yet found right, may not fail for ever.
		switch last := commands[len(commands)-1]; {
		case slices.Contains(failed, last):
			more++
		default:
			failed, more = append(failed, last), 1
		}
		require.Less(t, more, 20, failed)
	}
}

// State is what there is.
func (w World) State(t *testing.T) State {
	t.Helper()
	var s State
	text, err := os.ReadFile(filepath.Join(w.folder, "world"))
	if errors.Is(err, fs.ErrNotExist) {
		return s
	}
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &s))
	return s
}

// Put changes what there is.
func (w World) Put(t *testing.T, s State) {
	t.Helper()
	text, err := json.Marshal(s)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(w.folder, "world"), text, 0o600))
}

// State is what a World has.
type State struct {
	Changes   int
	APIs      map[string]bool
	Things    map[string]map[string]any
	Roles     map[string][]string
	Objects   map[string]bool
	Kube      map[string]map[string]any
	Applied   map[string]bool
	Leftovers int
	Leaked    []string
	Tried     map[string]int
}

// Commands are the command lines since the last time that they were asked for, as one would type them.
func (w World) Commands(t *testing.T) []string {
	t.Helper()
	file := filepath.Join(w.folder, "log")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	require.NoError(t, os.Remove(file))
	var lines []string
	for line := range bytes.Lines(text) {
		var words []string
		require.NoError(t, json.Unmarshal(line, &words))
		lines = append(lines, command.New(words[0], words[1:]...).String())
	}
	return lines
}

// Printed are the commands that a dry run printed, one by one, without env, which is before each line of them.
func Printed(text string, env ...string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if commands, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), strings.Join(append(env, ""), " ")); ok {
			lines = append(lines, strings.Split(commands, " | ")...)
		}
	}
	return lines
}
