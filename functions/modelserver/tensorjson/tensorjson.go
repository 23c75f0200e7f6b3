// Package tensorjson turns the JSON of TensorFlow Serving's REST API into tensors and back.
//
// A request is in row format, one entry an item:
//
//	{"signature_name": "serving_default", "instances": [{"x": [1, 2]}, {"x": [3, 4]}]}
//
// or in column format, one tensor an input:
//
//	{"inputs": {"x": [[1, 2], [3, 4]]}}
//
// Where the network has one input, its name may be left out: {"instances": [[1, 2], [3, 4]]}, {"inputs": [[1, 2], [3, 4]]}.
// The answer has the request's format: {"predictions": [...]} or {"outputs": ...}, and leaves out the name of an only
// output. Strings are bytes: "text" or {"b64": "dGV4dA=="}. As in TensorFlow Serving, the words NaN, Infinity and
// -Infinity are numbers.
//
// Numbers are read straight into a tensor's bytes; nothing is allocated for each element. The package knows nothing of
// HTTP and of networks.
package tensorjson

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"github.com/ebb-inference/ebb/models/tfserving"
)

// maxDepth bounds how deep values may be nested.
const maxDepth = 64

// Request is a request that has been read.
type Request struct {
	Signature string // empty when the request names none
	Rows      bool   // the row format; the answer has the same
	Inputs    map[string]tfserving.Tensor
}

// Decode reads a request for a network with the given inputs. Errors wrap tfserving.ErrInvalid and say where in the body
// the mistake is. Inputs that are missing, and shapes that the network does not take, are not errors here.
func Decode(body []byte, inputs map[string]tfserving.TensorInfo) (*Request, error) {
	p := &parser{data: body}
	r, err := p.request(inputs)
	if err != nil {
		return nil, fmt.Errorf("%w: JSON body, byte %d: %w", tfserving.ErrInvalid, p.pos, err)
	}
	return r, nil
}

func (p *parser) request(inputs map[string]tfserving.TensorInfo) (*Request, error) {
	r := &Request{}
	var format string
	err := p.object(func(key string) (err error) {
		switch key {
		case "signature_name":
			if p.peek() != '"' {
				return fmt.Errorf("signature_name must be a string, got %s", p.what())
			}
			r.Signature, err = p.str()
			return err
		case "instances", "inputs":
			if format != "" {
				return fmt.Errorf("%q after %q: a request has one of them, once", key, format)
			}
			format = key
			r.Rows = key == "instances"
			if r.Rows {
				r.Inputs, err = p.rows(inputs)
			} else {
				r.Inputs, err = p.columns(inputs)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			return nil
		default:
			return p.skip(0)
		}
	})
	if err != nil {
		return nil, err
	}
	if p.peek() != 0 || p.pos < len(p.data) {
		return nil, fmt.Errorf("%s after the end of the request", p.what())
	}
	if format == "" {
		return nil, errors.New(`neither "instances" nor "inputs" is there`)
	}
	return r, nil
}

// rows reads the row format: a list with an entry for each item.
func (p *parser) rows(inputs map[string]tfserving.TensorInfo) (map[string]tfserving.Tensor, error) {
	if p.peek() != '[' {
		return nil, fmt.Errorf("must be a list, got %s", p.what())
	}
	builders := map[string]*builder{}
	only := onlyName(inputs)
	count := 0
	named := false
	err := p.list(func() error {
		isNamed := p.peek() == '{' && !p.bytesOf(inputs, only)
		if count > 0 && isNamed != named {
			return fmt.Errorf("entry %d: some entries name their inputs and some do not", count)
		}
		named = isNamed
		count++
		if !named {
			return p.row(builders, inputs, only, count)
		}
		fields := 0
		err := p.object(func(name string) error {
			fields++
			return p.row(builders, inputs, name, count)
		})
		if err == nil && fields < len(builders) {
			err = fmt.Errorf("entry %d: an input that other entries have is missing", count-1)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if count == 0 {
		return nil, errors.New("the list is empty")
	}
	tensors := make(map[string]tfserving.Tensor, len(builders))
	for name, b := range builders {
		b.shape[0] = int64(count)
		tensors[name] = b.tensor()
	}
	return tensors, nil
}

// row reads the value of one input of the count-th item.
func (p *parser) row(builders map[string]*builder, inputs map[string]tfserving.TensorInfo, name string, count int) error {
	b := builders[name]
	if b == nil {
		if count > 1 {
			return fmt.Errorf("entry %d: input %q is missing in the entries before", count-1, name)
		}
		var err error
		if b, err = newBuilder(inputs, name); err != nil {
			return err
		}
		b.shape = []int64{unset}
		builders[name] = b
	}
	if b.rows++; b.rows != count {
		return fmt.Errorf("entry %d: input %q is there twice", count-1, name)
	}
	if err := b.value(p, 1); err != nil {
		return fmt.Errorf("entry %d: input %q: %w", count-1, name, err)
	}
	return nil
}

// columns reads the column format: a tensor for each input.
func (p *parser) columns(inputs map[string]tfserving.TensorInfo) (map[string]tfserving.Tensor, error) {
	tensors := map[string]tfserving.Tensor{}
	read := func(name string) error {
		if _, twice := tensors[name]; twice {
			return fmt.Errorf("input %q is there twice", name)
		}
		b, err := newBuilder(inputs, name)
		if err != nil {
			return err
		}
		if err := b.value(p, 0); err != nil {
			return fmt.Errorf("input %q: %w", name, err)
		}
		tensors[name] = b.tensor()
		return nil
	}
	only := onlyName(inputs)
	var err error
	if p.peek() == '{' && !p.bytesOf(inputs, only) {
		err = p.object(read)
	} else {
		err = read(only)
	}
	return tensors, err
}

// onlyName returns the name of the only input, which requests need not give.
func onlyName(inputs map[string]tfserving.TensorInfo) string {
	if len(inputs) != 1 {
		return ""
	}
	return slices.Collect(maps.Keys(inputs))[0]
}

// bytesOf says whether the object that follows is the value of the only input, not an object of inputs.
func (p *parser) bytesOf(inputs map[string]tfserving.TensorInfo, only string) bool {
	return only != "" && only != b64Key && inputs[only].DType == tfserving.String && p.isBytes()
}

// builder collects the elements of one tensor.
type builder struct {
	dtype   tfserving.DType
	shape   []int64 // unset where no list has been closed yet
	leaves  bool    // an element has been read: the shape has its full length
	rows    int
	data    []byte
	strings [][]byte
}

const unset = -1

func newBuilder(inputs map[string]tfserving.TensorInfo, name string) (*builder, error) {
	info, ok := inputs[name]
	if !ok {
		known := slices.Sorted(maps.Keys(inputs))
		if name == "" {
			return nil, fmt.Errorf("the network has several inputs, they must be named: %q", known)
		}
		return nil, fmt.Errorf("there is no input %q, the inputs are %q", name, known)
	}
	return &builder{dtype: info.DType}, nil
}

func (b *builder) tensor() tfserving.Tensor {
	return tfserving.Tensor{DType: b.dtype, Shape: b.shape, Data: b.data, Strings: b.strings}
}

// value reads an element, or lists of elements down to any depth.
func (b *builder) value(p *parser, depth int) error {
	if p.peek() != '[' {
		if !b.leaves && len(b.shape) <= depth {
			b.leaves = true
		}
		if len(b.shape) != depth {
			return fmt.Errorf("%s at depth %d, others are at depth %d: all lists must be equally deep", p.what(), depth, len(b.shape))
		}
		return b.element(p)
	}
	if depth == len(b.shape) {
		if b.leaves {
			return fmt.Errorf("a list at depth %d where others have elements: all lists must be equally deep", depth)
		}
		if depth == maxDepth {
			return fmt.Errorf("lists are nested more than %d deep", maxDepth)
		}
		b.shape = append(b.shape, unset)
	}
	n := int64(0)
	err := p.list(func() error {
		n++
		return b.value(p, depth+1)
	})
	if err != nil {
		return err
	}
	if b.shape[depth] == unset {
		b.shape[depth] = n
	} else if b.shape[depth] != n {
		return fmt.Errorf("a list of %d at depth %d, others have %d: all lists must be equally long", n, depth, b.shape[depth])
	}
	if n == 0 && depth == len(b.shape)-1 {
		b.leaves = true // nothing can be deeper than an empty list
	}
	return nil
}

// element reads one element and appends it.
func (b *builder) element(p *parser) error {
	le := binary.LittleEndian
	switch b.dtype {
	case tfserving.String:
		s, err := p.bytes()
		b.strings = append(b.strings, s)
		return err
	case tfserving.Bool:
		switch {
		case p.word("true"):
			b.data = append(b.data, 1)
		case p.word("false"):
			b.data = append(b.data, 0)
		default:
			return fmt.Errorf("%s where %v is expected", p.what(), b.dtype)
		}
		return nil
	case tfserving.Float32:
		f, err := p.float(b.dtype, 32)
		b.data = le.AppendUint32(b.data, math.Float32bits(float32(f)))
		return err
	case tfserving.Float64:
		f, err := p.float(b.dtype, 64)
		b.data = le.AppendUint64(b.data, math.Float64bits(f))
		return err
	case tfserving.Uint64:
		token, err := p.integer(b.dtype)
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(token, 10, 64)
		if err != nil {
			return fmt.Errorf("%s is out of range for %v", token, b.dtype)
		}
		b.data = le.AppendUint64(b.data, n)
		return nil
	case tfserving.Int8, tfserving.Int16, tfserving.Int32, tfserving.Int64, tfserving.Uint8, tfserving.Uint16, tfserving.Uint32:
		token, err := p.integer(b.dtype)
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(token, 10, 64)
		if least, most := limits(b.dtype); err != nil || n < least || n > most {
			return fmt.Errorf("%s is out of range for %v", token, b.dtype)
		}
		switch b.dtype.Size() {
		case 1:
			b.data = append(b.data, byte(n))
		case 2:
			b.data = le.AppendUint16(b.data, uint16(n))
		case 4:
			b.data = le.AppendUint32(b.data, uint32(n))
		default:
			b.data = le.AppendUint64(b.data, uint64(n))
		}
		return nil
	default:
		return fmt.Errorf("elements of type %v cannot be given in JSON, use gRPC", b.dtype)
	}
}

// limits returns the least and the greatest value of an integer type of at most 63 bits of value.
func limits(d tfserving.DType) (least, most int64) {
	switch d {
	case tfserving.Int8:
		return math.MinInt8, math.MaxInt8
	case tfserving.Int16:
		return math.MinInt16, math.MaxInt16
	case tfserving.Int32:
		return math.MinInt32, math.MaxInt32
	case tfserving.Uint8:
		return 0, math.MaxUint8
	case tfserving.Uint16:
		return 0, math.MaxUint16
	case tfserving.Uint32:
		return 0, math.MaxUint32
	default:
		return math.MinInt64, math.MaxInt64
	}
}

// parser reads JSON from the front. An error leaves pos where the mistake is.
type parser struct {
	data []byte
	pos  int
}

// peek returns the next byte that is not white space, or 0 at the end.
func (p *parser) peek() byte {
	for p.pos < len(p.data) {
		switch c := p.data[p.pos]; c {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return c
		}
	}
	return 0
}

// what describes what follows, for error messages.
func (p *parser) what() string {
	switch c := p.peek(); {
	case p.pos >= len(p.data):
		return "the end of the body"
	case c == '{':
		return "an object"
	case c == '[':
		return "a list"
	case c == '"':
		return "a string"
	case c == 't', c == 'f':
		return "a truth value"
	case c == 'n':
		return "null"
	case c == '-', c >= '0' && c <= '9', c == 'N', c == 'I':
		return "a number"
	default:
		return fmt.Sprintf("%q", c)
	}
}

// accept moves past a byte if it is next.
func (p *parser) accept(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.pos++
	return true
}

func (p *parser) word(w string) bool {
	p.peek()
	if !bytes.HasPrefix(p.data[p.pos:], []byte(w)) {
		return false
	}
	p.pos += len(w)
	return true
}

// list reads a list; each reads one entry.
func (p *parser) list(each func() error) error {
	if !p.accept('[') {
		return fmt.Errorf("%s where a list is expected", p.what())
	}
	if p.accept(']') {
		return nil
	}
	for {
		if err := each(); err != nil {
			return err
		}
		if p.accept(']') {
			return nil
		}
		if !p.accept(',') {
			return fmt.Errorf("%s where a comma or the end of the list is expected", p.what())
		}
	}
}

// object reads an object; each reads the value of a key.
func (p *parser) object(each func(key string) error) error {
	if !p.accept('{') {
		return fmt.Errorf("%s where an object is expected", p.what())
	}
	if p.accept('}') {
		return nil
	}
	for {
		if p.peek() != '"' {
			return fmt.Errorf("%s where a key is expected", p.what())
		}
		key, err := p.str()
		if err != nil {
			return err
		}
		if !p.accept(':') {
			return fmt.Errorf("%s where a colon is expected", p.what())
		}
		if err := each(key); err != nil {
			return err
		}
		if p.accept('}') {
			return nil
		}
		if !p.accept(',') {
			return fmt.Errorf("%s where a comma or the end of the object is expected", p.what())
		}
	}
}

// str reads a string. A quotation mark is next.
func (p *parser) str() (string, error) {
	start := p.pos + 1
	end := start
	plain := true // ASCII without escapes, as most are: it can be taken as it is
	for ; end < len(p.data) && p.data[end] != '"'; end++ {
		c := p.data[end]
		plain = plain && c >= ' ' && c < utf8.RuneSelf && c != '\\'
		if c == '\\' {
			end++
		}
	}
	if end >= len(p.data) {
		return "", errors.New("the string has no end")
	}
	var s string
	if plain {
		s = string(p.data[start:end])
	} else if err := json.Unmarshal(p.data[p.pos:end+1], &s); err != nil {
		return "", fmt.Errorf("the string is malformed: %w", err)
	}
	p.pos = end + 1
	return s, nil
}

// b64Key is the key of an object that is a byte string.
const b64Key = "b64"

// isBytes says whether the object that follows is {"b64": ...}, without reading it.
func (p *parser) isBytes() bool {
	ahead := *p
	return ahead.accept('{') && ahead.word(`"`+b64Key+`"`)
}

// bytes reads an element of type string.
func (p *parser) bytes() ([]byte, error) {
	if p.peek() == '"' {
		s, err := p.str()
		return []byte(s), err
	}
	if p.peek() != '{' || !p.isBytes() {
		return nil, fmt.Errorf(`%s where a string or {"b64": "..."} is expected`, p.what())
	}
	var decoded []byte
	keys := 0
	err := p.object(func(string) error {
		if keys++; keys > 1 {
			return errors.New(`{"b64": "..."} has another key`)
		}
		if p.peek() != '"' {
			return fmt.Errorf("%s where base64 is expected", p.what())
		}
		s, err := p.str()
		if err != nil {
			return err
		}
		if decoded, err = base64.StdEncoding.DecodeString(s); err != nil {
			return fmt.Errorf("base64: %w", err)
		}
		return nil
	})
	return decoded, err
}

// number returns the number that follows, as it is written. It is a view of the data.
func (p *parser) number(d tfserving.DType) (token string, whole bool, err error) {
	p.peek()
	data, start := p.data, p.pos
	i := start
	if i < len(data) && data[i] == '-' {
		i++
	}
	end := digits(data, i)
	good := end > i && (data[i] != '0' || end == i+1)
	whole = true
	if good && end < len(data) && data[end] == '.' {
		whole = false
		i = end + 1
		end = digits(data, i)
		good = end > i
	}
	if good && end < len(data) && data[end]|0x20 == 'e' {
		whole = false
		i = end + 1
		if i < len(data) && (data[i] == '+' || data[i] == '-') {
			i++
		}
		end = digits(data, i)
		good = end > i
	}
	if !good {
		return "", false, fmt.Errorf("%s where a number for %v is expected", p.what(), d)
	}
	p.pos = end
	return unsafe.String(&data[start], end-start), whole, nil //nolint:gosec // the data does not change
}

// digits returns where the digits from i on end.
func digits(data []byte, i int) int {
	for i < len(data) && data[i]-'0' < 10 {
		i++
	}
	return i
}

func (p *parser) integer(d tfserving.DType) (string, error) {
	token, whole, err := p.number(d)
	if err == nil && !whole {
		err = fmt.Errorf("%s is not a whole number, but %v is expected", token, d)
	}
	return token, err
}

func (p *parser) float(d tfserving.DType, bits int) (float64, error) {
	token, _, err := p.number(d)
	if err != nil {
		switch {
		case p.word("NaN"):
			return math.NaN(), nil
		case p.word("Infinity"):
			return math.Inf(1), nil
		case p.word("-Infinity"):
			return math.Inf(-1), nil
		}
		return 0, err
	}
	f, err := strconv.ParseFloat(token, bits)
	if err != nil {
		return 0, fmt.Errorf("%s is out of range for %v", token, d)
	}
	return f, nil
}

// skip reads over any value.
func (p *parser) skip(depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("values are nested more than %d deep", maxDepth)
	}
	switch c := p.peek(); {
	case c == '{':
		return p.object(func(string) error { return p.skip(depth + 1) })
	case c == '[':
		return p.list(func() error { return p.skip(depth + 1) })
	case c == '"':
		_, err := p.str()
		return err
	case p.word("true"), p.word("false"), p.word("null"):
		return nil
	default:
		_, err := p.float(tfserving.Float64, 64)
		return err
	}
}
