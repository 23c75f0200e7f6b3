// Package ask answers questions about pictures: it validates a picture, sends one request event a model, waits for the
// replies and gathers them. It is what every way in (page, REST, V1, V2) has in common, and knows none of them.
package ask

import (
	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
)

// Question is one picture and the models that shall look at it.
type Question struct {
	ID      string   // UUIDv7; empty: a new one
	Picture []byte   // the encoded picture
	Models  []string // names, in the order of the answers
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
