package manifests

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	yamlreader "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// definitions is where the modules of this module have the custom resource definitions that their users apply to a cluster.
var definitions = map[string]string{
	"knative.dev/serving":                             "config/core/300-resources/*.yaml",
	"knative.dev/eventing":                            "config/core/resources/*.yaml",
	"knative.dev/eventing-rabbitmq":                   "config/broker/300-*.yaml",
	"github.com/rabbitmq/messaging-topology-operator": "config/crd/bases/*.yaml",
	"github.com/rabbitmq/cluster-operator/v2":         "config/crd/bases/*.yaml",
	"sigs.k8s.io/gateway-api":                         "config/crd/standard/*.yaml",
}

// schema is what the API server holds a kind of objects to, before any webhook sees one.
type schema struct {
	validator  validation.SchemaValidator
	structural *structuralschema.Structural
}

// schemas are those of the custom kinds, by apiVersion/kind.
var schemas = sync.OnceValues(func() (map[string]schema, error) {
	all := map[string]schema{}
	for module, pattern := range definitions {
		dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
		if err != nil {
			return nil, fmt.Errorf("look for the module %s: %w", module, err)
		}
		files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if err := readDefinitions(file, all); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	return all, nil
})

func readDefinitions(file string, all map[string]schema) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	documents := yamlreader.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var d apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(document, &d); err != nil {
			return err
		}
		for _, version := range d.Spec.Versions {
			if version.Schema == nil || version.Schema.OpenAPIV3Schema == nil {
				continue
			}
			s, err := newSchema(version.Schema.OpenAPIV3Schema)
			if err != nil {
				return err
			}
			all[d.Spec.Group+"/"+version.Name+"/"+d.Spec.Names.Kind] = s
		}
	}
}

func newSchema(of *apiextensionsv1.JSONSchemaProps) (s schema, err error) {
	var props apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(of, &props, nil); err != nil {
		return s, err
	}
	if s.validator, _, err = validation.NewSchemaValidator(&props); err != nil {
		return s, err
	}
	s.structural, err = structuralschema.NewStructural(&props)
	return s, err
}

// check says what the API server would refuse of a document, and what it would drop without a word.
func (s schema) check(document []byte) error {
	var o map[string]any
	if err := yaml.Unmarshal(document, &o); err != nil {
		return err
	}
	dropped := pruning.PruneWithOptions(o, s.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	if len(dropped) > 0 {
		return fmt.Errorf("unknown field %s, which the cluster would drop", strings.Join(dropped, ", "))
	}
	defaulting.Default(o, s.structural)
	return validation.ValidateCustomResource(nil, o, s.validator).ToAggregate()
}
