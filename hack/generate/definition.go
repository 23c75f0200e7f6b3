package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ebb-inference/ebb/models"
)

const (
	namespace = "ebb"
	// madeBelow begins the part of a model's file that is generated.
	madeBelow = "---\n# What follows is made by `make generate`"
	hashShown = 12 // hexadecimal digits
)

// configMapKey is what Kubernetes takes as a key, and as the name of the file in a volume.
var configMapKey = regexp.MustCompile(`^[-._a-zA-Z0-9]{1,253}$`)

// definition is the part of a model's file that somebody wrote.
type definition struct {
	*models.Model
	text string   // of the file, up to what is generated
	keys []string // of the ConfigMap: the definition, and the files beside it
}

// readDefinition reads config/models/<name>.yaml.
func readDefinition(file string) (definition, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return definition{}, err
	}
	text, _, _ := strings.Cut(string(data), madeBelow)
	d := definition{text: text}
	if d.keys, err = checkConfigMap(text); err != nil {
		return d, fmt.Errorf("%s: %w", file, err)
	}
	found, err := models.ReadManifest(os.DirFS(filepath.Dir(file)), filepath.Base(file))
	switch {
	case err != nil:
		return d, err
	case len(found) != 1:
		return d, fmt.Errorf("%s has %d models; want a ConfigMap with the label %s, and nothing else", file, len(found), models.ManifestLabel)
	}
	d.Model = found[0]
	if want := d.Name + ".yaml"; filepath.Base(file) != want {
		return d, fmt.Errorf("%s defines the model %s; call it %s", file, d.Name, want)
	}
	if _, name, err := identity(text); err != nil || name != "model-"+d.Name {
		return d, fmt.Errorf("%s: metadata.name is %q; the Services look for model-%s", file, name, d.Name)
	}
	return d, nil
}

// checkConfigMap wants one ConfigMap in Ebb's namespace, and returns its keys.
func checkConfigMap(text string) (keys []string, err error) {
	in, _, err := identity(text)
	if err != nil {
		return nil, err
	}
	if in != namespace {
		return nil, fmt.Errorf("metadata.namespace is %q; want %s", in, namespace)
	}
	var m struct {
		Data       map[string]string `yaml:"data"`
		BinaryData map[string]string `yaml:"binaryData"`
	}
	if err := yaml.Unmarshal([]byte(text), &m); err != nil {
		return nil, err
	}
	for _, data := range []map[string]string{m.Data, m.BinaryData} {
		for key := range data {
			if !configMapKey.MatchString(key) {
				return nil, fmt.Errorf("data: %.64q cannot be a key of a ConfigMap (letters, digits, '-', '_', '.')", key)
			}
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// identity is the namespace and name of the one ConfigMap that text is.
func identity(text string) (in, name string, err error) {
	dec := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	var m struct {
		Kind     string `yaml:"kind"`
		Metadata struct {
			Name      string `yaml:"name"`
			Namespace string `yaml:"namespace"`
		} `yaml:"metadata"`
	}
	if err := dec.Decode(&m); err != nil {
		return "", "", err
	}
	var more any
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) || m.Kind != "ConfigMap" {
		return "", "", errors.New("the part that is not generated has to be one ConfigMap")
	}
	return m.Metadata.Namespace, m.Metadata.Name, nil
}

// Hash changes when the definition does, or a file beside it.
func (d definition) Hash() string { return hash(d.text) }

func hash(texts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(texts, "\x00")))
	return hex.EncodeToString(sum[:])[:hashShown]
}

// Target is how many deliveries a replica is to have in hand.
func (d definition) Target() int { return d.Batching.Size * d.Batching.Slots }
