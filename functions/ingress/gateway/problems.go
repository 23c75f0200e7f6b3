package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
)

// The codes of the problems that the gateway finds itself: the last part of problem.Details.Type.
const (
	codeNoSuchPath = "no-such-path"          // 404
	codeMethod     = "method-not-allowed"    // 405
	codeTooLarge   = "too-large"             // 413
	codeEncoding   = "encoding-not-accepted" // 415: compressed, or a form that is not known
	codeRequest    = "bad-request"           // 400
	codeIncomplete = "incomplete"            // 400: the body ended early
	codeSlow       = "too-slow"              // 408
	codeBusy       = "busy"                  // 503: no memory for another body
	codeNoFetching = "addresses-refused"     // 422
	codeNoVersion  = "unknown-version"       // 404
	codeInternal   = "internal"              // 500
	mostPathShown  = 100
)

// fail answers with a problem, in the form that the clients of the request's path know: {"error": "…"} for V1 and V2,
// problem details for the rest. The status and Retry-After are the same. What is left of the request's body is dropped.
func fail(w http.ResponseWriter, r *http.Request, p *problem.Details) {
	drain(r)
	if !wantsPlainError(r.URL.Path) {
		if p.Instance == "" {
			own := *p
			own.Instance = problem.InstanceOf(requestID(r))
			p = &own
		}
		problem.Write(w, p)
		return
	}
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	writeJSON(w, p.Status, map[string]string{"error": p.Error()})
}

// wantsPlainError says whether a path belongs to V1 or V2. The list at /v1/models is Ebb's own.
func wantsPlainError(path string) bool {
	return strings.HasPrefix(path, "/v1/models/") || path == "/v2" || strings.HasPrefix(path, "/v2/")
}

// writeJSON answers with v, which must be something that marshals.
func writeJSON(w http.ResponseWriter, status int, v any) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false) // people read it too, and browsers take it for nothing but JSON
	if err := encoder.Encode(v); err != nil {
		problem.Write(w, problem.From(err))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	_, _ = body.WriteTo(w) // the client hung up: nobody is left to tell
	// The client has its answer before the request's span, metrics and log line are written, which may be slow. It fails when the
	// client hung up, or the server cannot, and then the answer goes out, or does not, when the handler returns.
	_ = http.NewResponseController(w).Flush()
}

func badRequest(format string, args ...any) *problem.Details {
	return problem.New(codeRequest, http.StatusBadRequest, "The request makes no sense", fmt.Sprintf(format, args...))
}

func noSuchPath(r *http.Request) *problem.Details {
	path := r.URL.Path
	if len(path) > mostPathShown {
		path = strings.ToValidUTF8(path[:mostPathShown], "") + "…"
	}
	return problem.New(codeNoSuchPath, http.StatusNotFound, "There is nothing here",
		fmt.Sprintf("There is no %q. The API is described at /openapi.yaml.", path))
}

func wrongMethod(r *http.Request, allow string) *problem.Details {
	return problem.New(codeMethod, http.StatusMethodNotAllowed, "The method is not allowed here",
		fmt.Sprintf("The method is %.16s; it can be %s.", r.Method, allow))
}

func tooLarge(limit int64) *problem.Details {
	return problem.New(codeTooLarge, http.StatusRequestEntityTooLarge, "The request is too large",
		fmt.Sprintf("Its body may have %d bytes. Send a smaller picture, or fewer at a time.", limit))
}

func pictureTooLarge(limit int64) *problem.Details {
	return problem.New(codeTooLarge, http.StatusRequestEntityTooLarge, "The picture is too large",
		fmt.Sprintf("A picture may have %d bytes. Send a smaller one.", limit))
}

func fieldTooLarge(name string, limit int64) *problem.Details {
	return problem.New(codeTooLarge, http.StatusRequestEntityTooLarge, "The request is too large",
		fmt.Sprintf("A field %q may have %d bytes.", name, limit))
}

func wrongEncoding(detail string) *problem.Details {
	return problem.New(codeEncoding, http.StatusUnsupportedMediaType, "The request has a form that is not accepted", detail)
}

func busy() *problem.Details {
	p := problem.New(codeBusy, http.StatusServiceUnavailable, "Too many requests at once",
		"There is no room for another picture at the moment. Try again in a moment.")
	p.RetryAfter = 1
	return p
}

func noFetching() *problem.Details {
	return problem.New(codeNoFetching, http.StatusUnprocessableEntity, "Addresses are not accepted here",
		"This server does not fetch pictures. Send the picture itself.")
}

func unknownVersion(model string, version string, pinned int64) *problem.Details {
	detail := fmt.Sprintf("Model %q has no version %.32q that could be asked for: the latest answers. Leave the version out.", model, version)
	if pinned != 0 {
		detail = fmt.Sprintf("Model %q is served in version %d, not %.32q.", model, pinned, version)
	}
	return problem.New(codeNoVersion, http.StatusNotFound, "Unknown version", detail)
}

// unreadable is the problem of a body that could not be read to its end.
func unreadable(r *http.Request, err error) *problem.Details {
	var tooMuch *http.MaxBytesError
	switch {
	case errors.As(err, &tooMuch):
		return tooLarge(tooMuch.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return problem.New(codeSlow, http.StatusRequestTimeout, "The request took too long to arrive",
			"The body did not arrive in time. Send a smaller picture, or use a faster connection.")
	case errors.Is(r.Context().Err(), context.Canceled):
		return problem.New(ask.CodeCallerGone, ask.StatusClientGone, "The caller is gone", "The request was cancelled while it was read.")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return problem.New(codeIncomplete, http.StatusBadRequest, "The request is not complete",
			"The body ended before its announced end. Send it again.")
	default:
		return badRequest("The body cannot be read: it breaks the rules of HTTP.")
	}
}
