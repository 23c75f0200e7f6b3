package main

import (
	"embed"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/models"
)

//go:embed templates
var templates embed.FS

var (
	modelTemplate     = template.Must(template.ParseFS(templates, "templates/model.yaml"))
	networksTemplate  = template.Must(template.ParseFS(templates, "templates/networks.yaml"))
	modelsyncTemplate = template.Must(template.ParseFS(templates, "templates/modelsync.yaml"))
)

// retry is how often a model's Trigger tries again.
const retry = 5

// modelData is what a model's template knows.
type modelData struct {
	definition
	EventType string
	Retry     int
}

// network is a model server.
type network struct {
	Service  string
	Networks string // those it serves, quoted for YAML
}

// modelsyncData is what the template of modelsync knows.
type modelsyncData struct {
	Networks []network // that have a source
	Hash     string    // of the models, an annotation
	Volumes  string    // with the models
}

// manifests returns what the generated files of a config folder should be, by path within it.
func manifests(config string) (map[string]string, error) {
	definitions, err := readDefinitions(filepath.Join(config, "models"))
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, d := range definitions {
		var made strings.Builder
		if err := modelTemplate.Execute(&made, modelData{d, events.TypeRequested, retry}); err != nil {
			return nil, err
		}
		files["models/"+d.Name+".yaml"] = d.text + made.String()
	}
	var networks strings.Builder
	if err := networksTemplate.Execute(&networks, networksOf(definitions)); err != nil {
		return nil, err
	}
	files["400-networks.yaml"] = networks.String()
	if files["600-modelsync.yaml"], err = modelsync(definitions); err != nil {
		return nil, err
	}
	for file, bodies := range map[string][]string{
		"300-ingress.yaml":                 {modelsHash(definitions), volumeSources(definitions)},
		"310-deadletter.yaml":              {attempts(definitions)},
		"overlays/base/kustomization.yaml": {resources(definitions)},
	} {
		text, err := os.ReadFile(filepath.Join(config, file))
		if err != nil {
			return nil, err
		}
		if files[file], err = fill(string(text), bodies...); err != nil {
			return nil, fmt.Errorf("%s %w", file, err)
		}
	}
	composed, err := compose(config, files)
	if err != nil {
		return nil, err
	}
	maps.Copy(files, composed)
	return files, nil
}

// readDefinitions reads the models in the order of their names.
func readDefinitions(folder string) (all []definition, err error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, path := range paths {
		d, err := readDefinition(path)
		errs = append(errs, err)
		all = append(all, d)
	}
	if len(paths) == 0 {
		errs = append(errs, fmt.Errorf("no model in %s", folder))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	known := make([]*models.Model, len(all))
	for i, d := range all {
		known[i] = d.Model
	}
	if _, err := models.Networks(known); err != nil {
		return nil, fmt.Errorf("%s: %w", folder, err)
	}
	return all, nil
}

// networksOf are the model servers in Ebb's namespace that the models name. One at another address is somebody else's.
func networksOf(definitions []definition) []network {
	served := map[string]map[string]bool{}
	for _, d := range definitions {
		service, ours := serviceOf(d)
		if !ours {
			continue
		}
		if served[service] == nil {
			served[service] = map[string]bool{}
		}
		served[service][d.Serving.Model] = true
	}
	networks := make([]network, 0, len(served))
	for _, service := range slices.Sorted(maps.Keys(served)) {
		names := slices.Sorted(maps.Keys(served[service]))
		networks = append(networks, network{service, fmt.Sprintf("%q", strings.Join(names, ","))})
	}
	return networks
}

// serviceOf is the Knative Service that serves a model, if it is one in Ebb's namespace.
func serviceOf(d definition) (name string, ours bool) {
	host, port, err := net.SplitHostPort(d.Serving.Address)
	name, ours = strings.CutSuffix(host, "."+namespace+".svc.cluster.local")
	return name, err == nil && ours && port == "80" && !strings.Contains(name, ".")
}

// modelsync is the function, and who it looks after.
func modelsync(definitions []definition) (string, error) {
	known := make([]*models.Model, 0, len(definitions))
	var sourced []definition
	for _, d := range definitions {
		known = append(known, d.Model)
		if d.Serving.Source == (models.Source{}) {
			continue
		}
		if _, ours := serviceOf(d); !ours {
			return "", fmt.Errorf("model %s: serving.source is of no use at %s: versions are rolled out where a Knative Service of the namespace %s serves them, at <service>.%[3]s.svc.cluster.local:80",
				d.Name, d.Serving.Address, namespace)
		}
		sourced = append(sourced, d)
	}
	if _, err := models.Networks(known); err != nil {
		return "", err
	}
	data := modelsyncData{networksOf(sourced), strings.TrimSpace(modelsHash(definitions)), ""}
	for _, n := range data.Networks {
		if strings.Contains(n.Networks, ",") {
			return "", fmt.Errorf("the Service %s serves several networks with a source (%s); give each a server of its own", n.Service, n.Networks)
		}
	}
	indented := strings.Builder{}
	for line := range strings.Lines(volumeSources(definitions)) {
		indented.WriteString("              " + line)
	}
	data.Volumes = strings.TrimSuffix(indented.String(), "\n")
	var b strings.Builder
	err := modelsyncTemplate.Execute(&b, data)
	return b.String(), err
}

// modelsHash is the annotation that makes another revision of ingress when a model changes.
func modelsHash(definitions []definition) string {
	texts := make([]string, 0, len(definitions))
	for _, d := range definitions {
		texts = append(texts, d.text)
	}
	return fmt.Sprintf("ebb.dev/models: %q\n", hash(texts...)) // which may be all digits
}

// volumeSources are the ConfigMaps of the models, a folder each. One that is not there is a model less, and no reason not to
// start.
func volumeSources(definitions []definition) string {
	var b strings.Builder
	for _, d := range definitions {
		fmt.Fprintf(&b, "- configMap:\n    name: model-%s\n    optional: true\n    items:\n", d.Name)
		for _, key := range d.keys {
			fmt.Fprintf(&b, "      - {key: %q, path: %q}\n", key, d.Name+"/"+key)
		}
	}
	return b.String()
}

// attempts is the variable of deadletter that says how often an event was tried.
func attempts(definitions []definition) string {
	of := make([]string, 0, len(definitions))
	for _, d := range definitions {
		of = append(of, fmt.Sprintf("%s:%d", d.Name, retry+1))
	}
	return fmt.Sprintf("- {name: ATTEMPTS, value: %q}\n", strings.Join(of, ","))
}

// resources are the files of the models.
func resources(definitions []definition) string {
	var b strings.Builder
	for _, d := range definitions {
		fmt.Fprintf(&b, "- ../../models/%s.yaml\n", d.Name)
	}
	return b.String()
}
