package callback

import (
	"context"
	"io"
	"log/slog"
	"net/http"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
)

// maxEvent is how much of an event's data is read; nothing of it is used.
const maxEvent = 64 << 10

// Service knows what is due. *ask.Service is one.
type Service interface {
	CallBack(ctx context.Context, id string) error
}

// Handler takes deliveries of events.TypeCallbackDue: 204 says that it is done with, 503 that it is to be delivered again,
// 400 that it is none. An event says nothing but which request it is about; whether somebody is to be called, where and
// with what, is in the request's mailbox. So it does no harm when anybody sends one.
func Handler(s Service, log *slog.Logger) http.Handler {
	if log == nil {
		log = slog.Default()
	}
	tracer := otel.Tracer("github.com/ebb-inference/ebb/functions/ingress/callback")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			problem.Write(w, problem.New("method-not-allowed", http.StatusMethodNotAllowed, "Method not allowed", "Events are delivered by POST."))
			return
		}
		due, err := events.ReadCallbackDue(r.Header)
		if err != nil {
			problem.Write(w, problem.New("malformed-event", http.StatusBadRequest, "The event is malformed", err.Error()+"."))
			return
		}
		_, _ = io.CopyN(io.Discard, r.Body, maxEvent) // so that the connection can be used again
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.MapCarrier{
			events.ExtTraceParent: due.TraceParent, events.ExtTraceState: due.TraceState,
		})
		ctx, span := tracer.Start(ctx, "callback", trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
			attribute.String("ebb.request.id", due.RequestID), attribute.String("cloudevents.event_id", due.ID)))
		defer span.End()
		if err := s.CallBack(ctx, due.RequestID); err != nil {
			span.SetStatus(codes.Error, err.Error())
			log.InfoContext(ctx, "callback comes again", "request_id", due.RequestID, "event_id", due.ID, "error", err)
			p := problem.New("callback-later", http.StatusServiceUnavailable, "The callback was not taken yet", "Deliver the event again later.")
			p.RetryAfter = 1
			problem.Write(w, p)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}
