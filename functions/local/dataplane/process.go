package dataplane

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
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

// process is a program that is started again whenever it ends.
type process struct {
	name    string // in errors and tests
	program string
	env     []string
	log     *slog.Logger
	end     context.CancelFunc
	done    chan struct{} // closed when nothing of it is left

	mu      sync.Mutex
	present *child.Process // nil between two
}

func supervise(program, name string, env []string, log *slog.Logger) *process {
	ctx, end := context.WithCancel(context.Background()) // it lives until stop
	p := &process{name: name, program: program, env: env, log: log.With("process", name), end: end, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.run(ctx)
	}()
	return p
}

// run starts the program again and again until ctx ends, and then ends it.
func (p *process) run(ctx context.Context) {
	for wait := firstWait; ctx.Err() == nil; {
		said := &lastWords{}
		began := time.Now()
		c, err := child.Start(p.env, said, p.program)
		if err != nil {
			p.log.Error("process did not start", "program", filepath.Base(p.program), "error", err)
		} else {
			p.set(c)
			p.log.Debug("process started", "pid", c.Pid())
			select {
			case <-c.Ended():
				p.log.Warn("process ended; it is started again", "state", c.State(), "said", said.String())
			case <-ctx.Done():
				// Told to end, a dispatcher acknowledges what it is delivering before it stores it as a dead letter, for which
				// its connection may be closed already. Killed, it loses nothing: RabbitMQ delivers again.
				if err := c.End(syscall.SIGKILL, killTimeout); err != nil {
					p.log.Error("process did not end", "error", err)
				}
			}
			p.set(nil)
		}
		if time.Since(began) >= settled {
			wait = firstWait
		}
		pause(ctx, wait)
		wait = min(2*wait, longWait)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (p *process) set(c *child.Process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.present = c
}

// pid is the number of the process that runs, 0 between two.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.present == nil {
		return 0
	}
	return p.present.Pid()
}

// stop ends the process and returns when it has ended.
func (p *process) stop() {
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
