// Package ask answers questions about pictures: it validates a picture, sends one request event a model, waits for the
// replies and gathers them. It is what every way in (page, REST, V1, V2) has in common, and knows none of them.
package ask

import (
	"net/http"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
)

// Question is one picture and the models that shall look at it.
type Question struct {
	ID      string   // UUIDv7; empty: a new one
	Picture []byte   // the encoded picture; all events share it, so it must not change until Ask has returned
	Models  []string // names, in the order of the answers; a model that is named twice is asked once
	// Key names the question for whoever may send it again (see ValidKey); empty: it is a new one each time. The request's
	// id is then made of the key, the models and the picture, and what is being computed for it is not computed twice.
	Key      string
	Callback string // for AskLater: the address that is called when the answer is there; empty: none
}

// Response is what POST /v1/infer answers: one result a model, in the order asked.
type Response struct {
	ID      string   `json:"id"`
	Results []Result `json:"results"`
}

// Result is one model's answer, or Error when there is none.
type Result struct {
	Model       string           `json:"model"`
	Question    string           `json:"question,omitempty"`
	Answer      *bool            `json:"answer,omitempty"`
	Probability *float64         `json:"probability,omitempty"`
	Top         []events.Class   `json:"top,omitempty"`
	ServedBy    *events.ServedBy `json:"served_by,omitempty"`
	Timing      *Timing          `json:"timing_ms,omitempty"`
	BatchSize   int              `json:"batch_size,omitempty"`
	Error       *problem.Details `json:"error,omitempty"`
}

// Timing is a request's time as its caller saw it, in milliseconds: Total, and where dispatch says that it went.
type Timing struct {
	Total float64 `json:"total"`
	events.Timing
}

// Status is the HTTP status of a response: 200 when at least one result has an answer, else that of the first error.
func Status(r *Response) int {
	for i := range r.Results {
		if r.Results[i].Error == nil {
			return http.StatusOK
		}
	}
	if len(r.Results) == 0 {
		return http.StatusInternalServerError
	}
	return r.Results[0].Error.Status
}
