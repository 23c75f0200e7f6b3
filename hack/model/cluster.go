package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing/fstest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"knative.dev/serving/pkg/client/clientset/versioned"

	"github.com/ebb-inference/ebb/functions/modelsync/cluster"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/functions/modelsync/service"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/oci"
	"github.com/ebb-inference/ebb/models/source"
)

// sync is the Knative Service of modelsync.
const sync = "modelsync"

// inCluster acts on a cluster by Kubernetes' API, with the rights of whoever runs this program. That modelsync is at zero, or
// does not work, keeps nobody from taking a version back. Only a look is modelsync's own: it needs what is in the cluster.
type inCluster struct {
	api       *rest.Config
	namespace string
	registry  *oci.Client
}

var _ modelsync = (*inCluster)(nil)

// kubeconfig finds the cluster as kubectl does.
func kubeconfig(namespace string) (*inCluster, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	api, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("KUBECONFIG: %w", err)
	}
	return &inCluster{api: api, namespace: namespace, registry: oci.New(oci.Options{})}, nil
}

// networks are those that the definitions in the cluster name a source for.
func (c *inCluster) networks(ctx context.Context) ([]service.Network, error) {
	kube, err := kubernetes.NewForConfig(c.api)
	if err != nil {
		return nil, err
	}
	list, err := kube.CoreV1().ConfigMaps(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: models.ManifestLabel})
	if err != nil {
		return nil, fmt.Errorf("definitions of models: %w", err)
	}
	all, err := definitions(list.Items)
	if err != nil {
		return nil, err
	}
	found, err := models.Networks(all)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	return cluster.Networks(cluster.Config{
		API: c.api, Namespace: c.namespace, Registry: c.registry, Holder: fmt.Sprintf("%s/%d", host, os.Getpid()),
		Open: func(context.Context, *models.Network) (source.Source, error) {
			return nil, errors.New("sources are looked at from within the cluster")
		},
		Fetch: func(context.Context, string) ([]byte, error) {
			return nil, errors.New("pictures are fetched from within the cluster")
		},
	}, found)
}

// definitions reads the models of ConfigMaps.
func definitions(maps []corev1.ConfigMap) (all []*models.Model, err error) {
	var errs []error
	for _, m := range maps {
		m.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}
		m.ManagedFields, m.Annotations = nil, nil // among them the whole of it once more, as it was applied
		text, err := json.Marshal(m)
		if err != nil {
			return nil, err
		}
		found, err := models.ReadManifest(fstest.MapFS{m.Name: {Data: text, Mode: fs.ModePerm}}, m.Name)
		all, errs = append(all, found...), append(errs, err)
	}
	return all, errors.Join(errs...)
}

// find finds a network by its name or one of its models'.
func (c *inCluster) find(ctx context.Context, name string) (service.Network, error) {
	networks, err := c.networks(ctx)
	if err != nil {
		return service.Network{}, err
	}
	for _, n := range networks {
		if n.Name == name || slices.ContainsFunc(n.Models, func(m *models.Model) bool { return m.Name == name }) {
			return n, nil
		}
	}
	return service.Network{}, fmt.Errorf("no network or model %q in the namespace %s has a source", name, c.namespace)
}

func (c *inCluster) States(ctx context.Context) (states []rollout.State, err error) {
	networks, err := c.networks(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range networks {
		s, err := n.Rollout.State(ctx)
		if err != nil {
			return nil, err
		}
		states = append(states, s)
	}
	return states, nil
}

func (c *inCluster) State(ctx context.Context, name string) (rollout.State, error) {
	n, err := c.find(ctx, name)
	if err != nil {
		return rollout.State{}, err
	}
	return n.Rollout.State(ctx)
}

func (c *inCluster) Rollback(ctx context.Context, name string, to int64) (rollout.State, error) {
	n, err := c.find(ctx, name)
	if err != nil {
		return rollout.State{}, err
	}
	return n.Rollout.Rollback(ctx, to)
}

func (c *inCluster) Allow(ctx context.Context, name string, version int64) (rollout.State, error) {
	n, err := c.find(ctx, name)
	if err != nil {
		return rollout.State{}, err
	}
	return n.Rollout.Allow(ctx, version)
}

// Look asks modelsync, through Kubernetes' API and Knative's activator, which makes a pod of it when there is none.
func (c *inCluster) Look(ctx context.Context, name string) (outcome rollout.Outcome, s rollout.State, err error) {
	knative, err := versioned.NewForConfig(c.api)
	if err != nil {
		return "", s, err
	}
	svc, err := knative.ServingV1().Services(c.namespace).Get(ctx, sync, metav1.GetOptions{})
	if err != nil {
		return "", s, fmt.Errorf("modelsync: %w", err)
	}
	revision := svc.Status.LatestReadyRevisionName
	if revision == "" {
		return "", s, errors.New("modelsync has never been ready: kubectl -n " + c.namespace + " get ksvc " + sync)
	}
	transport, err := rest.TransportFor(c.api)
	if err != nil {
		return "", s, err
	}
	host, _, err := rest.DefaultServerUrlFor(c.api)
	if err != nil {
		return "", s, err
	}
	through := &client{
		base: host.JoinPath("api/v1/namespaces/knative-serving/services/http:activator-service:80/proxy").String(),
		http: &http.Client{Transport: header{transport, http.Header{
			"Knative-Serving-Namespace": {c.namespace}, "Knative-Serving-Revision": {revision},
		}}},
	}
	return through.Look(ctx, name)
}

// header adds to requests what Knative's gateway would have: which revision is meant.
type header struct {
	http.RoundTripper
	added http.Header
}

func (h header) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	for key, values := range h.added {
		r.Header[key] = values
	}
	return h.RoundTripper.RoundTrip(r)
}

// close frees what was used.
func (c *inCluster) close() { c.registry.Close() }

// choose finds modelsync where flags and the surroundings say.
func choose(address, namespace string) (m modelsync, done func(), err error) {
	if address == "" && os.Getenv(clientcmd.RecommendedConfigPathEnvVar) != "" {
		c, err := kubeconfig(namespace)
		if err != nil {
			return nil, nil, err
		}
		return c, c.close, nil
	}
	if address == "" {
		address = local
	}
	if u, err := url.Parse(address); err != nil || !strings.HasPrefix(u.Scheme, "http") {
		return nil, nil, fmt.Errorf("flag -url is %q, want a URL", address)
	}
	return &client{base: address, http: http.DefaultClient}, func() {}, nil
}

// local is where make run has modelsync.
const local = "http://127.0.0.1:8080"
