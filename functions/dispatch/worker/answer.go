package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	grpccodes "google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/batch"
	"github.com/ebb-inference/ebb/models/picture"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// answerOnce is answer, unless the same is being computed, or was a while ago, for somebody who asked the same before.
func (w *Worker) answerOnce(ctx context.Context, r *events.Request, received time.Time) (result *events.Result, v verdict) {
	q, ok := questionOf(r)
	if !ok {
		return w.answer(ctx, r, received)
	}
	for {
		th, mine := w.memo.begin(q)
		if mine {
			defer func() { // also after a panic, or whoever asks the same would wait for ever
				if result == nil {
					w.memo.finish(th, nil)
					return
				}
				w.memo.finish(th, result.Answer)
			}()
			return w.answer(ctx, r, received)
		}
		select {
		case <-th.done:
		case <-ctx.Done():
			return w.unanswered(ctx, r, ctx.Err())
		}
		if th.answer == nil {
			continue // the other one failed, perhaps as its time was over
		}
		w.in.again.Add(ctx, 1, w.in.model)
		result = w.result(ctx, r)
		result.Answer = th.answer
		return result, verdict{}
	}
}

// answer computes what the requester is to be told. Without a result the verdict says why there is none.
func (w *Worker) answer(ctx context.Context, r *events.Request, received time.Time) (*events.Result, verdict) {
	queue := max(received.Sub(r.Time), 0) // clocks differ
	w.in.queue.Record(ctx, queue.Seconds(), w.in.model)
	if r.Model != w.Model.Name {
		w.Logger.ErrorContext(ctx, "event is for another model: check the Trigger's filter and subscriber", "event_id", r.ID, "for", r.Model)
		return w.failed(ctx, r, misrouted(r.Model, w.Model.Name)), verdict{}
	}

	it, release, err := w.decode(ctx, r)
	if err != nil {
		return w.unanswered(ctx, r, err)
	}
	w.forgetPicture(r) // it is not needed any more, and the wait may be long
	decoded := time.Now()
	w.in.decode.Record(ctx, decoded.Sub(received).Seconds(), w.in.model)

	out, info, err := w.batcher.Do(ctx, it)
	w.in.wait.Record(ctx, info.Wait.Seconds(), w.in.model)
	if err != nil {
		// The item's memory is not used again: a batch may still be reading it.
		return w.unanswered(ctx, r, err)
	}
	release()
	a, err := w.Model.Interpret(out.values)
	if err != nil {
		err = fmt.Errorf("%w: %w", tfserving.ErrAnswer, err)
		w.in.batchFailed(ctx, err)
		return w.unanswered(ctx, r, err)
	}

	result := w.result(ctx, r)
	result.Answer = &events.Answer{
		Yes:         a.Yes,
		Probability: a.Probability,
		Top:         classes(a.Top),
		ServedBy:    events.ServedBy{Model: w.Model.Serving.Model, Version: out.version},
		Timing: events.Timing{
			Queue: ms(queue), Decode: ms(decoded.Sub(received)), Batch: ms(info.Wait), Compute: ms(info.Compute),
		},
		BatchSize: info.Size,
	}
	return result, verdict{}
}

// decode makes an item of a picture, on one of the few threads that do so at a time: it is all work of the CPU and much
// memory. release takes the item's memory back, when nobody uses it any more.
func (w *Worker) decode(ctx context.Context, r *events.Request) (it item, release func(), err error) {
	select {
	case w.decoding <- struct{}{}:
		defer func() { <-w.decoding }()
	case <-ctx.Done():
		return item{}, nil, ctx.Err()
	}
	if err := ctx.Err(); err != nil { // both were ready, and chance decided
		return item{}, nil, err
	}
	it.span = trace.SpanContextFromContext(ctx)
	if w.Model.Input.Kind == models.KindEncoded {
		it.data, err = picture.EncodeJPEG(r.Data, w.Limits)
		return it, func() {}, pictureError(err)
	}
	img, err := picture.Decode(r.Data, w.Limits)
	if err != nil {
		return item{}, nil, pictureError(err)
	}
	buffer := w.tensors.Get().(*[]byte) // nothing else is ever put there
	release = func() { w.tensors.Put(buffer) }
	if it.data, err = picture.AppendTensor((*buffer)[:0], img, w.Model.Input); err != nil {
		release()
		return item{}, nil, pictureError(err)
	}
	*buffer = it.data
	return it, release, nil
}

// pictureMemory is memory that an earlier delivery's picture was in; nil when there is none.
func (w *Worker) pictureMemory() []byte {
	if memory, ok := w.pictures.Get().(*[]byte); ok {
		return *memory
	}
	return nil
}

// forgetPicture lets r's picture go once it is an item. Another delivery may use its memory, unless the item is the picture
// itself.
func (w *Worker) forgetPicture(r *events.Request) {
	memory := r.Data
	r.Data = nil
	if w.Model.Input.Kind != models.KindEncoded {
		w.pictures.Put(&memory)
	}
}

// errPicture marks what went wrong with a picture, as opposed to what went wrong with everything else.
var errPicture = errors.New("picture")

func pictureError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errPicture, err)
}

// lastWord is how long before an event's deadline it is too late for another try: longer than the batcher's longest pause
// between two calls, with which it gives up, and than a broker's back-off would leave time to compute.
const lastWord = 2 * time.Second

// unanswered decides what an error means: the requester is told (a result), nobody waits, or the event comes again. An
// error that is not known comes again too. If it never goes away, the dead letter tells the requester.
func (w *Worker) unanswered(ctx context.Context, r *events.Request, err error) (*events.Result, verdict) {
	switch code := status.Code(err); {
	case errors.Is(err, errPicture):
		w.Logger.InfoContext(ctx, "picture cannot be used", "event_id", r.ID, "error", err)
		return w.failed(ctx, r, badPicture(err)), verdict{}
	case errors.Is(err, tfserving.ErrInvalid):
		w.Logger.WarnContext(ctx, "the network refused its input", "event_id", r.ID, "error", err)
		return w.failed(ctx, r, inputRefused()), verdict{}
	case errors.Is(err, tfserving.ErrAnswer):
		w.Logger.ErrorContext(ctx, "the network's output does not fit the model's definition", "event_id", r.ID, "error", err)
		return w.failed(ctx, r, badOutput()), verdict{}
	case code == grpccodes.FailedPrecondition, code == grpccodes.Unimplemented, code == grpccodes.OutOfRange:
		// A signature or a method that the server does not have. A model that it has not loaded yet is NotFound.
		w.Logger.ErrorContext(ctx, "the model server cannot be called as the model's definition says", "event_id", r.ID, "error", err)
		return w.failed(ctx, r, badServing()), verdict{}
	case expired(ctx, r):
		return nil, acknowledged(outcomeExpired)
	case errors.Is(err, tfserving.ErrUnavailable) && time.Until(r.Deadline) < lastWord:
		// It comes again too late to be answered: who asked learns the reason now, or waits for nothing and never does.
		w.Logger.WarnContext(ctx, "the model server was away until the event's deadline", "event_id", r.ID, "error", err)
		return w.failed(ctx, r, serverAway()), verdict{}
	case errors.Is(err, batch.ErrFull):
		return nil, overloaded("As many pictures wait for the model as may wait.")
	case code == grpccodes.ResourceExhausted:
		return nil, overloaded("The model server has no room.")
	case errors.Is(err, batch.ErrStopped), errors.Is(err, context.Canceled) && w.gate.isClosed():
		return nil, retried("This replica is stopping.")
	}
	trace.SpanFromContext(ctx).RecordError(err)
	if isFailure(err) {
		w.Logger.WarnContext(ctx, "the model server failed", "event_id", r.ID, "error", err)
		return nil, broken("The model server failed.")
	}
	w.Logger.WarnContext(ctx, "the model server did not answer", "event_id", r.ID, "error", err)
	return nil, retried("The model server did not answer.")
}

// isFailure says whether a model server answered that something is wrong with it.
func isFailure(err error) bool {
	s, answered := status.FromError(err)
	return answered && (s.Code() == grpccodes.Internal || s.Code() == grpccodes.Unknown || s.Code() == grpccodes.DataLoss)
}

// result is what every result of r has, whatever it says.
func (w *Worker) result(ctx context.Context, r *events.Request) *events.Result {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return &events.Result{
		ID:            uuid.Must(uuid.NewV7()).String(), // fails only without randomness, which ends the program anyway
		Source:        w.source,
		Time:          time.Now().UTC(),
		RequestID:     r.ID,
		CorrelationID: r.CorrelationID,
		Model:         r.Model,
		TraceParent:   carrier[events.ExtTraceParent],
		TraceState:    carrier[events.ExtTraceState],
	}
}

func (w *Worker) failed(ctx context.Context, r *events.Request, p *problem.Details) *events.Result {
	result := w.result(ctx, r)
	p.Instance = problem.InstanceOf(r.ID)
	result.Problem = p
	return result
}

func classes(top []models.Class) []events.Class {
	out := make([]events.Class, len(top))
	for i, c := range top {
		out[i] = events.Class(c)
	}
	return out
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
