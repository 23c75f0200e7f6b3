// Command local is all of Ebb in one process: every function over HTTP on loopback, with a broker and reply queues in
// memory. It is what `make run` starts.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/ebb-inference/ebb/functions/internal/app"
	"github.com/ebb-inference/ebb/functions/local/system"
)

type config struct {
	Host         string        `env:"HOST, default=127.0.0.1"`
	Port         uint16        `env:"PORT, default=8080"`            // 0: any that is free
	DrainTimeout time.Duration `env:"DRAIN_TIMEOUT, default=30s"`    // for what is under way at the end
	Manifests    []string      `env:"MODELS, default=config/models"` // folders with models and Triggers; later ones replace models
	Networks     string        `env:"MODEL_BASE, default=.ebb/models"`
	Serving      string        `env:"SERVING_ADDRESS"` // TensorFlow Serving to use instead of the model server within
	FetchAllow   []string      `env:"FETCH_ALLOW"`     // networks that pictures by address may come from though they are not public
}

func main() { app.Main("local", run) }

func run(ctx context.Context, a *app.App) error {
	var c config
	if err := app.Load(ctx, a, &c); err != nil {
		return err
	}
	ln, err := app.Listen(ctx, c.Host, c.Port)
	if err != nil {
		return fmt.Errorf("environment variables HOST and PORT: %w", err)
	}
	sys, err := system.Start(ctx, system.Config{
		Manifests: c.Manifests, Networks: c.Networks, Serving: c.Serving, FetchAllow: c.FetchAllow,
		Version: a.Version, Metrics: a.Telemetry.Metrics, Logger: a.Logger,
	})
	if err != nil {
		_ = ln.Close() // nobody was served on it
		return err
	}
	greet(ln.Addr())
	served := app.Serve(ctx, ln, sys, app.ServeOptions{DrainTimeout: c.DrainTimeout, OnDrain: sys.Drain, Logger: a.Logger})
	stopped := sys.Stop(context.WithoutCancel(ctx), c.DrainTimeout)
	if served != nil {
		return served
	}
	return stopped
}

// greet tells a person where to go. Logs go to stderr; this is for whoever started the program.
func greet(addr net.Addr) {
	base := "http://" + addr.String()
	fmt.Fprintf(os.Stdout, `
Ebb is ready.

  Page   %[1]s/home
  Try    curl --data-binary @cat.jpg '%[1]s/v1/infer?model=cat'
  API    %[1]s/openapi.yaml

Ctrl-C ends it.
`, base)
}
