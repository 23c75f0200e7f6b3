// Command modelserver serves ONNX networks with TensorFlow Serving's protocols: gRPC on 8500, REST on 8501, models in
// folders <base>/<name>/<version>/ that may change while it runs.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/ebb-inference/ebb/functions/internal/app"
	"github.com/ebb-inference/ebb/functions/modelserver/onnx"
	"github.com/ebb-inference/ebb/functions/modelserver/server"
	"github.com/ebb-inference/ebb/models/store"
)

type config struct {
	Host         string        `env:"HOST"`                       // address to listen on; empty: all of them
	Port         uint16        `env:"PORT, default=8500"`         // gRPC, as TensorFlow Serving's --port; 0: any that is free
	RESTPort     uint16        `env:"REST_PORT, default=8501"`    // REST; 0: any that is free
	MetricsPort  uint16        `env:"METRICS_PORT, default=9090"` // where /metrics is; 0: nowhere
	DrainTimeout time.Duration `env:"DRAIN_TIMEOUT, default=30s"` // for calls under way when the server is told to stop

	Data         string        `env:"KO_DATA_PATH"`                     // what ko put into the image: lib and models, as `make model` left them
	Base         string        `env:"MODEL_BASE"`                       // folder of networks; empty: models in Data, or /models without Data
	Networks     []string      `env:"NETWORKS"`                         // which of them to serve; empty: all, also those that come later
	Library      string        `env:"ONNXRUNTIME_LIB"`                  // ONNX Runtime's library; empty: that in Data, or see onnx.FindLibrary
	Sessions     int           `env:"SESSIONS, default=2"`              // calls that one network computes at the same time
	Threads      int           `env:"SESSION_THREADS, default=1"`       // threads of one call
	MaxBatch     int           `env:"MAX_BATCH, default=64"`            // items in one call
	MaxCalls     int           `env:"MAX_CALLS, default=256"`           // calls under way or waiting; more are UNAVAILABLE
	MaxBodyBytes int64         `env:"MAX_BODY_BYTES, default=67108864"` // of a REST request
	Timeout      time.Duration `env:"PREDICT_TIMEOUT, default=1m"`      // of a prediction whose caller set no shorter one
	PollInterval time.Duration `env:"MODEL_POLL_INTERVAL, default=1s"`  // between two looks at the folder
}

// findData fills in where the networks and the library are that nobody named.
func (c *config) findData() {
	if c.Data != "" {
		c.Base = cmp.Or(c.Base, filepath.Join(c.Data, "models"))
		c.Library = cmp.Or(c.Library, filepath.Join(c.Data, "lib", onnx.LibraryName))
	}
	c.Base = cmp.Or(c.Base, "/models")
}

// networks are those to serve; nil is all.
func (c *config) networks() []store.Model {
	if len(c.Networks) == 0 {
		return nil
	}
	models := make([]store.Model, 0, len(c.Networks))
	for _, name := range c.Networks {
		models = append(models, store.Model{Name: name})
	}
	return models
}

func main() { app.Main("modelserver", run) }

func run(ctx context.Context, a *app.App) error {
	var c config
	if err := app.Load(ctx, a, &c); err != nil {
		return err
	}
	c.findData()
	loader, err := onnx.NewLoader(onnx.Options{Library: c.Library, Sessions: c.Sessions, Threads: c.Threads, MaxBatch: c.MaxBatch})
	if err != nil {
		return err
	}
	ln, err := app.Listen(ctx, c.Host, c.Port)
	if err != nil {
		return fmt.Errorf("environment variables HOST and PORT: %w", err)
	}
	s, err := server.New(server.Config{
		Base: c.Base, Loader: server.Networks(loader), Models: c.networks(), Interval: c.PollInterval,
		MaxBodyBytes: c.MaxBodyBytes, MaxCalls: c.MaxCalls, Timeout: c.Timeout, Logger: a.Logger, Loaded: a.Ready,
	})
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	a.Logger.Info("serving gRPC", "address", ln.Addr().String(), "models", c.Base, "onnxruntime", onnx.Version())

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		served <- s.ServeGRPC(ln)
		cancel() // one protocol is not enough
	}()
	rest := app.HTTP{Host: c.Host, Port: c.RESTPort, MetricsPort: c.MetricsPort, DrainTimeout: c.DrainTimeout}
	err = a.Serve(ctx, rest, s.REST(), app.ServeOptions{OnDrain: s.Drain})
	stop, cancelStop := context.WithTimeout(context.WithoutCancel(ctx), c.DrainTimeout)
	defer cancelStop()
	return errors.Join(err, s.Stop(stop), <-served)
}
