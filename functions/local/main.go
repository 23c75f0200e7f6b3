// Command local is all of Ebb in one process: every function over HTTP on loopback, with a broker and reply queues in
// memory, or with RabbitMQ and Knative's data plane as its children. It is what `make run` starts.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/ebb-inference/ebb/events/rabbitmq/topology"
	"github.com/ebb-inference/ebb/functions/internal/app"
	"github.com/ebb-inference/ebb/functions/local/system"
)

type config struct {
	Host         string        `env:"HOST, default=127.0.0.1"`
	Port         uint16        `env:"PORT, default=8080"`                   // 0: any that is free
	DrainTimeout time.Duration `env:"DRAIN_TIMEOUT, default=30s"`           // for what is under way at the end
	Manifests    []string      `env:"MODELS, default=config,config/models"` // folders with models and Triggers; later ones replace models
	Networks     string        `env:"MODEL_BASE, default=.ebb/models"`
	Serving      string        `env:"SERVING_ADDRESS"`                   // TensorFlow Serving to use instead of the model server within
	SyncInterval time.Duration `env:"MODELS_SYNC_INTERVAL, default=10s"` // between two looks for newer versions of networks that have a source
	Broker       string        `env:"BROKER, default=memory"`            // or rabbitmq, with Knative's data plane
	RabbitMQ     rabbitMQ

	// Networks that are not public, such as 10.1.0.0/16, and that pictures by address may come from, and callbacks go to, all the same.
	FetchAllow    []string `env:"FETCH_ALLOW"`
	CallbackAllow []string `env:"CALLBACK_ALLOW"`
}

// rabbitMQ counts when BROKER=rabbitmq.
type rabbitMQ struct {
	URL        string `env:"RABBITMQ_URL"`            // of one that runs; empty: a private node
	Management string `env:"RABBITMQ_MANAGEMENT_URL"` // of its management plugin
	Folder     string `env:"RABBITMQ_FOLDER, default=.ebb/rabbitmq"`
	Programs   string `env:"DATAPLANE, default=.ebb/bin"` // folder of Knative's ingress and dispatcher
}

// broker says what system.Config.RabbitMQ is to be.
func (c config) broker() (*system.RabbitMQ, error) {
	switch r := c.RabbitMQ; {
	case c.Broker == "memory":
		return nil, nil
	case c.Broker != "rabbitmq":
		return nil, fmt.Errorf("environment variable BROKER is %q; want memory or rabbitmq", c.Broker)
	case (r.URL == "") != (r.Management == ""):
		return nil, errors.New("environment variables RABBITMQ_URL and RABBITMQ_MANAGEMENT_URL go together; without both RabbitMQ is started")
	default:
		return &system.RabbitMQ{
			Server: topology.Server{URL: r.URL, ManagementURL: r.Management}, Folder: r.Folder, Programs: r.Programs,
		}, nil
	}
}

func main() { app.Main("local", run) }

func run(ctx context.Context, a *app.App) error {
	var c config
	if err := app.Load(ctx, a, &c); err != nil {
		return err
	}
	rabbit, err := c.broker()
	if err != nil {
		return err
	}
	ln, err := app.Listen(ctx, c.Host, c.Port)
	if err != nil {
		return fmt.Errorf("environment variables HOST and PORT: %w", err)
	}
	sys, err := system.Start(ctx, system.Config{
		Manifests: c.Manifests, Networks: c.Networks, Serving: c.Serving, RabbitMQ: rabbit, FetchAllow: c.FetchAllow,
		CallbackAllow: c.CallbackAllow, Version: a.Version, Metrics: a.Telemetry.Metrics, Calls: a.Telemetry.Gatherer,
		SyncInterval: c.SyncInterval, Logger: a.Logger,
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
