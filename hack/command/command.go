// Package command runs other programs on behalf of a tool: it says what it does while that takes long, and when a program fails
// which command it was, what the program said and what to do. A dry run prints the same commands and runs none.
//
// It knows nothing of what the programs do.
package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	said  = 20               // lines of what a program that failed said that an error repeats
	grace = 10 * time.Second // for a program that was told to end
)

// Command is a program and what it is given. None is run by a shell, and none gets anything to read but what From writes.
type Command struct {
	Name string
	Args []string
	From *Command // whose output it reads
	// Again says by what a failure is recognised that passes: then it is run again after a pause. Nil: none does.
	Again *regexp.Regexp
	Hint  string // what to do when it fails
}

// New is a Command.
func New(name string, args ...string) Command { return Command{Name: name, Args: args} }

// Pipe is to with what c writes to read.
func (c Command) Pipe(to Command) Command {
	to.From = &c
	return to
}

// String is the command as one would type it.
func (c Command) String() string {
	words := make([]string, 0, 1+len(c.Args))
	for _, word := range append([]string{c.Name}, c.Args...) {
		words = append(words, quoted(word))
	}
	line := strings.Join(words, " ")
	if c.From != nil {
		line = c.From.String() + " | " + line
	}
	return line
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

func quoted(word string) string {
	if plain.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// Error is a command that failed.
type Error struct {
	Command string
	Said    string // the end of it
	Hint    string
	Err     error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("this command failed: %s: %v", e.Command, e.Err)
	if e.Said != "" {
		text += "; it said:\n" + e.Said
	}
	if e.Hint != "" {
		text += "\nwhat to do: " + e.Hint
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// Runner runs commands. The zero value runs them as they are and says nothing.
type Runner struct {
	DryRun bool
	Log    io.Writer // hears what is done; nil: nobody
	// Environ is the environment of commands; nil: this program's own. Env is added to it, and shown by a dry run.
	Environ, Env []string
	Folder       string // in which commands run; empty: this program's own
	// Hints are what to do about a program that is not there, by name.
	Hints    map[string]string
	Interval time.Duration // between two words about what takes long; default 15 s
	Pause    time.Duration // before a command is run again, and between two looks; default 10 s
	Tries    int           // of a command whose failure passes; default 6
}

// Say writes a line to the log. In a dry run it is a comment: all of the log could be given to a shell.
func (r *Runner) Say(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if r.DryRun {
		line = "# " + strings.ReplaceAll(line, "\n", "\n# ")
	}
	r.write(line)
}

func (r *Runner) write(line string) {
	if r.Log != nil {
		_, _ = fmt.Fprintln(r.Log, line) // nobody to tell when it fails
	}
}

// Run runs a command. What it says is repeated only when it fails.
func (r *Runner) Run(ctx context.Context, c Command) error {
	_, err := r.Output(ctx, c)
	return err
}

// Output runs a command and returns what it wrote. In a dry run that is nothing.
func (r *Runner) Output(ctx context.Context, c Command) ([]byte, error) {
	if r.DryRun {
		words := make([]string, 0, len(r.Env)+1)
		for _, variable := range r.Env {
			name, value, _ := strings.Cut(variable, "=")
			words = append(words, name+"="+quoted(value))
		}
		r.write(strings.Join(append(words, c.String()), " "))
		return nil, nil
	}
	tries := r.Tries
	if tries == 0 {
		tries = 6
	}
	for try := 1; ; try++ {
		out, err := r.once(ctx, c)
		e, failed := errors.AsType[*Error](err)
		if !failed || c.Again == nil || try == tries || ctx.Err() != nil || !c.Again.MatchString(e.Said) {
			return out, err
		}
		r.Say("    not yet: %s", lastLine(e.Said))
		if err := r.Sleep(ctx); err != nil {
			return nil, errors.Join(e, err)
		}
	}
}

// Sleep waits for a pause.
func (r *Runner) Sleep(ctx context.Context) error {
	pause := r.Pause
	if pause == 0 {
		pause = 10 * time.Second
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *Runner) once(ctx context.Context, c Command) ([]byte, error) {
	defer r.progress(c)()
	var input []byte
	if c.From != nil {
		var err error
		if input, err = r.once(ctx, *c.From); err != nil {
			return nil, err
		}
	}
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, c.Name, c.Args...)
	environ := r.Environ
	if environ == nil {
		environ = os.Environ()
	}
	cmd.Env = slices.Concat(environ, r.Env)
	cmd.Dir = r.Folder
	cmd.Stdin = bytes.NewReader(input)
	cmd.Stdout, cmd.Stderr = &out, &complaints
	// Told to end and not killed, so that what it has begun elsewhere is left in a state that it knows.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	err := cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	e := &Error{Command: c.String(), Said: tail(complaints.String()), Hint: c.Hint, Err: err}
	if e.Said == "" {
		e.Said = tail(out.String())
	}
	if errors.Is(err, exec.ErrNotFound) {
		e.Hint = r.Hints[c.Name]
	}
	if ctx.Err() != nil {
		e.Err = context.Cause(ctx)
	}
	return nil, e
}

// progress says from time to time that a command still runs, until the function that it returns is called.
func (r *Runner) progress(c Command) (stop func()) {
	interval := r.Interval
	if interval == 0 {
		interval = 15 * time.Second
	}
	began, quit := time.Now(), make(chan struct{})
	var saying sync.WaitGroup
	saying.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				r.Say("    still at it after %s: %s", time.Since(began).Round(time.Second), shortened(c.String()))
			case <-quit:
				return
			}
		}
	})
	return func() {
		close(quit)
		saying.Wait()
	}
}

func shortened(line string) string {
	const most = 100
	if len(line) > most {
		return line[:most] + " ..."
	}
	return line
}

func tail(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-said):], "\n")
}

func lastLine(text string) string {
	return text[strings.LastIndexByte(text, '\n')+1:]
}
