// Package problem is RFC 9457 problem details: the one form in which every function of Ebb tells a caller what went
// wrong and what to do about it. It knows nothing of who went wrong.
package problem

// Details is one problem. It is an error, so that a function can return what a caller shall read.
type Details struct {
	Type     string `json:"type"`               // "urn:ebb:problem:<code>", stable, for programs
	Title    string `json:"title"`              // the kind of problem, the same each time
	Status   int    `json:"status"`             // HTTP status
	Detail   string `json:"detail,omitempty"`   // this occurrence, and what to do
	Instance string `json:"instance,omitempty"` // the request, as "urn:uuid:<id>"
	// RetryAfter, in whole seconds, says when to come back; 0 says nothing. Over HTTP it is also the Retry-After header.
	RetryAfter int `json:"retry_after,omitempty"`
}
