// Package manifests checks Ebb's manifests without a cluster: each object is read strictly, held to the schema that the API server
// has of its kind, defaulted and validated by the code that a cluster's webhooks run, and what one object says of another, or of a model, is compared.
//
// It is a module of its own, so that nothing else has Kubernetes and Knative among its dependencies.
package manifests

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	clusteroperator "github.com/rabbitmq/cluster-operator/v2/api/v1beta1"
	topologyoperator "github.com/rabbitmq/messaging-topology-operator/api/v1beta1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	yamlreader "k8s.io/apimachinery/pkg/util/yaml"
	rabbitv1alpha1 "knative.dev/eventing-rabbitmq/pkg/apis/eventing/v1alpha1"
	eventingv1 "knative.dev/eventing/pkg/apis/eventing/v1"
	"knative.dev/eventing/pkg/apis/feature"
	sourcesv1 "knative.dev/eventing/pkg/apis/sources/v1"
	eventingfake "knative.dev/eventing/pkg/client/clientset/versioned/fake"
	eventingclient "knative.dev/eventing/pkg/client/injection/client"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// Object is any object of Kubernetes.
type Object interface {
	runtime.Object
	metav1.Object
}

// kinds are the objects that Ebb's manifests may have.
var kinds = map[string]func() Object{
	"v1/Namespace":                                       func() Object { return &corev1.Namespace{} },
	"v1/ServiceAccount":                                  func() Object { return &corev1.ServiceAccount{} },
	"v1/ConfigMap":                                       func() Object { return &corev1.ConfigMap{} },
	"networking.k8s.io/v1/NetworkPolicy":                 func() Object { return &networkingv1.NetworkPolicy{} },
	"rbac.authorization.k8s.io/v1/Role":                  func() Object { return &rbacv1.Role{} },
	"rbac.authorization.k8s.io/v1/RoleBinding":           func() Object { return &rbacv1.RoleBinding{} },
	"policy/v1/PodDisruptionBudget":                      func() Object { return &policyv1.PodDisruptionBudget{} },
	"serving.knative.dev/v1/Service":                     func() Object { return &servingv1.Service{} },
	"serving.knative.dev/v1beta1/DomainMapping":          func() Object { return &servingv1beta1.DomainMapping{} },
	"eventing.knative.dev/v1/Broker":                     func() Object { return &eventingv1.Broker{} },
	"eventing.knative.dev/v1/Trigger":                    func() Object { return &eventingv1.Trigger{} },
	"eventing.knative.dev/v1alpha1/RabbitmqBrokerConfig": func() Object { return &rabbitv1alpha1.RabbitmqBrokerConfig{} },
	"sources.knative.dev/v1/PingSource":                  func() Object { return &sourcesv1.PingSource{} },
	"rabbitmq.com/v1beta1/RabbitmqCluster":               func() Object { return &clusteroperator.RabbitmqCluster{} },
	"rabbitmq.com/v1beta1/OperatorPolicy":                func() Object { return &topologyoperator.OperatorPolicy{} },
	"gateway.networking.k8s.io/v1/Gateway":               func() Object { return &gatewayv1.Gateway{} },
	"gateway.networking.k8s.io/v1/HTTPRoute":             func() Object { return &gatewayv1.HTTPRoute{} },
	"networking.gke.io/v1/HealthCheckPolicy":             func() Object { return &healthCheckPolicy{} },
	"networking.gke.io/v1/GCPBackendPolicy":              func() Object { return &gcpBackendPolicy{} },
}

// ReadFiles reads, defaults and validates the objects of files. All mistakes are joined.
func ReadFiles(ctx context.Context, files ...string) (all []Object, err error) {
	var errs []error
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		objects, err := Read(ctx, data)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Base(file), err))
		}
		all = append(all, objects...)
	}
	return all, errors.Join(errs...)
}

// Read reads, defaults and validates the objects of a manifest.
func Read(ctx context.Context, manifest []byte) (all []Object, err error) {
	var errs []error
	documents := yamlreader.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifest)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return all, errors.Join(errs...)
		}
		if err != nil {
			return all, errors.Join(append(errs, err)...)
		}
		o, err := decode(document)
		if err == nil && o != nil {
			err = validate(ctx, o)
		}
		switch {
		case err != nil:
			errs = append(errs, err)
		case o != nil:
			all = append(all, o)
		}
	}
}

// decode reads an object: a field that there is not, or one that is there twice, is an error.
func decode(document []byte) (Object, error) {
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(document, &meta); err != nil {
		return nil, err
	}
	if meta == (metav1.TypeMeta{}) && len(bytes.TrimSpace(withoutComments(document))) == 0 {
		return nil, nil
	}
	kind := meta.APIVersion + "/" + meta.Kind
	construct, known := kinds[kind]
	if !known {
		return nil, fmt.Errorf("the kind %s is not one of Ebb's", kind)
	}
	o := construct()
	if err := yaml.UnmarshalStrict(document, o); err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	custom, err := schemas()
	if err != nil {
		return nil, err
	}
	if s, ok := custom[kind]; ok {
		err = s.check(document)
	} else if strings.Contains(meta.APIVersion, ".dev/") || strings.Contains(meta.APIVersion, ".com/") {
		err = errors.New("no custom resource definition of it was found")
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", kind, o.GetName(), err)
	}
	return o, nil
}

func withoutComments(document []byte) []byte {
	var kept []byte
	for line := range bytes.Lines(document) {
		if !bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) && !bytes.HasPrefix(line, []byte("---")) {
			kept = append(kept, line...)
		}
	}
	return kept
}

// validate does what the webhooks of a cluster do when o is made.
func validate(ctx context.Context, o Object) error {
	eventing, err := feature.NewFlagsConfigFromMap(nil) // what is on unless somebody turns it off
	if err != nil {
		return err
	}
	ctx = feature.ToContext(apis.WithinCreate(ctx), eventing)
	var wrong *apis.FieldError
	switch o := o.(type) {
	case *servingv1.Service:
		// Where images come from is known when ko has built them.
		validated := o.DeepCopy()
		for i := range validated.Spec.Template.Spec.Containers {
			c := &validated.Spec.Template.Spec.Containers[i]
			if path, ok := strings.CutPrefix(c.Image, "ko://"); ok {
				c.Image = "registry.example/" + path
			}
		}
		validated.SetDefaults(ctx)
		wrong = validated.Validate(ctx)
		o.SetDefaults(ctx)
	case *servingv1beta1.DomainMapping:
		o.SetDefaults(ctx)
		wrong = o.Validate(ctx)
	case *eventingv1.Broker:
		o.SetDefaults(ctx)
		wrong = o.Validate(ctx).Also((&rabbitv1alpha1.RabbitBroker{ObjectMeta: o.ObjectMeta, Spec: o.Spec}).Validate(ctx))
	case *eventingv1.Trigger:
		o.SetDefaults(ctx)
		// The RabbitMQ broker's webhook asks the cluster whether the Broker is its own.
		own := &eventingv1.Broker{ObjectMeta: metav1.ObjectMeta{
			Namespace: o.Namespace, Name: o.Spec.Broker,
			Annotations: map[string]string{eventingv1.BrokerClassAnnotationKey: rabbitv1alpha1.BrokerClass},
		}}
		ctx = context.WithValue(ctx, eventingclient.Key{}, eventingfake.NewSimpleClientset(own))
		wrong = o.Validate(ctx).Also((&rabbitv1alpha1.RabbitTrigger{ObjectMeta: o.ObjectMeta, Spec: o.Spec}).Validate(ctx))
	case *sourcesv1.PingSource:
		o.SetDefaults(ctx)
		wrong = o.Validate(ctx)
	case *rabbitv1alpha1.RabbitmqBrokerConfig:
		o.SetDefaults(ctx)
		wrong = o.Validate(ctx)
	case *topologyoperator.OperatorPolicy:
		if _, err := o.ValidateCreate(ctx, o); err != nil {
			return fmt.Errorf("OperatorPolicy %s: %w", o.Name, err)
		}
	}
	if err := wrong.Filter(apis.ErrorLevel); err != nil {
		return fmt.Errorf("%s %s: %w", o.GetObjectKind().GroupVersionKind().Kind, o.GetName(), err)
	}
	return nil
}
