package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/hack/standin/standintest"
)

func TestMain(m *testing.M) {
	os.Exit(standintest.Main(m))
}

var arguments = []string{"-project=my-project", "-region=europe-west4", "-domain=ebb.example.com", "-yes"}

// place is a project's folder and a Google Cloud, as far as the stand-in has one.
type place struct {
	standintest.World
	root string
}

func newPlace(t *testing.T) place {
	t.Helper()
	root := t.TempDir()
	require.NoError(t, os.CopyFS(filepath.Join(root, "config"), os.DirFS("../../config")))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "hack", "download"), 0o755))
	return place{standintest.New(t), root}
}

// gke runs the program and returns what it said.
func (p place) gke(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var log bytes.Buffer
	err := run(t.Context(), slices.Concat(arguments, args), machine{
		getenv: func(string) string { return "" }, log: &log, root: p.root, environ: p.Environ(), pause: time.Millisecond,
	})
	return log.String(), err
}

// must does so, and returns the commands that were run.
func (p place) must(t *testing.T, args ...string) []string {
	t.Helper()
	said, err := p.gke(t, args...)
	require.NoError(t, err, said)
	return p.Commands(t)
}

// things are what there is in the cloud.
func (p place) things(t *testing.T) []string {
	t.Helper()
	return slices.Sorted(maps.Keys(p.State(t).Things))
}

var everything = []string{
	"artifacts repositories/ebb", "certificate-manager certificates/ebb", "certificate-manager maps entries/ebb", "certificate-manager maps/ebb",
	"compute addresses/ebb", "compute networks subnets/ebb", "compute networks/ebb", "container clusters/ebb",
	"iam service-accounts/ebb-models@my-project.iam.gserviceaccount.com", "iam service-accounts/ebb-modelsync@my-project.iam.gserviceaccount.com",
	"iam service-accounts/ebb-nodes@my-project.iam.gserviceaccount.com",
	"storage buckets/my-project-ebb-models",
}

// changing are the commands that change something.
func changing(commands []string) []string {
	reads := regexp.MustCompile(` list |get-credentials|get-iam-policy|^kubectl (--namespace=\S+ )?(get|wait|kustomize)|^go run`)
	return slices.DeleteFunc(slices.Clone(commands), reads.MatchString)
}

func TestUpMakesEverythingAndASecondOneChangesNothing(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	first := p.must(t, "up")
	require.Equal(t, everything, p.things(t))
	state := p.State(t)
	require.Equal(t, map[string][]string{
		"projects/my-project":                                                   {"roles/container.defaultNodeServiceAccount serviceAccount:ebb-nodes@my-project.iam.gserviceaccount.com"},
		"artifacts repositories/ebb":                                            {"roles/artifactregistry.reader serviceAccount:ebb-nodes@my-project.iam.gserviceaccount.com", "roles/artifactregistry.writer serviceAccount:ebb-modelsync@my-project.iam.gserviceaccount.com"},
		"storage buckets/my-project-ebb-models":                                 {"roles/storage.objectViewer serviceAccount:ebb-models@my-project.iam.gserviceaccount.com", "roles/storage.objectViewer serviceAccount:ebb-modelsync@my-project.iam.gserviceaccount.com"},
		"iam service-accounts/ebb-models@my-project.iam.gserviceaccount.com":    {"roles/iam.workloadIdentityUser serviceAccount:my-project.svc.id.goog[ebb/modelserver]"},
		"iam service-accounts/ebb-modelsync@my-project.iam.gserviceaccount.com": {"roles/iam.workloadIdentityUser serviceAccount:my-project.svc.id.goog[ebb/modelsync]"},
	}, state.Roles)
	require.Equal(t, map[string]bool{
		"my-project-ebb-models/resnet/1/saved_model.pb": true, "my-project-ebb-models/resnet/1/variables/variables.index": true,
	}, state.Objects)
	require.Equal(t, map[string]any{"type": "ClusterIP"}, state.Kube["kourier-system/service/kourier"]["spec"])
	require.Equal(t, map[string]any{"ingress-class": "kourier.ingress.networking.knative.dev", "autocreate-cluster-domain-claims": "true"},
		state.Kube["knative-serving/configmap/config-network"]["data"])
	require.Equal(t, map[string]any{"minReplicas": 2.0}, state.Kube["knative-serving/horizontalpodautoscaler/activator"]["spec"])
	require.Equal(t, "v1.21.0", state.Kube["knative-eventing/deployment/rabbitmq-broker-controller"]["ebb.dev/release"])

	again := p.must(t, "up")
	require.Empty(t, changing(again))
	after := p.State(t)
	require.Equal(t, state, after)
	require.NotEmpty(t, changing(first))
}

func TestADryRunPrintsWhatARealRunRunsAndRunsNothing(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	env := func() []string {
		f := files{p.root, "ebb-my-project"}
		return []string{"KUBECONFIG=" + f.kubeconfig(), "KO_DOCKER_REPO=europe-west4-docker.pkg.dev/my-project/ebb", "KO_CONFIG_PATH=" + filepath.Join(p.root, "ko.yaml")}
	}()
	for _, verb := range []string{"up", "deploy", "down"} {
		printed, err := p.gke(t, "-dry-run", verb)
		require.NoError(t, err)
		require.Empty(t, p.Commands(t), "a dry run of %s ran something", verb)
		ran := p.must(t, verb)
		want := standintest.Printed(printed, env...)
		if verb == "down" { // it looks first whether there is a map to list the places of, and until what is in RabbitMQ has gone
			require.Equal(t, changing(want), changing(ran))
			continue
		}
		// What has to be said twice, until all of Google Cloud and of the cluster knows, is not printed twice.
		require.Equal(t, want, slices.Compact(ran), verb)
	}
	require.NoDirExists(t, filepath.Join(p.root, ".ebb", "gke", "ebb-my-project"))
}

func TestEveryCommandIsInItsOrder(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	before := func(commands []string, one, other string) {
		t.Helper()
		at := func(part string) int {
			i := slices.IndexFunc(commands, func(c string) bool { return strings.Contains(c, part) })
			require.NotEqual(t, -1, i, "no command has %q", part)
			return i
		}
		require.Less(t, at(one), at(other), "%s comes before %s", one, other)
	}
	up := changing(p.must(t, "up"))
	require.True(t, strings.HasPrefix(up[0], "gcloud services enable "))
	before(up, "service-accounts create ebb-nodes", "clusters create")
	before(up, "networks subnets create", "clusters create")
	before(up, "clusters create", "roles/iam.workloadIdentityUser")
	before(up, "variables/", "1/saved_model.pb") // what makes a version whole is last
	before(up, "cert-manager.yaml", "messaging-topology-operator-with-certmanager.yaml")
	before(up, "serving-crds.yaml", "serving-core.yaml")
	for _, line := range up {
		if strings.HasPrefix(line, "gcloud") {
			require.Contains(t, line, "--project=my-project --quiet")
		}
	}
	cluster := up[slices.IndexFunc(up, func(c string) bool { return strings.Contains(c, "clusters create") })]
	for _, flag := range []string{"--region=europe-west4", "--workload-pool=my-project.svc.id.goog", "--gateway-api=standard", "--enable-dataplane-v2", "--labels=ebb=ebb"} {
		require.Contains(t, cluster, flag)
	}
	deploy := p.must(t, "deploy")
	before(deploy, "kubectl create", "ko apply")
	applied, _ := p.State(t).Kube["ebb/services.serving.knative.dev/ingress"]["applied"].(string)
	require.Contains(t, applied, "models=gs://my-project-ebb-models/resnet\n")
	require.Contains(t, applied, "account=ebb-models@my-project.iam.gserviceaccount.com\n")
	require.Contains(t, applied, "modelsync=ebb-modelsync@my-project.iam.gserviceaccount.com\n")
	require.Contains(t, applied, "domain=ebb.example.com\n")
	keys := regexp.MustCompile(`(?m)^\w+=`)
	theirs, err := os.ReadFile("../../config/overlays/gke/gke.env")
	require.NoError(t, err)
	require.Equal(t, keys.FindAllString(string(theirs), -1), keys.FindAllString(applied, -1), "what the overlay reads is what deploy writes")
	require.NotContains(t, strings.Join(p.must(t, "deploy"), "\n"), "kubectl create", "a second password would be nobody's")
	down := p.must(t, "down")
	before(down, "delete triggers.eventing", "delete namespace ebb")
	before(down, "delete gateways", "clusters delete")
	before(down, "clusters delete", "subnets delete")
	before(down, "remove-iam-policy-binding my-project", "service-accounts delete ebb-nodes")
}

func TestItGoesOnAfterAFailureOfEveryStep(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before", "after"} {
		t.Run(when+" the change", func(t *testing.T) {
			t.Parallel()
			p, whole := newPlace(t), newPlace(t)
			running := func(verb string) func() error {
				return func() error {
					_, err := p.gke(t, verb)
					return err
				}
			}
			failed := p.FailEach(t, when, changing, running("up"))
			for _, change := range changing(whole.must(t, "up")) {
				require.Contains(t, failed, strings.ReplaceAll(change, whole.root, p.root))
			}
			is, want := p.State(t), whole.State(t)
			is.Changes, is.Tried, want.Changes, want.Tried = 0, nil, 0, nil
			require.Equal(t, want, is)
			require.Empty(t, changing(p.must(t, "up")))

			p.must(t, "deploy")
			p.FailEach(t, when, changing, running("down"))
			require.Empty(t, p.State(t).Things)
			require.Empty(t, p.State(t).Leaked)
		})
	}
}

func TestDownRemovesWhateverOfUpIsThere(t *testing.T) {
	t.Parallel()
	for _, after := range []int{0, 1, 2, 3, 6, 11, 12, 15, 20} {
		t.Run(fmt.Sprintf("after %d changes", after), func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			if after > 0 {
				p.Fail(t, fmt.Sprintf("%d after", after))
				_, err := p.gke(t, "up")
				require.Error(t, err)
				p.Fail(t, "")
			}
			p.must(t, "down")
			state := p.State(t)
			require.Empty(t, state.Things)
			require.Empty(t, state.Roles)
			require.Empty(t, state.Objects)
			require.Empty(t, state.Leaked)
			require.Empty(t, changing(p.must(t, "down")), "and a second one finds nothing")
		})
	}
}

func TestWhatIsSomebodyElsesIsLeft(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.must(t, "up")
	p.must(t, "deploy")
	state := p.State(t)
	others := []string{
		"compute networks/default", "container clusters/prod", "storage buckets/my-project-ebb-models2",
		"iam service-accounts/ebb@my-project.iam.gserviceaccount.com",
	}
	for _, name := range others {
		state.Things[name] = map[string]any{"status": "RUNNING"}
	}
	// Of the same name, and not made by it.
	state.Things["compute addresses/ebb"] = map[string]any{"description": "of the shop", "address": "203.0.113.9"}
	state.Roles["projects/my-project"] = append(state.Roles["projects/my-project"], "roles/owner user:me@example.com")
	p.Put(t, state)
	said, err := p.gke(t, "up")
	require.ErrorContains(t, err, "somebody else made it; choose another -name", said)
	said, err = p.gke(t, "down")
	require.NoError(t, err)
	require.Contains(t, said, `leaving the address ebb, which does not say "ebb=ebb"`)
	require.ElementsMatch(t, append(others, "compute addresses/ebb"), p.things(t))
	require.Equal(t, map[string][]string{"projects/my-project": {"roles/owner user:me@example.com"}}, p.State(t).Roles)

	// A bucket without a mark that has something in it.
	p = newPlace(t)
	p.Put(t, standintest.State{
		Things: map[string]map[string]any{"storage buckets/my-project-ebb-models": {}}, Objects: map[string]bool{"my-project-ebb-models/thesis": true},
		APIs: map[string]bool{"storage.googleapis.com": true},
	})
	_, err = p.gke(t, "up")
	require.ErrorContains(t, err, "somebody else made it")
	p.must(t, "down")
	require.NotEmpty(t, p.State(t).Objects)
}

func TestACloudThatIsNotAsItShouldBe(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.must(t, "up")
	state := p.State(t)
	state.Things["container clusters/ebb"]["status"] = "ERROR"
	p.Put(t, state)
	_, err := p.gke(t, "up")
	require.ErrorContains(t, err, "the cluster is in the state ERROR")
	_, err = p.gke(t, "down")
	require.ErrorContains(t, err, "the cluster is in the state ERROR")
	said, err := p.gke(t, "down", "-force")
	require.NoError(t, err)
	require.Contains(t, said, "may be there still")
	require.Empty(t, p.things(t))
}

func TestAReleaseThatHasChangedIsNotInstalled(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.must(t, "up")
	sums, err := os.ReadFile(filepath.Join(p.root, "hack", "download", "sums"))
	require.NoError(t, err)
	require.Contains(t, string(sums), "/knative-v1.21.2/serving-core.yaml\n")
	require.NoError(t, os.RemoveAll(filepath.Join(p.root, ".ebb", "releases")))
	state := p.State(t)
	delete(state.Kube["knative-serving/deployment/controller"], "ebb.dev/release")
	p.Put(t, state)
	var log bytes.Buffer
	err = run(t.Context(), append(slices.Clone(arguments), "up"), machine{
		getenv: func(string) string { return "" }, log: &log, root: p.root, environ: p.Environ("STANDIN_TAMPER=x"), pause: time.Millisecond,
	})
	require.ErrorContains(t, err, "wrong checksum")
	require.ErrorContains(t, err, "serving-crds.yaml")
	require.NotContains(t, strings.Join(p.Commands(t), "\n"), "kubectl apply")
}

func TestHostileSettingsAreRefusedBeforeAnythingRuns(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"a flag for a project":    {[]string{"-project=--impersonate-service-account=x"}, "-project"},
		"a shell's word":          {[]string{"-project=a$(id)bcd"}, "-project"},
		"a line break":            {[]string{"-project=my-project\n"}, "-project"},
		"no project":              {[]string{"-project="}, "EBB_PROJECT"},
		"a zone":                  {[]string{"-region=europe-west4-a"}, "-region"},
		"two regions":             {[]string{"-region=europe-west4 us-east1"}, "-region"},
		"a path for a name":       {[]string{"-name=../x"}, "-name"},
		"a name that is a flag":   {[]string{"-name=-x"}, "-name"},
		"a name that is too long": {[]string{"-name=" + strings.Repeat("a", 21)}, "-name"},
		"an address for a domain": {[]string{"-domain=10.0.0.1"}, "-domain"},
		"a domain of anybody":     {[]string{"-domain=*.example.com"}, "-domain"},
		"a domain with a comma":   {[]string{"-domain=a.example.com,b.example.com"}, "-domain"},
		"a domain of one word":    {[]string{"-domain=localhost"}, "-domain"},
		"a load without an end":   {[]string{"-requests=100000000"}, "-requests"},
		"a load of no rate":       {[]string{"-rate=NaN"}, "-rate"},
		"a load with a password":  {[]string{"-url=https://a:b@example.com"}, "-url"},
		"a load of a file":        {[]string{"-url=file:///etc/passwd"}, "-url"},
		"an unknown verb":         {[]string{"destroy"}, `there is no "destroy"`},
		"two verbs":               {[]string{"up", "down"}, "only one of"},
		"down by a slip":          {[]string{"-yes=false", "down"}, "say -yes"},
		"no verb":                 {nil, `there is no ""`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			_, err := p.gke(t, c.args...)
			require.ErrorContains(t, err, c.want)
			require.Empty(t, p.Commands(t))
		})
	}
}

func TestHelpSaysWhatThereIs(t *testing.T) {
	t.Parallel()
	said, err := newPlace(t).gke(t, "-help")
	require.NoError(t, err)
	for _, word := range []string{"up", "deploy", "load", "down", "-dry-run", "EBB_PROJECT"} {
		require.Contains(t, said, word)
	}
}

func TestLoadAsksAndSaysWhatCameOfIt(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		asked.Add(1)
		_, _ = fmt.Fprintf(w, `{"results": [{"model": %q, "top": [{"label": "tabby", "probability": 0.9}]}]}`, r.FormValue("model"))
	}))
	defer server.Close()
	p := newPlace(t)
	picture := filepath.Join(p.root, "picture.jpg")
	require.NoError(t, os.WriteFile(picture, []byte("\xff\xd8\xff\xe0"), 0o600))
	said, err := p.gke(t, "load", "-url="+server.URL, "-requests=30", "-rate=200", "-picture="+picture)
	require.NoError(t, err, said)
	require.EqualValues(t, 30, asked.Load())
	require.Contains(t, said, "30 sent: 30 answered")
	require.Contains(t, said, "answers took ")
	require.Contains(t, said, "get pods --watch")

	server.Config.Handler = http.NotFoundHandler()
	said, err = p.gke(t, "load", "-url="+server.URL, "-requests=3", "-rate=200", "-picture="+picture)
	require.ErrorContains(t, err, "3 of 3 were not answered", said)
	_, err = p.gke(t, "load", "-picture="+filepath.Join(p.root, "none"))
	require.ErrorContains(t, err, "make pictures")
}
