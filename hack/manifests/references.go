package manifests

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	eventingv1 "knative.dev/eventing/pkg/apis/eventing/v1"
	sourcesv1 "knative.dev/eventing/pkg/apis/sources/v1"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/models"
)

const (
	namespace = "ebb"
	program   = "ko://github.com/ebb-inference/ebb/functions/"
	secret    = "rabbitmq" // the one that is not among the manifests
)

// queueProxy are the ports of Knative's queue proxy, in the same pod as a function.
var queueProxy = []string{"8008", "8012", "8013", "8022", "8112", "9090", "9091"}

// holds is for how long dispatch holds a delivery.
const holds = time.Minute

// System is the objects of one way to deploy Ebb, and the source code of its functions.
type System struct {
	Objects []Object
	Root    string // of the project
}

// find is the object of a type and name, or its zero value.
func find[T Object](s System, name string) (found T) {
	for _, o := range s.Objects {
		if t, ok := o.(T); ok && o.GetName() == name {
			return t
		}
	}
	return found
}

func all[T Object](s System) (found []T) {
	for _, o := range s.Objects {
		if t, ok := o.(T); ok {
			found = append(found, t)
		}
	}
	return found
}

// Check says what does not fit together. All mistakes are joined.
func (s System) Check() error {
	errs := []error{s.checkNames()}
	known, err := s.models()
	errs = append(errs, err)
	for _, k := range all[*servingv1.Service](s) {
		if err := s.checkService(k); err != nil {
			errs = append(errs, fmt.Errorf("the Service %s: %w", k.Name, err))
		}
	}
	for _, t := range all[*eventingv1.Trigger](s) {
		if err := s.checkTrigger(t); err != nil {
			errs = append(errs, fmt.Errorf("the Trigger %s: %w", t.Name, err))
		}
	}
	for _, m := range known {
		if err := s.checkModel(m); err != nil {
			errs = append(errs, fmt.Errorf("model %s: %w", m.Name, err))
		}
	}
	for _, r := range all[*rbacv1.Role](s) {
		if err := s.checkRole(r); err != nil {
			errs = append(errs, fmt.Errorf("the Role %s: %w", r.Name, err))
		}
	}
	for _, p := range all[*sourcesv1.PingSource](s) {
		if s.destination(&p.Spec.Sink) == nil {
			errs = append(errs, fmt.Errorf("the PingSource %s: its sink is none of the Services", p.Name))
		}
	}
	return errors.Join(append(errs, s.checkIngress(known), s.checkAttempts(known), s.checkSources(known))...)
}

func (s System) checkNames() error {
	var errs []error
	seen := map[string]bool{}
	for _, o := range s.Objects {
		what := fmt.Sprintf("%s %s", o.GetObjectKind().GroupVersionKind().GroupKind(), o.GetName())
		if seen[what] {
			errs = append(errs, fmt.Errorf("%s is there twice", what))
		}
		seen[what] = true
		if o.GetNamespace() != home(o) {
			errs = append(errs, fmt.Errorf("%s is in the namespace %q", what, o.GetNamespace()))
		}
		if o.GetLabels()["app.kubernetes.io/name"] != o.GetName() || o.GetLabels()["app.kubernetes.io/part-of"] != "ebb" {
			errs = append(errs, fmt.Errorf("%s lacks the labels app.kubernetes.io/name, which is its name, and app.kubernetes.io/part-of", what))
		}
	}
	return errors.Join(errs...)
}

// home is the namespace that an object belongs in: what leads from outside to Kourier's gateway is where that is.
func home(o Object) string {
	switch o.(type) {
	case *corev1.Namespace:
		return ""
	case *gatewayv1.Gateway, *gatewayv1.HTTPRoute, *healthCheckPolicy, *gcpBackendPolicy:
		return "kourier-system"
	}
	return namespace
}

// models are those of the ConfigMaps, read as dispatch reads them from its volume.
func (s System) models() (known []*models.Model, err error) {
	var errs []error
	for _, m := range all[*corev1.ConfigMap](s) {
		if _, is := m.Labels[models.ManifestLabel]; !is {
			continue
		}
		folder, err := os.MkdirTemp("", "model")
		if err != nil {
			return nil, err
		}
		for key, text := range m.Data {
			errs = append(errs, os.WriteFile(filepath.Join(folder, key), []byte(text), 0o600))
		}
		model, err := models.ReadFile(filepath.Join(folder, models.ManifestKey))
		if errs = append(errs, err, os.RemoveAll(folder)); err == nil {
			known = append(known, model)
		}
	}
	return known, errors.Join(errs...)
}

// variable is a setting of a program: the name in an env tag.
var variable = regexp.MustCompile(`env:"([A-Z0-9_]+)[",]`)

// settings are what a function can be told by variables.
func (s System) settings(function string) (map[string]bool, error) {
	// Those of Go's runtime, of the logger and of the library that speaks with registries are in no struct.
	known := map[string]bool{"GOMEMLIMIT": true, "LOG_LEVEL": true, "DOCKER_CONFIG": true}
	for _, pattern := range []string{"functions/" + function + "/*.go", "functions/internal/app/*.go"} {
		files, err := filepath.Glob(filepath.Join(s.Root, pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			for _, found := range variable.FindAllStringSubmatch(string(source), -1) {
				known[found[1]] = true
			}
		}
	}
	return known, nil
}

func setting(c corev1.Container, name string) string {
	for _, v := range c.Env {
		if v.Name == name {
			return v.Value
		}
	}
	return ""
}

func (s System) checkService(k *servingv1.Service) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	template := k.Spec.Template
	if local := k.Labels["networking.knative.dev/visibility"] == "cluster-local"; local == (k.Name == "ingress") {
		wrong("ingress, and nothing else, is to be reached from outside of the cluster")
	}
	for _, label := range []string{"app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/part-of"} {
		if v := k.Labels[label]; v == "" || template.Labels[label] != v {
			wrong("its pods do not have its label %s", label)
		}
	}
	account := find[*corev1.ServiceAccount](s, template.Spec.ServiceAccountName)
	switch {
	case account == nil:
		wrong("there is no ServiceAccount %q", template.Spec.ServiceAccountName)
	case s.hasRights(account.Name):
		// Knative lets a pod turn a token down only; what it says of it is the account's.
		if account.AutomountServiceAccountToken == nil || !*account.AutomountServiceAccountToken || template.Spec.AutomountServiceAccountToken != nil {
			wrong("it has rights, and is not given the token to use them")
		}
	case account.AutomountServiceAccountToken == nil || *account.AutomountServiceAccountToken,
		template.Spec.AutomountServiceAccountToken == nil || *template.Spec.AutomountServiceAccountToken:
		wrong("it is given a token of Kubernetes', which it has no use for")
	}
	if len(template.Spec.Containers) != 1 {
		wrong("has %d containers", len(template.Spec.Containers))
		return errors.Join(errs...)
	}
	target, err := strconv.Atoi(template.Annotations["autoscaling.knative.dev/target"])
	if limit := template.Spec.ContainerConcurrency; err != nil || limit != nil && *limit != 0 && *limit < int64(target) {
		wrong("needs a target of concurrency, and no hard limit below it")
	}
	if n, err := strconv.Atoi(template.Annotations["autoscaling.knative.dev/max-scale"]); err != nil || n < 1 {
		wrong("has no bound to its replicas")
	}
	errs = append(errs, s.checkContainer(template.Spec.Containers[0]), restricted(template.ObjectMeta, template.Spec.PodSpec))
	return errors.Join(errs...)
}

// hasRights says whether an account is bound to a Role of the manifests.
func (s System) hasRights(account string) bool {
	return slices.ContainsFunc(all[*rbacv1.RoleBinding](s), func(b *rbacv1.RoleBinding) bool {
		return find[*rbacv1.Role](s, b.RoleRef.Name) != nil && slices.ContainsFunc(b.Subjects, func(subject rbacv1.Subject) bool {
			return subject.Kind == rbacv1.ServiceAccountKind && subject.Name == account && subject.Namespace == namespace
		})
	})
}

// unnamed are what may be done to objects that the Role cannot name: revisions and pods have names that Knative gives.
var unnamed = []string{"pods list", "revisions get", "revisions list", "revisions watch", "revisions delete"}

// checkRole wants rights for named objects of the manifests only.
func (s System) checkRole(r *rbacv1.Role) error {
	var errs []error
	for _, rule := range r.Rules {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				if right := resource + " " + verb; len(rule.ResourceNames) == 0 && !slices.Contains(unnamed, right) {
					errs = append(errs, fmt.Errorf("%s is for all of them, want it for some by name", right))
				}
			}
			for _, name := range rule.ResourceNames {
				if resource == "services" && find[*servingv1.Service](s, name) == nil || resource == "configmaps" && find[*corev1.ConfigMap](s, name) == nil {
					errs = append(errs, fmt.Errorf("there is no %s in %s", name, resource))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// checkSources wants somebody to look for versions of a model that names a source, who may roll them out.
func (s System) checkSources(known []*models.Model) error {
	networks, err := models.Networks(known)
	if err != nil {
		return err
	}
	for _, n := range networks {
		service, _, _ := strings.Cut(n.Address, ".")
		role := find[*rbacv1.Role](s, "modelsync")
		switch {
		case role == nil || !s.hasRights("modelsync") || len(all[*sourcesv1.PingSource](s)) == 0:
			return fmt.Errorf("network %s has a source, and nobody looks at it: run `make generate`", n.Name)
		case !slices.ContainsFunc(role.Rules, func(r rbacv1.PolicyRule) bool {
			return slices.Contains(r.Resources, "services") && slices.Contains(r.ResourceNames, service) && slices.Contains(r.Verbs, "update")
		}), find[*corev1.ConfigMap](s, "modelsync-"+service) == nil:
			return fmt.Errorf("network %s has a source, and modelsync may not roll it out: run `make generate`", n.Name)
		}
	}
	return nil
}

func (s System) checkContainer(c corev1.Container) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.SecurityContext == nil || c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
		wrong("its file system can be written")
	}
	if c.ReadinessProbe == nil || c.LivenessProbe == nil {
		wrong("lacks a probe")
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
		wrong("does not say what it needs of CPU and memory, and what memory it may take")
	}
	for _, v := range c.Env {
		if from := v.ValueFrom; from != nil && (from.SecretKeyRef == nil || from.SecretKeyRef.Name != secret || from.SecretKeyRef.Key != "url") {
			wrong("the variable %s is not of the key url of the Secret %s", v.Name, secret)
		}
	}
	function, ours := strings.CutPrefix(c.Image, program)
	if !ours {
		return errors.Join(errs...) // somebody else's program
	}
	if _, err := os.Stat(filepath.Join(s.Root, "functions", function, "main.go")); err != nil {
		wrong("there is no function %q", function)
	}
	known, err := s.settings(function)
	if err != nil {
		return err
	}
	for _, v := range c.Env {
		if !known[v.Name] {
			wrong("%s knows no variable %s", function, v.Name)
		}
	}
	if port := setting(c, "METRICS_PORT"); port == "" || slices.Contains(queueProxy, port) {
		wrong("METRICS_PORT has to be set, and to none of the queue proxy's ports")
	}
	return errors.Join(errs...)
}

// restricted says what the Pod Security Standard of that name would refuse.
func restricted(meta metav1.ObjectMeta, spec corev1.PodSpec) error {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		return err
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	if r := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &meta, &spec)); !r.Allowed {
		return fmt.Errorf("is not allowed by the standard \"restricted\": %s", r.ForbiddenDetail())
	}
	return nil
}

func (s System) checkTrigger(t *eventingv1.Trigger) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if find[*eventingv1.Broker](s, t.Spec.Broker) == nil {
		wrong("there is no Broker %q", t.Spec.Broker)
	}
	subscriber := s.destination(&t.Spec.Subscriber)
	if subscriber == nil {
		wrong("its subscriber is none of the Services")
	}
	if t.Spec.Delivery == nil || t.Spec.Delivery.DeadLetterSink == nil || t.Spec.Delivery.Timeout == nil || t.Spec.Delivery.Retry == nil {
		wrong("says not all of how it delivers: without it the broker loses events")
		return errors.Join(errs...)
	}
	if s.destination(t.Spec.Delivery.DeadLetterSink) == nil {
		wrong("its dead letter sink is none of the Services")
	}
	parallel, err := strconv.Atoi(t.Annotations["rabbitmq.eventing.knative.dev/parallelism"])
	if err != nil || parallel < 1 || parallel > 100 {
		wrong("its parallelism is not from 1 to 100, the data plane's ceiling")
	}
	if subscriber != nil && subscriber.Spec.Template.Spec.TimeoutSeconds != nil {
		timeout, err := parseISO(*t.Spec.Delivery.Timeout)
		if held := time.Duration(*subscriber.Spec.Template.Spec.TimeoutSeconds) * time.Second; err != nil || timeout > held {
			wrong("waits for %s, and Knative cuts %s off after %s", *t.Spec.Delivery.Timeout, subscriber.Name, held)
		}
	}
	return errors.Join(errs...)
}

// destination is the Service of the manifests that d names, or nil.
func (s System) destination(d *duckv1.Destination) *servingv1.Service {
	if d.Ref == nil || d.Ref.APIVersion != "serving.knative.dev/v1" || d.Ref.Kind != "Service" {
		return nil
	}
	return find[*servingv1.Service](s, d.Ref.Name)
}

// parseISO reads the durations that manifests have: PT and minutes or seconds.
func parseISO(s string) (time.Duration, error) {
	text, ok := strings.CutPrefix(s, "PT")
	if !ok {
		return 0, fmt.Errorf("%q is not a duration", s)
	}
	return time.ParseDuration(strings.ToLower(text))
}

// checkModel wants the Trigger that brings a model its events, the function that takes them, and the server that it asks.
func (s System) checkModel(m *models.Model) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	selecting := slices.DeleteFunc(all[*eventingv1.Trigger](s), func(t *eventingv1.Trigger) bool {
		return t.Spec.Filter == nil || t.Spec.Filter.Attributes["model"] != m.Name || t.Spec.Filter.Attributes["type"] != events.TypeRequested
	})
	dispatch := find[*servingv1.Service](s, "dispatch-"+m.Name)
	switch {
	case len(selecting) != 1:
		wrong("%d Triggers select its events", len(selecting))
	case dispatch == nil || s.destination(&selecting[0].Spec.Subscriber) != dispatch:
		wrong("its Trigger has another subscriber than dispatch-%s", m.Name)
	default:
		errs = append(errs, s.checkDispatch(m, dispatch, selecting[0]))
	}
	host, port, err := net.SplitHostPort(m.Serving.Address)
	name, ours := strings.CutSuffix(host, "."+namespace+".svc.cluster.local")
	if err != nil || port != "80" || !ours {
		return errors.Join(errs...) // a server that is somebody else's
	}
	server := find[*servingv1.Service](s, name)
	if server == nil {
		wrong("there is no Service %s, which its serving.address names", name)
		return errors.Join(errs...)
	}
	c := server.Spec.Template.Spec.Containers[0]
	if len(c.Ports) != 1 || c.Ports[0].Name != "h2c" {
		wrong("the Service %s has no port h2c, for gRPC", name)
	}
	if strings.HasPrefix(c.Image, program) && !slices.Contains(strings.Split(setting(c, "NETWORKS"), ","), m.Serving.Model) {
		wrong("the Service %s does not serve %s", name, m.Serving.Model)
	}
	return errors.Join(errs...)
}

func (s System) checkDispatch(m *models.Model, k *servingv1.Service, t *eventingv1.Trigger) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	template := k.Spec.Template
	if target := template.Annotations["autoscaling.knative.dev/target"]; target != strconv.Itoa(m.Batching.Size*m.Batching.Slots) {
		wrong("its target is %s; %d batches of %d are under way at once", target, m.Batching.Slots, m.Batching.Size)
	}
	if volumes := template.Spec.Volumes; len(volumes) != 1 || volumes[0].ConfigMap == nil || volumes[0].ConfigMap.Name != "model-"+m.Name {
		wrong("it does not mount its definition")
	}
	if t.Spec.Delivery != nil && t.Spec.Delivery.Timeout != nil {
		if timeout, err := parseISO(*t.Spec.Delivery.Timeout); err != nil || timeout <= holds {
			wrong("its Trigger gives up after %s, while dispatch works for %s", *t.Spec.Delivery.Timeout, holds)
		}
	}
	return errors.Join(errs...)
}

// checkIngress wants the volume of ingress to show it every model.
func (s System) checkIngress(known []*models.Model) error {
	ingress := find[*servingv1.Service](s, "ingress")
	if ingress == nil {
		return errors.New("there is no Service ingress")
	}
	folder, err := os.MkdirTemp("", "models")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }() // of the system's temporary folder
	for _, volume := range ingress.Spec.Template.Spec.Volumes {
		if volume.Projected == nil {
			continue
		}
		for _, source := range volume.Projected.Sources {
			m := find[*corev1.ConfigMap](s, source.ConfigMap.Name)
			if m == nil {
				return fmt.Errorf("ingress mounts the ConfigMap %s, which there is not", source.ConfigMap.Name)
			}
			for _, item := range source.ConfigMap.Items {
				path := filepath.Join(folder, item.Path)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(m.Data[item.Key]), 0o600)); err != nil {
					return err
				}
			}
		}
	}
	shown, err := models.ReadFolders(folder)
	if err != nil {
		return fmt.Errorf("ingress: %w", err)
	}
	for _, m := range known {
		if !slices.ContainsFunc(shown, func(other *models.Model) bool { return other.Name == m.Name }) {
			return fmt.Errorf("ingress does not know the model %s: run `make generate`", m.Name)
		}
	}
	return s.checkWaking(ingress, known)
}

// checkWaking wants ingress to wake the Services that requests need, by a path that they answer without an event.
func (s System) checkWaking(ingress *servingv1.Service, known []*models.Model) error {
	const route = "http://%s.%s.svc.cluster.local/health/liveness"
	address := setting(ingress.Spec.Template.Spec.Containers[0], "WAKE_URL")
	for _, m := range known {
		t := find[*eventingv1.Trigger](s, m.Name)
		if t == nil {
			continue // which has been said
		}
		subscriber := s.destination(&t.Spec.Subscriber)
		if subscriber == nil {
			continue // which has been said, too
		}
		want := fmt.Sprintf(route, subscriber.Name, subscriber.Namespace)
		if woken := strings.ReplaceAll(address, "{model}", m.Name); woken != want {
			return fmt.Errorf("ingress wakes %q for the model %s; want %s", woken, m.Name, want)
		}
	}
	return nil
}

// checkAttempts wants deadletter to tell the truth about how often an event was tried.
func (s System) checkAttempts(known []*models.Model) error {
	deadletter := find[*servingv1.Service](s, "deadletter")
	if deadletter == nil {
		return errors.New("there is no Service deadletter")
	}
	said := strings.Split(setting(deadletter.Spec.Template.Spec.Containers[0], "ATTEMPTS"), ",")
	for _, m := range known {
		t := find[*eventingv1.Trigger](s, m.Name)
		if t == nil || t.Spec.Delivery == nil || t.Spec.Delivery.Retry == nil {
			continue // which has been said
		}
		if want := fmt.Sprintf("%s:%d", m.Name, *t.Spec.Delivery.Retry+1); !slices.Contains(said, want) {
			return fmt.Errorf("deadletter's ATTEMPTS lacks %s", want)
		}
	}
	return nil
}
