// Package mirror is two models whose answers tell which picture they saw, for tests and tools that have to notice an answer
// that is somebody else's. Their networks are tiny: what is measured with them is everything but the network.
//
// A picture has 2 by 2 pixels, twelve values in all, and there are as many pictures as there are numbers. The network
// "mirror" answers the values, as probabilities of the labels v0 to v11, and "negative" what is missing to 1.
package mirror

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/functions/modelserver/onnx/onnxtest"
	"github.com/ebb-inference/ebb/models"
)

// The models.
const (
	Plain    = "mirror"
	Negative = "negative"
)

// Names are the models' names, which are their networks', too.
var Names = []string{Plain, Negative}

const (
	side     = 2
	channels = 3
	values   = side * side * channels

	labelPrefix = "v"
)

// network answers 1 - x instead of x when it is negative, x being a value from 0 to 1.
func network(name string) onnxtest.Graph {
	scale, offset := float32(1)/255, float32(0)
	if name == Negative {
		scale, offset = -scale, 1
	}
	return onnxtest.Graph{
		Inputs:    []onnxtest.Value{{Name: "pixels", Type: onnxtest.Uint8, Dims: []int64{onnxtest.Free, side, side, channels}}},
		Outputs:   []onnxtest.Value{{Name: "values", Type: onnxtest.Float32, Dims: []int64{onnxtest.Free, values}}},
		Constants: []onnxtest.Constant{{Name: "scale", Floats: []float32{scale}}, {Name: "offset", Floats: []float32{offset}}},
		Nodes: []onnxtest.Node{
			{Op: "Flatten", Inputs: []string{"pixels"}, Outputs: []string{"flat"}, Attributes: map[string]any{"axis": int64(1)}},
			{Op: "Cast", Inputs: []string{"flat"}, Outputs: []string{"floats"}, Attributes: map[string]any{"to": int64(onnxtest.Float32)}},
			{Op: "Mul", Inputs: []string{"floats", "scale"}, Outputs: []string{"scaled"}},
			{Op: "Add", Inputs: []string{"scaled", "offset"}, Outputs: []string{"values"}},
		},
	}
}

// Label is that of value number i.
func Label(i int) string { return labelPrefix + strconv.Itoa(i) }

// WriteNetworks writes the networks into a folder of a model server's.
func WriteNetworks(base string) error {
	for _, name := range Names {
		if err := WriteVersion(filepath.Join(base, name, "1"), name); err != nil {
			return err
		}
	}
	return nil
}

// WriteVersion writes a model's network into the folder of a version.
func WriteVersion(dir, name string) error {
	return write(filepath.Join(dir, "model.onnx"), network(name).Bytes())
}

// WriteDefinitions writes the models' definitions into a folder, each into one of its own as a volume shows a ConfigMap.
func WriteDefinitions(folder string) error {
	labels := new(strings.Builder)
	for i := range values {
		fmt.Fprintln(labels, Label(i))
	}
	for _, name := range Names {
		if err := write(DefinitionFile(folder, name), fmt.Appendf(nil, definition, name)); err != nil {
			return err
		}
		if err := write(filepath.Join(folder, name, "labels.txt"), []byte(labels.String())); err != nil {
			return err
		}
	}
	return nil
}

// DefinitionFile is where WriteDefinitions puts a model's definition.
func DefinitionFile(folder, name string) string {
	return filepath.Join(folder, name, models.ManifestKey)
}

const definition = `name: %[1]s
serving:
  address: set-by-the-environment:1
  model: %[1]s
input:
  tensor: pixels
  dtype: uint8
  width: 2
  height: 2
output:
  tensor: values
  labels: labels.txt
  top: 12
batching:
  size: 8
  slots: 2
`

// WriteTriggers writes a Trigger a model into a folder, as the project's own models have them.
func WriteTriggers(folder string) error {
	for _, name := range Names {
		if err := write(filepath.Join(folder, name+".yaml"), fmt.Appendf(nil, manifest, name)); err != nil {
			return err
		}
	}
	return nil
}

const manifest = `apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata:
  name: %[1]s
  namespace: ebb
  annotations:
    rabbitmq.eventing.knative.dev/parallelism: "100"
spec:
  broker: ebb
  filter:
    attributes:
      type: dev.ebb.inference.requested.v1
      model: %[1]s
  subscriber:
    ref:
      apiVersion: serving.knative.dev/v1
      kind: Service
      name: dispatch-%[1]s
  delivery:
    retry: 5
    backoffPolicy: exponential
    backoffDelay: PT0.2S
    timeout: PT90S
    deadLetterSink:
      ref:
        apiVersion: serving.knative.dev/v1
        kind: Service
        name: deadletter
`

func write(file string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o600)
}

// Values are the values of picture number n, 0 to 255, in the order of their labels.
func Values(n int) []byte {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
	return sum[:values]
}

// Picture is picture number n, a PNG of some 80 bytes.
func Picture(n int) ([]byte, error) {
	p := Values(n)
	img := image.NewNRGBA(image.Rect(0, 0, side, side))
	for i := 0; i < len(p); i += channels {
		at := i / channels
		img.SetNRGBA(at%side, at/side, color.NRGBA{R: p[i], G: p[i+1], B: p[i+2], A: math.MaxUint8})
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return nil, fmt.Errorf("picture %d: %w", n, err)
	}
	return b.Bytes(), nil
}

// Check says whether top is not the model's answer to picture number n.
func Check(model string, n int, top []events.Class) error {
	want := Values(n)
	if len(top) != len(want) {
		return fmt.Errorf("picture %d: %d classes, want %d", n, len(top), len(want))
	}
	seen := make(map[int]bool, len(top))
	for _, c := range top {
		number, ok := strings.CutPrefix(c.Label, labelPrefix)
		i, err := strconv.Atoi(number)
		if !ok || err != nil || i < 0 || i >= len(want) || seen[i] {
			return fmt.Errorf("picture %d: %q is no label, or one that was there", n, c.Label)
		}
		seen[i] = true
		p := c.Probability
		if model == Negative {
			p = 1 - p
		}
		if got := byte(math.Round(p * math.MaxUint8)); got != want[i] {
			return fmt.Errorf("picture %d, %s: %s is %d, want %d: the answer is another picture's", n, model, c.Label, got, want[i])
		}
	}
	return nil
}
