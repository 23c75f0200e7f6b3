package tensorjson

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-inference/ebb/models/tfserving"
)

// bytesSuffix ends the names of outputs whose strings are bytes, not text: they are written as {"b64": ...}.
const bytesSuffix = "_bytes"

// Append appends the answer to a request in row or column format. It fails when the outputs are not valid tensors, or
// cannot be told apart by item as the row format needs.
func Append(dst []byte, rows bool, outputs map[string]tfserving.Tensor) ([]byte, error) {
	names := slices.Sorted(maps.Keys(outputs))
	for _, name := range names {
		t := outputs[name]
		if err := t.Validate(); err != nil {
			return nil, fmt.Errorf("output %q: %w", name, err)
		}
		if rows && (len(t.Shape) == 0 || t.Shape[0] != outputs[names[0]].Shape[0]) {
			return nil, fmt.Errorf("output %q has shape %v: the answer cannot be split into items, ask in column format (\"inputs\")", name, t.Shape)
		}
	}
	if len(names) == 0 {
		return nil, errors.New("there are no outputs")
	}
	encoders := make([]*encoder, len(names))
	for i, name := range names {
		encoders[i] = &encoder{Tensor: outputs[name], b64: strings.HasSuffix(name, bytesSuffix)}
	}
	if !rows {
		dst = append(dst, `{"outputs":`...)
		return append(appendValues(dst, names, encoders, 0), '}'), nil
	}
	dst = append(dst, `{"predictions":[`...)
	for i := range outputs[names[0]].Shape[0] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendValues(dst, names, encoders, 1)
	}
	return append(dst, "]}"...), nil
}

// appendValues appends the next value of each output, from a depth of its shape on. An only output's name is left out.
func appendValues(dst []byte, names []string, encoders []*encoder, depth int) []byte {
	if len(names) == 1 {
		return encoders[0].append(dst, depth)
	}
	for i, e := range encoders {
		dst = append(dst, "{,"[min(i, 1)])
		dst = appendString(dst, names[i])
		dst = append(dst, ':')
		dst = e.append(dst, depth)
	}
	return append(dst, '}')
}

// encoder writes the elements of a tensor, which is valid, one after the other.
type encoder struct {
	tfserving.Tensor
	next int // the next element
	b64  bool
}

func (e *encoder) append(dst []byte, depth int) []byte {
	if depth == len(e.Shape) {
		dst = e.element(dst)
		e.next++
		return dst
	}
	dst = append(dst, '[')
	for i := range e.Shape[depth] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = e.append(dst, depth+1)
	}
	return append(dst, ']')
}

func (e *encoder) element(dst []byte) []byte {
	if e.DType == tfserving.String {
		s := e.Strings[e.next]
		if !e.b64 {
			return appendString(dst, string(s))
		}
		dst = append(dst, `{"b64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, s)
		return append(dst, `"}`...)
	}
	le := binary.LittleEndian
	at := e.Data[e.next*e.DType.Size():]
	switch e.DType {
	case tfserving.Bool:
		return strconv.AppendBool(dst, at[0] != 0)
	case tfserving.Uint8:
		return strconv.AppendUint(dst, uint64(at[0]), 10)
	case tfserving.Uint16:
		return strconv.AppendUint(dst, uint64(le.Uint16(at)), 10)
	case tfserving.Uint32:
		return strconv.AppendUint(dst, uint64(le.Uint32(at)), 10)
	case tfserving.Uint64:
		return strconv.AppendUint(dst, le.Uint64(at), 10)
	case tfserving.Int8:
		return strconv.AppendInt(dst, int64(int8(at[0])), 10)
	case tfserving.Int16:
		return strconv.AppendInt(dst, int64(int16(le.Uint16(at))), 10)
	case tfserving.Int32:
		return strconv.AppendInt(dst, int64(int32(le.Uint32(at))), 10)
	case tfserving.Int64:
		return strconv.AppendInt(dst, int64(le.Uint64(at)), 10)
	case tfserving.Float64:
		return appendFloat(dst, math.Float64frombits(le.Uint64(at)), 64)
	case tfserving.Float32:
		return appendFloat(dst, float64(math.Float32frombits(le.Uint32(at))), 32)
	default: // the 16 bit types
		one := tfserving.Tensor{DType: e.DType, Data: at[:2]}
		f, err := one.Floats()
		if err != nil {
			return append(dst, "null"...) // cannot be: the tensor is valid
		}
		return appendFloat(dst, float64(f[0]), 32)
	}
}

// appendFloat writes the shortest number that reads back the same, always with a mark of a number that is not whole,
// as TensorFlow Serving does, so that readers in typed languages see one type.
func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	}
	from := len(dst)
	dst = strconv.AppendFloat(dst, f, 'g', -1, bits)
	for _, c := range dst[from:] {
		if c == '.' || c == 'e' {
			return dst
		}
	}
	return append(dst, ".0"...)
}

func appendString(dst []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil {
		return append(dst, `""`...) // cannot be: a string can always be marshalled
	}
	return append(dst, quoted...)
}
