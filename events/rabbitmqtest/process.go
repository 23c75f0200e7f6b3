package rabbitmqtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a child that does not outlive this program, whatever ends it.
type process struct {
	child *os.Process
	ended chan struct{} // closed when it was waited for
}

// start starts a program with its output in a file.
func start(env []string, output, name string, args ...string) (*process, error) {
	out, err := os.OpenFile(output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) //nolint:gosec // in the node's own folder
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the child has it by now
	cmd := exec.Command(name, args...) //nolint:gosec,noctx // a program of the operating system; end ends it
	cmd.Env, cmd.Stdout, cmd.Stderr = env, out, out
	cmd.SysProcAttr = dieWithParent()

	p := &process{ended: make(chan struct{})}
	started := make(chan error)
	go p.live(cmd, started)
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// live starts the child, says so, and waits for its end.
func (p *process) live(cmd *exec.Cmd, started chan<- error) {
	defer close(p.ended)
	// The kernel takes the end of the thread that started a child for the end of its parent.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	p.child = cmd.Process
	started <- err
	if err == nil {
		_ = cmd.Wait() // how it ended is in its log
	}
}

// end sends s, and SIGKILL when the process is there after the time-out; then it waits for it.
func (p *process) end(s syscall.Signal, within time.Duration) error {
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

func (p *process) signal(s syscall.Signal) error {
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
