package models

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"go.yaml.in/yaml/v3"
)

const (
	// ManifestLabel marks the ConfigMaps that carry a model; its value is for people.
	ManifestLabel = "ebb.dev/model"
	// ManifestKey is where such a ConfigMap has the definition. Its other keys are the files beside it.
	ManifestKey = "model.yaml"
)

// ReadManifest reads the models of a Kubernetes manifest of at most 1 MiB: of each ConfigMap that has the label
// ManifestLabel, the definition at ManifestKey, as Parse reads it, with the other keys of data and binaryData as the files beside it. Documents
// of another kind are skipped; a manifest without a model gives none. The lines in errors are the manifest's, and all
// models' mistakes are joined.
func ReadManifest(fsys fs.FS, name string) ([]*Model, error) {
	data, err := readFile(fsys, name, maxManifestBytes)
	if err != nil {
		return nil, err
	}
	var models []*Model
	var errs []error
	lines := make(map[string]int)
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		switch err := dec.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return models, errors.Join(errs...)
		case err != nil:
			return nil, errors.Join(append(errs, syntaxError(source{file: name}, err))...)
		}
		m, line, err := readConfigMap(name, doc.Content[0])
		switch {
		case err != nil:
			errs = append(errs, err)
		case m == nil:
		case lines[m.Name] > 0:
			errs = append(errs, &fieldError{name, line, "name",
				fmt.Sprintf("is %s, as that of the model on line %d; give each its own", m.Name, lines[m.Name])})
		default:
			lines[m.Name] = line
			models = append(models, m)
		}
	}
}

// readConfigMap returns the model of a ConfigMap and the line on which its definition begins, or nothing for another
// document.
func readConfigMap(file string, doc *yaml.Node) (*Model, int, error) {
	if kind := get(doc, "kind"); kind == nil || kind.Value != "ConfigMap" || get(get(get(doc, "metadata"), "labels"), ManifestLabel) == nil {
		return nil, 0, nil
	}
	files := make(map[string]source)
	if err := errors.Join(readData(file, doc, "data", files), readData(file, doc, "binaryData", files)); err != nil {
		return nil, 0, err
	}
	definition, ok := files[ManifestKey]
	if !ok {
		return nil, 0, &fieldError{file, doc.Line, "data",
			fmt.Sprintf("lacks the key %s, which the label %s promises", ManifestKey, ManifestLabel)}
	}
	m, err := parse(definition, func(name string) (source, error) {
		if src, ok := files[name]; ok {
			return src, nil
		}
		return source{}, fmt.Errorf("the ConfigMap has no key %s", clip(name))
	})
	return m, definition.line(1), err
}

// readData adds the values of a ConfigMap's data or binaryData, which is in base64, to files.
func readData(file string, doc *yaml.Node, of string, files map[string]source) error {
	data := get(doc, of)
	if data == nil || data.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(data.Content); i += 2 {
		key, value := data.Content[i], data.Content[i+1]
		field := of + "[" + clip(key.Value) + "]"
		if value.ShortTag() != "!!str" || value.Kind != yaml.ScalarNode {
			return &fieldError{file, value.Line, field, "is " + describe(value) + ", want text"}
		}
		if _, twice := files[key.Value]; twice {
			return &fieldError{file, key.Line, field, "is given twice; give it once"}
		}
		src := source{file: file, data: []byte(value.Value)}
		switch {
		case of == "binaryData":
			decoded, err := base64.StdEncoding.DecodeString(value.Value)
			if err != nil {
				return &fieldError{file, value.Line, field, "is not in base64: " + err.Error()}
			}
			src.data, src.fixed = decoded, value.Line
		case value.Style&yaml.LiteralStyle != 0:
			src.offset = value.Line // the text begins on the line after the "|"
		default:
			src.fixed = value.Line
		}
		files[key.Value] = src
	}
	return nil
}

// get returns the value of a mapping's key, nil when there is none.
func get(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}
