// Package models is what a model is to Ebb: the question it answers, where it is served, how a picture becomes its
// input and how its output becomes an answer. A model is one YAML document.
//
// It knows nothing of events, brokers or HTTP.
package models

import "time"

// Definition is one model. The YAML keys are the fields' tags; Parse documents the defaults.
type Definition struct {
	Name     string   `yaml:"name"`     // a DNS label: it becomes part of names in Kubernetes
	Question string   `yaml:"question"` // "Is it a cat?"; empty for a model that only classifies
	Subject  string   `yaml:"subject"`  // "a cat", for "Yes, a cat" and "No, not a cat"; required with a question
	Serving  Serving  `yaml:"serving"`
	Input    Input    `yaml:"input"`
	Output   Output   `yaml:"output"`
	Batching Batching `yaml:"batching"`
}

// Serving says where the network is served, in TensorFlow Serving's terms.
type Serving struct {
	Address   string `yaml:"address"`   // gRPC target, "host:port"
	Model     string `yaml:"model"`     // the network's name there
	Version   int64  `yaml:"version"`   // 0: the latest
	Label     string `yaml:"label"`     // instead of a version
	Signature string `yaml:"signature"` // default "serving_default"

	Source  Source  `yaml:"source"`  // where newer versions are published; none: nobody looks for any
	Rollout Rollout `yaml:"rollout"` // how one of them gets to serve
}

// Source says where versions of the network are published, in TensorFlow Serving's layout: a folder a version.
type Source struct {
	URL   string `yaml:"url"`   // file:, http:, https:, gs:, s3:, oci: or grpc:, the last of which only lists versions
	Files string `yaml:"files"` // where the files are of the versions that a grpc: URL lists
	Keep  int    `yaml:"keep"`  // how many versions are kept to go back to; default 3
}

// Rollout says what a newer version has to show before it serves. All but the golden pictures needs a source.
type Rollout struct {
	Golden  []Golden `yaml:"golden"`
	Steps   []int    `yaml:"steps"`   // percent of the traffic, before all of it; default [10, 50]
	Hold    Duration `yaml:"hold"`    // of each step; default 1m
	Errors  float64  `yaml:"errors"`  // the share of its calls that may fail beyond what failed before; default 0.01
	Latency float64  `yaml:"latency"` // how many times its predecessor's its mean compute time may be; default 1.5
}

// Golden is a picture whose answer is known, in a model's own terms: Answer for one with a question, Label for any.
type Golden struct {
	Picture     string  `yaml:"picture"`     // a file beside the definition, or an http(s) URL
	SHA256      string  `yaml:"sha256"`      // of a picture by URL
	Answer      string  `yaml:"answer"`      // "yes" or "no"
	Probability float64 `yaml:"probability"` // least probability of the answer or the label; 0: any
	Label       string  `yaml:"label"`       // of the most probable class
}

// The answers of Golden.
const (
	AnswerYes = "yes"
	AnswerNo  = "no"
)

// Duration is a time.Duration that is written as Go does: 90s, 1m30s.
type Duration time.Duration

// The ways in which a network takes a picture.
const (
	KindTensor  = "tensor"  // a tensor of pixels
	KindEncoded = "encoded" // a string tensor of JPEG files; the network decodes and resizes
)

// The pixel types, layouts and channel orders of KindTensor, and the methods of Resize.
const (
	DTypeUint8   = "uint8"
	DTypeFloat32 = "float32"

	LayoutNHWC = "NHWC" // pixel by pixel, a pixel's channels together
	LayoutNCHW = "NCHW" // channel by channel

	ChannelsRGB = "RGB"
	ChannelsBGR = "BGR"

	MethodBilinear  = "bilinear"
	MethodAntialias = "antialias"
)

// Input says how a picture becomes the network's input.
type Input struct {
	Tensor   string    `yaml:"tensor"`   // the signature's input name
	Kind     string    `yaml:"kind"`     // KindTensor (default) or KindEncoded; the rest is for KindTensor
	DType    string    `yaml:"dtype"`    // "uint8" or "float32"
	Layout   string    `yaml:"layout"`   // "NHWC" (default) or "NCHW"
	Channels string    `yaml:"channels"` // "RGB" (default) or "BGR"
	Width    int       `yaml:"width"`    // pixels
	Height   int       `yaml:"height"`   // pixels
	Resize   Resize    `yaml:"resize"`
	Scale    []float32 `yaml:"scale"`  // float32 only: value = pixel (0..255) * scale + offset; one number or one a channel, in RGB order
	Offset   []float32 `yaml:"offset"` // default scale 1, offset 0
}

// Resize says how a picture of any size becomes Width x Height, as the network's authors evaluated it.
type Resize struct {
	// CentralFraction of each side is kept before anything else: 0.875 for the Inception family; default 1.
	CentralFraction float64 `yaml:"central_fraction"`
	// ShortestSide, when not 0, resizes so that the shorter side has so many pixels and then cuts Width x Height out of
	// the centre (256 for ResNet). Otherwise the picture is stretched.
	ShortestSide int `yaml:"shortest_side"`
	// Method is "bilinear" (default; samples between four pixels, like TensorFlow's legacy bilinear) or "antialias" (a
	// triangle filter that widens when shrinking, like Pillow's bilinear).
	Method string `yaml:"method"`
}

// What turns a network's output into probabilities.
const (
	ActivationNone    = "none"    // it gives probabilities
	ActivationSoftmax = "softmax" // it gives logits
)

// Output says how the network's output becomes an answer.
type Output struct {
	Tensor     string  `yaml:"tensor"`     // the signature's output name
	Scale      float64 `yaml:"scale"`      // value = raw * scale + offset, for quantised outputs; default 1
	Offset     float64 `yaml:"offset"`     // default 0
	Activation string  `yaml:"activation"` // "softmax" for logits, "none" (default) for probabilities
	Labels     string  `yaml:"labels"`     // a built-in set ("imagenet-1001", "imagenet-1000") or a file beside the definition
	Yes        []Range `yaml:"yes"`        // the classes that mean yes: [282-286, 290]; required with a question
	Threshold  float64 `yaml:"threshold"`  // yes when their summed probability is at least this; default 0.5
	Top        int     `yaml:"top"`        // how many classes an answer lists; default 5
}

// Range is a range of class indices, both ends included.
type Range struct{ From, To int }

// Batching bounds the batches that are sent to the network.
type Batching struct {
	Size  int `yaml:"size"`  // most items in a batch; default 8
	Slots int `yaml:"slots"` // batches under way at once; default 2
	Queue int `yaml:"queue"` // most items that wait; default 256
}
