package onnx

import (
	"fmt"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/ebb-inference/ebb/models/tfserving"
)

var dtypes = map[ort.TensorElementDataType]tfserving.DType{
	ort.TensorElementDataTypeFloat:    tfserving.Float32,
	ort.TensorElementDataTypeDouble:   tfserving.Float64,
	ort.TensorElementDataTypeFloat16:  tfserving.Float16,
	ort.TensorElementDataTypeBFloat16: tfserving.BFloat16,
	ort.TensorElementDataTypeInt8:     tfserving.Int8,
	ort.TensorElementDataTypeInt16:    tfserving.Int16,
	ort.TensorElementDataTypeInt32:    tfserving.Int32,
	ort.TensorElementDataTypeInt64:    tfserving.Int64,
	ort.TensorElementDataTypeUint8:    tfserving.Uint8,
	ort.TensorElementDataTypeUint16:   tfserving.Uint16,
	ort.TensorElementDataTypeUint32:   tfserving.Uint32,
	ort.TensorElementDataTypeUint64:   tfserving.Uint64,
	ort.TensorElementDataTypeBool:     tfserving.Bool,
}

var elementTypes = func() map[tfserving.DType]ort.TensorElementDataType {
	inverse := make(map[tfserving.DType]ort.TensorElementDataType, len(dtypes))
	for element, d := range dtypes {
		inverse[d] = element
	}
	return inverse
}()

// toTensor returns an output as a tensor. It takes the value's memory over; the value may be destroyed afterwards.
func toTensor(value ort.Value) (tfserving.Tensor, error) {
	t := tfserving.Tensor{Shape: value.GetShape()}
	switch v := value.(type) {
	case *ort.Tensor[float32]:
		t.DType, t.Data = tfserving.Float32, bytesOf(v)
	case *ort.Tensor[float64]:
		t.DType, t.Data = tfserving.Float64, bytesOf(v)
	case *ort.Tensor[int8]:
		t.DType, t.Data = tfserving.Int8, bytesOf(v)
	case *ort.Tensor[int16]:
		t.DType, t.Data = tfserving.Int16, bytesOf(v)
	case *ort.Tensor[int32]:
		t.DType, t.Data = tfserving.Int32, bytesOf(v)
	case *ort.Tensor[int64]:
		t.DType, t.Data = tfserving.Int64, bytesOf(v)
	case *ort.Tensor[uint8]:
		t.DType, t.Data = tfserving.Uint8, bytesOf(v)
	case *ort.Tensor[uint16]:
		t.DType, t.Data = tfserving.Uint16, bytesOf(v)
	case *ort.Tensor[uint32]:
		t.DType, t.Data = tfserving.Uint32, bytesOf(v)
	case *ort.Tensor[uint64]:
		t.DType, t.Data = tfserving.Uint64, bytesOf(v)
	case *ort.Tensor[bool]:
		t.DType, t.Data = tfserving.Bool, bytesOf(v)
	default:
		return tfserving.Tensor{}, fmt.Errorf("values of type %v cannot be read", value.GetONNXType())
	}
	return t, nil
}

// bytesOf returns a tensor's elements as they are in memory: little-endian on every platform of ONNX Runtime.
func bytesOf[T ort.TensorData](t *ort.Tensor[T]) []byte {
	data := t.GetData()
	if len(data) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&data[0])), len(data)*int(unsafe.Sizeof(data[0]))) //nolint:gosec // a view of the same memory
}

// aligned returns data at an address that elements of a size may have; a copy if it is not.
func aligned(data []byte, size int) []byte {
	if uintptr(unsafe.Pointer(&data[0]))%uintptr(size) == 0 { //nolint:gosec // only looks at the address
		return data
	}
	return append(make([]byte, 0, len(data)), data...)
}
