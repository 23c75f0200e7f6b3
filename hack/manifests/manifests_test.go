package manifests

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	clusteroperator "github.com/rabbitmq/cluster-operator/v2/api/v1beta1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

const (
	root   = "../.."
	folder = root + "/config"
)

// files are those that `ko apply -f config/ -f config/models/` applies, in its order.
func files(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.yaml", "models/*.yaml"} {
		found, err := filepath.Glob(filepath.Join(folder, pattern))
		require.NoError(t, err)
		require.NotEmpty(t, found)
		all = append(all, found...)
	}
	return all
}

func TestEveryManifestIsTakenAndFitsTheOthers(t *testing.T) {
	t.Parallel()
	objects, err := ReadFiles(t.Context(), files(t)...)
	require.NoError(t, err)
	s := System{Objects: objects, Root: root}
	require.NoError(t, s.Check())
	require.Equal(t, "ebb", objects[0].GetName(), "the namespace comes first")
	var names []string
	for _, k := range all[*servingv1.Service](s) {
		names = append(names, k.Name)
	}
	require.Equal(t, []string{"ingress", "deadletter", "inception-v3", "modelsync", "dispatch-cat", "dispatch-dog", "dispatch-imagenet"}, names)
}

func TestARabbitMQOfItsOwnIsTaken(t *testing.T) {
	t.Parallel()
	objects, err := ReadFiles(t.Context(), folder+"/rabbitmq/rabbitmq.yaml")
	require.NoError(t, err)
	require.NoError(t, System{Objects: objects}.checkNames())
}

// joined is all manifests as one.
func joined(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	for _, file := range files(t) {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		b.WriteString("---\n# " + filepath.Base(file) + "\n")
		b.Write(data)
	}
	return b.String()
}

// change makes a bad manifest of good ones.
type change struct {
	After    string // the change is made behind it
	Old, New string
	Want     string // what is said of it
}

// require says whether the check refuses what c makes of manifests, with what is wrong.
func (c change) require(t *testing.T, manifests string) {
	t.Helper()
	before, behind, found := strings.Cut(manifests, c.After)
	require.True(t, found, "%q is nowhere", c.After)
	require.Contains(t, behind, c.Old)
	objects, err := Read(t.Context(), []byte(before+c.After+strings.Replace(behind, c.Old, c.New, 1)))
	if err == nil {
		err = System{Objects: objects, Root: root}.Check()
	}
	require.ErrorContains(t, err, c.Want)
}

// The test on a cluster has the same manifests refused by the real API server and webhooks.
func TestWhatAClusterRefusesIsRefusedWithoutOne(t *testing.T) {
	t.Parallel()
	manifests := joined(t)
	data, err := os.ReadFile("refused.yaml")
	require.NoError(t, err)
	var changes []struct {
		change
		Name, Cluster, Feature string
	}
	require.NoError(t, yaml.UnmarshalStrict(data, &changes))
	require.NotEmpty(t, changes)
	for _, c := range changes {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			c.require(t, manifests)
		})
	}
}

func TestABadManifestIsRefusedWithWhatIsWrong(t *testing.T) {
	t.Parallel()
	manifests := joined(t)
	const dispatch = "name: dispatch-cat\n  namespace"
	for name, c := range map[string]change{
		// What kubectl drops in silence, so that a cluster never sees it.
		"a field twice": {dispatch, "timeoutSeconds: 90\n", "timeoutSeconds: 90\n      timeoutSeconds: 90\n", "already set"},

		// What would be taken and then not work.
		"another namespace":         {"500-callbacks", "namespace: ebb", "namespace: default", `is in the namespace "default"`},
		"no label":                  {"500-callbacks", "app.kubernetes.io/part-of: ebb\n", "a: b\n", "Trigger.eventing.knative.dev callbacks lacks the labels"},
		"an object twice":           {"100-accounts", "name: dispatch\n", "name: ingress\n", "ServiceAccount ingress is there twice"},
		"no account":                {dispatch, "serviceAccountName: dispatch", "serviceAccountName: default", `there is no ServiceAccount "default"`},
		"a token":                   {"100-accounts", "automountServiceAccountToken: false", "automountServiceAccountToken: true", "a token of Kubernetes'"},
		"open to the world":         {dispatch, "    networking.knative.dev/visibility: cluster-local\n", "", "Service dispatch-cat: ingress, and nothing else"},
		"root":                      {dispatch, "runAsNonRoot: true", "runAsNonRoot: false", `the standard "restricted"`},
		"no seccomp":                {dispatch, "seccompProfile: {type: RuntimeDefault}", "privileged: false", "seccompProfile"},
		"a writable file system":    {dispatch, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "can be written"},
		"a hard limit below":        {dispatch, "timeoutSeconds: 90", "containerConcurrency: 8\n      timeoutSeconds: 90", "no hard limit below it"},
		"a target of another batch": {dispatch, `/target: "16"`, `/target: "8"`, "model cat: its target is 8; 2 batches of 8"},
		"any number of replicas":    {dispatch, `/max-scale: "10"`, `/max-scale: "0"`, "no bound to its replicas"},
		"another secret":            {dispatch, "name: rabbitmq, key: url", "name: rabbit, key: url", "RABBITMQ_URL is not of the key url"},
		"an unknown variable":       {dispatch, "name: DRAIN_TIMEOUT", "name: DRAIN_TIME", "dispatch knows no variable DRAIN_TIME"},
		"an unknown function":       {dispatch, "functions/dispatch", "functions/dispatcher", `no function "dispatcher"`},
		"the proxy's port":          {dispatch, `value: "9464"`, `value: "9090"`, "none of the queue proxy's ports"},
		"no probe":                  {dispatch, "          livenessProbe:\n            httpGet: {path: /health/liveness}\n            periodSeconds: 10\n", "", "lacks a probe"},
		"no memory":                 {dispatch, "requests: {cpu: 50m, memory: 160Mi}", "requests: {cpu: 50m}", "does not say what it needs"},
		"another definition":        {dispatch, "configMap: {name: model-cat}", "configMap: {name: model-dog}", "does not mount its definition"},
		"cut off too early":         {dispatch, "timeoutSeconds: 90\n      responseStartTimeoutSeconds: 90", "timeoutSeconds: 60\n      responseStartTimeoutSeconds: 60", "Knative cuts dispatch-cat off after 1m0s"},
		"given up too early":        {"kind: Trigger\nmetadata:\n  name: cat", "timeout: PT90S", "timeout: PT30S", "gives up after PT30S"},
		"too parallel":              {"500-callbacks", `parallelism: "100"`, `parallelism: "200"`, "not from 1 to 100"},
		"another Broker":            {"500-callbacks", "broker: ebb", "broker: default", `there is no Broker "default"`},
		"nobody to deliver to":      {"500-callbacks", "name: ingress", "name: ingres", "its subscriber is none of the Services"},
		"no dead letters":           {"500-callbacks", "name: deadletter", "name: deadletters", "its dead letter sink is none of the Services"},
		"not all of the delivery":   {"500-callbacks", "    timeout: PT1M\n", "", "without it the broker loses events"},
		"a model without events":    {"kind: Trigger\nmetadata:\n  name: cat", "model: cat\n  subscriber", "model: cats\n  subscriber", "model cat: 0 Triggers select its events"},
		"a model unknown": {"300-ingress", `              - configMap:
                  name: model-cat
                  optional: true
                  items:
                    - {key: "model.yaml", path: "cat/model.yaml"}
`, "", "ingress does not know the model cat"},
		"another route to wake": {"300-ingress", "http://dispatch-{model}.ebb", "http://dispatch.ebb", `ingress wakes "http://dispatch.ebb.svc.cluster.local/health/liveness" for the model cat`},
		"a wrong count":         {"310-deadletter", "cat:6", "cat:3", "ATTEMPTS lacks cat:6"},
		"no model server":       {"400-networks", "name: inception-v3\n  namespace", "name: inception\n  namespace", "there is no Service inception-v3"},
		"a model server's port": {"400-networks", "name: h2c", "name: http1", "no port h2c"},
		"another network":       {"400-networks", `value: "inception_v3"`, `value: "resnet50"`, "does not serve inception_v3"},
		"a definition's typo":   {"name: model-cat", "subject: a cat", "subjct: a cat", "did you mean subject?"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.require(t, manifests)
		})
	}
}

// sourced are the manifests with a source in the model cat's definition, as `make generate` makes them.
func sourced(t *testing.T) string {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.CopyFS(config, os.DirFS(folder)))
	cat := filepath.Join(config, "models", "cat.yaml")
	text, err := os.ReadFile(cat)
	require.NoError(t, err)
	with := strings.Replace(string(text), "      model: inception_v3\n", "      model: inception_v3\n      source: {url: \"gs://models/inception_v3\"}\n", 1)
	require.NotEqual(t, string(text), with)
	require.NoError(t, os.WriteFile(cat, []byte(with), 0o600))
	cmd := exec.CommandContext(t.Context(), "go", "run", "./hack/generate", "-config", config)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	var b bytes.Buffer
	for _, file := range files(t) {
		data, err := os.ReadFile(filepath.Join(config, strings.TrimPrefix(file, folder)))
		require.NoError(t, err)
		b.WriteString("---\n# " + filepath.Base(file) + "\n")
		b.Write(data)
	}
	return b.String()
}

func TestModelsWithASourceAreLookedAfter(t *testing.T) {
	t.Parallel()
	manifests := sourced(t)
	objects, err := Read(t.Context(), []byte(manifests))
	require.NoError(t, err)
	require.NoError(t, System{Objects: objects, Root: root}.Check())
	for name, c := range map[string]struct{ old, new, want string }{
		"rights for all Services":   {"    resourceNames: [inception-v3]\n", "", "services update is for all of them"},
		"rights for another":        {"resourceNames: [inception-v3]", "resourceNames: [ingress]", "modelsync may not roll it out"},
		"rights for nothing":        {"resourceNames: [inception-v3]", "resourceNames: [inception]", "there is no inception in services"},
		"more rights":               {"verbs: [list]\n", "verbs: [list, create]\n", "pods create is for all of them"},
		"no state":                  {"name: modelsync-inception-v3\n  namespace", "name: modelsync-inception\n  namespace", "there is no modelsync-inception-v3"},
		"nobody has the rights":     {"name: modelsync, namespace: ebb}", "name: dispatch, namespace: ebb}", "a token of Kubernetes'"},
		"no token":                  {"automountServiceAccountToken: true", "automountServiceAccountToken: false", "not given the token"},
		"nobody is asked to look":   {"kind: Service\n      name: modelsync", "kind: Service\n      name: modelsink", "the PingSource modelsync: its sink is none of the Services"},
		"a schedule":                {"*/5 * * * *", "every 5 minutes", "schedule"},
		"two meanings of a network": {"subject: a dog\n    serving:\n", "subject: a dog\n    serving:\n      version: 1\n", "keeps a version of the network"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, manifests, c.old)
			objects, err := Read(t.Context(), []byte(strings.ReplaceAll(manifests, c.old, c.new)))
			if err == nil {
				err = System{Objects: objects, Root: root}.Check()
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestKustomizeSeesTheSameObjects(t *testing.T) {
	t.Parallel()
	plain, err := ReadFiles(t.Context(), files(t)...)
	require.NoError(t, err)
	require.Equal(t, keys(plain), keys(kustomized(t.Context(), t, "base")))
}

// keys are what objects are called, sorted.
func keys(objects []Object) []string {
	names := map[string]bool{}
	for _, o := range objects {
		names[o.GetObjectKind().GroupVersionKind().GroupKind().String()+" "+o.GetName()] = true
	}
	return slices.Sorted(maps.Keys(names))
}

func TestHighAvailabilityHasNothingThatIsThereOnce(t *testing.T) {
	t.Parallel()
	ctx := withFeatures(t.Context(), t, map[string]string{"kubernetes.podspec-topologyspreadconstraints": "enabled"})
	s := System{Objects: kustomized(ctx, t, "ha"), Root: root}
	require.NoError(t, s.Check())
	rabbit := find[*clusteroperator.RabbitmqCluster](s, "rabbitmq")
	require.NotNil(t, rabbit)
	require.EqualValues(t, 3, *rabbit.Spec.Replicas)
	require.Equal(t, "2", find[*servingv1.Service](s, "ingress").Spec.Template.Annotations["autoscaling.knative.dev/min-scale"])
	budgets := all[*policyv1.PodDisruptionBudget](s)
	for _, k := range all[*servingv1.Service](s) {
		require.NotEmpty(t, k.Spec.Template.Spec.TopologySpreadConstraints, k.Name)
		require.True(t, slices.ContainsFunc(budgets, func(b *policyv1.PodDisruptionBudget) bool {
			selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
			require.NoError(t, err)
			return selector.Matches(labels.Set(k.Spec.Template.Labels))
		}), "no disruption budget selects the pods of %s", k.Name)
	}
}

func TestOnGoogleCloudTheNetworkComesFromABucket(t *testing.T) {
	t.Parallel()
	ctx := withFeatures(t.Context(), t, map[string]string{"kubernetes.podspec-topologyspreadconstraints": "enabled"})
	s := System{Objects: kustomized(ctx, t, "gke"), Root: root}
	require.NoError(t, s.Check())
	yours, err := os.ReadFile(folder + "/overlays/gke/gke.env")
	require.NoError(t, err)
	require.Nil(t, find[*servingv1.Service](s, "inception-v3"))
	serving := find[*servingv1.Service](s, "resnet").Spec.Template.Spec.Containers[0]
	require.Contains(t, string(yours), "models="+setting(serving, "MODEL_BASE_PATH")+"\n")
	account := find[*corev1.ServiceAccount](s, "modelserver")
	require.Contains(t, string(yours), "account="+account.Annotations["iam.gke.io/gcp-service-account"]+"\n")
	syncs := find[*corev1.ServiceAccount](s, "modelsync")
	require.Contains(t, string(yours), "modelsync="+syncs.Annotations["iam.gke.io/gcp-service-account"]+"\n")
	domains := all[*servingv1beta1.DomainMapping](s)
	require.Len(t, domains, 1)
	require.Contains(t, string(yours), "domain="+domains[0].Name+"\n")
	known, err := s.models()
	require.NoError(t, err)
	require.Len(t, known, 3)
	for _, m := range known {
		require.Equal(t, "resnet", m.Serving.Model)
	}
}

func TestOnGoogleCloudTheWayInIsALoadBalancerWithACertificate(t *testing.T) {
	t.Parallel()
	ctx := withFeatures(t.Context(), t, map[string]string{"kubernetes.podspec-topologyspreadconstraints": "enabled"})
	s := System{Objects: kustomized(ctx, t, "gke"), Root: root}
	text, err := os.ReadFile(folder + "/overlays/gke/gke.env")
	require.NoError(t, err)
	yours := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			yours[key] = value
		}
	}
	gateway := find[*gatewayv1.Gateway](s, "ebb")
	require.Equal(t, "gke-l7-global-external-managed", string(gateway.Spec.GatewayClassName))
	require.Len(t, gateway.Spec.Addresses, 1)
	require.Equal(t, yours["address"], gateway.Spec.Addresses[0].Value)
	require.Equal(t, yours["certificates"], gateway.Annotations["networking.gke.io/certmap"])
	listeners := map[string]gatewayv1.ProtocolType{}
	for _, l := range gateway.Spec.Listeners {
		listeners[string(l.Name)] = l.Protocol
	}
	require.Equal(t, map[string]gatewayv1.ProtocolType{"https": gatewayv1.HTTPSProtocolType, "http": gatewayv1.HTTPProtocolType}, listeners)
	routes := all[*gatewayv1.HTTPRoute](s)
	require.Len(t, routes, 2)
	for _, r := range routes {
		require.Equal(t, []gatewayv1.Hostname{gatewayv1.Hostname(yours["domain"])}, r.Spec.Hostnames)
		require.Equal(t, gateway.Name, string(r.Spec.ParentRefs[0].Name))
		require.Len(t, r.Spec.Rules, 1)
		switch rule := r.Spec.Rules[0]; *r.Spec.ParentRefs[0].SectionName {
		case "https":
			require.EqualValues(t, "kourier", rule.BackendRefs[0].Name)
		case "http":
			require.Empty(t, rule.BackendRefs)
			require.Equal(t, "https", *rule.Filters[0].RequestRedirect.Scheme)
		}
	}
	kourier := gkeTarget{Kind: "Service", Name: "kourier"}
	require.Equal(t, kourier, find[*healthCheckPolicy](s, "ebb").Spec.TargetRef)
	backend := find[*gcpBackendPolicy](s, "ebb").Spec
	require.Equal(t, kourier, backend.TargetRef)
	require.EqualValues(t, *find[*servingv1.Service](s, "ingress").Spec.Template.Spec.TimeoutSeconds, backend.Default.TimeoutSec,
		"the load balancer and Knative give up at the same time")
	for _, k := range all[*servingv1.Service](s) {
		require.Contains(t, k.Spec.Template.Spec.TopologySpreadConstraints[len(k.Spec.Template.Spec.TopologySpreadConstraints)-1].TopologyKey, "zone", k.Name)
	}

	manifest := string(manifestOf(t, "gke"))
	for name, c := range map[string]struct{ old, new, want string }{
		"a load balancer's typo":     {"gatewayClassName: gke", "gatewayClass: gke", "unknown field"},
		"a protocol unknown":         {"port: 443\n    protocol: HTTPS", "port: 443\n    protocol: HT TPS", "spec.listeners[0].protocol"},
		"a host that is none":        {"hostnames:\n  - ebb.example.com", "hostnames:\n  - https://ebb.example.com", "spec.hostnames[0]"},
		"a check of health's typo":   {"tcpHealthCheck:", "tcpHealth:", "unknown field"},
		"a route in another's place": {"name: ebb-to-https\n  namespace: kourier-system", "name: ebb-to-https\n  namespace: ebb", "is in the namespace"},
	} {
		require.Contains(t, manifest, c.old, name)
		objects, err := Read(ctx, []byte(strings.Replace(manifest, c.old, c.new, 1)))
		if err == nil {
			err = System{Objects: objects, Root: root}.Check()
		}
		require.ErrorContains(t, err, c.want, name)
	}
}

func TestAFeatureThatKnativeHasToAllowIsRefusedWithoutIt(t *testing.T) {
	t.Parallel()
	_, err := Read(t.Context(), manifestOf(t, "ha"))
	require.ErrorContains(t, err, "topologySpreadConstraints")
}
