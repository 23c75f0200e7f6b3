// Package stack is all of Ebb as the processes that it consists of in a cluster, on loopback: a RabbitMQ node, Knative's data
// plane, a model server, ingress, one dispatch a model and deadletter. What ends is started again, so that tests and tools can
// end any of it and see what becomes of requests. The models are the mirror's.
//
// It starts, supervises and ends; who asks what is others' business.
package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/ebb-inference/ebb/events/rabbitmq"
	"github.com/ebb-inference/ebb/functions/local/dataplane"
)

const (
	startTimeout  = 2 * time.Minute
	drainTimeout  = 10 * time.Second
	grace         = drainTimeout + 10*time.Second
	probeTimeout  = 2 * time.Second
	probeInterval = 50 * time.Millisecond
)

// Config is what a Stack is made of. The zero value does, within the project's folder.
type Config struct {
	Root      string // the project's folder; empty: the one with a go.mod that the working directory is in
	Programs  string // folder of Ebb's programs; empty: they are compiled to .ebb/functions, see Build
	DataPlane string // folder of Knative's programs; empty: .ebb/bin
	Folder    string // where everything that runs writes; empty: a temporary one, which Stop removes
	// Env is more of the environment of Ebb's programs, by the names that Pids has, as "ingress": {"PENDING_LIMIT=10"}.
	Env    map[string][]string
	Logger *slog.Logger // hears what ends; default slog.Default()
}

// Stack is a running Ebb.
type Stack struct {
	config    Config
	temporary bool // Config.Folder is
	node      *rabbitmq.Node
	plane     *dataplane.DataPlane
	services  map[string]*service // Ebb's programs, by name
	order     []*service          // in that of their start
	ports     []int               // free ones, for the next
	client    *http.Client

	nodeBusy sync.Mutex // a Node's methods exclude each other
}

// Start starts everything and returns when it can answer. What was started is stopped again when it fails.
func Start(ctx context.Context, c Config) (_ *Stack, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s := &Stack{services: map[string]*service{}, client: &http.Client{Transport: &http.Transport{}, Timeout: probeTimeout}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
		}
	}()
	if s.config, err = c.withDefaults(ctx); err != nil {
		return nil, err
	}
	if s.config.Folder == "" {
		if s.config.Folder, err = os.MkdirTemp("", "ebb"); err != nil {
			return nil, err
		}
		s.temporary = true
	}
	if s.node, err = rabbitmq.New(ctx, rabbitmq.Config{Folder: s.path("rabbitmq"), Management: true}); err != nil {
		return nil, err
	}
	if err := s.startServices(ctx); err != nil {
		return nil, err
	}
	return s, s.WaitReady(ctx)
}

func (c Config) withDefaults(ctx context.Context) (_ Config, err error) {
	c.Logger = cmp.Or(c.Logger, slog.Default())
	if c.Root == "" {
		if c.Root, err = findRoot(); err != nil {
			return c, err
		}
	}
	c.DataPlane = cmp.Or(c.DataPlane, filepath.Join(c.Root, ".ebb", "bin"))
	if c.Programs == "" {
		c.Programs = filepath.Join(c.Root, ".ebb", "functions")
		return c, Build(ctx, c.Root, c.Programs)
	}
	return c, nil
}

func (s *Stack) path(name string) string { return filepath.Join(s.config.Folder, name) }

// URL is where ingress is asked.
func (s *Stack) URL() string { return s.services[ingressName].url() }

// MetricsURL is where one of Ebb's programs says what it has measured; name is as Pids has it.
func (s *Stack) MetricsURL(name string) string {
	return "http://127.0.0.1:" + strconv.Itoa(s.services[name].metrics) + "/metrics"
}

// ManagementURL is where RabbitMQ says what is in it.
func (s *Stack) ManagementURL() string { return s.node.ManagementURL() }

// Pids are the numbers of the processes that run, by name: model server, ingress, dispatch-<model>, deadletter, and what the
// data plane calls its own. RabbitMQ is not among them.
func (s *Stack) Pids() map[string]int {
	pids := s.plane.Pids()
	for name, service := range s.services {
		if pid := service.process.Pid(); pid != 0 {
			pids[name] = pid
		}
	}
	return pids
}

// Kill ends a process without warning. It is started again at once.
func (s *Stack) Kill(name string) error {
	pid, ok := s.Pids()[name]
	if !ok {
		return fmt.Errorf("no process %q runs", name)
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// RestartRabbitMQ ends RabbitMQ as an operator would, starts it again, and returns when it takes connections.
func (s *Stack) RestartRabbitMQ(ctx context.Context) error {
	s.nodeBusy.Lock()
	defer s.nodeBusy.Unlock()
	if err := s.node.Stop(); err != nil {
		return err
	}
	return s.node.Start(ctx)
}

// Ready says what of it does not work, or nil.
func (s *Stack) Ready(ctx context.Context) error {
	errs := []error{s.plane.Ready()}
	for _, service := range s.order {
		if err := service.ready(ctx, s.client); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", service.name, err))
		}
	}
	return errors.Join(errs...)
}

// WaitReady returns when all of it works, or when ctx ends, with what does not.
func (s *Stack) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		err := s.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", errors.Join(err, ctx.Err()))
		}
	}
}

// Log is what one of Ebb's programs said from its first start on; name is as Pids has it.
func (s *Stack) Log(name string) (string, error) {
	text, err := os.ReadFile(s.logFile(name))
	return string(text), err
}

func (s *Stack) logFile(name string) string { return s.path(filepath.Join("log", name)) }

// Stop ends everything, who is asked first, so that what is under way is answered; and RabbitMQ last.
func (s *Stack) Stop(ctx context.Context) error {
	var errs []error
	if ingress := s.services[ingressName]; ingress != nil {
		errs = append(errs, ingress.stop())
	}
	if s.plane != nil {
		errs = append(errs, s.plane.Stop(ctx))
	}
	var mu sync.Mutex
	var stopping sync.WaitGroup
	for _, service := range s.order {
		stopping.Go(func() {
			err := service.stop()
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	stopping.Wait()
	s.client.CloseIdleConnections()
	s.nodeBusy.Lock()
	defer s.nodeBusy.Unlock()
	if s.node != nil {
		errs = append(errs, s.node.Close())
	}
	if s.temporary {
		errs = append(errs, os.RemoveAll(s.config.Folder))
	}
	return errors.Join(errs...)
}
