// Package server speaks TensorFlow Serving's protocols, gRPC and REST, over a folder of models. New versions are taken
// up while it serves; which ones, and how, the package models/store says.
//
// It knows nothing of ONNX: networks come from a loader.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/ebb-inference/ebb/functions/internal/app"
	"github.com/ebb-inference/ebb/models/store"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// SignatureName is the one signature that every network has.
const SignatureName = "serving_default"

// Network is a loaded version of a model. It is safe for concurrent use.
type Network interface {
	store.Servable
	// Signature returns what the network takes and answers. It must not be changed.
	Signature() tfserving.Signature
	// Check says what is wrong with an input of a type and shape, before its elements are looked at. The error wraps
	// tfserving.ErrInvalid.
	Check(input string, d tfserving.DType, shape []int64) error
	// Predict returns the outputs that are named, or all of them when none is, and how long the call waited for its turn.
	// The error wraps tfserving.ErrInvalid when the caller is to blame, or is the context's.
	Predict(ctx context.Context, inputs map[string]tfserving.Tensor, outputs []string) (map[string]tfserving.Tensor, time.Duration, error)
}

// Networks makes a loader of some kind of networks one that Config takes.
func Networks[N Network](l store.Loader[N]) store.Loader[Network] {
	return store.LoaderFunc[Network](func(ctx context.Context, dir string) (Network, error) { return l.Load(ctx, dir) })
}

// Defaults of Config. The largest gRPC message is tfserving.MaxMessageBytes.
const (
	DefaultMaxBodyBytes = 64 << 20
	DefaultMaxCalls     = 256
	DefaultTimeout      = time.Minute
)

// Config says what a Server serves. Base and Loader are required.
type Config struct {
	Base         string                // folder of models, <base>/<name>/<version>/
	Loader       store.Loader[Network] // see Networks
	Models       []store.Model         // nil: every folder in Base
	Interval     time.Duration         // between two looks at the folder; default store.DefaultInterval
	MaxBodyBytes int64                 // of a REST request; default DefaultMaxBodyBytes
	MaxCalls     int                   // predictions under way or waiting; more are UNAVAILABLE; default DefaultMaxCalls
	Timeout      time.Duration         // of a prediction whose caller has set no shorter one; default DefaultTimeout
	Logger       *slog.Logger          // default slog.Default()
	Loaded       func()                // called once, when everything is loaded for the first time; default: nobody wants to know
}

// Server serves models by gRPC and by REST.
type Server struct {
	cfg     Config
	store   *store.Store[Network]
	calls   chan struct{} // one token for each prediction
	metrics *metrics

	grpc   *grpc.Server
	health *health.Server
	probes *app.Health
	rest   http.Handler

	draining atomic.Bool
	quit     chan struct{}
	stop     sync.Once
	watching sync.WaitGroup
}

// New starts to load the models, in the background. Listeners may be served at once: what is not loaded yet is
// UNAVAILABLE.
func New(cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.MaxBodyBytes <= 0 {
		cfg.MaxBodyBytes = DefaultMaxBodyBytes
	}
	if cfg.MaxCalls <= 0 {
		cfg.MaxCalls = DefaultMaxCalls
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Loaded == nil {
		cfg.Loaded = func() {}
	}
	m, err := newMetrics()
	if err != nil {
		return nil, err
	}
	models, err := store.Open(store.Config[Network]{
		Base: cfg.Base, Loader: cfg.Loader, Models: cfg.Models, Interval: cfg.Interval,
		Logger: cfg.Logger, Observe: m.version,
	})
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:     cfg,
		store:   models,
		calls:   make(chan struct{}, cfg.MaxCalls),
		metrics: m,
		health:  health.NewServer(),
		quit:    make(chan struct{}),
	}
	s.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING) // until watch says otherwise
	s.probes = app.NewHealth(s.Ready)
	s.grpc = s.newGRPC()
	s.rest = s.newREST()
	s.watching.Go(s.watch)
	return s, nil
}

// Ready says whether predictions can be answered: see store.Store.Ready. It is an error while the server is stopping.
func (s *Server) Ready() error {
	if s.draining.Load() {
		return errors.New("the model server is stopping")
	}
	return s.store.Ready()
}

// Drain makes the server unready from now on, by every protocol, while it still answers.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.probes.Drain()
	s.health.Shutdown()
}

// ServeGRPC serves gRPC on a listener until Stop. It closes the listener.
func (s *Server) ServeGRPC(ln net.Listener) error {
	if err := s.grpc.Serve(ln); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve gRPC on %s: %w", ln.Addr(), err)
	}
	return nil
}

// REST returns the handler of TensorFlow Serving's REST API, and of /health/liveness and /health/readiness.
func (s *Server) REST() http.Handler { return s.rest }

// Stop makes the server unready, finishes the gRPC calls under way, and frees the models when nothing uses them any
// more. When ctx ends first, calls are cut off and the error says so. REST requests are finished by whoever serves the
// handler, before Stop.
func (s *Server) Stop(ctx context.Context) error {
	s.Drain()
	s.stop.Do(func() { close(s.quit) })
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		s.grpc.GracefulStop()
	}()
	var err error
	select {
	case <-finished:
	case <-ctx.Done():
		err = fmt.Errorf("gRPC calls were cut off: %w", ctx.Err())
		s.grpc.Stop() // ends their contexts, and GracefulStop
		<-finished
	}
	s.watching.Wait()
	return errors.Join(err, s.store.Close(ctx))
}
