// Package cluster joins what rolls out the networks of a cluster: where each is served, where its state is kept, who counts its
// calls, and where its images go. modelsync does it in the cluster, hack/model from outside.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"knative.dev/serving/pkg/client/clientset/versioned"

	"github.com/ebb-inference/ebb/functions/modelsync/knative"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/functions/modelsync/service"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/image"
	"github.com/ebb-inference/ebb/models/oci"
	"github.com/ebb-inference/ebb/models/source"
)

// Config says how networks are rolled out in a cluster.
type Config struct {
	API       *rest.Config
	Namespace string
	Registry  *oci.Client
	// Repository is where images of networks go; empty: beside the image of each network's server.
	Repository  string
	MetricsPort int // of dispatch
	Open        func(ctx context.Context, n *models.Network) (source.Source, error)
	Fetch       func(ctx context.Context, url string) ([]byte, error)        // golden pictures by address
	Notify      func(n *models.Network) func(context.Context, rollout.Entry) // nil: nobody is told
	Holder      string                                                       // this process
	Dir         string                                                       // for files on their way
	Logger      *slog.Logger
}

// requests is how many a second the API server may be sent. The client's own five make a roll-out wait for seconds at each step.
const requests = 50

// Networks returns what rolls out each of the networks. Nothing is asked yet.
func Networks(cfg Config, networks []*models.Network) ([]service.Network, error) {
	api := rest.CopyConfig(cfg.API)
	api.QPS, api.Burst = requests, 2*requests
	servingClient, err := versioned.NewForConfig(api)
	if err != nil {
		return nil, fmt.Errorf("client of Knative: %w", err)
	}
	kube, err := kubernetes.NewForConfig(api)
	if err != nil {
		return nil, fmt.Errorf("client of Kubernetes: %w", err)
	}
	images := Images{Registries: image.New(cfg.Registry), Repository: cfg.Repository}
	joined := make([]service.Network, 0, len(networks))
	var errs []error
	services := map[string]string{} // networks by the Services that serve them
	for _, n := range networks {
		at, err := ServiceOf(n.Address, cfg.Namespace)
		if err != nil {
			errs = append(errs, fmt.Errorf("network %s: %w", n.Name, err))
			continue
		}
		if other := services[at]; other != "" {
			errs = append(errs, fmt.Errorf("networks %s and %s are both served by the Service %s and both name a source; give each a server of its own, since what serves one version of the one would have to serve any of the other", other, n.Name, at))
			continue
		}
		services[at] = n.Name
		names := make([]string, len(n.Models))
		for i, m := range n.Models {
			names[i] = m.Name
		}
		var notify func(context.Context, rollout.Entry)
		if cfg.Notify != nil {
			notify = cfg.Notify(n)
		}
		r, err := rollout.New(rollout.Config{
			Network: n,
			Open:    func(ctx context.Context) (source.Source, error) { return cfg.Open(ctx, n) },
			Target: knative.New(knative.Config{
				Serving: servingClient, Kubernetes: kube, Namespace: cfg.Namespace, Service: at, Network: n.Name, Builder: images, Logger: cfg.Logger,
			}),
			Records: knative.NewRecords(kube, cfg.Namespace, at),
			Watcher: knative.NewWatcher(knative.WatcherConfig{
				Kubernetes: kube, Namespace: cfg.Namespace, Network: n.Name, Models: names, Port: cfg.MetricsPort, Logger: cfg.Logger,
			}),
			Fetch: cfg.Fetch, Holder: cfg.Holder, Dir: cfg.Dir, Notify: notify, Logger: cfg.Logger,
		})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		joined = append(joined, service.Network{Network: n, Rollout: r})
	}
	return joined, errors.Join(errs...)
}

// ServiceOf is the Knative Service of a namespace that an address is of: <service>.<namespace>.svc.<the cluster's domain>:80.
func ServiceOf(address, namespace string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	labels := strings.Split(host, ".")
	if err != nil || port != "80" || len(labels) < 3 || labels[0] == "" || labels[1] != namespace || labels[2] != "svc" {
		return "", fmt.Errorf("serving.address is %q, and versions are rolled out where a Knative Service of the namespace serves them: <service>.%s.svc.cluster.local:80", address, namespace)
	}
	return labels[0], nil
}

// Images is a knative.Builder.
type Images struct {
	Registries *image.Registries
	Repository string // empty: the server's own
}

var _ knative.Builder = Images{}

// Build makes an image, unless the registry has it.
func (i Images) Build(ctx context.Context, server, base, network string, c rollout.Candidate) (string, error) {
	repository, err := i.repository(server)
	if err != nil {
		return "", err
	}
	made, err := i.Registries.Build(ctx, server, image.Model{
		Name: network, Version: c.Version, Dir: c.Dir, Digest: c.Digest, Source: c.Source, Root: base,
	}, repository)
	if err != nil {
		return "", fmt.Errorf("in %s: %w", repository, err)
	}
	return made.Ref, nil
}

// repository is where an image goes. Beside the server's own, it is where the cluster can get it, and where who deployed the
// server can write.
func (i Images) repository(server string) (string, error) {
	if i.Repository != "" {
		return i.Repository, nil
	}
	ref, err := oci.Reference(server)
	if err != nil {
		return "", fmt.Errorf("image of the server: %w", err)
	}
	return ref.Context().Name(), nil
}

// Remove removes an image.
func (i Images) Remove(ctx context.Context, ref string) error { return i.Registries.Remove(ctx, ref) }
