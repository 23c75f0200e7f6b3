// Package supervise keeps programs running as children of this one: what ends is started again, as a cluster would, but at
// once. It knows nothing of what they are.
package supervise

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/ebb-inference/ebb/events/rabbitmq/child"
)

const (
	killTimeout = 10 * time.Second
	firstWait   = 200 * time.Millisecond // before it is started again; then twice as long each time
	longWait    = 2 * time.Second
	settled     = 10 * time.Second // what ran that long had started well
	tail        = 2 << 10          // of what a process said, in the log of its end
)

// Program is what is to run.
type Program struct {
	Name   string    // in logs
	Path   string    // of the file
	Env    []string  // all of its environment
	Output io.Writer // gets what it says; nil: nobody
	// Grace is how long Stop lets it end by itself after SIGTERM. Nothing: it is killed.
	Grace time.Duration
}

// Process is a program that is started again whenever it ends.
type Process struct {
	program Program
	log     *slog.Logger
	end     context.CancelFunc
	done    chan struct{} // closed when nothing of it is left

	mu      sync.Mutex
	present *child.Process // nil between two
}

// Start starts a program, and again whenever it ends, until Stop.
func Start(program Program, log *slog.Logger) *Process {
	ctx, end := context.WithCancel(context.Background()) // it lives until Stop
	p := &Process{program: program, log: log.With("process", program.Name), end: end, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.run(ctx)
	}()
	return p
}

// run starts the program again and again until ctx ends, and then ends it.
func (p *Process) run(ctx context.Context) {
	for wait := firstWait; ctx.Err() == nil; {
		said := &lastWords{}
		output := io.Writer(said)
		if p.program.Output != nil {
			output = io.MultiWriter(said, p.program.Output)
		}
		began := time.Now()
		c, err := child.Start(p.program.Env, output, p.program.Path)
		if err != nil {
			p.log.Error("process did not start", "error", err)
		} else {
			p.set(c)
			p.log.Debug("process started", "pid", c.Pid())
			select {
			case <-c.Ended():
				p.log.Warn("process ended; it is started again", "state", c.State(), "said", said.String())
			case <-ctx.Done():
				if err := p.stop(c); err != nil {
					p.log.Error("process did not end", "error", err)
				}
			}
			p.set(nil)
		}
		if time.Since(began) >= settled {
			wait = firstWait
		}
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
		}
		wait = min(2*wait, longWait)
	}
}

func (p *Process) stop(c *child.Process) error {
	if p.program.Grace > 0 {
		return c.End(syscall.SIGTERM, p.program.Grace)
	}
	return c.End(syscall.SIGKILL, killTimeout)
}

func (p *Process) set(c *child.Process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.present = c
}

// Name is the program's.
func (p *Process) Name() string { return p.program.Name }

// Pid is the number of the process that runs, 0 between two.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.present == nil {
		return 0
	}
	return p.present.Pid()
}

// Stop ends the process and returns when it has ended. It may be called any number of times.
func (p *Process) Stop() {
	p.end()
	<-p.done
}

// lastWords keeps the end of what a process says. The process writes to it until it has ended, and then it is read.
type lastWords struct{ text []byte }

func (w *lastWords) Write(p []byte) (int, error) {
	w.text = append(w.text, p...)
	if over := len(w.text) - tail; over > 0 {
		w.text = append(w.text[:0], w.text[over:]...)
	}
	return len(p), nil
}

func (w *lastWords) String() string { return string(bytes.ToValidUTF8(w.text, nil)) }
