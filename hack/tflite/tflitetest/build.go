// Package tflitetest writes TensorFlow Lite files for tests.
package tflitetest

import (
	flatbuffers "github.com/google/flatbuffers/go"

	"github.com/ebb-inference/ebb/hack/tflite"
)

// Build is the file of a network. It writes whatever it is given, sound or not.
func Build(m *tflite.Model) []byte {
	b := &builder{flatbuffers.NewBuilder(1024)}

	codes := map[tflite.Code]uint32{}
	var codeTables []flatbuffers.UOffsetT
	for _, o := range m.Operators {
		if _, ok := codes[o.Code]; ok {
			continue
		}
		codes[o.Code] = uint32(len(codeTables))
		custom := b.CreateString(o.Custom)
		b.StartObject(4)
		b.PrependInt8Slot(0, int8(min(o.Code, 127)), 0)
		b.PrependUOffsetTSlot(1, custom, 0)
		b.PrependInt32Slot(3, int32(o.Code), 0)
		codeTables = append(codeTables, b.EndObject())
	}

	// Buffer 0 is the one of all tensors without data.
	buffers := []flatbuffers.UOffsetT{b.buffer(nil)}
	tensors := make([]flatbuffers.UOffsetT, 0, len(m.Tensors))
	for _, t := range m.Tensors {
		buffer := 0
		if t.Data != nil {
			buffer = len(buffers)
			buffers = append(buffers, b.buffer(t.Data))
		}
		tensors = append(tensors, b.tensor(t, buffer))
	}
	operators := make([]flatbuffers.UOffsetT, 0, len(m.Operators))
	for _, o := range m.Operators {
		operators = append(operators, b.operator(o, codes[o.Code]))
	}

	inputs, outputs := b.ints(m.Inputs), b.ints(m.Outputs)
	tensorVector, operatorVector := b.tables(tensors), b.tables(operators)
	b.StartObject(5)
	b.PrependUOffsetTSlot(0, tensorVector, 0)
	b.PrependUOffsetTSlot(1, inputs, 0)
	b.PrependUOffsetTSlot(2, outputs, 0)
	b.PrependUOffsetTSlot(3, operatorVector, 0)
	subgraphs := b.tables([]flatbuffers.UOffsetT{b.EndObject()})
	codeVector, bufferVector := b.tables(codeTables), b.tables(buffers)
	b.StartObject(5)
	b.PrependUint32Slot(0, 3, 0)
	b.PrependUOffsetTSlot(1, codeVector, 0)
	b.PrependUOffsetTSlot(2, subgraphs, 0)
	b.PrependUOffsetTSlot(4, bufferVector, 0)
	b.FinishWithFileIdentifier(b.EndObject(), []byte("TFL3"))
	return b.FinishedBytes()
}

type builder struct{ *flatbuffers.Builder }

func (b *builder) ints(all []int) flatbuffers.UOffsetT {
	b.StartVector(4, len(all), 4)
	for i := len(all) - 1; i >= 0; i-- {
		b.PrependInt32(int32(all[i]))
	}
	return b.EndVector(len(all))
}

func (b *builder) tables(all []flatbuffers.UOffsetT) flatbuffers.UOffsetT {
	b.StartVector(4, len(all), 4)
	for i := len(all) - 1; i >= 0; i-- {
		b.PrependUOffsetT(all[i])
	}
	return b.EndVector(len(all))
}

func (b *builder) buffer(data []byte) flatbuffers.UOffsetT {
	v := b.CreateByteVector(data)
	b.StartObject(1)
	if data != nil {
		b.PrependUOffsetTSlot(0, v, 0)
	}
	return b.EndObject()
}

func (b *builder) tensor(t tflite.Tensor, buffer int) flatbuffers.UOffsetT {
	name, shape := b.CreateString(t.Name), b.ints(t.Shape)
	b.StartVector(4, len(t.Scales), 4)
	for i := len(t.Scales) - 1; i >= 0; i-- {
		b.PrependFloat32(t.Scales[i])
	}
	scales := b.EndVector(len(t.Scales))
	b.StartVector(8, len(t.ZeroPoints), 8)
	for i := len(t.ZeroPoints) - 1; i >= 0; i-- {
		b.PrependInt64(t.ZeroPoints[i])
	}
	zeros := b.EndVector(len(t.ZeroPoints))
	b.StartObject(4)
	b.PrependUOffsetTSlot(2, scales, 0)
	b.PrependUOffsetTSlot(3, zeros, 0)
	quantization := b.EndObject()
	b.StartObject(5)
	b.PrependUOffsetTSlot(0, shape, 0)
	b.PrependInt8Slot(1, int8(t.Type), 0)
	b.PrependUint32Slot(2, uint32(buffer), 0)
	b.PrependUOffsetTSlot(3, name, 0)
	b.PrependUOffsetTSlot(4, quantization, 0)
	return b.EndObject()
}

func (b *builder) operator(o tflite.Operator, code uint32) flatbuffers.UOffsetT {
	inputs, outputs := b.ints(o.Inputs), b.ints(o.Outputs)
	var kind uint8
	switch v := o.Options.(type) {
	case tflite.Conv:
		kind = 1
		b.StartObject(6)
		b.PrependInt8Slot(0, int8(v.Padding), 0)
		b.int(1, v.StrideW)
		b.int(2, v.StrideH)
		b.PrependInt8Slot(3, int8(v.Activation), 0)
		b.PrependInt32Slot(4, int32(v.DilationW), 1)
		b.PrependInt32Slot(5, int32(v.DilationH), 1)
	case tflite.Pool:
		kind = 5
		b.StartObject(6)
		b.PrependInt8Slot(0, int8(v.Padding), 0)
		b.int(1, v.StrideW)
		b.int(2, v.StrideH)
		b.int(3, v.FilterW)
		b.int(4, v.FilterH)
		b.PrependInt8Slot(5, int8(v.Activation), 0)
	case tflite.Concatenation:
		kind = 10
		b.StartObject(2)
		b.int(0, v.Axis)
		b.PrependInt8Slot(1, int8(v.Activation), 0)
	default:
		b.StartObject(0)
	}
	options := b.EndObject()
	b.StartObject(5)
	b.PrependUint32Slot(0, code, 0)
	b.PrependUOffsetTSlot(1, inputs, 0)
	b.PrependUOffsetTSlot(2, outputs, 0)
	if kind != 0 {
		b.PrependUint8Slot(3, kind, 0)
		b.PrependUOffsetTSlot(4, options, 0)
	}
	return b.EndObject()
}

func (b *builder) int(slot, v int) {
	b.PrependInt32Slot(slot, int32(v), 0)
}
