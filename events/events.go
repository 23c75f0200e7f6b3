// Package events is Ebb's event contract: the types and attributes of the CloudEvents that travel between functions,
// and how they are written to and read from HTTP.
//
// It knows nothing of models, tensors or pages. Everything that a function must agree on with another function, and
// nothing else, is here.
package events

import (
	"time"

	"github.com/ebb-inference/ebb/events/problem"
)

// The types of the events that Ebb sends.
const (
	// TypeRequested is a picture that waits for a model's answer. Triggers select it.
	TypeRequested = "dev.ebb.inference.requested.v1"
	// TypeCompleted is a model's answer. It travels on a reply queue, never through a broker.
	TypeCompleted = "dev.ebb.inference.completed.v1"
	// TypeFailed says why there is no answer, as problem details. It travels like TypeCompleted.
	TypeFailed = "dev.ebb.inference.failed.v1"
	// TypeCallbackDue says that a mailbox with a callback has got a result. A Trigger brings it to ingress, which calls.
	TypeCallbackDue = "dev.ebb.callback.due.v1"
)

// The extension attributes of a request event. CloudEvents allows lower-case letters and digits.
const (
	ExtModel         = "model"
	ExtReplyTo       = "replyto"
	ExtCorrelationID = "correlationid"
	ExtDeadline      = "deadline"
	ExtCallback      = "callback" // "true": somebody is to be called when the result is there
	ExtReplay        = "replay"   // "true": the event is a dead letter's, which is kept until this is answered
	ExtTraceParent   = "traceparent"
	ExtTraceState    = "tracestate"
)

// The extension attributes that a broker adds to an event that it could not deliver, as Knative names them.
const (
	ExtErrorDest = "knativeerrordest" // the URL that would not take it
	ExtErrorCode = "knativeerrorcode" // the HTTP status of the last attempt, -1 when there was no answer
)

// Request is one picture for one model: the request event, decoded.
type Request struct {
	ID            string    // UUIDv7 of the event: of one picture's question to one model; redeliveries repeat it
	Source        string    // "/ebb/ingress/<replica>"
	Time          time.Time // when ingress made it, UTC
	Model         string    // the model's name, as Triggers filter it
	ReplyTo       string    // name of the requester's reply queue
	CorrelationID string    // what the requester knows the request by
	Deadline      time.Time // after it nobody waits
	Callback      bool      // the requester wants a CallbackDue once a result is in its mailbox
	Replay        bool      // of a dead letter, which is still kept: should this be given up on, it need not be kept twice
	TraceParent   string    // W3C trace context; empty when there is none
	TraceState    string
	ContentType   string // the picture's media type, sniffed from Data
	Data          []byte // the encoded picture
}

// CallbackDue says that a result is in the mailbox of a request whose caller wants to be called. Whoever put it there
// answers the delivery of the request event with it, and the broker publishes the answer.
type CallbackDue struct {
	ID          string // of the event; the same each time that it is about the same result
	Source      string
	Time        time.Time
	RequestID   string // whose mailbox it is
	TraceParent string
	TraceState  string
}

// Result answers one Request. Exactly one of Answer and Problem is set.
type Result struct {
	ID            string // of the result event itself
	Source        string // "/ebb/dispatch/<model>/<replica>" or another function's
	Time          time.Time
	RequestID     string // the Request's ID
	CorrelationID string
	Model         string
	TraceParent   string
	TraceState    string
	Answer        *Answer          // with TypeCompleted
	Problem       *problem.Details // with TypeFailed
}

// Answer is the data of a TypeCompleted event: what the model said about one picture.
type Answer struct {
	Yes         *bool    `json:"answer,omitempty"`      // absent for a model without a question
	Probability *float64 `json:"probability,omitempty"` // that the answer is yes, 0 to 1; absent with Yes
	Top         []Class  `json:"top"`                   // most probable first
	ServedBy    ServedBy `json:"served_by"`
	Timing      Timing   `json:"timing_ms"`
	BatchSize   int      `json:"batch_size"` // how many items the model call carried
}

// Class is one class of a network with its probability, 0 to 1.
type Class struct {
	Label       string  `json:"label"`
	Probability float64 `json:"probability"`
}

// ServedBy names the network and the version that computed an answer.
type ServedBy struct {
	Model   string `json:"model"`
	Version int64  `json:"version"`
}

// Timing splits the time of one request, in milliseconds.
type Timing struct {
	Queue   float64 `json:"queue"`   // from the event's time until dispatch held it
	Decode  float64 `json:"decode"`  // picture to tensor
	Batch   float64 `json:"batch"`   // waiting for a free slot
	Compute float64 `json:"compute"` // the model call
}
