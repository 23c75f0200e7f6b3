// Package v2 is the Open Inference Protocol's form of an inference request and its answer: JSON, and the binary tensor
// extension in which JSON is followed by the tensors' bytes. It knows tensors of bytes in and of any kind out, and
// neither HTTP nor pictures nor models.
package v2

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// HeaderLength is the HTTP header that says how many bytes of JSON there are before the binary tensors.
const HeaderLength = "Inference-Header-Content-Length"

// The datatypes that are used here.
const (
	Bytes = "BYTES"
	Bool  = "BOOL"
	FP32  = "FP32"
)

const (
	prefixBytes = 4 // of an element of a binary BYTES tensor: its length, little-endian
	mostOutputs = 64
)

// Request is an inference request with one BYTES tensor of shape [n] or [n, 1].
type Request struct {
	ID       string
	Elements [][]byte // n of them; those of a binary tensor are parts of the body, not copies
	// Outputs are those that were asked for, in order; none means all.
	Outputs []Output
	// Binary says that outputs are wanted in binary form unless they say otherwise themselves.
	Binary bool
}

// Output is an output that was asked for.
type Output struct {
	Name   string
	Binary bool
}

type requestJSON struct {
	ID         string       `json:"id"`
	Parameters parameters   `json:"parameters"`
	Inputs     []inputJSON  `json:"inputs"`
	Outputs    []outputJSON `json:"outputs"`
}

type inputJSON struct {
	Name       string          `json:"name"`
	Shape      []int64         `json:"shape"`
	Datatype   string          `json:"datatype"`
	Parameters parameters      `json:"parameters"`
	Data       json.RawMessage `json:"data"`
}

type outputJSON struct {
	Name       string     `json:"name"`
	Parameters parameters `json:"parameters"`
}

// parameters are those that mean something here; the protocol wants others to be passed over.
type parameters struct {
	BinaryDataSize   *int64 `json:"binary_data_size"`
	BinaryData       *bool  `json:"binary_data"`
	BinaryDataOutput *bool  `json:"binary_data_output"`
	ContentType      string `json:"content_type"`
}

// ParseRequest reads a request's body. headerLength is the value of the HTTP header HeaderLength, empty when there is
// none: then all of the body is JSON, and its elements are base64, as JSON has no bytes. A request may have at most
// maxElements elements. Errors are for the client: they say what is wrong in the request's own words.
func ParseRequest(body []byte, headerLength string, maxElements int) (*Request, error) {
	header, tensors := body, []byte(nil)
	if headerLength != "" {
		n, err := strconv.ParseUint(headerLength, 10, 63)
		if err != nil || n > uint64(len(body)) {
			return nil, fmt.Errorf("header %s: %.32q is not a number of bytes within the body of %d", HeaderLength, headerLength, len(body))
		}
		header, tensors = body[:n], body[n:]
	}
	var in requestJSON
	if err := json.Unmarshal(header, &in); err != nil {
		return nil, jsonError(err)
	}
	if len(in.Inputs) != 1 {
		return nil, fmt.Errorf("inputs: there are %d; send exactly one", len(in.Inputs))
	}
	input := &in.Inputs[0]
	n, err := input.count(maxElements)
	if err != nil {
		return nil, fmt.Errorf("inputs[0]: %w", err)
	}
	out := &Request{ID: in.ID, Binary: isTrue(in.Parameters.BinaryDataOutput)}
	if size := input.Parameters.BinaryDataSize; size != nil {
		if err := input.checkBinary(*size, headerLength != "", len(tensors)); err != nil {
			return nil, fmt.Errorf("inputs[0]: %w", err)
		}
		out.Elements, err = DecodeBytes(tensors, n)
	} else {
		if len(tensors) != 0 {
			return nil, fmt.Errorf("%d bytes follow the JSON, but no input has the parameter binary_data_size", len(tensors))
		}
		out.Elements, err = decodeJSON(input.Data, n, len(input.Shape))
	}
	if err != nil {
		return nil, fmt.Errorf("inputs[0]: %w", err)
	}
	out.Outputs, err = outputs(in.Outputs, out.Binary)
	return out, err
}

// count checks what is said about the input's form and returns the number of its elements.
func (in *inputJSON) count(maxElements int) (int, error) {
	if in.Datatype != Bytes {
		return 0, fmt.Errorf("datatype: %.32q is not %s", in.Datatype, Bytes)
	}
	if c := in.Parameters.ContentType; c != "" && c != "base64" {
		return 0, fmt.Errorf("parameters: content_type: %.32q is not base64", c)
	}
	rank := len(in.Shape)
	if rank == 0 || rank > 2 || (rank == 2 && in.Shape[1] != 1) {
		return 0, errors.New("shape: want [n] or [n, 1], one element a picture")
	}
	n := in.Shape[0]
	if n < 1 || n > int64(maxElements) {
		return 0, fmt.Errorf("shape: there must be 1 to %d elements, not %d", maxElements, n)
	}
	return int(n), nil
}

func (in *inputJSON) checkBinary(size int64, hasHeader bool, have int) error {
	switch {
	case !hasHeader:
		return fmt.Errorf("parameters: binary_data_size needs the HTTP header %s", HeaderLength)
	case in.Data != nil:
		return errors.New("data and the parameter binary_data_size exclude each other")
	case size != int64(have):
		return fmt.Errorf("parameters: binary_data_size: it is %d, but %d bytes follow the JSON", size, have)
	}
	return nil
}

// DecodeBytes splits a binary BYTES tensor into its n elements, which are parts of data: each is its length as four bytes,
// little-endian, and then so many bytes. All of data must be used.
func DecodeBytes(data []byte, n int) ([][]byte, error) {
	if n < 0 || len(data)/prefixBytes < n { // before anything is reserved for n elements
		return nil, fmt.Errorf("binary data: %d bytes cannot hold %d elements", len(data), n)
	}
	elements := make([][]byte, n)
	for i := range elements {
		if len(data) < prefixBytes {
			return nil, fmt.Errorf("binary data: ends in the length of element %d", i)
		}
		size := uint64(binary.LittleEndian.Uint32(data))
		data = data[prefixBytes:]
		if size > uint64(len(data)) {
			return nil, fmt.Errorf("binary data: element %d has %d bytes, but %d are left", i, size, len(data))
		}
		elements[i], data = data[:size:size], data[size:]
	}
	if len(data) != 0 {
		return nil, fmt.Errorf("binary data: %d bytes are left after %d elements", len(data), n)
	}
	return elements, nil
}

// AppendBytes is DecodeBytes' inverse.
func AppendBytes[T string | []byte](dst []byte, elements []T) []byte {
	for _, e := range elements {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(e)))
		dst = append(dst, e...)
	}
	return dst
}

// decodeJSON reads n base64 strings: in one list, or, when the shape has two dimensions, in lists of one.
func decodeJSON(data json.RawMessage, n, rank int) ([][]byte, error) {
	if data == nil {
		return nil, errors.New("data: it is missing, and so is the parameter binary_data_size")
	}
	flat, err := stringList(data, rank)
	if err != nil {
		return nil, err
	}
	if len(flat) != n {
		return nil, fmt.Errorf("data: there are %d elements, but the shape says %d", len(flat), n)
	}
	elements := make([][]byte, n)
	for i, text := range flat {
		if elements[i], err = base64.StdEncoding.DecodeString(text); err != nil {
			return nil, fmt.Errorf("data: element %d is not base64: JSON cannot hold the bytes themselves", i)
		}
	}
	return elements, nil
}

func stringList(data json.RawMessage, rank int) ([]string, error) {
	var flat []string
	err := json.Unmarshal(data, &flat)
	if err == nil {
		return flat, nil
	}
	var nested [][]string
	if rank != 2 || json.Unmarshal(data, &nested) != nil {
		return nil, errors.New("data: want a list of base64 strings")
	}
	flat = make([]string, 0, len(nested))
	for i, row := range nested {
		if len(row) != 1 {
			return nil, fmt.Errorf("data: row %d has %d elements, but the shape says 1", i, len(row))
		}
		flat = append(flat, row[0])
	}
	return flat, nil
}

func outputs(asked []outputJSON, binaryByDefault bool) ([]Output, error) {
	if len(asked) > mostOutputs {
		return nil, fmt.Errorf("outputs: there are %d; at most %d can be asked for", len(asked), mostOutputs)
	}
	outs := make([]Output, 0, len(asked))
	for _, a := range asked {
		o := Output{Name: a.Name, Binary: binaryByDefault}
		if a.Parameters.BinaryData != nil {
			o.Binary = *a.Parameters.BinaryData
		}
		outs = append(outs, o)
	}
	return outs, nil
}

func isTrue(b *bool) bool { return b != nil && *b }

// jsonError is err in words for who wrote the JSON, who does not know Go's types.
func jsonError(err error) error {
	var wrongType *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &wrongType):
		return fmt.Errorf("JSON: %s: the type %.32s does not fit here", wrongType.Field, wrongType.Value)
	case errors.As(err, &syntax):
		return fmt.Errorf("JSON: after %d bytes: %.100s", syntax.Offset, syntax.Error())
	default:
		return fmt.Errorf("JSON: %.100s", bytes.TrimSpace([]byte(err.Error())))
	}
}
