package worker

import (
	"net/http"
	"time"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/events/reply"
)

// What can become of a delivery: the values of the attribute "outcome".
const (
	outcomeCompleted  = "completed"  // the requester has an answer
	outcomeFailed     = "failed"     // the requester knows why there is none
	outcomeExpired    = "expired"    // nobody waits any more
	outcomeDuplicate  = "duplicate"  // another delivery of the same event is, or was, the one that counts
	outcomeUnroutable = "unroutable" // the requester is gone
	outcomeRefused    = "refused"    // not an event of ours, or one that names no reply queue
	outcomeOverloaded = "overloaded" // comes back later, as there is no room now
	outcomeRetried    = "retried"    // comes back later, as something is away or stopping
)

// verdict is what becomes of a delivery and what the broker is told.
type verdict struct {
	outcome  string
	refusal  *problem.Details    // nil: acknowledged
	callback *events.CallbackDue // what the broker is to publish; nil: nothing
}

// callingBack adds to the acknowledgement of an event that its requester is to be called, if so, since a result is in its
// mailbox. So the broker knows of the callback before the event is done with. It is repeated with each duplicate, since
// nobody knows whether the broker heard the first.
func (v verdict) callingBack(w *Worker, r *events.Request) verdict {
	id, ok := reply.MailboxID(r.ReplyTo)
	if !ok || !r.Callback || v.refusal != nil || v.outcome == outcomeUnroutable {
		return v
	}
	v.callback = &events.CallbackDue{
		ID: "callback-" + r.ID, Source: w.source, Time: time.Now().UTC(), RequestID: id, TraceParent: r.TraceParent, TraceState: r.TraceState,
	}
	return v
}

// again says whether the broker shall deliver the event once more.
func (v verdict) again() bool {
	return v.refusal != nil && v.refusal.Status >= http.StatusInternalServerError
}

func (v verdict) write(rw http.ResponseWriter) {
	switch {
	case v.refusal != nil:
		problem.Write(rw, v.refusal)
	case v.callback != nil && v.callback.WriteTo(rw.Header()) == nil: // an event of which it cannot be made was malformed
		rw.WriteHeader(http.StatusOK)
	default:
		rw.WriteHeader(http.StatusNoContent)
	}
}

func acknowledged(outcome string) verdict { return verdict{outcome: outcome} }

// refused is final: the broker does not deliver the event again, and nobody is told but whoever reads this answer.
func refused(p *problem.Details) verdict { return verdict{outcome: outcomeRefused, refusal: p} }

// broken is like retried, with the status that tells whoever gets the dead letter that something is broken, not away.
func broken(detail string) verdict {
	return verdict{outcome: outcomeRetried, refusal: problem.New("model-failed", http.StatusInternalServerError, "The model failed",
		detail+" Deliver the event again in a moment.")}
}

func later(outcome, code, title, detail string) verdict {
	p := problem.New(code, http.StatusServiceUnavailable, title, detail)
	p.RetryAfter = 1
	return verdict{outcome: outcome, refusal: p}
}

func overloaded(detail string) verdict {
	return later(outcomeOverloaded, "overloaded", "Too many requests are waiting", detail+" Deliver the event again in a moment.")
}

func retried(detail string) verdict {
	return later(outcomeRetried, "unavailable", "The request cannot be answered now", detail+" Deliver the event again in a moment.")
}
