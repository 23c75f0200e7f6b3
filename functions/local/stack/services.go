package stack

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/ebb-inference/ebb/events/rabbitmq"
	"github.com/ebb-inference/ebb/events/rabbitmq/topology"
	"github.com/ebb-inference/ebb/events/trigger"
	"github.com/ebb-inference/ebb/functions/local/dataplane"
	"github.com/ebb-inference/ebb/functions/local/mirror"
	"github.com/ebb-inference/ebb/functions/local/supervise"
	"github.com/ebb-inference/ebb/functions/modelserver/onnx"
)

// The names of the services, which Triggers know, and of the model server, which they do not.
const (
	ingressName     = "ingress"
	deadletterName  = "deadletter"
	dispatchPrefix  = "dispatch-"
	modelServerName = "model server"
)

// The Broker that the Triggers name.
const (
	namespace  = "ebb"
	brokerName = "ebb"
)

// service is one of Ebb's programs at work.
type service struct {
	name          string
	port, metrics int
	process       *supervise.Process
	log           *os.File
}

func (s *service) url() string { return "http://127.0.0.1:" + strconv.Itoa(s.port) }

// ready says why a service is not ready, or nil.
func (s *service) ready(ctx context.Context, client *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url()+"/health/readiness", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	why, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d: %s", resp.StatusCode, bytes.TrimSpace(why))
	}
	return nil
}

func (s *service) stop() error {
	s.process.Stop()
	if err := s.log.Close(); !errors.Is(err, os.ErrClosed) { // it is stopped once more
		return err
	}
	return nil
}

// startServices starts Ebb's programs, and the data plane with its Triggers between them. Each has ports of its own from
// before it starts, and keeps them.
func (s *Stack) startServices(ctx context.Context) error {
	networks, definitions, triggers := s.path("networks"), s.path("models"), s.path("triggers")
	if err := errors.Join(mirror.WriteNetworks(networks), mirror.WriteDefinitions(definitions), mirror.WriteTriggers(triggers),
		os.MkdirAll(s.path("log"), 0o750)); err != nil {
		return err
	}
	// All at once, or one could be found free twice.
	ports, err := rabbitmq.FreePorts(ctx, 1+2*(len(mirror.Names)+3))
	if err != nil {
		return err
	}
	grpc := strconv.Itoa(ports[0])
	s.ports = ports[1:]
	rabbit := "RABBITMQ_URL=" + s.node.URL()
	// Its PORT is gRPC's, in place of the one that start gives it; start's is for REST, where its readiness is.
	if err := s.start(modelServerName, "modelserver", "MODEL_BASE="+networks, "PORT="+grpc, "REST_PORT="+strconv.Itoa(s.ports[0]),
		"ONNXRUNTIME_LIB="+cmp.Or(os.Getenv("ONNXRUNTIME_LIB"), filepath.Join(s.config.Root, ".ebb", "lib", onnx.LibraryName))); err != nil {
		return err
	}
	for _, name := range mirror.Names {
		if err := s.start(dispatchPrefix+name, "dispatch", rabbit, "MODEL="+mirror.DefinitionFile(definitions, name),
			"SERVING_ADDRESS=127.0.0.1:"+grpc); err != nil {
			return err
		}
	}
	if err := s.start(deadletterName, deadletterName, rabbit); err != nil {
		return err
	}
	if s.plane, err = dataplane.New(ctx, dataplane.Config{
		Programs: s.config.DataPlane, Server: topology.Server{URL: s.node.URL(), ManagementURL: s.node.ManagementURL()},
		Broker: topology.NewBroker(namespace, brokerName), Logger: s.config.Logger,
	}); err != nil {
		return err
	}
	if err := s.start(ingressName, ingressName, rabbit, "BROKER_URL="+s.plane.URL(), "MODELS="+definitions, "CALLBACK_ALLOW=127.0.0.0/8"); err != nil {
		return err
	}
	return s.subscribe(ctx, filepath.Join(triggers, "*.yaml"), filepath.Join(s.config.Root, "config", "500-callbacks.yaml"))
}

// start starts one of Ebb's programs.
func (s *Stack) start(name, program string, env ...string) error {
	log, err := os.OpenFile(s.logFile(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	v := &service{name: name, port: s.ports[0], metrics: s.ports[1], log: log}
	s.ports = s.ports[2:]
	v.process = supervise.Start(supervise.Program{
		Name: name, Path: filepath.Join(s.config.Programs, program), Output: log, Grace: grace,
		Env: slices.Concat([]string{
			"HOST=127.0.0.1", "PORT=" + strconv.Itoa(v.port), "METRICS_PORT=" + strconv.Itoa(v.metrics),
			"DRAIN_TIMEOUT=" + drainTimeout.String(), "POD_NAME=" + name,
		}, env, s.config.Env[name]),
	}, s.config.Logger)
	s.services[name] = v
	s.order = append(s.order, v)
	return nil
}

// subscribe gives the data plane the Triggers of files.
func (s *Stack) subscribe(ctx context.Context, patterns ...string) error {
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, file := range files {
			manifest, err := os.ReadFile(file) //nolint:gosec // the project's own, or written here
			if err != nil {
				return err
			}
			triggers, err := trigger.Parse(bytes.NewReader(manifest), file)
			if err != nil {
				return err
			}
			for _, t := range triggers {
				if err := s.subscribeTo(ctx, t); err != nil {
					return fmt.Errorf("trigger %s: %w", t, err)
				}
			}
		}
	}
	return nil
}

func (s *Stack) subscribeTo(ctx context.Context, t trigger.Trigger) error {
	subscriber, err := s.resolve(t.Subscriber)
	if err != nil {
		return err
	}
	deadLetter, err := s.resolve(*t.Delivery.DeadLetter)
	if err != nil {
		return err
	}
	return s.plane.Subscribe(ctx, t, subscriber, deadLetter)
}

// resolve finds the URL of a Trigger's destination.
func (s *Stack) resolve(d trigger.Destination) (string, error) {
	if v := s.services[d.Name]; v != nil {
		return v.url() + d.Path, nil
	}
	return "", fmt.Errorf("no Service %q here", d.Name)
}
