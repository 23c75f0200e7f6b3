package knative

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"

	"github.com/ebb-inference/ebb/hack/command"
	"github.com/ebb-inference/ebb/hack/download"
)

// annotation on a release's Deployment is the version that was installed, all of it.
const annotation = "ebb.dev/release"

// notYet is what kubectl says while a webhook or a kind that was just installed is not served yet.
var notYet = regexp.MustCompile(`failed calling webhook|no matches for kind|connection refused|no endpoints available|context deadline exceeded`)

// Setting is what an object that a release brought has to say beyond what it comes with.
type Setting struct {
	Namespace, Kind, Name string
	Want                  map[string]any // a part of the object, as a JSON merge patch
}

// ConfigMap is the Setting of a ConfigMap's data.
func ConfigMap(namespace, name string, data map[string]any) Setting {
	return Setting{namespace, "configmap", name, map[string]any{"data": data}}
}

// Needed are the settings of Knative's that Ebb needs on every cluster that this package makes one: Kourier as the ingress, domain
// mappings without an administrator's claim, and what config/overlays/ha spreads its pods by.
func Needed() []Setting {
	return []Setting{
		ConfigMap("knative-serving", "config-network", map[string]any{
			"ingress-class":                    "kourier.ingress.networking.knative.dev",
			"autocreate-cluster-domain-claims": "true",
		}),
		ConfigMap("knative-serving", "config-features", map[string]any{"kubernetes.podspec-topologyspreadconstraints": "enabled"}),
	}
}

// Installer installs releases with kubectl, which finds the cluster by the Runner's environment.
type Installer struct {
	Runner *command.Runner
	Files  download.Downloader
	Folder string // for what is downloaded
}

// Install installs what is not installed yet, in its version, waits until it works, and makes the settings.
func (i Installer) Install(ctx context.Context, settings ...Setting) error {
	for _, r := range releases {
		i.Runner.Say("%s %s", r.name, r.version)
		if err := i.install(ctx, r); err != nil {
			return fmt.Errorf("install %s: %w", r.name, err)
		}
	}
	for _, s := range settings {
		if err := i.set(ctx, s); err != nil {
			return fmt.Errorf("set %s %s: %w", s.Kind, s.Name, err)
		}
	}
	return nil
}

func (i Installer) install(ctx context.Context, r release) error {
	out, err := i.Runner.Output(ctx, command.New("kubectl", "--namespace="+r.namespace, "get", "deployment", r.deployment,
		"--ignore-not-found", `--output=jsonpath={.metadata.annotations.ebb\.dev/release}`))
	if err != nil || string(out) == r.version {
		return err
	}
	for _, url := range r.files {
		file := filepath.Join(i.Folder, fileName(url))
		if err := i.Files.Get(ctx, url, file); err != nil {
			return err
		}
		// On the server's side: what the file is about is kept apart from what others say of the same objects.
		apply := command.New("kubectl", "apply", "--server-side", "--force-conflicts", "--filename="+file)
		apply.Again = notYet
		if err := i.Runner.Run(ctx, apply); err != nil {
			return err
		}
		if definesKinds(url) {
			if err := i.Runner.Run(ctx, command.New("kubectl", "wait", "--for=condition=Established", "--timeout=2m", "customresourcedefinition", "--all")); err != nil {
				return err
			}
		}
	}
	wait := command.New("kubectl", "--namespace="+r.namespace, "wait", "--for=condition=Available", "--timeout=10m", "deployment", "--all")
	wait.Hint = "`kubectl --namespace=" + r.namespace + " get pods` and `get events` of the same say what a pod waits for; then run this again, it goes on from here"
	if err := i.Runner.Run(ctx, wait); err != nil {
		return err
	}
	return i.Runner.Run(ctx, command.New("kubectl", "--namespace="+r.namespace, "annotate", "--overwrite", "deployment", r.deployment, annotation+"="+r.version))
}

func (i Installer) set(ctx context.Context, s Setting) error {
	out, err := i.Runner.Output(ctx, command.New("kubectl", "--namespace="+s.Namespace, "get", s.Kind, s.Name, "--output=json"))
	if err != nil {
		return err
	}
	var is map[string]any
	if len(out) > 0 {
		if err := json.Unmarshal(out, &is); err != nil {
			return err
		}
	}
	patch, err := json.Marshal(s.Want)
	if err != nil {
		return err
	}
	var want any // in JSON's own types, as what is there
	if err := json.Unmarshal(patch, &want); err != nil {
		return err
	}
	if has(is, want) {
		return nil
	}
	c := command.New("kubectl", "--namespace="+s.Namespace, "patch", s.Kind, s.Name, "--type=merge", "--patch="+string(patch))
	c.Again = notYet
	return i.Runner.Run(ctx, c)
}

// has says whether everything in want is in is.
func has(is, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		is, ok := is.(map[string]any)
		for key, value := range want {
			ok = ok && has(is[key], value)
		}
		return ok
	case []any:
		is, ok := is.([]any)
		if !ok || len(is) != len(want) {
			return false
		}
		for i := range want {
			ok = ok && has(is[i], want[i])
		}
		return ok
	}
	return is == want
}
