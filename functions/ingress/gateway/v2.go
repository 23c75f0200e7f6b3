package gateway

import (
	"context"
	"net/http"
	"strconv"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	v2 "github.com/ebb-inference/ebb/functions/ingress/gateway/v2"
)

// The names of V2's tensors.
const (
	inputImage              = "image"
	outputLabel             = "label"
	outputProbability       = "probability"
	outputAnswer            = "answer"
	outputAnswerProbability = "answer_probability"
)

// v2Server answers GET /v2.
func (g *gateway) v2Server(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"name": "ebb", "version": g.Version, "extensions": []string{"binary_tensor_data"},
	})
}

// v2Live answers GET /v2/health/live.
func (g *gateway) v2Live(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]bool{"live": true})
}

// v2Ready answers GET /v2/health/ready.
func (g *gateway) v2Ready(w http.ResponseWriter, _ *http.Request) {
	ready := g.Service.Ready() == nil
	writeJSON(w, readyStatus(ready), map[string]bool{"ready": ready})
}

// v2ModelReady answers GET /v2/models/{model}/ready.
func (g *gateway) v2ModelReady(w http.ResponseWriter, r *http.Request) {
	m, failure := g.versioned(r)
	if failure != nil {
		fail(w, r, failure)
		return
	}
	ready := g.Service.Ready() == nil
	writeJSON(w, readyStatus(ready), map[string]any{"name": m.Name, "ready": ready})
}

func readyStatus(ready bool) int {
	if ready {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

// versioned finds the model that the path names, in the version that it names, if it does.
func (g *gateway) versioned(r *http.Request) (*model, *problem.Details) {
	m, failure := g.named(r)
	if failure != nil {
		return nil, failure
	}
	if v := r.PathValue("version"); v != "" && (m.version == 0 || v != m.versionText()) {
		return nil, unknownVersion(m.Name, v, m.version)
	}
	return m, nil
}

type v2Metadata struct {
	Name     string         `json:"name"`
	Versions []string       `json:"versions,omitempty"`
	Platform string         `json:"platform"`
	Inputs   []v2TensorMeta `json:"inputs"`
	Outputs  []v2TensorMeta `json:"outputs"`
}

type v2TensorMeta struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"` // -1: any
}

// v2Model answers GET /v2/models/{model}.
func (g *gateway) v2Model(w http.ResponseWriter, r *http.Request) {
	m, failure := g.versioned(r)
	if failure != nil {
		fail(w, r, failure)
		return
	}
	top := int64(m.top)
	meta := v2Metadata{
		Name: m.Name, Platform: "ebb",
		Inputs: []v2TensorMeta{{inputImage, v2.Bytes, []int64{-1}}},
		Outputs: []v2TensorMeta{
			{outputLabel, v2.Bytes, []int64{-1, top}},
			{outputProbability, v2.FP32, []int64{-1, top}},
		},
	}
	if m.version != 0 {
		meta.Versions = []string{m.versionText()}
	}
	if m.Question != "" {
		meta.Outputs = append(meta.Outputs,
			v2TensorMeta{outputAnswer, v2.Bool, []int64{-1}},
			v2TensorMeta{outputAnswerProbability, v2.FP32, []int64{-1}})
	}
	writeJSON(w, http.StatusOK, meta)
}

// v2Infer answers POST /v2/models/{model}/infer: one BYTES tensor of pictures in, the answers' tensors out.
func (g *gateway) v2Infer(w http.ResponseWriter, r *http.Request) {
	m, failure := g.versioned(r)
	if failure != nil {
		fail(w, r, failure)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience(w, r))
	defer cancel()
	b, failure := g.read(w, r, g.MaxBodyBytes, jsonFactor)
	if failure != nil {
		fail(w, r, failure)
		return
	}
	defer b.release()
	in, err := v2.ParseRequest(b.data, r.Header.Get(v2.HeaderLength), g.MaxInstances)
	if err == nil {
		// What cannot be answered is refused before anything is asked.
		_, err = in.Select(m.tensors(nil))
	}
	if err != nil {
		fail(w, r, badRequest("%v.", err))
		return
	}
	for i, picture := range in.Elements {
		if failure := g.checkSize(i, len(in.Elements), picture); failure != nil {
			fail(w, r, failure)
			return
		}
	}
	b.shrinkTo(in.Elements)
	results, failed := g.askEach(ctx, requestID(r), m.Name, in.Elements)
	if failed != nil {
		fail(w, r, failed.about(len(in.Elements)))
		return
	}
	outputs, err := in.Select(m.tensors(results))
	if err != nil { // the names were checked before
		fail(w, r, problem.From(err))
		return
	}
	g.v2Answer(w, r, &v2.Response{
		ModelName: m.Name, ModelVersion: strconv.FormatInt(results[0].ServedBy.Version, 10), ID: in.ID,
		Parameters: v2Parameters(results), Outputs: outputs,
	})
}

func (g *gateway) v2Answer(w http.ResponseWriter, r *http.Request, response *v2.Response) {
	data, header, err := response.Encode()
	if err != nil {
		g.Logger.ErrorContext(r.Context(), "answer not written", "request_id", requestID(r), "error", err)
		fail(w, r, problem.From(err))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if header > 0 {
		h.Set("Content-Type", "application/octet-stream")
		h.Set(v2.HeaderLength, strconv.Itoa(header))
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(data) // the client hung up: nobody is left to tell
}

// tensors writes answers as tensors: a row an answer. The classes of an answer are as many as the shortest answer has,
// because rows have one length; answers to one request differ only while a model is being replaced.
func (m *model) tensors(results []ask.Result) []v2.Tensor {
	n, k := len(results), m.top
	yesNo := m.Question != ""
	for i := range results {
		k = min(k, len(results[i].Top))
		yesNo = yesNo && results[i].Answer != nil && results[i].Probability != nil
	}
	label := v2.Tensor{Name: outputLabel, Datatype: v2.Bytes, Shape: []int64{int64(n), int64(k)}, Strings: make([]string, 0, n*k)}
	probability := v2.Tensor{Name: outputProbability, Datatype: v2.FP32, Shape: label.Shape, Floats: make([]float32, 0, n*k)}
	for i := range results {
		for _, class := range results[i].Top[:k] {
			label.Strings = append(label.Strings, class.Label)
			probability.Floats = append(probability.Floats, float32(class.Probability))
		}
	}
	if !yesNo {
		return []v2.Tensor{label, probability}
	}
	answer := v2.Tensor{Name: outputAnswer, Datatype: v2.Bool, Shape: []int64{int64(n)}, Bools: make([]bool, n)}
	sure := v2.Tensor{Name: outputAnswerProbability, Datatype: v2.FP32, Shape: answer.Shape, Floats: make([]float32, n)}
	for i := range results {
		answer.Bools[i], sure.Floats[i] = *results[i].Answer, float32(*results[i].Probability)
	}
	return []v2.Tensor{label, probability, answer, sure}
}

// v2Parameters says what answered, and where the time of the slowest picture went.
func v2Parameters(results []ask.Result) map[string]any {
	slowest := &results[0]
	for i := range results {
		if results[i].Timing.Total > slowest.Timing.Total {
			slowest = &results[i]
		}
	}
	t := slowest.Timing
	return map[string]any{
		"served_model": slowest.ServedBy.Model, "served_version": slowest.ServedBy.Version, "batch_size": slowest.BatchSize,
		"total_ms": t.Total, "queue_ms": t.Queue, "decode_ms": t.Decode, "batch_ms": t.Batch, "compute_ms": t.Compute,
	}
}
