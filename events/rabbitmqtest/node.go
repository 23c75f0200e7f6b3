// Package rabbitmqtest starts a RabbitMQ node for tests: a process of its own on loopback, on ports and in a folder that
// nobody else uses, and without a trace when it is stopped. Several of them run side by side.
//
// It takes Debian's rabbitmq-server, or another whose scripts RABBITMQ_SCRIPTS names. It knows nothing of events.
package rabbitmqtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// scripts is where Debian's package has the server. Its wrappers in the path insist on a user of their own.
const scripts = "/usr/lib/rabbitmq/bin"

const (
	startTimeout = time.Minute      // a node takes 7 seconds of a CPU
	stopTimeout  = 20 * time.Second // for a node to end by itself
	ctlTimeout   = time.Minute
	startTries   = 3 // somebody may take a port between its choice and its use
	pollInterval = 20 * time.Millisecond
	logTail      = 4 << 10 // of a node that did not start, in the error
)

// ErrNotInstalled says that there is no RabbitMQ on this machine.
var ErrNotInstalled = errors.New("RabbitMQ is not installed: `make test` installs it (hack/setup rabbitmq)")

// Node is one RabbitMQ server. Its methods must not be called at the same time.
type Node struct {
	scripts string
	folder  string // everything that it writes
	port    int    // AMQP
	epmd    *process
	server  *process // nil while it is stopped
	env     []string
}

// New starts a node and returns when it takes connections. Remove ends it and removes what it wrote.
func New(ctx context.Context) (*Node, error) {
	n := &Node{scripts: scripts}
	if s := os.Getenv("RABBITMQ_SCRIPTS"); s != "" {
		n.scripts = s
	}
	if _, err := os.Stat(n.script("rabbitmq-server")); errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotInstalled
	}
	var err error
	for range startTries {
		if err = n.create(ctx); err == nil {
			return n, nil
		}
		err = errors.Join(err, n.Remove())
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

func (n *Node) create(ctx context.Context) (err error) {
	if n.folder, err = os.MkdirTemp("", "rabbitmq"); err != nil {
		return err
	}
	ports, err := freePorts(ctx, 3)
	if err != nil {
		return err
	}
	n.port = ports[0]
	if err := n.configure(ports[1], ports[2]); err != nil {
		return err
	}
	epmd := strconv.Itoa(ports[2])
	if n.epmd, err = start(n.env, n.path("epmd.log"), "epmd", "-address", "127.0.0.1", "-port", epmd); err != nil {
		return fmt.Errorf("epmd: %w", err)
	}
	return n.Start(ctx)
}

// configure writes what a node reads, and fills n.env.
func (n *Node) configure(dist, epmd int) error {
	files := map[string]string{
		"home/.erlang.cookie": rand.Text(),
		"enabled_plugins":     "[].\n",
		"rabbitmq.conf": strings.Join([]string{
			"log.file.level = info",
			"disk_free_limit.absolute = 1MB", // a full disk is another test's concern
			"",
		}, "\n"),
	}
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(n.path(name)), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(n.path(name), []byte(content), 0o400); err != nil {
			return err
		}
	}
	n.env = []string{
		"PATH=" + os.Getenv("PATH"),
		"LANG=C.UTF-8",
		"HOME=" + n.path("home"),
		"RABBITMQ_NODENAME=ebb-" + strconv.Itoa(n.port) + "@localhost",
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_NODE_PORT=" + strconv.Itoa(n.port),
		"RABBITMQ_DIST_PORT=" + strconv.Itoa(dist),
		"RABBITMQ_MNESIA_BASE=" + n.path("data"),
		"RABBITMQ_LOG_BASE=" + n.path("log"),
		"RABBITMQ_CONFIG_FILE=" + n.path("rabbitmq.conf"),
		"RABBITMQ_CONF_ENV_FILE=" + n.path("none"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + n.path("enabled_plugins"),
		"RABBITMQ_PID_FILE=" + n.path("pid"),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_EPMD_PORT=" + strconv.Itoa(epmd),
		"ERL_CRASH_DUMP_BYTES=0",
		// Schedulers that spin while they wait would take the CPUs from the test.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
		"detached=yes", // the script becomes the server, so that its pid is the server's
	}
	return nil
}

// URL is where AMQP is spoken, with a user and a password that may do everything.
func (n *Node) URL() string { return "amqp://guest:guest@" + n.Address() + "/" }

// Address is the host and the port of the AMQP listener. A restart keeps it.
func (n *Node) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(n.port)) }

// Start starts a node that was stopped or killed, on the same port, with what it stored.
func (n *Node) Start(ctx context.Context) (err error) {
	if n.server != nil {
		return errors.New("RabbitMQ is running already")
	}
	if n.server, err = start(n.env, n.path("output"), n.script("rabbitmq-server")); err != nil {
		return fmt.Errorf("RabbitMQ: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !n.speaksAMQP(ctx) {
		select {
		case <-tick.C:
		case <-n.server.ended:
			n.server = nil
			return fmt.Errorf("RabbitMQ ended while it started: %s", n.log())
		case <-ctx.Done():
			return fmt.Errorf("RabbitMQ does not answer: %w: %s", ctx.Err(), n.log())
		}
	}
	return nil
}

// speaksAMQP says whether a protocol header is answered with Connection.Start; the listener opens last.
func (n *Node) speaksAMQP(ctx context.Context) bool {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", n.Address())
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }() // nothing was meant to arrive after what is read here
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return false
	}
	if _, err := conn.Write([]byte("AMQP\x00\x00\x09\x01")); err != nil {
		return false
	}
	const method = 1
	var frame [1]byte
	_, err = io.ReadFull(conn, frame[:])
	return err == nil && frame[0] == method
}

// Stop ends the server as an operator would: what is durable is on disk when Stop returns.
func (n *Node) Stop() error {
	if n.server == nil {
		return nil
	}
	err := n.server.end(syscall.SIGTERM, stopTimeout)
	n.server = nil
	return err
}

// Kill ends the server as a crash would.
func (n *Node) Kill() error {
	if n.server == nil {
		return nil
	}
	err := n.server.end(syscall.SIGKILL, stopTimeout)
	n.server = nil
	return err
}

// Control runs rabbitmqctl, which takes seconds, and returns what it wrote.
func (n *Node) Control(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, ctlTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.script("rabbitmqctl"), append([]string{"--quiet"}, args...)...) //nolint:gosec // a test's own words
	cmd.Env, cmd.WaitDelay = n.env, time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("rabbitmqctl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Remove kills what runs and removes what was written. It may be called any number of times.
func (n *Node) Remove() error {
	err := n.Kill()
	if n.epmd != nil {
		err = errors.Join(err, n.epmd.end(syscall.SIGKILL, stopTimeout))
		n.epmd = nil
	}
	if n.folder != "" {
		err = errors.Join(err, os.RemoveAll(n.folder))
		n.folder = ""
	}
	return err
}

func (n *Node) script(name string) string { return filepath.Join(n.scripts, name) }

func (n *Node) path(name string) string { return filepath.Join(n.folder, filepath.FromSlash(name)) }

// log is the end of what the server said.
func (n *Node) log() string {
	out, err := os.ReadFile(n.path("output"))
	if err != nil {
		return err.Error()
	}
	return string(out[max(0, len(out)-logTail):])
}
