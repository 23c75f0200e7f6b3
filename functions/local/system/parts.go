package system

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ebb-inference/ebb/events"
	memory "github.com/ebb-inference/ebb/events/broker"
	"github.com/ebb-inference/ebb/events/parking"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/events/trigger"
	"github.com/ebb-inference/ebb/functions/dispatch/worker"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/ingress/callback"
	"github.com/ebb-inference/ebb/functions/ingress/gateway"
	"github.com/ebb-inference/ebb/functions/ingress/page"
	"github.com/ebb-inference/ebb/functions/internal/app"
	"github.com/ebb-inference/ebb/functions/modelserver/onnx"
	"github.com/ebb-inference/ebb/functions/modelserver/server"
	modelsync "github.com/ebb-inference/ebb/functions/modelsync/service"
	"github.com/ebb-inference/ebb/models/store"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// startModelServer serves the networks that the models name, and says at which address and by which loader.
func (s *System) startModelServer(ctx context.Context, c Config, m manifests) (string, store.Loader[server.Network], error) {
	needed, err := needed(c.Networks, m)
	if err != nil {
		return "", nil, err
	}
	onnxLoader, err := onnx.NewLoader(onnx.Options{})
	if err != nil {
		return "", nil, err
	}
	loader := server.Networks(onnxLoader)
	ln, err := app.Listen(ctx, "127.0.0.1", 0)
	if err != nil {
		return "", nil, err
	}
	ms, err := server.New(server.Config{Base: c.Networks, Loader: loader, Models: needed, Logger: c.Logger})
	if err != nil {
		_ = ln.Close() // nothing was served on it
		return "", nil, fmt.Errorf("model server: %w", err)
	}
	s.serve("model server", func() error { return ms.ServeGRPC(ln) }, ms.Stop)
	return ln.Addr().String(), loader, nil
}

// needed lists what the models need, each network once. One that has a source need not be there yet.
func needed(base string, m manifests) ([]store.Model, error) {
	var list []store.Model
	var missing []error
	for _, model := range m.models {
		name := model.Serving.Model
		if slices.ContainsFunc(list, func(n store.Model) bool { return n.Name == name }) {
			continue
		}
		list = append(list, store.Model{Name: name})
		if m.hasSource(name) {
			if err := os.MkdirAll(filepath.Join(base, name), 0o750); err != nil {
				return nil, fmt.Errorf("folder of the network %q: %w", name, err)
			}
			continue
		}
		if _, err := os.Stat(filepath.Join(base, name)); err != nil {
			missing = append(missing, fmt.Errorf("the model %q needs the network %q, which is not in %s: fetch it with `make model MODEL=%s`",
				model.Name, name, base, name))
		}
	}
	return list, errors.Join(missing...)
}

// startDispatch makes a worker for each model and mounts it under the name of its Service.
func (s *System) startDispatch(mux *http.ServeMux, c Config, m manifests, responder reply.Responder) ([]*worker.Worker, error) {
	client, err := tfserving.Dial(c.Serving)
	if err != nil {
		return nil, fmt.Errorf("model server at %s: %w", c.Serving, err)
	}
	s.started("model client", func(context.Context) error { return client.Close() })
	workers := make([]*worker.Worker, 0, len(m.models))
	for _, model := range m.models {
		w, err := worker.New(worker.Config{Model: model, Predictor: client, Responder: responder, Replica: replica, Logger: c.Logger})
		if err != nil {
			return nil, fmt.Errorf("dispatch of the model %q: %w", model.Name, err)
		}
		s.started(dispatchPrefix+model.Name, w.Stop)
		mux.Handle("/"+dispatchPrefix+model.Name, w)
		workers = append(workers, w)
	}
	return workers, nil
}

// replies is how answers find their way.
type replies struct {
	reply.Requester
	reply.Responder
	reply.Mailboxes
	parking parking.Place               // nil: dead letters are not kept
	blocked func(context.Context) error // says why RabbitMQ takes nothing; nil: there is none
}

func (s *System) startReplies(ctx context.Context, c Config) (replies, error) {
	if c.RabbitMQ == nil {
		hub := reply.NewHub()
		return replies{Requester: hub, Responder: hub, Mailboxes: hub}, nil
	}
	if err := s.startNode(ctx, c.RabbitMQ); err != nil {
		return replies{}, err
	}
	return s.startAMQP(ctx, c.RabbitMQ)
}

// broker is where events are published.
type broker struct {
	url   string
	ready func() error // says why nothing gets through, or nil
}

// startBroker starts a broker and gives it its Triggers.
func (s *System) startBroker(ctx context.Context, mux *http.ServeMux, c Config, m manifests) (broker, error) {
	if c.RabbitMQ == nil {
		b := memory.New(memory.Config{Logger: c.Logger})
		s.started("broker", b.Stop)
		mux.Handle("/"+brokerName, http.StripPrefix("/"+brokerName, b))
		return broker{s.inside(brokerName), func() error { return nil }}, s.subscribe(m, b.Subscribe)
	}
	d, err := s.startDataPlane(ctx, c, m)
	if err != nil {
		return broker{}, err
	}
	return broker{d.URL(), d.Ready}, s.subscribe(m, func(t trigger.Trigger, subscriber, deadLetter string) error {
		return d.Subscribe(ctx, t, subscriber, deadLetter)
	})
}

// subscribe gives a broker its Triggers.
func (s *System) subscribe(m manifests, subscribe func(t trigger.Trigger, subscriber, deadLetter string) error) error {
	for _, t := range m.triggers {
		subscriber, err := s.resolve(t.Subscriber, m)
		if err != nil {
			return fmt.Errorf("trigger %s: subscriber: %w", t, err)
		}
		deadLetter, err := s.resolve(*t.Delivery.DeadLetter, m)
		if err != nil {
			return fmt.Errorf("trigger %s: dead letter sink: %w", t, err)
		}
		if err := subscribe(t, subscriber, deadLetter); err != nil {
			return err
		}
	}
	return nil
}

// resolve finds the URL of a Trigger's destination: a Service that runs in here, or an address of its own.
func (s *System) resolve(d trigger.Destination, m manifests) (string, error) {
	if d.URI != "" {
		return d.URI, nil
	}
	if d.Name == deadLetterName || d.Name == ingressName {
		return s.inside(d.Name) + d.Path, nil
	}
	for _, model := range m.models {
		if d.Name == dispatchPrefix+model.Name {
			return s.inside(d.Name) + d.Path, nil
		}
	}
	return "", fmt.Errorf("no Service %q here; there are %s, %s and %s<model> for each model", d.Name, ingressName, deadLetterName, dispatchPrefix)
}

// inside is the URL of a part that only the other parts talk to.
func (s *System) inside(name string) string {
	return "http://" + s.listener.Addr().String() + "/" + name
}

// startInside serves the parts that only the other parts talk to.
func (s *System) startInside(ctx context.Context, h http.Handler) (err error) {
	if s.listener, err = app.Listen(ctx, "127.0.0.1", 0); err != nil {
		return err
	}
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: insideHeaderTimeout, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	s.serve("loopback server", func() error {
		if err := srv.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}, srv.Shutdown)
	return nil
}

// public is what people and programs outside see. On a person's own machine that has modelsync in it, which in a cluster
// nobody outside reaches.
func public(c Config, service *ask.Service, health *app.Health, fetcher gateway.Fetcher, sync http.Handler, known page.Networks) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(modelsync.Path, sync)
	mux.Handle(modelsync.Path+"/", sync)
	if c.Metrics != nil {
		mux.Handle("GET /metrics", c.Metrics)
	}
	mux.Handle("/", gateway.New(gateway.Config{
		Service: service, Fetcher: fetcher, Callbacks: callback.Handler(service, c.Logger), Health: health, Version: c.Version, Logger: c.Logger,
		Page: page.New(page.Config{Asker: service, Fetcher: fetcher, Networks: known, MaxBytes: gateway.DefaultMaxBytes, SuggestedURL: page.ExampleURL, Logger: c.Logger}),
	}))
	return mux
}

// caller brings answers to callbacks, if a Trigger brings ingress the events that say so; else it is nil.
func caller(m manifests, allow []netip.Prefix) ask.Caller {
	for _, t := range m.triggers {
		if t.Filter["type"] == events.TypeCallbackDue && t.Subscriber.Name == ingressName {
			return callback.New(callback.Config{Allow: allow})
		}
	}
	return nil
}

// prefixes reads networks such as 10.1.0.0/16.
func prefixes(variable string, texts []string) ([]netip.Prefix, error) {
	list := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %q is no network such as 10.1.0.0/16: %w", variable, text, err)
		}
		list = append(list, p)
	}
	return list, nil
}
