package tfserving

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/ebb-inference/ebb/models/tfserving/tensorflow"
)

// DType is the type of a tensor's elements. The numbers are TensorFlow's.
type DType int32

// The types that Ebb can carry.
const (
	Float32  = DType(tensorflow.DataType_DT_FLOAT)
	Float64  = DType(tensorflow.DataType_DT_DOUBLE)
	Float16  = DType(tensorflow.DataType_DT_HALF)
	BFloat16 = DType(tensorflow.DataType_DT_BFLOAT16)
	Int8     = DType(tensorflow.DataType_DT_INT8)
	Int16    = DType(tensorflow.DataType_DT_INT16)
	Int32    = DType(tensorflow.DataType_DT_INT32)
	Int64    = DType(tensorflow.DataType_DT_INT64)
	Uint8    = DType(tensorflow.DataType_DT_UINT8)
	Uint16   = DType(tensorflow.DataType_DT_UINT16)
	Uint32   = DType(tensorflow.DataType_DT_UINT32)
	Uint64   = DType(tensorflow.DataType_DT_UINT64)
	Bool     = DType(tensorflow.DataType_DT_BOOL)
	String   = DType(tensorflow.DataType_DT_STRING)
)

// String returns TensorFlow's name of the type, such as "DT_FLOAT".
func (d DType) String() string { return tensorflow.DataType(d).String() }

// Size returns the bytes of one element, and 0 for strings and for types that Ebb does not carry.
func (d DType) Size() int {
	switch d {
	case Int8, Uint8, Bool:
		return 1
	case Float16, BFloat16, Int16, Uint16:
		return 2
	case Float32, Int32, Uint32:
		return 4
	case Float64, Int64, Uint64:
		return 8
	}
	return 0
}

const (
	// MaxMessageBytes is the size of the largest message that the client sends and accepts. A server should allow as
	// much. It is enough for a batch of 400 float32 pictures of 224 by 224.
	MaxMessageBytes = 256 << 20

	// maxRank is TensorFlow's own limit on the number of dimensions.
	maxRank = 254
	// maxFill bounds what a message may make us allocate beyond its own size by repeating a value over a shape.
	maxFill = 64 << 20
	// stringHeader is what one element of Strings takes besides its bytes.
	stringHeader = 24
)

// ErrTensor says that a tensor contradicts itself: its elements do not fit its type or shape.
var ErrTensor = errors.New("malformed tensor")

// Tensor is an array of any number of dimensions. Its elements are in Data or, when DType is String, in Strings.
type Tensor struct {
	DType   DType
	Shape   []int64  // outermost dimension first; empty for a scalar
	Data    []byte   // little-endian, row-major; a bool is one byte, 0 or 1
	Strings [][]byte // row-major
}

// Elements returns the number of elements that a shape has room for. Negative dimensions, more than 254 of them, and
// shapes that are too large for any message are errors.
func Elements(shape []int64) (int, error) {
	if len(shape) > maxRank {
		return 0, fmt.Errorf("%w: %d dimensions, at most %d are allowed", ErrTensor, len(shape), maxRank)
	}
	// The product of the dimensions that are not zero is bounded too, so that nobody who computes with a part of the
	// shape of an empty tensor can overflow.
	n, bound := int64(1), int64(1)
	for i, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("%w: dimension %d is %d, must not be negative", ErrTensor, i, d)
		}
		if d > MaxMessageBytes/bound {
			return 0, fmt.Errorf("%w: shape %v has more than %d elements", ErrTensor, shape, MaxMessageBytes)
		}
		n *= d
		bound *= max(d, 1)
	}
	return int(n), nil
}

// Validate says what is wrong with the tensor: an unknown type, an impossible shape, or elements that do not fill the
// shape exactly.
func (t Tensor) Validate() error {
	n, err := Elements(t.Shape)
	if err != nil {
		return err
	}
	if t.DType == String {
		if len(t.Data) > 0 {
			return fmt.Errorf("%w: a string tensor has its elements in Strings, not in Data", ErrTensor)
		}
		if len(t.Strings) != n {
			return fmt.Errorf("%w: %d strings for shape %v, which needs %d", ErrTensor, len(t.Strings), t.Shape, n)
		}
		return nil
	}
	size := t.DType.Size()
	if size == 0 {
		return fmt.Errorf("%w: type %v is not supported", ErrTensor, t.DType)
	}
	if len(t.Strings) > 0 {
		return fmt.Errorf("%w: type %v has its elements in Data, not in Strings", ErrTensor, t.DType)
	}
	if len(t.Data) != n*size {
		return fmt.Errorf("%w: %d bytes for shape %v of %v, which needs %d", ErrTensor, len(t.Data), t.Shape, t.DType, n*size)
	}
	if t.DType == Bool {
		for i, b := range t.Data {
			if b > 1 {
				return fmt.Errorf("%w: element %d of a bool tensor is %d", ErrTensor, i, b)
			}
		}
	}
	return nil
}

// Proto returns the tensor as a message. The message shares the tensor's memory.
func (t Tensor) Proto() *tensorflow.TensorProto {
	// One allocation for all dimensions; they live as long as the message anyway.
	dims := make([]tensorflow.TensorShapeProto_Dim, len(t.Shape))
	shape := make([]*tensorflow.TensorShapeProto_Dim, len(t.Shape))
	for i, d := range t.Shape {
		dims[i].Size = d
		shape[i] = &dims[i]
	}
	return &tensorflow.TensorProto{
		Dtype:         tensorflow.DataType(t.DType),
		TensorShape:   &tensorflow.TensorShapeProto{Dim: shape},
		TensorContent: t.Data,
		StringVal:     t.Strings,
	}
}

// FromProto returns the tensor that a message holds, or an error that wraps ErrTensor. It reads tensor_content and the
// typed fields; as in TensorFlow, a typed field with fewer values than the shape repeats its last one, up to 64 MiB. The
// tensor shares the message's memory where it can.
func FromProto(p *tensorflow.TensorProto) (Tensor, error) {
	if p == nil {
		return Tensor{}, fmt.Errorf("%w: absent", ErrTensor)
	}
	if p.GetTensorShape().GetUnknownRank() {
		return Tensor{}, fmt.Errorf("%w: its rank is unknown", ErrTensor)
	}
	dims := p.GetTensorShape().GetDim()
	if len(dims) > maxRank {
		return Tensor{}, fmt.Errorf("%w: %d dimensions, at most %d are allowed", ErrTensor, len(dims), maxRank)
	}
	t := Tensor{DType: DType(p.GetDtype()), Shape: make([]int64, len(dims))}
	for i, d := range dims {
		t.Shape[i] = d.GetSize()
	}
	n, err := Elements(t.Shape)
	if err != nil {
		return Tensor{}, err
	}
	if len(p.GetTensorContent()) > 0 {
		if _, all := typed(p, t.DType); all > 0 {
			return Tensor{}, fmt.Errorf("%w: elements both in tensor_content and in a typed field", ErrTensor)
		}
		t.Data = p.GetTensorContent()
	} else if err := t.fill(p, n); err != nil {
		return Tensor{}, err
	}
	if err := t.Validate(); err != nil {
		return Tensor{}, err
	}
	return t, nil
}

// typed counts the values in the field that is for type d, and those in all typed fields.
func typed(p *tensorflow.TensorProto, d DType) (have, all int) {
	all = len(p.GetFloatVal()) + len(p.GetDoubleVal()) + len(p.GetHalfVal()) + len(p.GetIntVal()) + len(p.GetInt64Val()) +
		len(p.GetUint32Val()) + len(p.GetUint64Val()) + len(p.GetBoolVal()) + len(p.GetStringVal())
	switch d {
	case Float32:
		have = len(p.GetFloatVal())
	case Float64:
		have = len(p.GetDoubleVal())
	case Float16, BFloat16:
		have = len(p.GetHalfVal())
	case Int8, Int16, Int32, Uint8, Uint16:
		have = len(p.GetIntVal())
	case Int64:
		have = len(p.GetInt64Val())
	case Uint32:
		have = len(p.GetUint32Val())
	case Uint64:
		have = len(p.GetUint64Val())
	case Bool:
		have = len(p.GetBoolVal())
	case String:
		have = len(p.GetStringVal())
	}
	return have, all
}

// fill takes n elements from the typed field that is for the tensor's type.
func (t *Tensor) fill(p *tensorflow.TensorProto, n int) error {
	size := t.DType.Size()
	if t.DType == String {
		size = stringHeader
	}
	if size == 0 {
		return fmt.Errorf("%w: type %v is not supported", ErrTensor, t.DType)
	}
	have, all := typed(p, t.DType)
	switch {
	case all != have:
		return fmt.Errorf("%w: %d values in fields that are not for type %v", ErrTensor, all-have, t.DType)
	case have > n || have == 0 && n > 0:
		return fmt.Errorf("%w: %d values for shape %v, which needs %d", ErrTensor, have, t.Shape, n)
	case have < n && n > maxFill/size:
		return fmt.Errorf("%w: repeating a value over shape %v takes more than %d bytes", ErrTensor, t.Shape, maxFill)
	}
	if t.DType == String {
		t.Strings = p.GetStringVal()
		if have < n {
			t.Strings = make([][]byte, n)
			copy(t.Strings, p.GetStringVal())
			for i := have; i < n; i++ {
				t.Strings[i] = t.Strings[have-1]
			}
		}
		return nil
	}
	data, err := appendTyped(make([]byte, 0, n*size), p, t.DType)
	if err != nil {
		return err
	}
	for len(data) < n*size {
		data = append(data, data[len(data)-size:]...)
	}
	t.Data = data
	return nil
}

// appendTyped appends the values of the field that is for type d, which is not String.
func appendTyped(data []byte, p *tensorflow.TensorProto, d DType) ([]byte, error) {
	le := binary.LittleEndian
	switch d {
	case Float32:
		for _, v := range p.GetFloatVal() {
			data = le.AppendUint32(data, math.Float32bits(v))
		}
	case Float64:
		for _, v := range p.GetDoubleVal() {
			data = le.AppendUint64(data, math.Float64bits(v))
		}
	case Int64:
		for _, v := range p.GetInt64Val() {
			data = le.AppendUint64(data, uint64(v))
		}
	case Uint32:
		for _, v := range p.GetUint32Val() {
			data = le.AppendUint32(data, v)
		}
	case Uint64:
		for _, v := range p.GetUint64Val() {
			data = le.AppendUint64(data, v)
		}
	case Bool:
		for _, v := range p.GetBoolVal() {
			b := byte(0)
			if v {
				b = 1
			}
			data = append(data, b)
		}
	case Float16, BFloat16:
		return appendInts(data, p.GetHalfVal(), 0, math.MaxUint16, d)
	case Int8:
		return appendInts(data, p.GetIntVal(), math.MinInt8, math.MaxInt8, d)
	case Uint8:
		return appendInts(data, p.GetIntVal(), 0, math.MaxUint8, d)
	case Int16:
		return appendInts(data, p.GetIntVal(), math.MinInt16, math.MaxInt16, d)
	case Uint16:
		return appendInts(data, p.GetIntVal(), 0, math.MaxUint16, d)
	case Int32:
		return appendInts(data, p.GetIntVal(), math.MinInt32, math.MaxInt32, d)
	}
	return data, nil
}

// appendInts appends the low bytes of values that must lie between least and most.
func appendInts(data []byte, values []int32, least, most int32, d DType) ([]byte, error) {
	for i, v := range values {
		if v < least || v > most {
			return nil, fmt.Errorf("%w: value %d is %d, out of range for %v", ErrTensor, i, v, d)
		}
		switch d.Size() {
		case 1:
			data = append(data, byte(v))
		case 2:
			data = binary.LittleEndian.AppendUint16(data, uint16(v))
		default:
			data = binary.LittleEndian.AppendUint32(data, uint32(v))
		}
	}
	return data, nil
}

// Floats returns the elements of a numeric tensor as float32, row-major. Strings are an error that wraps ErrTensor. Large
// 32 and 64 bit integers and float64 are rounded.
func (t Tensor) Floats() ([]float32, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	if t.DType == String {
		return nil, fmt.Errorf("%w: strings are not numbers", ErrTensor)
	}
	le, size := binary.LittleEndian, t.DType.Size()
	out := make([]float32, len(t.Data)/size)
	for i := range out {
		b := t.Data[i*size:]
		switch t.DType {
		case Float32:
			out[i] = math.Float32frombits(le.Uint32(b))
		case Float64:
			out[i] = float32(math.Float64frombits(le.Uint64(b)))
		case Float16:
			out[i] = halfToFloat(le.Uint16(b))
		case BFloat16:
			out[i] = math.Float32frombits(uint32(le.Uint16(b)) << 16)
		case Int8:
			out[i] = float32(int8(b[0]))
		case Int16:
			out[i] = float32(int16(le.Uint16(b)))
		case Int32:
			out[i] = float32(int32(le.Uint32(b)))
		case Int64:
			out[i] = float32(int64(le.Uint64(b)))
		case Uint8, Bool:
			out[i] = float32(b[0])
		case Uint16:
			out[i] = float32(le.Uint16(b))
		case Uint32:
			out[i] = float32(le.Uint32(b))
		case Uint64:
			out[i] = float32(le.Uint64(b))
		}
	}
	return out, nil
}

// halfToFloat widens an IEEE 754 binary16 number: 1 bit of sign, 5 of exponent, 10 of fraction.
func halfToFloat(h uint16) float32 {
	sign, exponent, fraction := uint32(h>>15)<<31, int(h>>10&0x1f), uint32(h&0x3ff)
	switch exponent {
	case 0: // zero or subnormal: fraction · 2^-24, which float32 holds exactly
		f := math.Ldexp(float64(fraction), -24)
		return math.Float32frombits(math.Float32bits(float32(f)) | sign)
	case 0x1f: // infinity or not a number
		return math.Float32frombits(sign | 0xff<<23 | fraction<<13)
	}
	return math.Float32frombits(sign | uint32(exponent-15+127)<<23 | fraction<<13)
}
