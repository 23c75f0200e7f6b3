// Package problem is RFC 9457 problem details: the one form in which every function of Ebb tells a caller what went
// wrong and what to do about it. It knows nothing of who went wrong.
package problem

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
)

// ContentType is the media type of problem details.
const ContentType = "application/problem+json"

// What comes before a code in a problem's type, and before a request's id in its instance.
const (
	typePrefix     = "urn:ebb:problem:"
	instancePrefix = "urn:uuid:"
)

// Details is one problem. It is an error, so that a function can return what a caller shall read.
//
//nolint:errname // RFC 9457 calls it so, and it is more than an error
type Details struct {
	Type     string `json:"type"`               // "urn:ebb:problem:<code>", stable, for programs
	Title    string `json:"title"`              // the kind of problem, the same each time
	Status   int    `json:"status"`             // HTTP status
	Detail   string `json:"detail,omitempty"`   // this occurrence, and what to do
	Instance string `json:"instance,omitempty"` // the request, as "urn:uuid:<id>"; see InstanceOf
	// RetryAfter, in whole seconds, says when to come back; 0 says nothing. Over HTTP it is also the Retry-After header.
	RetryAfter int `json:"retry_after,omitempty"`
	// Attempts is how often it was tried before it was given up; 0 says nothing.
	Attempts int `json:"attempts,omitempty"`
}

// New makes a problem: code names its kind for programs, title for people, detail says what happened this time and what
// to do about it.
func New(code string, status int, title, detail string) *Details {
	return &Details{Type: typePrefix + code, Title: title, Status: status, Detail: detail}
}

// Code is the kind of problem that New was given.
func (d *Details) Code() string { return strings.TrimPrefix(d.Type, typePrefix) }

// InstanceOf is the Instance of a problem of the request with this id.
func InstanceOf(requestID string) string { return instancePrefix + requestID }

// RequestID is the id that Instance was made of; empty when it names no request.
func (d *Details) RequestID() string {
	id, ok := strings.CutPrefix(d.Instance, instancePrefix)
	if !ok {
		return ""
	}
	return id
}

// Error is the problem in one line.
func (d *Details) Error() string {
	if d.Detail == "" {
		return d.Title
	}
	return d.Title + ": " + d.Detail
}

// From returns the problem that err is or wraps. Any other error is an internal one, whose text stays inside: log it
// before. From(nil) is nil.
func From(err error) *Details {
	if err == nil {
		return nil
	}
	var d *Details
	if errors.As(err, &d) && d != nil {
		return d
	}
	return New("internal", http.StatusInternalServerError, "Internal error",
		"Something failed that should not have. Try again; if it stays, tell the operator the time and the request's id.")
}

// Write answers with d. A status that is not an error's becomes 500: a caller must not take a problem for success.
func Write(w http.ResponseWriter, d *Details) {
	out := *d
	if out.Status < 400 || out.Status > 599 {
		out.Status = http.StatusInternalServerError
	}
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)                 // people read it too, and browsers take it for nothing but JSON
	if err := encoder.Encode(&out); err != nil { // strings and numbers always marshal
		http.Error(w, http.StatusText(out.Status), out.Status)
		return
	}
	h := w.Header()
	h.Set("Content-Type", ContentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if out.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(out.RetryAfter))
	}
	w.WriteHeader(out.Status)
	_, _ = body.WriteTo(w) // the caller hung up: nobody is left to tell
}
