package worker

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/events/reply"
)

// ServeHTTP takes one delivery: POST, a request event in binary mode.
func (w *Worker) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		rw.Header().Set("Allow", http.MethodPost)
		problem.Write(rw, problem.New("method-not-allowed", http.StatusMethodNotAllowed, "Method not allowed", "Events are delivered by POST."))
		return
	}
	received := time.Now()
	// What was begun is finished even when the deliverer hangs up: the event comes again, and then it is done already.
	ctx, end := context.WithCancel(context.WithoutCancel(req.Context()))
	defer end()
	leave, err := w.gate.enter(end)
	switch {
	case errors.Is(err, errStopping):
		w.close(ctx, rw, retried("This replica is stopping."))
		return
	case err != nil:
		w.close(ctx, rw, overloaded("As many deliveries are under way as may be."))
		return
	}
	defer leave()
	w.in.held.Add(ctx, 1, w.in.model)
	defer w.in.held.Add(ctx, -1, w.in.model)

	r, err := events.ReadHTTPRequest(req, w.MaxBytes, w.pictureMemory())
	if err != nil {
		w.close(ctx, rw, w.unreadable(ctx, req, err))
		return
	}
	ctx, span := w.in.startDelivery(ctx, r)
	defer span.End()
	v := w.deliver(ctx, req.Context(), r, received).callingBack(w, r)
	span.SetAttributes(attribute.String("outcome", v.outcome))
	if v.refusal != nil {
		span.SetStatus(codes.Error, v.refusal.Error())
	}
	w.close(ctx, rw, v)
}

// close ends a delivery.
func (w *Worker) close(ctx context.Context, rw http.ResponseWriter, v verdict) {
	w.in.done(ctx, v.outcome)
	v.write(rw)
}

// unreadable is what becomes of a delivery that is no request event. If it says who asked, they are told.
func (w *Worker) unreadable(ctx context.Context, req *http.Request, err error) verdict {
	var p *problem.Details
	switch {
	case errors.Is(err, events.ErrTooLarge):
		p = tooLarge(w.MaxBytes)
	case errors.Is(err, events.ErrMalformed):
		p = malformed(err)
	default: // the deliverer hung up in the middle
		return retried("The event did not arrive whole.")
	}
	w.Logger.WarnContext(ctx, "event is refused", "error", err, "bytes", req.ContentLength)
	ev, err := events.ReadHTTPAttributes(req.Header)
	if err != nil || ev.Type() != events.TypeRequested {
		return refused(p)
	}
	r := &events.Request{
		ID: ev.ID(), Model: events.Extension(ev, events.ExtModel), ReplyTo: events.Extension(ev, events.ExtReplyTo),
		CorrelationID: events.Extension(ev, events.ExtCorrelationID), Callback: events.Extension(ev, events.ExtCallback) != "",
	}
	result := w.failed(ctx, r, p)
	if _, err := result.Event(); err != nil || !reply.ValidAddress(r.ReplyTo) {
		return refused(p)
	}
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	return w.respond(ctx, r, result).callingBack(w, r)
}

// deliver works on a request event, unless another delivery of it does. The deliverer waits as long as delivered lasts.
func (w *Worker) deliver(ctx, delivered context.Context, r *events.Request, received time.Time) verdict {
	switch {
	case !reply.ValidAddress(r.ReplyTo):
		w.Logger.WarnContext(ctx, "event is refused: its reply address is none", "event_id", r.ID, "source", r.Source)
		return refused(badAddress())
	case !received.Before(r.Deadline):
		return w.expire(ctx, r)
	}
	d, mine := w.window.begin(keyOf(r))
	if !mine {
		select {
		case <-d.done:
			return verdict{outcome: outcomeDuplicate, refusal: d.refusal}
		case <-delivered.Done():
			return retried("The deliverer hung up.")
		}
	}
	v := retried("Something failed that should not have.")
	defer func() { w.window.finish(d, v) }() // also after a panic, or duplicates would wait for ever

	deadline := received.Add(w.Timeout)
	if r.Deadline.Before(deadline) {
		deadline = r.Deadline
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if d.result == nil {
		result, instead := w.answerOnce(ctx, r, received)
		if result == nil && instead.outcome == outcomeExpired {
			v = w.expire(ctx, r)
			return v
		}
		if result == nil {
			v = instead
			return v
		}
		d.result = result
	}
	v = w.respond(ctx, r, d.result)
	return v
}

// expire is what becomes of an event whose deadline has passed: nobody waits, so nothing is computed. Who asked
// asynchronously still comes to look, and is told.
func (w *Worker) expire(ctx context.Context, r *events.Request) verdict {
	if !isMailbox(r) {
		return acknowledged(outcomeExpired)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.Timeout) // it may have ended with the deadline
	defer cancel()
	err := w.Responder.Respond(ctx, r.ReplyTo, w.failed(ctx, r, tooLate()))
	if err != nil && !errors.Is(err, reply.ErrNoRequester) {
		w.Logger.WarnContext(ctx, "the reply was not sent", "event_id", r.ID, "error", err)
		return retried("The reply could not be sent.")
	}
	return acknowledged(outcomeExpired)
}

// respond sends a result to who asked.
func (w *Worker) respond(ctx context.Context, r *events.Request, result *events.Result) verdict {
	err := w.Responder.Respond(ctx, r.ReplyTo, result)
	switch {
	case err == nil && result.Answer != nil:
		return acknowledged(outcomeCompleted)
	case err == nil:
		return acknowledged(outcomeFailed)
	case errors.Is(err, reply.ErrNoRequester):
		return acknowledged(outcomeUnroutable)
	case errors.Is(err, reply.ErrBadAddress):
		return refused(badAddress())
	case expired(ctx, r) && !isMailbox(r): // whom a result reaches late as well
		return acknowledged(outcomeExpired)
	}
	trace.SpanFromContext(ctx).RecordError(err)
	w.Logger.WarnContext(ctx, "the reply was not sent", "event_id", r.ID, "error", err)
	return retried("The reply could not be sent.")
}

// expired says whether it was the event's own deadline that ended ctx, or passed by now.
func expired(ctx context.Context, r *events.Request) bool {
	if deadline, ok := ctx.Deadline(); ok && deadline.Equal(r.Deadline) && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return true // even if the clock lags behind the timer
	}
	return !r.Deadline.IsZero() && !time.Now().Before(r.Deadline) // a malformed event may have none
}

// isMailbox says whether the answer goes where it waits for who asked.
func isMailbox(r *events.Request) bool {
	_, ok := reply.MailboxID(r.ReplyTo)
	return ok
}
