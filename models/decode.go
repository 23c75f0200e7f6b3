package models

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// source is text and where it stands: a file, or a value inside another file.
type source struct {
	file   string
	data   []byte
	offset int // lines of the file before the text
	fixed  int // when not 0, every line of the text is on this line: it is not written line by line in the file
}

// line returns the line of the file on which the text's line n stands.
func (s source) line(n int) int {
	if s.fixed > 0 {
		return s.fixed
	}
	return n + s.offset
}

// fieldError is one mistake in a file, at the place where its author can mend it.
type fieldError struct {
	file  string
	line  int    // from 1; 0 when the mistake is the whole file's
	field string // dotted path, "output.yes[1]"; empty when it is no field's
	what  string // what is wrong and what is allowed
}

func (e *fieldError) Error() string {
	var b strings.Builder
	b.WriteString(e.file)
	if e.line > 0 {
		b.WriteString(":" + strconv.Itoa(e.line))
	}
	b.WriteString(": ")
	if e.field != "" {
		b.WriteString(e.field + ": ")
	}
	b.WriteString(e.what)
	return b.String()
}

// decoder copies YAML nodes into structs, strictly: every key must be a field's tag and every value of the field's own
// type, once. It goes on after a mistake, so that an author sees all of them, and remembers where each field stood, for
// the checks that follow.
type decoder struct {
	source
	lines map[string]int // by path
	errs  []*fieldError
	wrong map[string]bool // paths that errs name
}

func newDecoder(src source, doc *yaml.Node) *decoder {
	return &decoder{
		source: src,
		lines:  map[string]int{"": src.line(max(doc.Line, 1))},
		wrong:  make(map[string]bool),
	}
}

func (d *decoder) fail(line int, field, format string, args ...any) {
	d.errs = append(d.errs, &fieldError{d.file, line, field, fmt.Sprintf(format, args...)})
	d.wrong[field] = true
}

// failAt reports a mistake in a field, on its line or, when it is absent, on that of the nearest field around it. Of a
// field that is wrong already there is nothing more to say: what follows from a slip is not reported as another.
func (d *decoder) failAt(field, format string, args ...any) {
	if !d.wrong[field] {
		d.fail(d.lineOf(field), field, format, args...)
	}
}

func (d *decoder) lineOf(field string) int {
	for {
		if line, ok := d.lines[field]; ok {
			return line
		}
		i := strings.LastIndexAny(field, ".[")
		if i < 0 {
			return d.lines[""]
		}
		field = field[:i]
	}
}

// has reports whether the file gives the field.
func (d *decoder) has(field string) bool {
	_, ok := d.lines[field]
	return ok
}

// failures returns the mistakes in the order of their lines, the first maxFailures of them.
func (d *decoder) failures() error {
	slices.SortStableFunc(d.errs, func(a, b *fieldError) int { return cmp.Compare(a.line, b.line) })
	errs := make([]error, 0, maxFailures+1)
	for i, e := range d.errs {
		if i == maxFailures {
			errs = append(errs, fmt.Errorf("%s: %d more mistakes", d.file, len(d.errs)-i))
			break
		}
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// maxFailures is how many mistakes of one definition are worth reading.
const maxFailures = 20

// decode copies n into v, which a pointer made settable.
func (d *decoder) decode(n *yaml.Node, field string, v reflect.Value) {
	line := d.line(n.Line)
	switch {
	case n.Kind == yaml.AliasNode:
		d.fail(line, field, "is an alias (*%s); write the value itself, aliases are not allowed", n.Value)
		return
	case n.Anchor != "":
		d.fail(line, field, "has an anchor (&%s); anchors are not allowed", n.Anchor)
		return
	case n.Style&yaml.TaggedStyle != 0:
		d.fail(line, field, "has a tag (%s); tags are not allowed", n.Tag)
		return
	case n.ShortTag() == "!!null":
		d.fail(line, field, "has no value; give one or leave the field out")
		return
	}
	if u, ok := v.Addr().Interface().(textUnmarshaler); ok {
		if n.Kind != yaml.ScalarNode {
			d.wrongType(n, line, field, u.expects())
		} else if err := u.unmarshal(n.Value); err != nil {
			d.fail(line, field, "%s", err)
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.decodeStruct(n, field, v)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.wrongType(n, line, field, "a list, such as [1, 2]")
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, item := range n.Content {
			path := field + "[" + strconv.Itoa(i) + "]"
			d.lines[path] = d.line(item.Line)
			d.decode(item, path, v.Index(i))
		}
	case reflect.String:
		if n.ShortTag() != "!!str" {
			d.wrongType(n, line, field, "text")
			return
		}
		v.SetString(n.Value)
	case reflect.Int, reflect.Int64:
		var i int64
		if n.ShortTag() != "!!int" || n.Decode(&i) != nil {
			d.wrongType(n, line, field, "a whole number")
			return
		}
		v.SetInt(i)
	case reflect.Float32, reflect.Float64:
		var f float64
		if tag := n.ShortTag(); tag != "!!float" && tag != "!!int" || n.Decode(&f) != nil {
			d.wrongType(n, line, field, "a number")
			return
		}
		if math.IsNaN(f) || math.IsInf(f, 0) || v.OverflowFloat(f) {
			d.fail(line, field, "is %s, want a finite number", n.Value)
			return
		}
		v.SetFloat(f)
	default:
		panic("models: no rule to decode a field of type " + v.Type().String())
	}
}

// textUnmarshaler is a field that is written as one scalar with a syntax of its own.
type textUnmarshaler interface {
	unmarshal(text string) error
	expects() string
}

func (d *decoder) decodeStruct(n *yaml.Node, field string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.wrongType(n, d.line(n.Line), field, "fields (key: value)")
		return
	}
	fields := make(map[string]reflect.Value, v.NumField())
	names := make([]string, 0, v.NumField())
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("yaml")
		fields[name] = v.Field(i)
		names = append(names, name)
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, line := n.Content[i], d.line(n.Content[i].Line)
		path := join(field, key.Value)
		to, known := fields[key.Value]
		switch first, twice := seen[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			d.fail(line, field, "has a key that is not a field's name; the fields are %s", strings.Join(names, ", "))
			continue
		case !known:
			d.fail(line, clip(path), "is not a field; %s", suggest(key.Value, names))
			continue
		case twice:
			d.fail(line, path, "is given twice, first on line %d; give it once", first)
			continue
		}
		seen[key.Value] = line
		d.lines[path] = line
		d.decode(n.Content[i+1], path, to)
	}
}

func (d *decoder) wrongType(n *yaml.Node, line int, field, want string) {
	d.fail(line, field, "is %s, want %s", describe(n), want)
}

// describe names a node in the words of someone who wrote it.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "fields (key: value)"
	case yaml.SequenceNode:
		return "a list"
	}
	kind := map[string]string{
		"!!str": "text", "!!int": "a number", "!!float": "a number", "!!bool": "true or false", "!!timestamp": "a date",
	}[n.ShortTag()]
	if kind == "" {
		kind = "a value"
	}
	return fmt.Sprintf("%s (%s)", kind, clip(n.Value))
}

// clip bounds what an error repeats of a file.
func clip(s string) string {
	const most = 60
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	if q := strconv.Quote(s); q != `"`+s+`"` {
		return q
	}
	return s
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// suggest names the field that was probably meant, or all that there are.
func suggest(typed string, names []string) string {
	best, least := "", 3
	for _, name := range names {
		if n := distance(typed, name); n < least && n < len(name) {
			best, least = name, n
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %s?", best)
	}
	return "the fields are " + strings.Join(names, ", ")
}

// distance is the number of letters to insert, delete or replace to get from a to b; beyond 3 any larger number.
func distance(a, b string) int {
	a = strings.ToLower(a)
	if len(a) > len(b)+3 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
