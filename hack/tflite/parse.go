package tflite

import (
	"errors"
	"fmt"
	"math"
	"runtime"

	flatbuffers "github.com/google/flatbuffers/go"
)

// ErrCorrupt is wrapped by errors about files that are no networks, or broken ones.
var ErrCorrupt = errors.New("not a sound TensorFlow Lite file")

// Limits of what is read. Real networks stay far below; they keep a hostile file from costing more than its size.
const (
	MaxBytes  = 1 << 30 // of a file
	maxSides  = 8       // of a shape
	maxSide   = 1 << 24
	maxValues = 1 << 28 // of a tensor
	maxWindow = 1 << 12 // of a filter's side, a stride, a dilation
)

// Fields' numbers in the flatbuffer's tables, named table and field.
const (
	modelOperatorCodes = 1
	modelSubgraphs     = 2
	modelBuffers       = 4

	codeOld    = 0 // int8, all that files had before there were more than 127 operators
	codeCustom = 1
	codeNew    = 3

	subgraphTensors   = 0
	subgraphInputs    = 1
	subgraphOutputs   = 2
	subgraphOperators = 3

	tensorShape        = 0
	tensorType         = 1
	tensorBuffer       = 2
	tensorName         = 3
	tensorQuantization = 4

	quantizationScale     = 2
	quantizationZeroPoint = 3

	operatorCode        = 0
	operatorInputs      = 1
	operatorOutputs     = 2
	operatorOptionsType = 3
	operatorOptions     = 4

	convPadding    = 0
	convStrideW    = 1
	convStrideH    = 2
	convActivation = 3
	convDilationW  = 4
	convDilationH  = 5

	poolPadding    = 0
	poolStrideW    = 1
	poolStrideH    = 2
	poolFilterW    = 3
	poolFilterH    = 4
	poolActivation = 5

	concatAxis       = 0
	concatActivation = 1

	bufferData = 0
)

// Types of the options' union.
const (
	optionsConv    = 1
	optionsPool    = 5
	optionsConcat  = 10
	optionsReshape = 17
)

// Parse reads a network. Whatever the file holds, it returns a sound Model or an error.
func Parse(file []byte) (m *Model, err error) {
	if len(file) > MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes; at most %d are read", ErrCorrupt, len(file), MaxBytes)
	}
	if len(file) < 8 || string(file[4:8]) != "TFL3" {
		return nil, fmt.Errorf("%w: it does not start with the mark of one", ErrCorrupt)
	}
	// The flatbuffers library indexes the file by offsets found in it and leaves the checks to Go.
	defer func() {
		switch r := recover().(type) {
		case nil:
		case runtime.Error:
			m, err = nil, fmt.Errorf("%w: an offset leads out of the file (%s)", ErrCorrupt, r.Error())
		default:
			panic(r)
		}
	}()
	p := &parser{file: file, budget: 4*len(file) + 1<<16}
	m = p.model(table{flatbuffers.Table{Bytes: file, Pos: flatbuffers.GetUOffsetT(file)}})
	if p.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, p.err)
	}
	return m, nil
}

// parser keeps the first error: reading goes on with zero values and is thrown away at the end.
type parser struct {
	file   []byte
	budget int // bytes that may still be read: many offsets to one big vector must not multiply it
	err    error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

// table is a flatbuffer's table whose fields are asked for by number.
type table struct{ flatbuffers.Table }

func (t *table) slot(field int) flatbuffers.VOffsetT { return flatbuffers.VOffsetT(4 + 2*field) }

// at is where a field is, 0 when it is absent.
func (t *table) at(field int) flatbuffers.UOffsetT {
	if o := t.Offset(t.slot(field)); o != 0 {
		return t.Pos + flatbuffers.UOffsetT(o)
	}
	return 0
}

func (t *table) int8(field int) int8   { return t.GetInt8Slot(t.slot(field), 0) }
func (t *table) uint8(field int) uint8 { return t.GetUint8Slot(t.slot(field), 0) }
func (t *table) int32(field int, absent int32) int {
	return int(t.GetInt32Slot(t.slot(field), absent))
}

// sub is the table that a field leads to.
func (p *parser) sub(t table, field int, what string) (table, bool) {
	at := t.at(field)
	if at == 0 {
		return table{}, false
	}
	if !p.spend(4, what) {
		return table{}, false
	}
	return table{flatbuffers.Table{Bytes: p.file, Pos: t.Indirect(at)}}, true
}

func (p *parser) spend(n int, what string) bool {
	if p.err != nil {
		return false
	}
	if n > p.budget {
		p.fail("%s: its parts add up to more than the file", what)
		return false
	}
	p.budget -= n
	return true
}

// vector is the bytes of a field that is a vector of n elements of the given size.
func (p *parser) vector(t table, field, size int, what string) (data []byte, n int) {
	at := t.at(field)
	if at == 0 {
		return nil, 0
	}
	start := int(t.Indirect(at))
	n = int(flatbuffers.GetUOffsetT(p.file[start:]))
	start += 4
	if n > (len(p.file)-start)/size {
		p.fail("%s: %d elements do not fit into the file", what, n)
		return nil, 0
	}
	if !p.spend(n*size, what) {
		return nil, 0
	}
	return p.file[start : start+n*size : start+n*size], n
}

// tables is the tables of a field that is a vector of them.
func (p *parser) tables(t table, field int, what string) []table {
	offsets, n := p.vector(t, field, 4, what)
	all := make([]table, n)
	if n == 0 {
		return all
	}
	base := uint32(t.Indirect(t.at(field))) + 4
	for i := range all {
		at := base + 4*uint32(i)
		all[i] = table{flatbuffers.Table{
			Bytes: p.file,
			Pos:   flatbuffers.UOffsetT(at) + flatbuffers.GetUOffsetT(offsets[4*i:]),
		}}
	}
	return all
}

func (p *parser) ints(t table, field int, what string) []int {
	data, n := p.vector(t, field, 4, what)
	all := make([]int, n)
	for i := range all {
		all[i] = int(flatbuffers.GetInt32(data[4*i:]))
	}
	return all
}

func (p *parser) string(t table, field int, what string) string {
	data, _ := p.vector(t, field, 1, what)
	return string(data)
}

type code struct {
	code   Code
	custom string
}

func (p *parser) model(t table) *Model {
	subgraphs := p.tables(t, modelSubgraphs, "subgraphs")
	if len(subgraphs) != 1 {
		p.fail("it has %d subgraphs; want one", len(subgraphs))
		return nil
	}
	var codes []code
	for i, c := range p.tables(t, modelOperatorCodes, "operator codes") {
		codes = append(codes, code{
			code:   Code(max(int(c.int8(codeOld)), c.int32(codeNew, 0))),
			custom: p.string(c, codeCustom, fmt.Sprintf("operator code %d", i)),
		})
	}
	var buffers [][]byte
	for i, b := range p.tables(t, modelBuffers, "buffers") {
		data, _ := p.vector(b, bufferData, 1, fmt.Sprintf("buffer %d", i))
		buffers = append(buffers, data)
	}

	g := subgraphs[0]
	m := &Model{Inputs: p.ints(g, subgraphInputs, "inputs"), Outputs: p.ints(g, subgraphOutputs, "outputs")}
	for i, t := range p.tables(g, subgraphTensors, "tensors") {
		m.Tensors = append(m.Tensors, p.tensor(t, fmt.Sprintf("tensor %d", i), buffers))
		if p.err != nil {
			return nil
		}
	}
	p.indices("inputs", m.Inputs, 0, len(m.Tensors))
	p.indices("outputs", m.Outputs, 0, len(m.Tensors))
	for i, o := range p.tables(g, subgraphOperators, "operators") {
		m.Operators = append(m.Operators, p.operator(o, fmt.Sprintf("operator %d", i), codes, len(m.Tensors)))
		if p.err != nil {
			return nil
		}
	}
	p.order(m)
	return m
}

func (p *parser) indices(what string, all []int, from, to int) {
	for _, i := range all {
		if i < from || i >= to {
			p.fail("%s: there is no tensor %d", what, i)
		}
	}
}

func (p *parser) tensor(t table, what string, buffers [][]byte) Tensor {
	v := Tensor{
		Name:  p.string(t, tensorName, what),
		Type:  Type(t.int8(tensorType)),
		Shape: p.ints(t, tensorShape, what),
	}
	what = fmt.Sprintf("%s (%.100q)", what, v.Name)
	if len(v.Shape) > maxSides {
		p.fail("%s: its shape has %d sides; at most %d are read", what, len(v.Shape), maxSides)
		return v
	}
	values := 1
	for _, side := range v.Shape {
		if side < 1 || side > maxSide || values > maxValues/side {
			p.fail("%s: its shape is %d", what, v.Shape)
			return v
		}
		values *= side
	}
	// The type's default is 0, and buffer 0 is the empty one by convention.
	buffer := int(t.GetUint32Slot(t.slot(tensorBuffer), 0))
	switch {
	case buffer >= max(len(buffers), 1):
		p.fail("%s: there is no buffer %d", what, buffer)
	case buffer > 0 && len(buffers[buffer]) > 0:
		v.Data = buffers[buffer]
		if size := v.Type.size(); size != 0 && len(v.Data) != values*size {
			p.fail("%s: %d bytes of data for %s %d", what, len(v.Data), v.Type, v.Shape)
		}
	}
	if q, ok := p.sub(t, tensorQuantization, what); ok {
		p.quantization(q, what, &v)
	}
	return v
}

func (p *parser) quantization(q table, what string, v *Tensor) {
	scales, n := p.vector(q, quantizationScale, 4, what)
	zeros, nz := p.vector(q, quantizationZeroPoint, 8, what)
	if n != nz {
		p.fail("%s: %d scales but %d zero points", what, n, nz)
		return
	}
	for i := range n {
		s, z := flatbuffers.GetFloat32(scales[4*i:]), flatbuffers.GetInt64(zeros[8*i:])
		if !(s > 0) || math.IsInf(float64(s), 0) {
			p.fail("%s: its scale is %v", what, s)
			return
		}
		v.Scales, v.ZeroPoints = append(v.Scales, s), append(v.ZeroPoints, z)
	}
}

func (p *parser) operator(t table, what string, codes []code, tensors int) Operator {
	i := int(t.GetUint32Slot(t.slot(operatorCode), 0))
	if i >= len(codes) {
		p.fail("%s: there is no operator code %d", what, i)
		return Operator{}
	}
	o := Operator{
		Code:    codes[i].code,
		Custom:  codes[i].custom,
		Inputs:  p.ints(t, operatorInputs, what),
		Outputs: p.ints(t, operatorOutputs, what),
	}
	what = fmt.Sprintf("%s (%s)", what, o.Name())
	p.indices(what+": inputs", o.Inputs, -1, tensors)
	p.indices(what+": outputs", o.Outputs, 0, tensors)
	switch o.Code {
	case Conv2D:
		o.Options = p.conv(p.options(t, what, optionsConv), what)
	case AveragePool2D, MaxPool2D:
		o.Options = p.pool(p.options(t, what, optionsPool), what)
	case Concat:
		t := p.options(t, what, optionsConcat)
		o.Options = Concatenation{Axis: t.int32(concatAxis, 0), Activation: Activation(t.int8(concatActivation))}
	case ReshapeTo:
		o.Options = Reshape{} // files may leave these options out
	}
	return o
}

// options is the operator's options, which have to be of the given type.
func (p *parser) options(t table, what string, want uint8) table {
	o, ok := p.sub(t, operatorOptions, what)
	if got := t.uint8(operatorOptionsType); !ok || got != want {
		p.fail("%s: its options are of type %d; want %d", what, got, want)
		return empty
	}
	return o
}

// empty is a table without fields: a vtable of four bytes, then the table that leads to it.
var empty = table{flatbuffers.Table{Bytes: []byte{4, 0, 4, 0, 4, 0, 0, 0}, Pos: 4}}

func (p *parser) conv(t table, what string) Conv {
	return Conv{
		Padding:    p.padding(t.int8(convPadding), what),
		StrideW:    p.window(t.int32(convStrideW, 0), what, "stride"),
		StrideH:    p.window(t.int32(convStrideH, 0), what, "stride"),
		DilationW:  p.window(t.int32(convDilationW, 1), what, "dilation"),
		DilationH:  p.window(t.int32(convDilationH, 1), what, "dilation"),
		Activation: Activation(t.int8(convActivation)),
	}
}

func (p *parser) pool(t table, what string) Pool {
	return Pool{
		Padding:    p.padding(t.int8(poolPadding), what),
		StrideW:    p.window(t.int32(poolStrideW, 0), what, "stride"),
		StrideH:    p.window(t.int32(poolStrideH, 0), what, "stride"),
		FilterW:    p.window(t.int32(poolFilterW, 0), what, "filter"),
		FilterH:    p.window(t.int32(poolFilterH, 0), what, "filter"),
		Activation: Activation(t.int8(poolActivation)),
	}
}

func (p *parser) padding(n int8, what string) Padding {
	if n != int8(Same) && n != int8(Valid) {
		p.fail("%s: there is no padding %d", what, n)
	}
	return Padding(n)
}

func (p *parser) window(n int, what, of string) int {
	if n < 1 || n > maxWindow {
		p.fail("%s: its %s is %d; want 1 to %d", what, of, n, maxWindow)
	}
	return n
}

// order checks that every value is there before it is used, and made once.
func (p *parser) order(m *Model) {
	if p.err != nil {
		return
	}
	there := make([]bool, len(m.Tensors))
	for i, t := range m.Tensors {
		there[i] = t.Data != nil
	}
	for _, i := range m.Inputs {
		there[i] = true
	}
	for i, o := range m.Operators {
		for _, in := range o.Inputs {
			if in >= 0 && !there[in] {
				p.fail("operator %d (%s) uses tensor %d before it is computed", i, o.Name(), in)
			}
		}
		for _, out := range o.Outputs {
			if there[out] {
				p.fail("operator %d (%s) computes tensor %d, which is there already", i, o.Name(), out)
			}
			there[out] = true
		}
	}
	for _, out := range m.Outputs {
		if !there[out] {
			p.fail("nothing computes output tensor %d", out)
		}
	}
}
