// Package child runs programs as child processes that do not outlive this one, whatever ends it. It knows nothing of what
// they are.
package child

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// outputDelay is how long what a child wrote is waited for after its end, should a child of its own hold the pipe.
const outputDelay = time.Second

// Process is a child.
type Process struct {
	child *os.Process
	ended chan struct{} // closed when it was waited for
	state *os.ProcessState
}

// Start starts a program with nothing but env in its environment. What it says goes to output, which a goroutine writes
// to unless it is a file.
func Start(env []string, output io.Writer, name string, args ...string) (*Process, error) {
	cmd := exec.Command(name, args...) //nolint:gosec,noctx // a program of the operator's; End ends it
	cmd.Env, cmd.Stdout, cmd.Stderr = env, output, output
	cmd.SysProcAttr, cmd.WaitDelay = dieWithParent(), outputDelay

	p := &Process{ended: make(chan struct{})}
	started := make(chan error)
	go p.live(cmd, started)
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// live starts the child, says so, and waits for its end.
func (p *Process) live(cmd *exec.Cmd, started chan<- error) {
	defer close(p.ended)
	// The kernel takes the end of the thread that started a child for the end of its parent.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	p.child = cmd.Process
	started <- err
	if err == nil {
		_ = cmd.Wait() // how it ended is in its state
		p.state = cmd.ProcessState
	}
}

// Pid is the number of the process.
func (p *Process) Pid() int { return p.child.Pid }

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// State says how a process ended: "exit status 1", "signal: killed". Call it after Ended.
func (p *Process) State() string { return p.state.String() }

// End sends s, and SIGKILL when the process is there after the time-out; then it waits for it. The error says so when it
// took SIGKILL, or when even that was not enough.
func (p *Process) End(s syscall.Signal, within time.Duration) error {
	if err := p.signal(s); err != nil {
		return err
	}
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timeout.C:
	}
	err := fmt.Errorf("process %d did not end within %s of %s", p.child.Pid, within, s)
	if s != syscall.SIGKILL {
		_ = p.signal(syscall.SIGKILL) // it may have ended at last
		<-p.ended
	}
	return err
}

func (p *Process) signal(s syscall.Signal) error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	if err := p.child.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("process %d: %w", p.child.Pid, err)
	}
	return nil
}
