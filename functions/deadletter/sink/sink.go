// Package sink receives what a Trigger gave up on: it tells the requester, who would otherwise wait until the deadline,
// puts the event's facts on record, and parks the event with its picture until an operator has it asked again or dropped.
//
// The dead letter of a request is the request event with two more attributes: knativeerrordest, the subscriber that would
// not take it, and knativeerrorcode, the last status that it answered. What is no event, or too large to be parked, is
// recorded and acknowledged: there is no further place for a dead letter to go.
//
// A requester is told before its letter is parked. When parking fails the letter comes again, and telling twice is
// harmless: whoever waited has gone, and in a mailbox an answer counts more than any number of failures.
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
	"github.com/ebb-inference/ebb/events/parking"
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

// maxParking is how many letters are held in memory at once on their way to the parking place.
const maxParking = 8

// Config is what a Sink is made of. Responder is required; zero values of the rest are the defaults.
type Config struct {
	Responder reply.Responder
	// Parking is where letters wait for an operator. Nil: they are not kept.
	Parking parking.Place
	// Attempts says, by model, how often its Trigger has an event tried: once more than it retries. A dead letter does not
	// say it. Of a model that is missing here nobody is told a number.
	Attempts map[string]int
	Replica  string        // which replica this is, in the source of results; default the host's name
	MaxBytes int64         // of a dead letter's data; what has more is not parked; default 16 MiB
	Timeout  time.Duration // for telling a requester and for parking, each; default 10 s
	Logger   *slog.Logger  // where dead letters are recorded; default slog.Default()
}

// Sink is an http.Handler for dead letters.
type Sink struct {
	Config
	source  string
	tracer  trace.Tracer
	letters metric.Int64Counter
	slots   chan struct{} // of letters in memory
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
	return &Sink{Config: c, source: "/ebb/deadletter/" + c.Replica, tracer: otel.Tracer(scope), letters: letters, slots: make(chan struct{}, maxParking)}, nil
}

// ServeHTTP takes one dead letter: POST, an event in binary mode. It answers 204 when it is done with it, or 200 with an
// event for the broker to publish, which says that somebody is to be called about it; and 503 when it is to be delivered
// again, because the requester could not be told or the letter could not be parked.
func (s *Sink) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		rw.Header().Set("Allow", http.MethodPost)
		problem.Write(rw, problem.New("method-not-allowed", http.StatusMethodNotAllowed, "Method not allowed", "Events are delivered by POST."))
		return
	}
	l, whole, err := parse(req.Header)
	ctx, span := s.start(req.Context(), l)
	defer span.End()
	outcome := outcomeUnknown
	if err == nil {
		outcome, err = s.tell(ctx, l)
	}
	parked := notParked
	var bytes int64
	var parkErr error
	if outcome == outcomeRetried || !whole || !s.parks(l) {
		// Reading what is not kept lets the connection serve the next letter. How far it got is on record.
		bytes, parkErr = io.Copy(io.Discard, http.MaxBytesReader(rw, req.Body, s.MaxBytes))
	} else {
		parked, bytes, parkErr = s.park(ctx, req, l)
	}
	span.SetAttributes(attribute.String("outcome", outcome), attribute.String("parked", parked))
	model := l.Model()
	if outcome == outcomeUnknown {
		model = "" // it may be anything, and each value is a time series
	}
	s.letters.Add(ctx, 1, metric.WithAttributes(
		attribute.String("model", model), attribute.String("outcome", outcome), attribute.String("parked", parked)))
	s.record(ctx, l, outcome, parked, bytes, errors.Join(err, parkErr))

	switch {
	case outcome == outcomeRetried:
		again(rw, "The requester could not be told")
	case parked == parkingFailed:
		again(rw, "The letter could not be parked")
	default:
		s.done(rw, l, outcome)
	}
}

// again asks for another delivery.
func again(rw http.ResponseWriter, title string) {
	p := problem.New("unavailable", http.StatusServiceUnavailable, title, "Deliver the event again in a moment.")
	p.RetryAfter = 1
	problem.Write(rw, p)
}

// done acknowledges a letter.
func (s *Sink) done(rw http.ResponseWriter, l letter, outcome string) {
	if id, ok := reply.MailboxID(l.replyTo); ok && l.callback && outcome == outcomeTold {
		due := &events.CallbackDue{
			ID: "callback-" + l.Event.ID(), Source: s.source, Time: time.Now().UTC(), RequestID: id, TraceParent: l.traceParent, TraceState: l.traceState,
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
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	result := &events.Result{
		ID:            uuid.Must(uuid.NewV7()).String(), // fails only without randomness, which ends the program anyway
		Source:        s.source,
		Time:          time.Now().UTC(),
		RequestID:     l.Event.ID(),
		CorrelationID: l.correlationID,
		Model:         l.Model(),
		TraceParent:   carrier[events.ExtTraceParent],
		TraceState:    carrier[events.ExtTraceState],
		Problem:       gaveUp(l, s.Attempts[l.Model()]),
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

// start starts a span that continues the event's trace.
func (s *Sink) start(ctx context.Context, l letter) (context.Context, trace.Span) {
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{
		events.ExtTraceParent: l.traceParent, events.ExtTraceState: l.traceState,
	})
	return s.tracer.Start(ctx, "deadletter", trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("model", clip(l.Model())), attribute.String("cloudevents.event_id", clip(l.Event.ID()))))
}

// record puts what is known of a dead letter into the log.
func (s *Sink) record(ctx context.Context, l letter, outcome, parked string, bytes int64, err error) {
	attrs := []slog.Attr{
		slog.String("outcome", outcome), slog.String("parked", parked), slog.Bool("replay", l.replay), slog.String("event_id", clip(l.Event.ID())), slog.String("event_type", clip(l.Event.Type())),
		slog.String("event_source", clip(l.Event.Source())), slog.String("model", clip(l.Model())), slog.Time("event_time", l.Event.Time()),
		slog.Time("deadline", l.deadline), slog.String("destination", clip(l.Destination())),
		slog.String("status", l.StatusText()), slog.Int64("bytes", bytes),
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
