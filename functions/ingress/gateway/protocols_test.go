package gateway

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	v2 "github.com/ebb-inference/ebb/functions/ingress/gateway/v2"
)

func portraits(from, n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = portrait(from + i)
	}
	return all
}

func TestModelsAreListed(t *testing.T) {
	t.Parallel()
	require.JSONEq(t, `{"models":[
		{"name":"cat","question":"Is it a cat?","subject":"a cat","labels":3,"network":"inception_v3"},
		{"name":"dog","question":"Is it a dog?","subject":"a dog","labels":3,"network":"inception_v3"},
		{"name":"imagenet","labels":3,"network":"resnet50"}]}`,
		string(start(t, nil).call(t, http.MethodGet, "/v1/models", nil).body))
}

func TestV1StatusSpeaksToClientsOfBothKinds(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	for model, version := range map[string]string{"cat": "0", "dog": "3"} {
		require.JSONEq(t, fmt.Sprintf(`{"name":%q,"ready":true,"model_version_status":[
			{"version":%q,"state":"AVAILABLE","status":{"error_code":"OK","error_message":""}}]}`, model, version),
			string(w.call(t, http.MethodGet, "/v1/models/"+model, nil).body))
	}
	w.call(t, http.MethodGet, "/v1/models/cow", nil).requireError(t, 404, "cat, dog, imagenet")
}

func TestV1PredictAnswersEachPictureInItsPlace(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	pictures := portraits(100, 40)
	text := make([]string, len(pictures))
	for i, p := range pictures {
		text[i] = fmt.Sprintf(`{"b64":%q}`, base64.StdEncoding.EncodeToString(p))
	}
	list := "[" + strings.Join(text, ",") + "]"
	for name, tc := range map[string]struct {
		body     string
		answers  string
		pictures [][]byte
	}{
		"rows":                    {`{"instances":` + list + `}`, "predictions", pictures},
		"rows, one":               {`{"instances":[` + text[7] + `]}`, "predictions", pictures[7:8]},
		"rows of a named input":   {`{"signature_name":"serving_default","instances":[{"image_bytes":` + text[3] + `},{"image_bytes":` + text[4] + `}]}`, "predictions", pictures[3:5]},
		"column":                  {`{"inputs":` + list + `}`, "outputs", pictures},
		"column of a named input": {`{"inputs":{"image_bytes":` + list + `}}`, "outputs", pictures},
		"a single input":          {`{"inputs":` + text[5] + `}`, "outputs", pictures[5:6]},
		"a single named input":    {`{"inputs":{"image_bytes":` + text[5] + `}}`, "outputs", pictures[5:6]},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, model := range []string{"cat", "imagenet"} {
				a := w.call(t, http.MethodPost, "/v1/models/"+model+":predict", []byte(tc.body), "Content-Type", "application/json")
				require.Equal(t, 200, a.status, "%s", a.body)
				var got map[string][]ask.Result
				a.into(t, &got)
				require.Len(t, got, 1)
				require.Len(t, got[tc.answers], len(tc.pictures))
				for i := range tc.pictures {
					requireAnswer(t, &got[tc.answers][i], model, tc.pictures[i])
				}
			}
		})
	}
}

func TestV1PredictSaysWhatIsWrongInItsOwnForm(t *testing.T) {
	t.Parallel()
	w := start(t, func(s *setup) { s.MaxBytes, s.MaxBodyBytes, s.MaxInstances = 1000, 10_000, 3 })
	good := fmt.Sprintf(`{"b64":%q}`, base64.StdEncoding.EncodeToString(portrait(16)))
	large := fmt.Sprintf(`{"b64":%q}`, base64.StdEncoding.EncodeToString(make([]byte, 1001)))
	for name, tc := range map[string]struct {
		path, body string
		status     int
		text       string
	}{
		"unknown model":             {"cow", `{"instances":[` + good + `]}`, 404, "cat, dog, imagenet"},
		"nothing":                   {"cat", ``, 400, "ends too early"},
		"not JSON":                  {"cat", `<xml>`, 400, "mistake after 1 bytes"},
		"neither":                   {"cat", `{}`, 400, `either "instances" or "inputs"`},
		"both":                      {"cat", `{"instances":[` + good + `],"inputs":[` + good + `]}`, 400, `either "instances" or "inputs"`},
		"unknown member":            {"cat", `{"instance":[` + good + `]}`, 400, `"instance"`},
		"no instances":              {"cat", `{"instances":[]}`, 400, "may be 1 to 3"},
		"no inputs":                 {"cat", `{"inputs":[]}`, 400, "may be 1 to 3"},
		"too many":                  {"cat", `{"instances":[` + good + `,` + good + `,` + good + `,` + good + `]}`, 400, "There are 4"},
		"instances of another type": {"cat", `{"instances":7}`, 400, `"instances" cannot be of the type number`},
		"a number":                  {"cat", `{"instances":[7]}`, 400, "instances[0]: want"},
		"pixels":                    {"cat", `{"instances":[` + good + `,[[0,1],[2,3]]]}`, 400, "instances[1]: want"},
		"a string":                  {"cat", `{"instances":["AA=="]}`, 400, "instances[0]: want"},
		"two members":               {"cat", `{"instances":[{"b64":"AA==","x":1}]}`, 400, "instances[0]: want"},
		"nested twice":              {"cat", `{"instances":[{"a":{"b":` + good + `}}]}`, 400, "instances[0]: want"},
		"not base64":                {"cat", `{"instances":[{"b64":"cat!"}]}`, 400, "instances[0]: b64: not base64"},
		"a number in base64":        {"cat", `{"instances":[{"b64":7}]}`, 400, "instances[0]: b64: not base64"},
		"empty":                     {"cat", `{"instances":[{"b64":""}]}`, 400, "no picture"},
		"not a picture":             {"cat", `{"instances":[` + good + `,{"b64":"AAAA"}]}`, 415, "Picture 2 of 2: "},
		"a picture too large":       {"cat", `{"instances":[` + good + `,` + large + `]}`, 413, "Picture 2 of 2: "},
		"too large":                 {"cat", strings.Repeat(" ", 10_001), 413, "10000 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w.call(t, http.MethodPost, "/v1/models/"+tc.path+":predict", []byte(tc.body)).requireError(t, tc.status, tc.text)
			w.stream(t, http.MethodPost, "/v1/models/"+tc.path+":predict", []byte(tc.body)).requireError(t, tc.status, tc.text)
		})
	}
	t.Run("another verb", func(t *testing.T) {
		t.Parallel()
		w.call(t, http.MethodPost, "/v1/models/cat:classify", []byte("{}")).requireError(t, 405, "POST")
	})
	t.Run("another path", func(t *testing.T) {
		t.Parallel()
		w.call(t, http.MethodGet, "/v1/models/cat/metadata", nil).requireError(t, 404, "openapi.yaml")
	})
}

func TestOnePictureWithoutAnAnswerFailsTheWholeRequest(t *testing.T) {
	t.Parallel()
	pictures := portraits(200, 3)
	w := start(t, func(s *setup) {
		s.subscribe = func(_ *world, r *events.Request) *events.Result {
			if string(r.Data) == string(pictures[2]) {
				return failureOf(r, problem.New("picture-damaged", 422, "The picture is damaged", "Send another."))
			}
			return answerTo(r)
		}
	})
	w.call(t, http.MethodPost, "/v1/models/cat:predict", v1Body(pictures...)).requireError(t, 422, "The picture is damaged: Picture 3 of 3: Send another.")
	w.call(t, http.MethodPost, "/v2/models/cat/infer", v2Body(pictures...)).requireError(t, 422, "The picture is damaged: Picture 3 of 3: Send another.")
	w.call(t, http.MethodPost, "/v1/models/cat:predict", v1Body(pictures[2])).requireError(t, 422, "The picture is damaged: Send another.")
}

func TestV2DescribesServerAndModels(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	require.JSONEq(t, `{"name":"ebb","version":"test","extensions":["binary_tensor_data"]}`, string(w.call(t, http.MethodGet, "/v2", nil).body))
	require.JSONEq(t, `{"name":"cat","platform":"ebb","inputs":[{"name":"image","datatype":"BYTES","shape":[-1]}],"outputs":[
		{"name":"label","datatype":"BYTES","shape":[-1,2]},{"name":"probability","datatype":"FP32","shape":[-1,2]},
		{"name":"answer","datatype":"BOOL","shape":[-1]},{"name":"answer_probability","datatype":"FP32","shape":[-1]}]}`,
		string(w.call(t, http.MethodGet, "/v2/models/cat", nil).body))
	require.JSONEq(t, `{"name":"imagenet","platform":"ebb","inputs":[{"name":"image","datatype":"BYTES","shape":[-1]}],"outputs":[
		{"name":"label","datatype":"BYTES","shape":[-1,3]},{"name":"probability","datatype":"FP32","shape":[-1,3]}]}`,
		string(w.call(t, http.MethodGet, "/v2/models/imagenet", nil).body))
}

func TestV2VersionsAreThoseThatModelsAreBoundTo(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	require.Equal(t, []any{"3"}, w.call(t, http.MethodGet, "/v2/models/dog/versions/3", nil).json(t)["versions"])
	require.Equal(t, true, w.call(t, http.MethodGet, "/v2/models/dog/versions/3/ready", nil).json(t)["ready"])
	require.Equal(t, 200, w.call(t, http.MethodPost, "/v2/models/dog/versions/3/infer", v2Body(portrait(17))).status)
	for _, rest := range []string{"", "/ready"} {
		w.call(t, http.MethodGet, "/v2/models/dog/versions/4"+rest, nil).requireError(t, 404, "version 3")
		w.call(t, http.MethodGet, "/v2/models/cat/versions/0"+rest, nil).requireError(t, 404, "the latest answers")
		w.call(t, http.MethodGet, "/v2/models/cow/versions/3"+rest, nil).requireError(t, 404, "cat, dog, imagenet")
	}
	w.call(t, http.MethodPost, "/v2/models/dog/versions/4/infer", v2Body(portrait(17))).requireError(t, 404, "version 3")
}

type v2Answer struct {
	ModelName    string         `json:"model_name"`
	ModelVersion string         `json:"model_version"`
	ID           string         `json:"id"`
	Parameters   map[string]any `json:"parameters"`
	Outputs      []v2Output     `json:"outputs"`
}

type v2Output struct {
	Name       string         `json:"name"`
	Shape      []int          `json:"shape"`
	Datatype   string         `json:"datatype"`
	Parameters map[string]int `json:"parameters"`
	Data       []any          `json:"data"`
}

func (a *v2Answer) output(t *testing.T, name string) v2Output {
	t.Helper()
	for _, o := range a.Outputs {
		if o.Name == name {
			return o
		}
	}
	require.Fail(t, "no output "+name)
	return v2Output{}
}

func TestV2InferAnswersEachPictureInItsRow(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	pictures := portraits(300, 40)
	a := w.call(t, http.MethodPost, "/v2/models/cat/infer", v2Body(pictures...), "Content-Type", "application/json")
	require.Equal(t, 200, a.status, "%s", a.body)
	require.Empty(t, a.header.Get(v2.HeaderLength))
	var got v2Answer
	a.into(t, &got)
	require.Equal(t, "cat", got.ModelName)
	require.Equal(t, "3", got.ModelVersion)
	require.Equal(t, "mine", got.ID)
	require.Positive(t, got.Parameters["total_ms"])
	delete(got.Parameters, "total_ms")
	require.Equal(t, map[string]any{"served_model": "net-cat", "served_version": 3.0, "batch_size": 2.0,
		"queue_ms": 1.0, "decode_ms": 2.0, "batch_ms": 3.0, "compute_ms": 4.0}, got.Parameters)
	require.Len(t, got.Outputs, 4)
	require.Equal(t, []int{40, 2}, got.output(t, "label").Shape)
	require.Equal(t, []int{40, 2}, got.output(t, "probability").Shape)
	require.Equal(t, []int{40}, got.output(t, "answer").Shape)
	require.Equal(t, []int{40}, got.output(t, "answer_probability").Shape)
	for i, p := range pictures {
		yes, probability := yesTo(p)
		require.Equal(t, []any{fingerprint("cat", p), "something else"}, got.output(t, "label").Data[2*i:2*i+2])
		require.Equal(t, []any{0.5, 0.25}, got.output(t, "probability").Data[2*i:2*i+2])
		require.Equal(t, yes, got.output(t, "answer").Data[i])
		require.InDelta(t, probability, got.output(t, "answer_probability").Data[i], 1e-6)
	}

	a = w.call(t, http.MethodPost, "/v2/models/imagenet/infer", v2Body(pictures[:2]...))
	got = v2Answer{}
	a.into(t, &got)
	require.Len(t, got.Outputs, 2, "a model without a question has no answer")
	require.Equal(t, []any{fingerprint("imagenet", pictures[0]), "something else", fingerprint("imagenet", pictures[1]), "something else"}, got.output(t, "label").Data)
}

func TestV2InferWithBinaryTensors(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	pictures := portraits(400, 5)
	tensor := v2.AppendBytes(nil, pictures)
	send := func(members string) (header string, body []byte) {
		text := fmt.Sprintf(`{"inputs":[{"name":"image","shape":[5,1],"datatype":"BYTES","parameters":{"binary_data_size":%d}}]%s}`, len(tensor), members)
		return strconv.Itoa(len(text)), append([]byte(text), tensor...)
	}
	yes, sure := make([]byte, 5), []byte(nil)
	for i, p := range pictures {
		answer, probability := yesTo(p)
		if answer {
			yes[i] = 1
		}
		sure = binary.LittleEndian.AppendUint32(sure, math.Float32bits(float32(probability)))
	}

	t.Run("answered in JSON", func(t *testing.T) {
		t.Parallel()
		header, body := send("")
		a := w.call(t, http.MethodPost, "/v2/models/cat/infer", body, "Content-Type", "application/octet-stream", v2.HeaderLength, header)
		require.Equal(t, 200, a.status, "%s", a.body)
		var got v2Answer
		a.into(t, &got)
		for i, p := range pictures {
			require.Equal(t, fingerprint("cat", p), got.output(t, "label").Data[2*i])
		}
	})
	t.Run("answered in binary form", func(t *testing.T) {
		t.Parallel()
		header, body := send(`,"parameters":{"binary_data_output":true}`)
		a := w.call(t, http.MethodPost, "/v2/models/cat/infer", body, v2.HeaderLength, header)
		require.Equal(t, "application/octet-stream", a.header.Get("Content-Type"))
		n, err := strconv.Atoi(a.header.Get(v2.HeaderLength))
		require.NoError(t, err)
		var got v2Answer
		require.NoError(t, json.Unmarshal(a.body[:n], &got))
		rest := a.body[n:]
		labels, err := v2.DecodeBytes(rest[:got.output(t, "label").Parameters["binary_data_size"]], 10)
		require.NoError(t, err)
		for i, p := range pictures {
			require.Equal(t, fingerprint("cat", p), string(labels[2*i]))
		}
		rest = rest[got.output(t, "label").Parameters["binary_data_size"]:]
		rest = rest[got.output(t, "probability").Parameters["binary_data_size"]:]
		require.Equal(t, slices.Concat(yes, sure), rest)
	})
	t.Run("some outputs, in the order asked", func(t *testing.T) {
		t.Parallel()
		header, body := send(`,"outputs":[{"name":"answer","parameters":{"binary_data":true}},{"name":"label"}]`)
		a := w.call(t, http.MethodPost, "/v2/models/cat/infer", body, v2.HeaderLength, header)
		n, err := strconv.Atoi(a.header.Get(v2.HeaderLength))
		require.NoError(t, err)
		var got v2Answer
		require.NoError(t, json.Unmarshal(a.body[:n], &got))
		require.Len(t, got.Outputs, 2)
		require.Equal(t, "answer", got.Outputs[0].Name)
		require.Equal(t, map[string]int{"binary_data_size": 5}, got.Outputs[0].Parameters)
		require.Len(t, got.Outputs[1].Data, 10)
		require.Equal(t, yes, a.body[n:])
	})
}

func TestV2InferSaysWhatIsWrongInItsOwnForm(t *testing.T) {
	t.Parallel()
	w := start(t, func(s *setup) { s.MaxBytes, s.MaxBodyBytes, s.MaxInstances = 1000, 10_000, 3 })
	input := func(data string, n int) string {
		return fmt.Sprintf(`{"inputs":[{"name":"i","shape":[%d],"datatype":"BYTES","data":[%s]}]`, n, data)
	}
	good := strconv.Quote(base64.StdEncoding.EncodeToString(portrait(18)))
	for name, tc := range map[string]struct {
		model, body, header string
		status              int
		text                string
	}{
		"unknown model":        {"cow", input(good, 1) + "}", "", 404, "cat, dog, imagenet"},
		"nothing":              {"cat", "", "", 400, "JSON"},
		"another type":         {"cat", `{"inputs":[{"name":"i","shape":[1],"datatype":"FP32","data":[1]}]}`, "", 400, "is not BYTES"},
		"too many":             {"cat", input(good+","+good+","+good+","+good, 4) + "}", "", 400, "1 to 3 elements"},
		"unknown output":       {"cat", input(good, 1) + `,"outputs":[{"name":"classes"}]}`, "", 400, `no output "classes"`},
		"no answer to ask for": {"imagenet", input(good, 1) + `,"outputs":[{"name":"answer"}]}`, "", 400, `no output "answer"`},
		"not a picture":        {"cat", input(good+`,"AAAA"`, 2) + "}", "", 415, "Picture 2 of 2: "},
		"empty":                {"cat", input(`""`, 1) + "}", "", 400, "no picture"},
		"a picture too large":  {"cat", input(strconv.Quote(base64.StdEncoding.EncodeToString(make([]byte, 1001))), 1) + "}", "", 413, "1000 bytes"},
		"too large":            {"cat", strings.Repeat(" ", 10_001), "", 413, "10000 bytes"},
		"header beyond":        {"cat", "{}", "3", 400, "Inference-Header-Content-Length"},
		"header negative":      {"cat", "{}", "-2", 400, "Inference-Header-Content-Length"},
		"bytes without owner":  {"cat", input(good, 1) + "}junk", strconv.Itoa(len(input(good, 1) + "}")), 400, "4 bytes follow"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var headers []string
			if tc.header != "" {
				headers = []string{v2.HeaderLength, tc.header}
			}
			w.call(t, http.MethodPost, "/v2/models/"+tc.model+"/infer", []byte(tc.body), headers...).requireError(t, tc.status, tc.text)
		})
	}
	t.Cleanup(func() { require.LessOrEqual(t, len(w.delivered()), 1, "only the good picture beside one that is none") })
}
