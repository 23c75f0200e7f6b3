// Package system is all of Ebb in one process: ingress, broker, dispatch, dead letter and model server, each behind HTTP or
// gRPC on loopback as it is in a cluster. Between them are a broker and reply queues in memory, or RabbitMQ with Knative's
// data plane, whose processes are children of this one. The models and the Triggers are read from the very YAML that a
// cluster gets.
//
// It only joins functions. What a function does is none of its business.
package system

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/trigger"
	"github.com/ebb-inference/ebb/functions/deadletter/sink"
	"github.com/ebb-inference/ebb/functions/dispatch/worker"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/ingress/fetch"
	"github.com/ebb-inference/ebb/functions/ingress/networks"
	"github.com/ebb-inference/ebb/functions/internal/app"
	"github.com/ebb-inference/ebb/functions/modelserver/server"
	"github.com/ebb-inference/ebb/models/store"
)

// deadLetterName is the Service that Triggers name as their dead letter sink.
const deadLetterName = "deadletter"

// ingressName is the Service that Triggers name as the subscriber of callbacks.
const ingressName = "ingress"

// brokerName is the path of the broker on loopback.
const brokerName = "broker"

const (
	startTimeout        = 2 * time.Minute // for the networks to be loaded
	readyInterval       = 20 * time.Millisecond
	tellInterval        = time.Second // between two words about what is waited for
	insideHeaderTimeout = 10 * time.Second
)

// replica names the one replica of every function.
const replica = "local"

// Config is what a System is made of. Manifests and Networks are required.
type Config struct {
	Manifests []string     // folders of YAML with models and Triggers; later ones replace earlier ones' models
	Networks  string       // folder of networks, "<name>/<version>/model.onnx"
	Serving   string       // gRPC address of a TensorFlow Serving to use; empty: the model server within
	RabbitMQ  *RabbitMQ    // nil: broker and replies in memory
	Version   string       // of the program
	Metrics   http.Handler // mounted at /metrics; nil: there are none
	// Calls is what the process measures, by which roll-outs are watched; nil: nothing is.
	Calls prometheus.Gatherer
	// SyncInterval is the time between two looks at the networks' sources; 0: DefaultSyncInterval.
	SyncInterval time.Duration
	Logger       *slog.Logger // default slog.Default()

	// Timeout is the longest that a question waits for its answer; 0: the default of ask.Config.
	Timeout time.Duration
	// Networks (CIDR) that are not public and that pictures by address may come from, and callbacks go to, all the same.
	FetchAllow, CallbackAllow []string
}

// System is a running Ebb. It is an http.Handler: what the public sees.
type System struct {
	log      *slog.Logger
	public   http.Handler
	health   *app.Health
	listener net.Listener // of everything within
	parts    []part       // in the order of starting
}

// part is something that was started and has to be stopped.
type part struct {
	name string
	stop func(context.Context) error
}

// Start starts everything and returns when it can answer. Whatever was started is stopped again when it fails.
func Start(ctx context.Context, c Config) (_ *System, err error) {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	m, err := readManifests(c.Manifests)
	if err != nil {
		return nil, err
	}
	fetchAllow, err := prefixes("FETCH_ALLOW", c.FetchAllow)
	if err != nil {
		return nil, err
	}
	callbackAllow, err := prefixes("CALLBACK_ALLOW", c.CallbackAllow)
	if err != nil {
		return nil, err
	}
	if c.RabbitMQ != nil {
		rabbit := *c.RabbitMQ // a private node's addresses are written into it, and are nobody else's
		c.RabbitMQ = &rabbit
	}
	s := &System{log: c.Logger}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop(context.WithoutCancel(ctx), 5*time.Second))
		}
	}()
	var loader store.Loader[server.Network] // nil: the model server is somebody else's, and its versions are, too
	if c.Serving == "" {
		if c.Serving, loader, err = s.startModelServer(ctx, c, m); err != nil {
			return nil, err
		}
	}
	// It serves before the parts are mounted, so that its address is known to them and Stop closes it whatever fails. It
	// ends after them.
	mux := http.NewServeMux()
	if err := s.startInside(ctx, mux); err != nil {
		return nil, err
	}
	for _, model := range m.models {
		model.Serving.Address = c.Serving // a definition's is a cluster's; errors shall name the one that is called
	}
	r, err := s.startReplies(ctx, c)
	if err != nil {
		return nil, err
	}
	workers, err := s.startDispatch(mux, c, m, r)
	if err != nil {
		return nil, err
	}
	letters, err := sink.New(sink.Config{
		Responder: r, Parking: r.parking, Attempts: trigger.AttemptsBy(events.ExtModel, m.triggers), Replica: replica, Logger: c.Logger,
	})
	if err != nil {
		return nil, err
	}
	mux.Handle("/"+deadLetterName, letters)
	b, err := s.startBroker(ctx, mux, c, m)
	if err != nil {
		return nil, err
	}
	service, err := ask.New(ask.Config{
		Models: m.models, Replies: r, Mailboxes: r, BrokerURL: b.url, Blocked: r.blocked, Source: "/ebb/ingress/" + replica,
		Caller: caller(m, callbackAllow), Timeout: c.Timeout, Logger: c.Logger,
	})
	if err != nil {
		return nil, err
	}
	s.started("ingress", service.Stop)

	fetcher := fetch.New(fetch.Config{Allow: fetchAllow})
	sync, err := s.startModelSync(c, m, loader, b.url, fetcher)
	if err != nil {
		return nil, err
	}
	mux.Handle("/"+modelSyncName+"/", http.StripPrefix("/"+modelSyncName, sync))
	s.health = app.NewHealth(func() error { return ready(b, service, workers) })
	s.public = public(c, service, s.health, fetcher, sync, networks.New(s.inside(modelSyncName)))
	mux.Handle("/"+ingressName+"/", http.StripPrefix("/"+ingressName, s.public)) // for callbacks; a delivery before that comes again
	return s, waitUntil(ctx, func() error { return ready(b, service, workers) }, c.Logger)
}

// ready says what cannot answer yet.
func ready(b broker, service *ask.Service, workers []*worker.Worker) error {
	errs := []error{b.ready(), service.Ready()}
	for _, w := range workers {
		if err := errors.Join(w.Ready(), w.Served()); err != nil {
			errs = append(errs, fmt.Errorf("%s%s: %w", dispatchPrefix, w.Model.Name, err))
		}
	}
	return errors.Join(errs...)
}

// waitUntil asks ready again and again until it says nil, and gives up with what it said last. Who waits longer than a
// moment is told for what.
func waitUntil(ctx context.Context, ready func() error, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(readyInterval)
	defer tick.Stop()
	for told := time.Now(); ; {
		err := ready()
		if err == nil {
			return nil
		}
		if time.Since(told) >= tellInterval {
			told = time.Now()
			log.Info("waiting until everything is ready", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", errors.Join(err, ctx.Err()))
		}
	}
}

// ServeHTTP answers the public.
func (s *System) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.public.ServeHTTP(w, r) }

// Drain turns readiness off: the end is near.
func (s *System) Drain() { s.health.Drain() }

// started remembers how to stop a part.
func (s *System) started(name string, stop func(context.Context) error) {
	s.parts = append(s.parts, part{name, stop})
}

// serve runs a server in a goroutine that stop ends.
func (s *System) serve(name string, run func() error, stop func(context.Context) error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(); err != nil {
			s.log.Error("a server ended", "server", name, "error", err)
		}
	}()
	s.started(name, func(ctx context.Context) error {
		defer func() { <-done }()
		return stop(ctx)
	})
}

// Stop ends every part, the one nearest to the caller first, so that what is under way can be answered. All of it takes
// no longer than within.
func (s *System) Stop(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var errs []error
	for _, p := range slices.Backward(s.parts) {
		if err := p.stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stopping %s: %w", p.name, err))
		}
	}
	s.parts = nil
	return errors.Join(errs...)
}
