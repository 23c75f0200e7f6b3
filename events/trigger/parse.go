package trigger

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	apiGroup              = "eventing.knative.dev/"
	apiVersion            = apiGroup + "v1"
	annotationPrefix      = "rabbitmq.eventing.knative.dev/"
	annotationParallelism = annotationPrefix + "parallelism"
)

var (
	dnsSubdomain  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$`)
	attributeName = regexp.MustCompile(`^[a-z0-9]{1,20}$`)
	visibleASCII  = regexp.MustCompile(`^[!-~]{1,256}$`)
)

// Parse reads the Triggers of a Kubernetes manifest of one or more YAML documents; documents of other kinds are skipped.
// file names it in errors, which have the form "file:line: field: what is wrong" and are joined, so that one run shows
// them all. A Trigger is read strictly: a field that the RabbitMQ broker does not honour is an error. So is a missing
// delivery, back-off, timeout or dead letter sink, each of which would lose events when a subscriber fails.
func Parse(r io.Reader, file string) ([]Trigger, error) {
	limited := &io.LimitedReader{R: r, N: MaxFileBytes + 1}
	dec := yaml.NewDecoder(limited)
	p := &parser{file: file, seen: map[string]int{}}
	var triggers []Trigger
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if limited.N <= 0 {
			return nil, fmt.Errorf("%s: the file has more than %d bytes", file, MaxFileBytes)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if t, ok := p.document(&doc); ok {
			triggers = append(triggers, t)
		}
	}
	if len(p.errs) > 0 {
		slices.SortStableFunc(p.errs, func(a, b lineError) int { return a.line - b.line })
		errs := make([]error, len(p.errs))
		for i, e := range p.errs {
			errs[i] = e
		}
		return nil, errors.Join(errs...)
	}
	return triggers, nil
}

// parser collects what is wrong with a file.
type parser struct {
	file string
	errs []lineError
	seen map[string]int // line of each Trigger by namespace/name
}

// lineError is an error that knows its line.
type lineError struct {
	line int
	text string
}

func (e lineError) Error() string { return e.text }

func (p *parser) fail(n *yaml.Node, field, format string, args ...any) {
	text := fmt.Sprintf("%s:%d: %s: %s", p.file, n.Line, field, fmt.Sprintf(format, args...))
	p.errs = append(p.errs, lineError{line: n.Line, text: text})
}

// object is a YAML mapping at a place in a document.
type object struct {
	p     *parser
	node  *yaml.Node
	path  string // "spec.delivery"; "" at the top
	items map[string]*yaml.Node
}

// object reads n as a mapping; nil when it is none, and then it has failed.
func (p *parser) object(n *yaml.Node, path string) *object {
	if n.Kind != yaml.MappingNode {
		p.fail(n, nameOr(path, "document"), "should be a mapping")
		return nil
	}
	o := &object{p: p, node: n, path: path, items: make(map[string]*yaml.Node, len(n.Content)/2)}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" || v.Kind == yaml.AliasNode {
			p.fail(k, nameOr(path, "document"), "merge keys, aliases and keys that are not text are not supported")
			continue
		}
		if _, ok := o.items[k.Value]; ok {
			p.fail(k, o.field(k.Value), "is there twice")
			continue
		}
		o.items[k.Value] = v
	}
	return o
}

func nameOr(path, otherwise string) string {
	if path == "" {
		return otherwise
	}
	return path
}

func (o *object) field(key string) string {
	if o.path == "" {
		return key
	}
	return o.path + "." + key
}

// fail says what is wrong with a key, at its value's line, or at the object's when it is absent.
func (o *object) fail(key, format string, args ...any) {
	n := o.items[key]
	if n == nil {
		n = o.node
	}
	o.p.fail(n, o.field(key), format, args...)
}

// only fails for each key that is not among those allowed.
func (o *object) only(allowed ...string) {
next:
	for i := 0; i+1 < len(o.node.Content); i += 2 {
		k := o.node.Content[i]
		for _, a := range allowed {
			if k.Value == a {
				continue next
			}
		}
		if o.items[k.Value] == o.node.Content[i+1] {
			o.p.fail(k, o.field(k.Value), "is not supported; this may have: %s", strings.Join(allowed, ", "))
		}
	}
}

// child is a mapping that may be absent: nil then, or when it is no mapping.
func (o *object) child(key string) *object {
	n, ok := o.items[key]
	if !ok {
		return nil
	}
	return o.p.object(n, o.field(key))
}

// required is a mapping that must be there: nil when it is not, with why it should be.
func (o *object) required(key, why string) *object {
	if _, ok := o.items[key]; !ok {
		o.fail(key, "is missing%s", why)
		return nil
	}
	return o.child(key)
}

// text is a string; absent is "". YAML's numbers, booleans and nulls are no strings to Kubernetes either.
func (o *object) text(key string) string {
	n, ok := o.items[key]
	if !ok {
		return ""
	}
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		o.fail(key, `should be text; put it in quotes`)
		return ""
	}
	return n.Value
}

// name is the name of a Kubernetes object.
func (o *object) name(key string) string {
	s := o.text(key)
	if s != "" && (len(s) > 253 || !dnsSubdomain.MatchString(s)) {
		o.fail(key, "%.64q is not a Kubernetes name (a-z, 0-9, '-', '.')", s)
	}
	return s
}

func (o *object) requiredName(key string) string {
	if _, ok := o.items[key]; !ok {
		o.fail(key, "is missing")
		return ""
	}
	s := o.name(key)
	if s == "" && o.items[key].Tag == "!!str" {
		o.fail(key, "is empty")
	}
	return s
}

func (o *object) duration(key string, limit time.Duration) time.Duration {
	if _, ok := o.items[key]; !ok {
		o.fail(key, "is missing")
		return 0
	}
	s := o.text(key)
	if s == "" {
		if o.items[key].Tag == "!!str" {
			o.fail(key, "is empty")
		}
		return 0
	}
	d, err := parseDuration(s)
	switch {
	case err != nil:
		o.fail(key, "%.32q %v", s, err)
	case d <= 0:
		o.fail(key, "should be more than nothing")
	case d > limit:
		o.fail(key, "is %s; at most %s is allowed", d, limit)
	}
	return d
}

// document reads one document; false when it is no Trigger. A Trigger with errors is returned too: the errors count.
func (p *parser) document(doc *yaml.Node) (Trigger, bool) {
	root := doc
	if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
		root = root.Content[0]
	}
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" { // nothing between two separators
		return Trigger{}, false
	}
	if root.Kind != yaml.MappingNode {
		p.fail(root, "document", "should be a mapping")
		return Trigger{}, false
	}
	if kind, version := lookup(root, "kind"), lookup(root, "apiVersion"); kind == "" || version == "" {
		p.fail(root, "document", "has no kind or no apiVersion")
		return Trigger{}, false
	} else if kind != "Trigger" || !strings.HasPrefix(version, apiGroup) {
		return Trigger{}, false
	}

	o := p.object(root, "")
	if v := o.text("apiVersion"); v != apiVersion {
		o.fail("apiVersion", "is %.64q; should be %s", v, apiVersion)
	}
	o.only("apiVersion", "kind", "metadata", "spec", "status")
	var t Trigger
	if meta := o.required("metadata", ""); meta != nil {
		t.Namespace, t.Name = meta.name("namespace"), meta.requiredName("name")
		t.Delivery.Parallelism = parallelism(meta)
		if line, ok := p.seen[t.String()]; ok {
			meta.fail("name", "%s is also the Trigger at line %d", t, line)
		}
		p.seen[t.String()] = root.Line
	}
	if spec := o.required("spec", ""); spec != nil {
		t.spec(spec)
	}
	return t, true
}

// lookup is a scalar of a mapping that is not known to be a Trigger yet, so it is read without complaint.
func lookup(n *yaml.Node, key string) string {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key && n.Content[i+1].Kind == yaml.ScalarNode {
			return n.Content[i+1].Value
		}
	}
	return ""
}

// parallelism reads the RabbitMQ broker's one annotation. Other people's annotations are none of our business.
func parallelism(meta *object) int {
	annotations := meta.child("annotations")
	if annotations == nil {
		return 1
	}
	for key := range annotations.items {
		if strings.HasPrefix(key, annotationPrefix) && key != annotationParallelism {
			annotations.fail(key, "is not known; did you mean %s?", annotationParallelism)
		}
	}
	if _, ok := annotations.items[annotationParallelism]; !ok {
		return 1
	}
	s := annotations.text(annotationParallelism)
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > MaxParallelism {
		annotations.fail(annotationParallelism, `is %.16q; should be a quoted number from "1" to "%d"`, s, MaxParallelism)
		return 1
	}
	return n
}

func (t *Trigger) spec(spec *object) {
	if _, ok := spec.items["filters"]; ok {
		spec.fail("filters", "the RabbitMQ broker ignores it and would send every event; use filter.attributes")
		delete(spec.items, "filters")
	}
	spec.only("broker", "filter", "subscriber", "delivery")
	t.Broker = spec.requiredName("broker")
	if filter := spec.child("filter"); filter != nil {
		t.Filter = filterAttributes(filter)
	}
	if s := spec.required("subscriber", ""); s != nil {
		t.Subscriber = destination(s, t.Namespace)
	}
	if d := spec.required("delivery", ": without it the RabbitMQ broker loses events when a subscriber fails"); d != nil {
		t.Delivery.read(d, t.Namespace)
	}
}

func filterAttributes(filter *object) map[string]string {
	filter.only("attributes")
	attributes := filter.child("attributes")
	if attributes == nil {
		return nil
	}
	out := make(map[string]string, len(attributes.items))
	for name := range attributes.items {
		if !attributeName.MatchString(name) {
			attributes.fail(name, "is not the name of an event's attribute (1 to 20 of a-z and 0-9)")
			continue
		}
		value := attributes.text(name)
		if attributes.items[name].Tag == "!!str" && !visibleASCII.MatchString(value) {
			attributes.fail(name, "should have 1 to 256 visible ASCII characters; they are compared exactly")
		}
		out[name] = value
	}
	return out
}

// destination reads a duck-typed Knative destination.
func destination(o *object, namespace string) Destination {
	o.only("ref", "uri")
	uri := o.text("uri")
	ref := o.child("ref")
	if ref == nil {
		if _, ok := o.items["ref"]; ok { // it has failed
			return Destination{}
		}
		if _, ok := o.items["uri"]; !ok {
			o.p.fail(o.node, o.path, "has neither ref nor uri")
			return Destination{}
		}
		if !absoluteHTTP(uri) {
			o.fail("uri", "%.128q is not an absolute http or https URL", uri)
		}
		return Destination{URI: uri}
	}

	ref.only("apiVersion", "kind", "name", "namespace")
	if v := ref.text("apiVersion"); v != "serving.knative.dev/v1" && v != "v1" {
		ref.fail("apiVersion", "is %.64q; should be serving.knative.dev/v1 or v1", v)
	}
	if k := ref.text("kind"); k != "Service" {
		ref.fail("kind", "is %.64q; should be Service", k)
	}
	d := Destination{Namespace: ref.name("namespace"), Name: ref.requiredName("name"), Path: uri}
	if d.Namespace == "" {
		d.Namespace = namespace
	}
	if uri != "" && !localPath(uri) {
		o.fail("uri", "%.128q is not a path that starts with one '/'; beside ref it should be", uri)
	}
	return d
}

func absoluteHTTP(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil && u.Fragment == "" &&
		len(s) <= 2048
}

func localPath(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "" && u.Host == "" && u.Fragment == "" && strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "//") &&
		len(s) <= 2048
}

func (d *Delivery) read(o *object, namespace string) {
	o.only("retry", "backoffPolicy", "backoffDelay", "timeout", "deadLetterSink")
	if n, ok := o.items["retry"]; !ok {
		o.fail("retry", "is missing")
	} else if retry, err := strconv.Atoi(n.Value); err != nil || n.Tag != "!!int" || retry < 0 || retry > MaxRetry {
		o.fail("retry", "is %.16q; should be a number from 0 to %d", n.Value, MaxRetry)
	} else {
		d.Retry = retry
	}
	switch policy := Policy(o.text("backoffPolicy")); policy {
	case Linear, Exponential:
		d.Backoff = policy
	default:
		o.fail("backoffPolicy", "is %.16q; should be %s or %s", policy, Linear, Exponential)
	}
	d.BackoffDelay = o.duration("backoffDelay", MaxBackoffDelay)
	d.Timeout = o.duration("timeout", MaxTimeout)
	if sink := o.required("deadLetterSink", ": without it the RabbitMQ broker drops what could not be delivered, even if the Broker has one"); sink != nil {
		dead := destination(sink, namespace)
		d.DeadLetter = &dead
	}
}
