package models

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The limits of what is read.
const (
	maxDefinitionBytes = 64 << 10
	maxManifestBytes   = 1 << 20 // Kubernetes takes no larger ConfigMap
	maxBesideBytes     = 1 << 20 // a file beside a definition, which is a part of its ConfigMap
)

// Model is a definition that fits together, with the labels that it names. It is not changed after it was parsed.
type Model struct {
	Definition
	Labels   []string          // one a value of the network's output
	Pictures map[string][]byte // the golden pictures that lie beside the definition, by their names there
	absent   []error           // the golden pictures that do not; Networks says so, to who asks them
}

// Parse reads one definition, a YAML document of at most 64 KiB, and the files beside it that it names:
// labels and golden pictures. Golden pictures that are not there are no mistake yet: most who read a definition have no use
// for them, and an older revision of a function does not mount what a newer definition names. See Networks.
//
// It is strict: an unknown field, a field given twice, a value of another type, an anchor or a second document is an
// error, and so is a definition that does not fit together. Errors are "file:line: field: what is wrong", all mistakes
// joined. The defaults:
//
//	serving.signature       serving_default
//	serving.source.keep     3            (with a source)
//	serving.rollout.steps   [10, 50]     (with a source)
//	serving.rollout.hold    1m           (with a source)
//	serving.rollout.errors  0.01         (with a source)
//	serving.rollout.latency 1.5          (with a source)
//	input.kind              tensor
//	input.layout            NHWC         (tensor)
//	input.channels          RGB          (tensor)
//	input.resize.method     bilinear     (tensor)
//	input.resize.central_fraction  1     (tensor)
//	input.scale, offset     [1], [0]     (float32)
//	output.scale            1
//	output.activation       none
//	output.threshold        0.5          (with a question)
//	output.top              5
//	batching.size           8
//	batching.slots          2
//	batching.queue          256
func Parse(fsys fs.FS, name string) (*Model, error) {
	data, err := readFile(fsys, name, maxDefinitionBytes)
	if err != nil {
		return nil, err
	}
	return parse(source{file: name, data: data}, func(beside string) (source, error) {
		file := path.Join(path.Dir(name), beside)
		data, err := readFile(fsys, file, maxBesideBytes)
		return source{file: file, data: data}, err
	})
}

// parse reads one definition; beside opens a file of the same folder.
func parse(src source, beside func(name string) (source, error)) (*Model, error) {
	doc, err := onlyDocument(src)
	if err != nil {
		return nil, err
	}
	d := newDecoder(src, doc)
	m := new(Model)
	d.decode(doc, "", reflect.ValueOf(&m.Definition).Elem())
	d.setDefaults(&m.Definition)
	m.Labels = d.labels(m.Output.Labels, beside)
	m.Pictures, m.absent = d.pictures(m.Serving.Rollout.Golden, beside)
	d.check(m)
	if err := d.failures(); err != nil {
		return nil, err
	}
	return m, nil
}

// labels returns the set that output.labels names: a built-in one, or a file.
func (d *decoder) labels(name string, beside func(string) (source, error)) []string {
	const field = "output.labels"
	if name == "" {
		return nil // check says so
	}
	if set, ok := builtIn[name]; ok {
		return set()
	}
	if !isFileName(name) {
		d.failAt(field, "is %s, want imagenet-1001, imagenet-1000 or the name of a file in the same folder", clip(name))
		return nil
	}
	src, err := beside(name)
	if err != nil {
		d.failAt(field, "want imagenet-1001, imagenet-1000 or a file in the same folder: %s", err)
		return nil
	}
	labels, err := parseLabels(src)
	if err != nil {
		d.failAt(field, "%s", err)
	}
	return labels
}

// isFileName says whether a name is that of a file in the same folder.
func isFileName(name string) bool {
	return name != "." && fs.ValidPath(name) && !strings.ContainsAny(name, `/\`)
}

// onlyDocument returns the root of the text's only YAML document.
func onlyDocument(src source) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(src.data))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, &fieldError{src.file, src.line(1), "", "is empty, want the definition of a model"}
	case err != nil:
		return nil, syntaxError(src, err)
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		return nil, &fieldError{src.file, src.line(second.Line), "", "a second document begins, want one model a file"}
	case !errors.Is(err, io.EOF):
		return nil, syntaxError(src, err)
	}
	return doc.Content[0], nil
}

var yamlLine = regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)

// syntaxError puts the place that the YAML parser names into the form of all other errors.
func syntaxError(src source, err error) error {
	line, what := 1, err.Error() // the parser does not name the first line
	if match := yamlLine.FindStringSubmatch(what); match != nil {
		if n, err := strconv.Atoi(match[1]); err == nil {
			line = n
		}
		what = match[2]
	}
	return &fieldError{src.file, src.line(line), "", "is not YAML: " + what}
}

// readFile reads a file of at most limit bytes, whatever its size is said to be.
func readFile(fsys fs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: is larger than the %d KiB allowed", name, limit>>10)
	}
	return data, nil
}
