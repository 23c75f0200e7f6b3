package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/ebb-inference/ebb/events/problem"
)

// v1Status answers GET /v1/models/{model} with what TensorFlow Serving and KServe's V1 say: both sets of members. A model
// is available when a question about it would be taken, even if nothing of it runs at the moment: asking starts it. The
// version is the one that the model is bound to, or 0, which stands for the latest.
func (g *gateway) v1Status(w http.ResponseWriter, r *http.Request) {
	m, failure := g.named(r)
	if failure != nil {
		fail(w, r, failure)
		return
	}
	state, code, message := "AVAILABLE", "OK", ""
	err := g.Service.Ready()
	if err != nil {
		state, code, message = "LOADING", "UNAVAILABLE", err.Error()
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"name":  m.Name,
		"ready": err == nil,
		"model_version_status": []any{map[string]any{
			"version": m.versionText(), "state": state,
			"status": map[string]string{"error_code": code, "error_message": message},
		}},
	})
}

// v1Request is TensorFlow Serving's predict request: instances in rows, or inputs in a column. Each picture is
// {"b64": "…"}, or that under the name of one input.
type v1Request struct {
	SignatureName string            `json:"signature_name"` // passed over: a model here has one
	Instances     []json.RawMessage `json:"instances"`
	Inputs        json.RawMessage   `json:"inputs"`
}

// v1Predict answers POST /v1/models/{model}:predict: instances with predictions, inputs with outputs, in their order.
func (g *gateway) v1Predict(w http.ResponseWriter, r *http.Request) {
	m, failure := g.named(r)
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
	pictures, answerName, failure := g.v1Pictures(b.data)
	if failure != nil {
		fail(w, r, failure)
		return
	}
	b.shrinkTo(pictures)
	results, failed := g.askEach(ctx, requestID(r), m.Name, pictures)
	if failed != nil {
		fail(w, r, failed.about(len(pictures)))
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{answerName: results})
}

// v1Pictures takes a request apart into its pictures, and says under what name the answers go back.
func (g *gateway) v1Pictures(data []byte) (pictures [][]byte, answerName string, _ *problem.Details) {
	var in v1Request
	if failure := decodeJSON(data, &in); failure != nil {
		return nil, "", failure
	}
	rows, where, answerName := in.Instances, "instances", "predictions"
	switch {
	case (in.Instances == nil) == (in.Inputs == nil):
		return nil, "", badRequest(`The JSON needs either "instances" or "inputs".`)
	case in.Inputs != nil:
		where, answerName = "inputs", "outputs"
		rows = column(in.Inputs)
	}
	if len(rows) == 0 || len(rows) > g.MaxInstances {
		return nil, "", badRequest("There are %d pictures in %q; there may be 1 to %d.", len(rows), where, g.MaxInstances)
	}
	pictures = make([][]byte, len(rows))
	for i, row := range rows {
		var err error
		if pictures[i], err = v1Picture(row); err != nil {
			return nil, "", badRequest(`%s[%d]: %v.`, where, i, err)
		}
		if failure := g.checkSize(i, len(rows), pictures[i]); failure != nil {
			return nil, "", failure
		}
	}
	return pictures, answerName, nil
}

// column takes a tensor apart into its elements: {"name": tensor} with one name, a list, or a single element.
func column(inputs json.RawMessage) []json.RawMessage {
	if one, ok := onlyMember(inputs); ok && one.name != "b64" {
		inputs = one.value
	}
	var list []json.RawMessage
	if json.Unmarshal(inputs, &list) == nil {
		return list
	}
	return []json.RawMessage{inputs}
}

// v1Picture reads {"b64": "…"} or {"name": {"b64": "…"}}.
func v1Picture(row json.RawMessage) ([]byte, error) {
	one, ok := onlyMember(row)
	if ok && one.name != "b64" {
		one, ok = onlyMember(one.value)
	}
	if !ok || one.name != "b64" {
		return nil, errors.New(`want {"b64": "…"}, or that under the name of one input`)
	}
	var picture []byte
	if err := json.Unmarshal(one.value, &picture); err != nil {
		return nil, errors.New("b64: not base64")
	}
	return picture, nil
}

type member struct {
	name  string
	value json.RawMessage
}

// onlyMember is the member of an object that has just one.
func onlyMember(object json.RawMessage) (member, bool) {
	var members map[string]json.RawMessage
	if json.Unmarshal(object, &members) != nil || len(members) != 1 {
		return member{}, false
	}
	for name, value := range members {
		return member{name: name, value: value}, true
	}
	return member{}, false
}

// checkSize holds one of several pictures to the bound of each.
func (g *gateway) checkSize(i, pictures int, picture []byte) *problem.Details {
	if int64(len(picture)) <= g.MaxBytes {
		return nil
	}
	return (&failed{index: i, problem: pictureTooLarge(g.MaxBytes)}).about(pictures)
}
