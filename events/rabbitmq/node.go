// Package rabbitmq starts a private RabbitMQ node: a process of its own on loopback, on ports and in a folder that nobody
// else uses. Several of them run side by side, and none outlives this program.
//
// It takes Debian's rabbitmq-server, or another whose scripts RABBITMQ_SCRIPTS names. It knows nothing of events.
package rabbitmq

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

	"github.com/ebb-inference/ebb/events/rabbitmq/child"
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

// ErrInUse says that another node has the folder.
var ErrInUse = errors.New("another RabbitMQ node uses this folder")

// ErrNotInstalled says that there is no RabbitMQ on this machine.
var ErrNotInstalled = errors.New("RabbitMQ is not installed: `hack/setup rabbitmq` installs it")

// Config is what a Node is made of. The zero value is a node for one run.
type Config struct {
	// Folder is where everything that it writes is, kept for the next run; one node at a time has it. Empty: a temporary one.
	Folder string
	// Management starts RabbitMQ's management plugin too: an HTTP API, at ManagementURL.
	Management bool
}

// Node is one RabbitMQ server. Its methods must not be called at the same time.
type Node struct {
	config  Config
	scripts string
	folder  string   // everything that it writes
	lock    *os.File // held while a folder that was given is in use
	ports   ports
	epmd    *child.Process
	server  *child.Process // nil while it is stopped
	env     []string
}

// ports are where a node listens, all on loopback.
type ports struct{ amqp, dist, epmd, management int }

// New starts a node and returns when it takes connections. Close or Remove ends it.
func New(ctx context.Context, c Config) (*Node, error) {
	n := &Node{config: c, scripts: scripts}
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
		err = errors.Join(err, n.Close())
		if ctx.Err() != nil || errors.Is(err, ErrInUse) {
			break
		}
	}
	return nil, err
}

func (n *Node) create(ctx context.Context) error {
	if err := n.takeFolder(); err != nil {
		return err
	}
	free, err := FreePorts(ctx, 4)
	if err != nil {
		return err
	}
	n.ports = ports{amqp: free[0], dist: free[1], epmd: free[2], management: free[3]}
	if err := n.configure(); err != nil {
		return err
	}
	if n.epmd, err = n.start("epmd.log", "epmd", "-address", "127.0.0.1", "-port", strconv.Itoa(n.ports.epmd)); err != nil {
		return fmt.Errorf("epmd: %w", err)
	}
	return n.Start(ctx)
}

// takeFolder makes a temporary folder, or takes the one that was given.
func (n *Node) takeFolder() (err error) {
	if n.config.Folder == "" {
		n.folder, err = os.MkdirTemp("", "rabbitmq")
		return err
	}
	if n.folder, err = filepath.Abs(n.config.Folder); err != nil {
		return err
	}
	if err := os.MkdirAll(n.folder, 0o700); err != nil {
		return err
	}
	if n.lock, err = os.OpenFile(n.path("lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := syscall.Flock(int(n.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("%s: %w: %w", n.folder, ErrInUse, err)
	}
	return nil
}

// start starts a program of the node's with its output in a file.
func (n *Node) start(output, name string, args ...string) (*child.Process, error) {
	out, err := os.OpenFile(n.path(output), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the child has it by now
	return child.Start(n.env, out, name, args...)
}

// configure writes what a node reads, and fills n.env.
func (n *Node) configure() error {
	plugins := "[].\n"
	if n.config.Management {
		plugins = "[rabbitmq_management].\n"
	}
	files := map[string]string{
		"home/.erlang.cookie": rand.Text(),
		"enabled_plugins":     plugins,
		"rabbitmq.conf": strings.Join([]string{
			"log.file.level = info",
			"disk_free_limit.absolute = 1MB", // a full disk is another test's concern
			"management.tcp.ip = 127.0.0.1",
			"management.tcp.port = " + strconv.Itoa(n.ports.management),
			"",
		}, "\n"),
	}
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(n.path(name)), 0o700); err != nil {
			return err
		}
		if err := os.Remove(n.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an earlier run: it is read-only
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
		"RABBITMQ_NODENAME=ebb@localhost", // known to its own epmd alone, and what it stored goes by it
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_NODE_PORT=" + strconv.Itoa(n.ports.amqp),
		"RABBITMQ_DIST_PORT=" + strconv.Itoa(n.ports.dist),
		"RABBITMQ_MNESIA_BASE=" + n.path("data"),
		"RABBITMQ_LOG_BASE=" + n.path("log"),
		"RABBITMQ_CONFIG_FILE=" + n.path("rabbitmq.conf"),
		"RABBITMQ_CONF_ENV_FILE=" + n.path("none"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + n.path("enabled_plugins"),
		"RABBITMQ_PID_FILE=" + n.path("pid"),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_EPMD_PORT=" + strconv.Itoa(n.ports.epmd),
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
func (n *Node) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(n.ports.amqp)) }

// ManagementURL is where the management plugin speaks HTTP, with the same user and password; "" without it.
func (n *Node) ManagementURL() string {
	if !n.config.Management {
		return ""
	}
	return "http://guest:guest@127.0.0.1:" + strconv.Itoa(n.ports.management)
}

// Start starts a node that was stopped or killed, on the same port, with what it stored.
func (n *Node) Start(ctx context.Context) (err error) {
	if n.server != nil {
		return errors.New("RabbitMQ is running already")
	}
	if n.server, err = n.start("output", n.script("rabbitmq-server")); err != nil {
		return fmt.Errorf("RabbitMQ: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !n.speaksAMQP(ctx) {
		select {
		case <-tick.C:
		case <-n.server.Ended():
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
	err := n.server.End(syscall.SIGTERM, stopTimeout)
	n.server = nil
	return err
}

// Kill ends the server as a crash would.
func (n *Node) Kill() error {
	if n.server == nil {
		return nil
	}
	err := n.server.End(syscall.SIGKILL, stopTimeout)
	n.server = nil
	return err
}

// Control runs rabbitmqctl, which takes seconds, and returns what it wrote.
func (n *Node) Control(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, ctlTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.script("rabbitmqctl"), append([]string{"--quiet"}, args...)...) //nolint:gosec // the operator's own words
	cmd.Env, cmd.WaitDelay = n.env, time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("rabbitmqctl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Sync has the names of new quorum queues written to disk, which RabbitMQ does up to half a second after it said that there
// is such a queue. A crash before that takes the queue with all that is in it, and leaves one that never works again; so who
// means to Kill a node calls Sync after declaring.
func (n *Node) Sync(ctx context.Context) error {
	_, err := n.Control(ctx, "eval", "ok = dets:sync(ra_directory_reverse).")
	return err
}

// Close ends the node as an operator would. A folder that was given keeps what is durable, a temporary one is removed. It may
// be called any number of times.
func (n *Node) Close() error {
	err := errors.Join(n.Stop(), n.release())
	if n.config.Folder == "" {
		err = errors.Join(err, n.removeFolder())
	}
	return err
}

// Remove kills what runs and removes what was written. It may be called any number of times.
func (n *Node) Remove() error { return errors.Join(n.Kill(), n.release(), n.removeFolder()) }

// release ends what is left of a node whose server has ended.
func (n *Node) release() (err error) {
	if n.epmd != nil {
		err = errors.Join(err, n.epmd.End(syscall.SIGKILL, stopTimeout))
		n.epmd = nil
	}
	if n.lock != nil {
		err = errors.Join(err, n.lock.Close())
		n.lock = nil
	}
	return err
}

func (n *Node) removeFolder() error {
	if n.folder == "" {
		return nil
	}
	folder := n.folder
	n.folder = ""
	return os.RemoveAll(folder)
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
