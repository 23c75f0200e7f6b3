package models_test

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models"
)

const cat = `name: cat
question: Is it a cat?
subject: a cat
serving:
  address: localhost:8500
  model: inception_v3
input:
  tensor: input
  dtype: uint8
  width: 299
  height: 299
  resize:
    central_fraction: 0.875
output:
  tensor: output
  scale: 0.075975
  offset: -4.026675
  activation: softmax
  labels: imagenet-1001
  yes: [282-286]
`

// resnet takes everything that cat leaves to defaults from the file.
const resnet = `name: resnet-50
serving: {address: "[::1]:9000", model: resnet, version: 3, signature: predict}
input:
  tensor: data
  kind: tensor
  dtype: float32
  layout: NCHW
  channels: BGR
  width: 224
  height: 224
  resize: {shortest_side: 256, method: antialias}
  scale: [0.0171, 0.0175, 0.0174]
  offset: [-2.1179, -2.0357, -1.8044]
output: {tensor: prob, labels: labels.txt, top: 3}
batching: {size: 4, slots: 1, queue: 16}
`

func files(pairs ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		fsys[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return fsys
}

func TestParseFillsInDefaults(t *testing.T) {
	t.Parallel()
	m, err := models.Parse(files("cat.yaml", cat), "cat.yaml")
	require.NoError(t, err)
	require.Len(t, m.Labels, 1001)
	require.Equal(t, models.Definition{
		Name: "cat", Question: "Is it a cat?", Subject: "a cat",
		Serving: models.Serving{Address: "localhost:8500", Model: "inception_v3", Signature: "serving_default"},
		Input: models.Input{
			Tensor: "input", Kind: "tensor", DType: "uint8", Layout: "NHWC", Channels: "RGB", Width: 299, Height: 299,
			Resize: models.Resize{CentralFraction: 0.875, Method: "bilinear"},
		},
		Output: models.Output{
			Tensor: "output", Scale: 0.075975, Offset: -4.026675, Activation: "softmax", Labels: "imagenet-1001",
			Yes: []models.Range{{From: 282, To: 286}}, Threshold: 0.5, Top: 5,
		},
		Batching: models.Batching{Size: 8, Slots: 2, Queue: 256},
	}, m.Definition)
}

func TestParseTakesEveryField(t *testing.T) {
	t.Parallel()
	m, err := models.Parse(files("m/resnet.yaml", resnet, "m/labels.txt", "\ufeffcat\r\ndog\r\nbird"), "m/resnet.yaml")
	require.NoError(t, err)
	require.Equal(t, []string{"cat", "dog", "bird"}, m.Labels)
	require.Equal(t, models.Definition{
		Name:    "resnet-50",
		Serving: models.Serving{Address: "[::1]:9000", Model: "resnet", Version: 3, Signature: "predict"},
		Input: models.Input{
			Tensor: "data", Kind: "tensor", DType: "float32", Layout: "NCHW", Channels: "BGR", Width: 224, Height: 224,
			Resize: models.Resize{CentralFraction: 1, ShortestSide: 256, Method: "antialias"},
			Scale:  []float32{0.0171, 0.0175, 0.0174}, Offset: []float32{-2.1179, -2.0357, -1.8044},
		},
		Output:   models.Output{Tensor: "prob", Scale: 1, Activation: "none", Labels: "labels.txt", Top: 3},
		Batching: models.Batching{Size: 4, Slots: 1, Queue: 16},
	}, m.Definition)
}

func TestParseTakesAnEncodedInput(t *testing.T) {
	t.Parallel()
	m, err := models.Parse(files("m.yaml", `
name: m
serving: {address: tf:8500, model: resnet, label: stable}
input: {tensor: image_bytes, kind: encoded}
output: {tensor: probabilities, labels: imagenet-1000}
`), "m.yaml")
	require.NoError(t, err)
	require.Equal(t, models.Input{Tensor: "image_bytes", Kind: "encoded"}, m.Input)
	require.Equal(t, "stable", m.Serving.Label)
	require.Len(t, m.Labels, 1000)
	require.Equal(t, "tench", m.Labels[0])
}

func TestParseFillsInNormalisationOfFloats(t *testing.T) {
	t.Parallel()
	m, err := models.Parse(files("cat.yaml", strings.Replace(cat, "uint8", "float32", 1)), "cat.yaml")
	require.NoError(t, err)
	require.Equal(t, []float32{1}, m.Input.Scale)
	require.Equal(t, []float32{0}, m.Input.Offset)
}

func TestBuiltInLabelsStandAtTheirIndices(t *testing.T) {
	t.Parallel()
	m, err := models.Parse(files("cat.yaml", cat), "cat.yaml")
	require.NoError(t, err)
	require.Equal(t, "background", m.Labels[0])
	require.Equal(t, []string{"tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"}, m.Labels[282:287])
	require.Equal(t, "Chihuahua", m.Labels[152])
	require.Equal(t, "toilet tissue", m.Labels[1000])
}

// edit replaces text in cat, and fails when it is not there.
func edit(t *testing.T, pairs ...string) string {
	t.Helper()
	s := cat
	for i := 0; i < len(pairs); i += 2 {
		require.Contains(t, s, pairs[i])
		s = strings.Replace(s, pairs[i], pairs[i+1], 1)
	}
	return s
}

func TestParseNamesPlaceAndCureOfAMistake(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		edits []string
		want  string
	}{
		{"unknown field", []string{"subject: a cat", "subject: a cat\ncolour: red"},
			"cat.yaml:4: colour: is not a field; the fields are name, question, subject, serving, input, output, batching"},
		{"typo", []string{"width: 299", "witdh: 299\n  width: 299"}, "cat.yaml:10: input.witdh: is not a field; did you mean width?"},
		{"typo in capitals", []string{"width: 299", "Width: 299\n  width: 299"}, "cat.yaml:10: input.Width: is not a field; did you mean width?"},
		{"merge key", []string{"serving:\n", "serving:\n  <<: {model: x}\n"}, "cat.yaml:5: serving.<<: is not a field; the fields are address, model, version, label, signature, source, rollout"},
		{"key that is a list", []string{"serving:\n", "serving:\n  ? [a]\n  : b\n"}, "cat.yaml:5: serving: has a key that is not a field's name; the fields are address, model, version, label, signature, source, rollout"},
		{"field given twice", []string{"  height: 299", "  height: 299\n  width: 4"}, "cat.yaml:12: input.width: is given twice, first on line 10; give it once"},
		{"list for fields", []string{"input:\n", "batching: [1]\ninput:\n"}, "cat.yaml:7: batching: is a list, want fields (key: value)"},
		{"text for fields", []string{"input:\n", "batching: fast\ninput:\n"}, "cat.yaml:7: batching: is text (fast), want fields (key: value)"},
		{"text for a number", []string{"width: 299", "width: wide"}, "cat.yaml:10: input.width: is text (wide), want a whole number"},
		{"fraction for a whole number", []string{"width: 299", "width: 299.5"}, "cat.yaml:10: input.width: is a number (299.5), want a whole number"},
		{"number too large", []string{"width: 299", "width: 99999999999999999999"}, "cat.yaml:10: input.width: is a number (99999999999999999999), want a whole number"},
		{"number for text", []string{"name: cat", "name: 7"}, "cat.yaml:1: name: is a number (7), want text"},
		{"truth for text", []string{"name: cat", "name: true"}, "cat.yaml:1: name: is true or false (true), want text"},
		{"date for text", []string{"name: cat", "name: 2024-01-01"}, "cat.yaml:1: name: is a date (2024-01-01), want text"},
		{"list for text", []string{"name: cat", "name: [cat]"}, "cat.yaml:1: name: is a list, want text"},
		{"text for a list", []string{"[282-286]", "282-286"}, "cat.yaml:20: output.yes: is text (282-286), want a list, such as [1, 2]"},
		{"list for a range", []string{"[282-286]", "[[282, 286]]"}, "cat.yaml:20: output.yes[0]: is a list, want an index such as 290 or a range such as 282-286"},
		{"text for a fraction", []string{"scale: 0.075975", "scale: small"}, "cat.yaml:16: output.scale: is text (small), want a number"},
		{"no value", []string{"name: cat", "name:"}, "cat.yaml:1: name: has no value; give one or leave the field out"},
		{"NaN", []string{"0.875", ".nan"}, "cat.yaml:13: input.resize.central_fraction: is .nan, want a finite number"},
		{"infinity", []string{"offset: -4.026675", "offset: -.inf"}, "cat.yaml:17: output.offset: is -.inf, want a finite number"},
		{"float32 overflow", []string{"dtype: uint8", "dtype: float32\n  scale: [1e39]"}, "cat.yaml:10: input.scale[0]: is 1e39, want a finite number"},
		{"anchor", []string{"name: cat", "name: &n cat"}, "cat.yaml:1: name: has an anchor (&n); anchors are not allowed"},
		{"tag", []string{"name: cat", "name: !!str 7"}, "cat.yaml:1: name: has a tag (!!str); tags are not allowed"},

		{"no name", []string{"name: cat\n", ""}, "cat.yaml:1: name: is missing"},
		{"empty name", []string{"name: cat", "name: ''"}, "cat.yaml:1: name: is empty"},
		{"name with a dot", []string{"name: cat", "name: a.cat"},
			"cat.yaml:1: name: is a.cat, want a DNS label: 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"},
		{"name too long", []string{"name: cat", "name: " + strings.Repeat("a", 64)},
			"cat.yaml:1: name: is " + strings.Repeat("a", 60) + "…, want a DNS label: 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"},
		{"question without subject", []string{"subject: a cat\n", ""}, "cat.yaml:1: subject: is missing"},
		{"question without yes", []string{"  yes: [282-286]\n", ""}, "cat.yaml:14: output.yes: is missing, want the classes that mean yes to the question, such as [282-286, 290]"},
		{"yes without question", []string{"question: Is it a cat?\nsubject: a cat\n", ""}, "cat.yaml:18: output.yes: belongs to a question, but there is none; add question or remove this"},
		{"question of two lines", []string{"Is it a cat?", `"a\nb"`}, `cat.yaml:2: question: is "a\nb", want one line without control characters`},
		{"question too long", []string{"Is it a cat?", strings.Repeat("a", 257)}, "cat.yaml:2: question: has 257 bytes, want at most 256"},
		{"space around text", []string{"inception_v3", "' x'"}, `cat.yaml:6: serving.model: is " x", want no space at its ends`},
		{"no port", []string{"localhost:8500", "localhost"}, `cat.yaml:5: serving.address: is localhost, want "host:port" with a port from 1 to 65535`},
		{"port 0", []string{"localhost:8500", "localhost:0"}, `cat.yaml:5: serving.address: is localhost:0, want "host:port" with a port from 1 to 65535`},
		{"no host", []string{"localhost:8500", `":8500"`}, `cat.yaml:5: serving.address: is :8500, want "host:port" with a port from 1 to 65535`},
		{"address is a URL", []string{"localhost:8500", "http://tf:8500"}, `cat.yaml:5: serving.address: is http://tf:8500, want "host:port" with a port from 1 to 65535`},
		{"negative version", []string{"input:\n", "  version: -1\ninput:\n"}, "cat.yaml:7: serving.version: is -1, want 1 or more, or 0 for the latest"},
		{"version and label", []string{"input:\n", "  version: 1\n  label: stable\ninput:\n"}, "cat.yaml:8: serving.label: is given besides serving.version; give one of them"},
		{"unknown kind", []string{"dtype: uint8", "kind: pixels"}, "cat.yaml:9: input.kind: is pixels, want tensor or encoded"},
		{"unknown dtype", []string{"uint8", "int8"}, "cat.yaml:9: input.dtype: is int8, want uint8 or float32"},
		{"no dtype", []string{"  dtype: uint8\n", ""}, "cat.yaml:7: input.dtype: is missing, want uint8 or float32"},
		{"no width", []string{"  width: 299\n", ""}, "cat.yaml:7: input.width: is missing, want a number from 1 to 2048"},
		{"width 0", []string{"width: 299", "width: 0"}, "cat.yaml:10: input.width: is 0, want a number from 1 to 2048"},
		{"width without end", []string{"width: 299", "width: 1000000"}, "cat.yaml:10: input.width: is 1000000, want a number from 1 to 2048"},
		{"central fraction 0", []string{"0.875", "0"}, "cat.yaml:13: input.resize.central_fraction: is 0, want more than 0 and at most 1"},
		{"shortest side too short", []string{"central_fraction: 0.875", "shortest_side: 256"}, "cat.yaml:13: input.resize.shortest_side: is 256, want a number from 299 to 4096"},
		{"unknown method", []string{"central_fraction: 0.875", "method: nearest"}, "cat.yaml:13: input.resize.method: is nearest, want bilinear or antialias"},
		{"scale with uint8", []string{"dtype: uint8", "dtype: uint8\n  scale: [2]"}, "cat.yaml:10: input.scale: belongs to dtype float32; uint8 takes the pixels as they are"},
		{"two offsets", []string{"dtype: uint8", "dtype: float32\n  offset: [2, 3]"}, "cat.yaml:10: input.offset: has 2 numbers, want 1, or 3 for red, green and blue"},
		{"scale 0", []string{"dtype: uint8", "dtype: float32\n  scale: [0]"}, "cat.yaml:10: input.scale[0]: is 0, which makes every picture the same"},
		{"output scale 0", []string{"scale: 0.075975", "scale: 0"}, "cat.yaml:16: output.scale: is 0, want more than 0"},
		{"unknown activation", []string{"softmax", "relu"}, "cat.yaml:18: output.activation: is relu, want none or softmax"},
		{"threshold 3", []string{"  yes:", "  threshold: 3\n  yes:"}, "cat.yaml:20: output.threshold: is 3, want a probability: more than 0 and at most 1"},
		{"threshold 0", []string{"  yes:", "  threshold: 0\n  yes:"}, "cat.yaml:20: output.threshold: is 0, want a probability: more than 0 and at most 1"},
		{"top 0", []string{"  yes:", "  top: 0\n  yes:"}, "cat.yaml:20: output.top: is 0, want a number from 1 to 1000"},
		{"yes outside the labels", []string{"[282-286]", "[282-286, 1001]"}, "cat.yaml:20: output.yes[1]: is 1001, but the 1001 labels have the indices 0 to 1000"},
		{"yes backwards", []string{"[282-286]", "[286-282]"}, "cat.yaml:20: output.yes[0]: is 286-282, want an index such as 290, or a range such as 282-286, the lower end first"},
		{"negative yes", []string{"[282-286]", "[-3]"}, "cat.yaml:20: output.yes[0]: is -3, want an index such as 290, or a range such as 282-286, the lower end first"},
		{"yes overlaps", []string{"[282-286]", "[285, 290, 282-286]"}, "cat.yaml:20: output.yes[2]: 282-286 and 285 overlap; name each class once"},
		{"no yes", []string{"[282-286]", "[]"}, "cat.yaml:20: output.yes: is empty, want the classes that mean yes, such as [282-286, 290]"},
		{"no labels", []string{"  labels: imagenet-1001\n", ""}, "cat.yaml:14: output.labels: is missing"},
		{"labels in another folder", []string{"imagenet-1001", "../labels.txt"}, "cat.yaml:19: output.labels: is ../labels.txt, want imagenet-1001, imagenet-1000 or the name of a file in the same folder"},
		{"labels without a file", []string{"imagenet-1001", "imagenet-1002"}, "cat.yaml:19: output.labels: want imagenet-1001, imagenet-1000 or a file in the same folder: open imagenet-1002: file does not exist"},
		{"batch size 0", []string{"input:\n", "batching: {size: 0}\ninput:\n"}, "cat.yaml:7: batching.size: is 0, want a number from 1 to 1024"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := models.Parse(files("cat.yaml", edit(t, tt.edits...)), "cat.yaml")
			require.ErrorContains(t, err, tt.want)
			require.Contains(t, strings.Split(err.Error(), "\n"), tt.want)
		})
	}
}

func TestParseReportsOneMistakeOnce(t *testing.T) {
	t.Parallel()
	for _, edits := range [][]string{
		{"width: 299", "width: wide"}, {"name: cat", "name: 7"}, {"dtype: uint8", "dtype: 8"}, {"Is it a cat?", "[]"},
		{"imagenet-1001", "7"}, {"softmax", "no: no"}, {"  model: inception_v3", "  model:"}, {"0.875", "all"},
	} {
		_, err := models.Parse(files("cat.yaml", edit(t, edits...)), "cat.yaml")
		require.Error(t, err)
		require.NotContains(t, err.Error(), "\n", "%v", edits)
	}
}

func TestParseReportsAllMistakesInOrder(t *testing.T) {
	t.Parallel()
	_, err := models.Parse(files("cat.yaml", edit(t, "name: cat", "name: Cat", "subject", "sujbect", "uint8", "u8", "299", "0", "softmax", "soft")), "cat.yaml")
	require.EqualError(t, err, strings.Join([]string{
		"cat.yaml:1: name: is Cat, want a DNS label: 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit",
		"cat.yaml:1: subject: is missing",
		"cat.yaml:3: sujbect: is not a field; did you mean subject?",
		"cat.yaml:9: input.dtype: is u8, want uint8 or float32",
		"cat.yaml:10: input.width: is 0, want a number from 1 to 2048",
		"cat.yaml:18: output.activation: is soft, want none or softmax",
	}, "\n"))
}

func TestParseBoundsItsReport(t *testing.T) {
	t.Parallel()
	_, err := models.Parse(files("cat.yaml", edit(t, "[282-286]", "["+strings.Repeat("x, ", 1000)+"]")), "cat.yaml")
	require.Error(t, err)
	lines := strings.Split(err.Error(), "\n")
	require.Len(t, lines, 21)
	require.Equal(t, "cat.yaml: 980 more mistakes", lines[20])
}

func TestParseRefusesWhatIsNoDefinition(t *testing.T) {
	t.Parallel()
	var bomb strings.Builder
	bomb.WriteString("name: &a0 [x]\n")
	for i := range 30 {
		fmt.Fprintf(&bomb, "k%d: &a%d [*a%d, *a%d]\n", i+1, i+1, i, i)
	}
	tests := []struct{ name, text, want string }{
		{"empty", "", "m.yaml:1: is empty"},
		{"comment", "# nothing\n", "m.yaml:1: is empty"},
		{"list", "- name: cat\n", "m.yaml:1: is a list, want fields (key: value)"},
		{"text", "\n\ncat", "m.yaml:3: is text (cat), want fields (key: value)"},
		{"not YAML", "name: cat\nquestion: \"Is it\n", "m.yaml:2: is not YAML: found unexpected end of stream"},
		{"not YAML on the first line", "{", "m.yaml:1: is not YAML: did not find expected node content"},
		{"bytes", "\x00\x01\x02", "m.yaml:1: is not YAML: control characters are not allowed"},
		{"two documents", cat + "---\n" + cat, "m.yaml:21: a second document begins, want one model a file"},
		{"two documents, the second broken", cat + "---\n{", "m.yaml:22: is not YAML"},
		{"alias bomb", bomb.String(), "m.yaml:1: name: has an anchor (&a0); anchors are not allowed"},
		{"alias", cat + "batching: {size: &x 3, slots: *x}\n", "m.yaml:21: batching.slots: is an alias (*x); write the value itself, aliases are not allowed"},
		{"too deep", strings.Repeat("[", 20000), "m.yaml:1: is not YAML: exceeded max depth of 10000"},
		{"too large", cat + "#" + strings.Repeat(" ", 64<<10), "m.yaml: is larger than the 64 KiB allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := models.Parse(files("m.yaml", tt.text), "m.yaml")
			require.ErrorContains(t, err, tt.want)
		})
	}
	_, err := models.Parse(files(), "m.yaml")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestParseRefusesBadLabelFiles(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text, want string }{
		{"empty", "", "l.txt is empty, want one label a line"},
		{"empty line", "cat\n\ndog\n", "l.txt:2: is empty, want one label a line"},
		{"blank last line", "cat\n \n", "l.txt:2: is empty, want one label a line"},
		{"not UTF-8", "cat\nd\xffg\n", "l.txt:2: is not UTF-8"},
		{"control character", "cat\x1b[31m\n", "l.txt:1: has a control character"},
		{"long line", "cat\n" + strings.Repeat("a", 257), "l.txt:2: has 257 bytes, a label has at most 256"},
		{"too many", strings.Repeat("a\n", 65537), "l.txt has more than 65536 lines"},
		{"too large", strings.Repeat("a", 1<<20+1), "l.txt: is larger than the 1024 KiB allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := models.Parse(files("cat.yaml", edit(t, "imagenet-1001", "l.txt"), "l.txt", tt.text), "cat.yaml")
			require.ErrorContains(t, err, "cat.yaml:19: output.labels: ")
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(cat, "cat\ndog\n")
	f.Add(resnet, "cat\ndog\nbird")
	f.Add(cat+"---\n"+cat, "")
	f.Add("name: &a [*a]\n<<: *a\n? {}\n: !!binary x\n", "\xff")
	f.Add("batching: {size: 0x10, slots: 1_0, queue: 1e3}\noutput: {yes: [1-, -1, 1-2-3, ~]}", "\ufeff")
	f.Fuzz(func(t *testing.T, definition, labels string) {
		m, err := models.Parse(files("d/m.yaml", definition, "d/labels.txt", labels), "d/m.yaml")
		if err != nil {
			require.True(t, strings.HasPrefix(err.Error(), "d/m.yaml"), "%v", err)
			return
		}
		require.NotEmpty(t, m.Labels)
		row := make([]float32, len(m.Labels))
		a, err := m.Interpret(row)
		if err == nil {
			require.Len(t, a.Top, min(m.Output.Top, len(row)))
			require.Equal(t, m.Question != "", a.Yes != nil)
		}
	})
}
