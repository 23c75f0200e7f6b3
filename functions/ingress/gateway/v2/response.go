package v2

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
)

// Response answers a Request.
type Response struct {
	ModelName    string
	ModelVersion string
	ID           string
	Parameters   map[string]any // strings, numbers and booleans
	Outputs      []Tensor
}

// Tensor is an output. One of Strings, Bools and Floats is set, as Datatype says, row-major.
type Tensor struct {
	Name     string
	Datatype string
	Shape    []int64
	Strings  []string  // Bytes
	Bools    []bool    // Bool
	Floats   []float32 // FP32
	Binary   bool      // write it in binary form
}

type responseJSON struct {
	ModelName    string         `json:"model_name"`
	ModelVersion string         `json:"model_version,omitempty"`
	ID           string         `json:"id,omitempty"`
	Parameters   map[string]any `json:"parameters,omitempty"`
	Outputs      []tensorJSON   `json:"outputs"`
}

type tensorJSON struct {
	Name       string         `json:"name"`
	Shape      []int64        `json:"shape"`
	Datatype   string         `json:"datatype"`
	Parameters map[string]any `json:"parameters,omitempty"`
	Data       any            `json:"data,omitempty"`
}

// Select keeps the tensors that were asked for, in the order asked, each in the form asked for; all when none was asked
// for. It says which name there is no tensor of.
func (r *Request) Select(tensors []Tensor) ([]Tensor, error) {
	if len(r.Outputs) == 0 {
		for i := range tensors {
			tensors[i].Binary = r.Binary
		}
		return tensors, nil
	}
	byName := make(map[string]Tensor, len(tensors))
	for _, t := range tensors {
		byName[t.Name] = t
	}
	selected := make([]Tensor, 0, len(r.Outputs))
	for _, o := range r.Outputs {
		t, ok := byName[o.Name]
		if !ok {
			return nil, fmt.Errorf("outputs: there is no output %.64q", o.Name)
		}
		t.Binary = o.Binary
		selected = append(selected, t)
	}
	return selected, nil
}

// Encode writes the response. When an output is binary, header is the length of the JSON that comes before the binary
// tensors, for the HTTP header HeaderLength; otherwise it is 0 and all of body is JSON.
func (r *Response) Encode() (body []byte, header int, err error) {
	out := responseJSON{
		ModelName: r.ModelName, ModelVersion: r.ModelVersion, ID: r.ID, Parameters: r.Parameters,
		Outputs: make([]tensorJSON, len(r.Outputs)),
	}
	var tensors []byte
	anyBinary := false
	for i := range r.Outputs {
		t := &r.Outputs[i]
		out.Outputs[i] = tensorJSON{Name: t.Name, Shape: t.Shape, Datatype: t.Datatype}
		if !t.Binary {
			out.Outputs[i].Data = t.data()
			continue
		}
		anyBinary = true
		before := len(tensors)
		tensors = t.appendBinary(tensors)
		out.Outputs[i].Parameters = map[string]any{"binary_data_size": len(tensors) - before}
	}
	body, err = json.Marshal(&out)
	if err != nil {
		return nil, 0, fmt.Errorf("write V2 response: %w", err)
	}
	if !anyBinary {
		return body, 0, nil
	}
	header = len(body)
	return append(body, tensors...), header, nil
}

func (t *Tensor) data() any {
	switch t.Datatype {
	case Bool:
		return t.Bools
	case FP32:
		return t.Floats
	default:
		return t.Strings
	}
}

func (t *Tensor) appendBinary(dst []byte) []byte {
	switch t.Datatype {
	case Bool:
		for _, b := range t.Bools {
			var bit byte
			if b {
				bit = 1
			}
			dst = append(dst, bit)
		}
	case FP32:
		for _, f := range t.Floats {
			dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(f))
		}
	default:
		dst = AppendBytes(dst, t.Strings)
	}
	return dst
}
