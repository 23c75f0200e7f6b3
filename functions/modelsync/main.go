// Command modelsync rolls out newer versions of networks in a cluster, when it is asked to look for them.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"time"

	"k8s.io/client-go/rest"

	"github.com/ebb-inference/ebb/functions/ingress/fetch"
	"github.com/ebb-inference/ebb/functions/internal/app"
	"github.com/ebb-inference/ebb/functions/modelsync/cluster"
	"github.com/ebb-inference/ebb/functions/modelsync/service"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/oci"
	"github.com/ebb-inference/ebb/models/source"
)

type config struct {
	app.HTTP
	Models      []string       `env:"MODELS, default=/etc/ebb/models"`     // folders of models; later ones replace models
	Namespace   string         `env:"NAMESPACE, required"`                 // where their networks are served
	Repository  string         `env:"IMAGE_REPOSITORY"`                    // where images of networks go; empty: beside their servers' images
	Broker      string         `env:"BROKER_URL"`                          // who is told what happens; empty: nobody
	Replica     string         `env:"POD_NAME"`                            // which replica this is; empty: the host's name
	Dir         string         `env:"DOWNLOADS"`                           // for versions on their way; empty: the system's for temporary files
	MaxBytes    int64          `env:"MAX_VERSION_BYTES"`                   // of one version; 0: source.Limits' default
	Patience    time.Duration  `env:"PATIENCE, default=8m"`                // of one look; the next one goes on
	MetricsPort uint16         `env:"DISPATCH_METRICS_PORT, default=9464"` // where dispatch's pods have /metrics
	FetchAllow  []netip.Prefix `env:"FETCH_ALLOW"`                         // networks that golden pictures by address may come from though they are not public
}

func main() { app.Main("modelsync", run) }

func run(ctx context.Context, a *app.App) error {
	var c config
	if err := app.Load(ctx, a, &c); err != nil {
		return err
	}
	if c.Replica == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("environment variable POD_NAME is not set, and the host has no name: %w", err)
		}
		c.Replica = host
	}
	all, err := models.ReadFolders(c.Models...)
	if err != nil {
		return fmt.Errorf("environment variable MODELS: %w", err)
	}
	networks, err := models.Networks(all)
	if err != nil {
		return fmt.Errorf("environment variable MODELS: %w", err)
	}
	registry := oci.New(oci.Options{})
	defer registry.Close()
	joined, err := join(c, networks, registry, a.Logger)
	if err != nil {
		return err
	}
	handler, err := service.New(service.Config{Networks: joined, Patience: c.Patience, Logger: a.Logger})
	if err != nil {
		return err
	}
	return a.Run(ctx, c.HTTP, app.ServeOptions{WriteTimeout: c.Patience + time.Minute}, func(context.Context) (*app.Function, error) {
		health := app.NewHealth(func() error { return nil }) // what is away is worth a failed look, and no restart
		mux := http.NewServeMux()
		mux.Handle("/", handler)
		mux.Handle("/health/", health)
		return &app.Function{Handler: mux, Health: health, Stop: func(context.Context) error { return nil }}, nil
	})
}

// join joins the networks with the cluster that serves them. Where no model names a source there is nothing to join, and modelsync
// has no account with Kubernetes either.
func join(c config, networks []*models.Network, registry *oci.Client, log *slog.Logger) ([]service.Network, error) {
	if len(networks) == 0 {
		return nil, nil
	}
	api, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("modelsync runs in a cluster, as somebody who may change its Services: %w", err)
	}
	announcer := &service.Announcer{BrokerURL: c.Broker, Client: http.DefaultClient, Source: "/ebb/modelsync/" + c.Replica, Logger: log}
	pictures := fetch.New(fetch.Config{Allow: c.FetchAllow})
	limits := source.Limits{Bytes: c.MaxBytes}
	return cluster.Networks(cluster.Config{
		API: api, Namespace: c.Namespace, Registry: registry, Repository: c.Repository, MetricsPort: int(c.MetricsPort),
		Open: func(ctx context.Context, n *models.Network) (source.Source, error) {
			return open(ctx, n.Source, limits)
		},
		Fetch: pictures.Fetch, Notify: announcer.For, Holder: c.Replica, Dir: c.Dir, Logger: log,
	}, networks)
}
