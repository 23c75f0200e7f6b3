// Package sink receives what a Trigger gave up on: it tells the requester, who would otherwise wait until the deadline,
// and puts the event's facts on record. The picture itself is not kept.
//
// The dead letter of a request is the request event with two more attributes: knativeerrordest, the subscriber that would
// not take it, and knativeerrorcode, the last status that it answered. Anything else is recorded and acknowledged:
// there is no further place for a dead letter to go.
package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/events/reply"
)

const scope = "github.com/ebb-inference/ebb/functions/deadletter/sink"

// What can become of a dead letter: the values of the attribute "outcome".
const (
	outcomeTold       = "told"       // the requester knows that there will be no answer
	outcomeExpired    = "expired"    // nobody waits any more
	outcomeUnroutable = "unroutable" // the requester is gone
	outcomeUnknown    = "unknown"    // not a request event, or one that does not say whom to tell
	outcomeRetried    = "retried"    // the requester could not be told now: it comes back
)

// Config is what a Sink is made of. Responder is required; zero values of the rest are the defaults.
type Config struct {
	Responder reply.Responder
	Replica   string        // which replica this is, in the source of results; default the host's name
	MaxBytes  int64         // of a dead letter's data that are read, though not kept; default 16 MiB
	Timeout   time.Duration // for telling a requester; default 10 s
	Logger    *slog.Logger  // where dead letters are recorded; default slog.Default()
}

// Sink is an http.Handler for dead letters.
type Sink struct {
	Config
	source  string
	tracer  trace.Tracer
	letters metric.Int64Counter
}

// New makes a Sink. There is nothing to stop: it works while a delivery is under way.
func New(c Config) (*Sink, error) {
	if c.Responder == nil {
		return nil, errors.New("sink: no responder")
	}
	if c.Replica == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("sink: no replica is named, and the host has no name: %w", err)
		}
		c.Replica = name
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = 16 << 20
	}
	if c.Timeout <= 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	letters, err := otel.Meter(scope).Int64Counter("ebb.deadletter.events", metric.WithDescription("Dead letters, by what became of them."))
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	return &Sink{Config: c, source: "/ebb/deadletter/" + c.Replica, tracer: otel.Tracer(scope), letters: letters}, nil
}

// ServeHTTP takes one dead letter: POST, an event in binary mode. It answers 204 when it is done with it, or 200 with an
// event for the broker to publish, which says that somebody is to be called about it; and 503 when it is to be delivered
// again because the requester could not be told.
func (s *Sink) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		rw.Header().Set("Allow", http.MethodPost)
		problem.Write(rw, problem.New("method-not-allowed", http.StatusMethodNotAllowed, "Method not allowed", "Events are delivered by POST."))
		return
	}
	// Reading what is not kept lets the connection serve the next letter. How far it got is on record.
	read, readErr := io.Copy(io.Discard, http.MaxBytesReader(rw, req.Body, s.MaxBytes))
	l, err := parse(req.Header)
	l.bytes = read

	ctx, cancel := context.WithTimeout(req.Context(), s.Timeout)
	defer cancel()
	ctx, span := s.start(ctx, l)
	defer span.End()
	outcome := outcomeUnknown
	if err == nil {
		outcome, err = s.tell(ctx, l)
	}
	span.SetAttributes(attribute.String("outcome", outcome))
	model := l.model
	if outcome == outcomeUnknown {
		model = "" // it may be anything, and each value is a time series
	}
	s.letters.Add(ctx, 1, metric.WithAttributes(attribute.String("model", model), attribute.String("outcome", outcome)))
	s.record(ctx, l, outcome, errors.Join(err, readErr))

	if outcome == outcomeRetried {
		p := problem.New("unavailable", http.StatusServiceUnavailable, "The requester could not be told", "Deliver the event again in a moment.")
		p.RetryAfter = 1
		problem.Write(rw, p)
		return
	}
	if id, ok := reply.MailboxID(l.replyTo); ok && l.callback && outcome == outcomeTold {
		due := &events.CallbackDue{
			ID: "callback-" + l.id, Source: s.source, Time: time.Now().UTC(), RequestID: id, TraceParent: l.traceParent, TraceState: l.traceState,
		}
		if due.WriteTo(rw.Header()) == nil { // what could not be written would not have been told
			rw.WriteHeader(http.StatusOK)
			return
		}
	}
	rw.WriteHeader(http.StatusNoContent)
}

// tell sends the requester a failed result. An error comes with any outcome but told and expired.
func (s *Sink) tell(ctx context.Context, l letter) (outcome string, err error) {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	result := &events.Result{
		ID:            uuid.Must(uuid.NewV7()).String(), // fails only without randomness, which ends the program anyway
		Source:        s.source,
		Time:          time.Now().UTC(),
		RequestID:     l.id,
		CorrelationID: l.correlationID,
		Model:         l.model,
		TraceParent:   carrier[events.ExtTraceParent],
		TraceState:    carrier[events.ExtTraceState],
		Problem:       gaveUp(l),
	}
	if _, err := result.Event(); err != nil {
		return outcomeUnknown, err
	}
	// Who asked asynchronously comes to look later.
	if _, later := reply.MailboxID(l.replyTo); !later && !time.Now().Before(l.deadline) {
		return outcomeExpired, nil
	}
	switch err := s.Responder.Respond(ctx, l.replyTo, result); {
	case err == nil:
		return outcomeTold, nil
	case errors.Is(err, reply.ErrNoRequester):
		return outcomeUnroutable, err
	case errors.Is(err, reply.ErrBadAddress):
		return outcomeUnknown, err
	default:
		return outcomeRetried, err
	}
}

// gaveUp is what the requester is told: whether asking again makes sense depends on what the last attempt met.
func gaveUp(l letter) *problem.Details {
	var p *problem.Details
	switch l.status {
	case -1, http.StatusRequestTimeout, http.StatusGatewayTimeout:
		p = problem.New("no-answer", http.StatusGatewayTimeout, "The model did not answer",
			"Several attempts were made, and the last one had no answer in time. Try again in a while; if it stays, tell the operator.")
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		p = problem.New("model-unavailable", http.StatusServiceUnavailable, "The model is not available",
			fmt.Sprintf("Several attempts were made, and the last one was answered with status %d: the model is overloaded, or away. Try again in a while.", l.status))
		p.RetryAfter = 10
	default:
		p = problem.New("gave-up", http.StatusBadGateway, "The model failed",
			fmt.Sprintf("Several attempts were made, and the last one was answered with status %s. Tell the operator the request's id.", l.statusText()))
	}
	p.Instance = problem.InstanceOf(l.id)
	return p
}

// start starts a span that continues the event's trace.
func (s *Sink) start(ctx context.Context, l letter) (context.Context, trace.Span) {
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{
		events.ExtTraceParent: l.traceParent, events.ExtTraceState: l.traceState,
	})
	return s.tracer.Start(ctx, "deadletter", trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("model", clip(l.model)), attribute.String("cloudevents.event_id", clip(l.id))))
}

// record puts what is known of a dead letter into the log.
func (s *Sink) record(ctx context.Context, l letter, outcome string, err error) {
	attrs := []slog.Attr{
		slog.String("outcome", outcome), slog.String("event_id", clip(l.id)), slog.String("event_type", clip(l.typ)),
		slog.String("event_source", clip(l.from)), slog.String("model", clip(l.model)), slog.Time("event_time", l.time),
		slog.Time("deadline", l.deadline), slog.String("destination", clip(l.destination)),
		slog.String("status", l.statusText()), slog.Int64("bytes", l.bytes),
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	s.Logger.LogAttrs(ctx, slog.LevelWarn, "dead letter", attrs...)
}

// longest is how much of a sender's text goes into a log line.
const longest = 256

func clip(s string) string {
	if len(s) > longest {
		return s[:longest] + "…"
	}
	return s
}
