package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/ebb-inference/ebb/events/problem"
)

// headerRequestID carries a request's id, in both directions. A client's own is taken when it is a UUID in its usual
// form; everything else becomes a new one. Inside, the request's header always has the id that counts.
const headerRequestID = "X-Request-Id"

func requestID(r *http.Request) string { return r.Header.Get(headerRequestID) }

// adopt gives a request the id that it has by its key, if it is not the one that it came with.
func adopt(w http.ResponseWriter, r *http.Request, id string) {
	r.Header.Set(headerRequestID, id)
	w.Header().Set(headerRequestID, id)
}

func acceptRequestID(sent string) string {
	if len(sent) == len("00000000-0000-0000-0000-000000000000") {
		if id, err := uuid.Parse(sent); err == nil {
			return id.String()
		}
	}
	return uuid.Must(uuid.NewV7()).String()
}

// observe gives each request its id, turns panics into 500 and writes the access log: one line a request, without
// anything of its body or query. Probes are logged for debugging only.
func (g *gateway) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		id := acceptRequestID(r.Header.Get(headerRequestID))
		r.Header.Set(headerRequestID, id)
		w.Header().Set(headerRequestID, id)
		trace.SpanFromContext(r.Context()).SetAttributes(attribute.String("ebb.request.id", id))
		rec := &recorder{ResponseWriter: w}
		defer func() { g.finish(rec, r, began, recover()) }()
		next.ServeHTTP(rec, r)
	})
}

// finish ends a request: what a panic left open is answered or broken off, and the line is written.
func (g *gateway) finish(rec *recorder, r *http.Request, began time.Time, panicked any) {
	broken := isAbort(panicked)
	if panicked != nil && !broken {
		g.Logger.ErrorContext(r.Context(), "panic", "request_id", requestID(r), "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
		if broken = rec.status != 0; !broken {
			fail(rec, r, problem.From(errPanic))
		}
	}
	level := slog.LevelInfo
	if isProbe(r) {
		level = slog.LevelDebug
	}
	g.Logger.LogAttrs(r.Context(), level, "request",
		slog.String("request_id", requestID(r)), slog.String("method", r.Method), slog.String("route", r.Pattern), slog.Int("status", rec.sent()),
		slog.Int64("bytes_in", r.ContentLength), slog.Int64("bytes_out", rec.bytes),
		slog.Float64("duration_ms", float64(time.Since(began))/float64(time.Millisecond)))
	if broken {
		panic(http.ErrAbortHandler) // the connection is closed, so that the client does not take a part for all
	}
}

var errPanic = errors.New("panic")

func isAbort(panicked any) bool {
	err, ok := panicked.(error)
	return ok && errors.Is(err, http.ErrAbortHandler)
}

// isProbe says whether a request is one of those that an orchestrator sends every few seconds.
func isProbe(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, "/health/") || strings.HasPrefix(r.URL.Path, "/v2/health/")
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (rec *recorder) WriteHeader(status int) {
	if rec.status == 0 && status >= 200 { // 1xx come before the answer
		rec.status = status
	}
	rec.ResponseWriter.WriteHeader(status)
}

func (rec *recorder) Write(p []byte) (int, error) {
	if rec.status == 0 {
		rec.status = http.StatusOK
	}
	n, err := rec.ResponseWriter.Write(p)
	rec.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

// sent is the status that the client saw: a handler that wrote nothing answered 200.
func (rec *recorder) sent() int {
	if rec.status == 0 {
		return http.StatusOK
	}
	return rec.status
}
