package ask

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/picture"
)

// Ask asks each of the question's models about its picture and gathers their answers, in the order asked. The error is
// a *problem.Details when nothing was asked at all: the question is not a valid one, or this server cannot ask now, or
// the caller went away. What goes wrong with one model is in that model's Result.Error.
//
// Ask returns when all models have answered, or at the earliest of ctx's deadline and Config.Timeout. Nothing of it
// stays behind: the pending entries are gone when it returns.
func (s *Service) Ask(ctx context.Context, q Question) (*Response, error) {
	began := time.Now()
	if !s.enter() {
		return nil, stopping()
	}
	defer s.asking.Done()
	if q.ID == "" {
		q.ID = s.cfg.NewID()
	}
	deadline := began.Add(s.cfg.Timeout)
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if d, ok := ctx.Deadline(); ok {
		deadline = d // the earlier of the two
	}
	defer context.AfterFunc(s.stopping, cancel)()

	ctx, span := s.meter.tracer.Start(ctx, "ask")
	defer span.End()
	reject := func(p *problem.Details) (*Response, error) {
		p.Instance = problem.InstanceOf(q.ID)
		span.SetStatus(codes.Error, p.Title)
		s.meter.done(ctx, s.countable(q.Models), p.Code(), time.Since(began))
		return nil, p
	}
	asked, info, rejection := s.examine(q)
	if rejection != nil {
		return reject(rejection)
	}
	if q.Key != "" {
		q.ID = keyedID(q.Key, asked, q.Picture)
	}
	span.SetAttributes(attribute.String("ebb.request.id", q.ID))
	inquiries := s.inquiries(q, asked, info)
	var response *Response
	var err error
	if q.Key == "" {
		response, err = s.gather(ctx, q.ID, inquiries, deadline, began)
	} else {
		response, err = s.askKeyed(ctx, q.ID, asked, func(ctx context.Context) (*Response, error) {
			deadline := began.Add(s.cfg.Timeout) // whoever else asks may have more patience than the first
			ctx, cancel := context.WithDeadline(ctx, deadline)
			defer cancel()
			defer context.AfterFunc(s.stopping, cancel)()
			return s.gather(ctx, q.ID, inquiries, deadline, began)
		})
	}
	if err != nil {
		return reject(problem.From(err))
	}
	if p := response.Results[0].Error; p != nil && p.Code() == CodeCallerGone {
		return nil, p
	}
	return response, nil
}

// gather sends the events and gathers the answers, in the order asked.
func (s *Service) gather(ctx context.Context, id string, inquiries []inquiry, deadline, began time.Time) (*Response, error) {
	if rejection := s.enterAll(inquiries, deadline); rejection != nil {
		return nil, rejection
	}
	response := &Response{ID: id, Results: make([]Result, len(inquiries))}
	answer := func(i int) { response.Results[i] = s.pursue(ctx, &inquiries[i], id, began) }
	var others sync.WaitGroup
	for i := range inquiries[1:] {
		others.Go(func() { answer(i + 1) })
	}
	answer(0) // in this goroutine: most questions name one model
	others.Wait()
	return response, nil
}

// inquiry is one model's part of a question.
type inquiry struct {
	model  *models.Model
	event  events.Request
	waiter *reply.Waiter
}

// examine validates a question: which models it is for, and what its picture is. The models of a valid one are woken, since
// from here on there is only a little to do until their events are sent.
func (s *Service) examine(q Question) ([]*models.Model, picture.Info, *problem.Details) {
	asked, rejection := s.resolve(q.Models)
	if rejection != nil {
		return nil, picture.Info{}, rejection
	}
	if len(q.Picture) == 0 {
		return nil, picture.Info{}, noPicture()
	}
	info, err := picture.Inspect(q.Picture, s.cfg.Limits)
	if err != nil {
		return nil, picture.Info{}, badPicture(err, s.cfg.Limits)
	}
	s.wake(asked)
	return asked, info, nil
}

// inquiries are the events of a valid question. How they are answered, and until when, is to be filled in.
func (s *Service) inquiries(q Question, asked []*models.Model, info picture.Info) []inquiry {
	all := make([]inquiry, len(asked))
	for i, m := range asked {
		// The event has an id of its own, not the request's: a client may send a request with the same id again, and
		// that must not look like a second delivery of the first, unless its key says that it is the same.
		id := s.cfg.NewID()
		correlationID := id
		if q.Key != "" {
			id = keyedEventID(q.ID, m.Name)
		}
		all[i] = inquiry{model: m, event: events.Request{
			ID: id, Source: s.cfg.Source, Time: time.Now().UTC(), Model: m.Name,
			CorrelationID: correlationID, ContentType: info.MediaType, Data: q.Picture,
		}}
	}
	return all
}

// enterAll makes room for the answers. When it returns nil, each inquiry has a pending entry that must be waited for or
// cancelled; nothing has been sent.
func (s *Service) enterAll(inquiries []inquiry, deadline time.Time) *problem.Details {
	address, err := s.inbox.Address()
	if err != nil {
		return repliesDown()
	}
	for i := range inquiries {
		in := &inquiries[i]
		in.event.ReplyTo, in.event.Deadline = address, deadline.UTC()
		if in.waiter, err = s.pending.Add(in.event.CorrelationID, address); err != nil {
			abandon(inquiries[:i])
			return cannotWait(err)
		}
	}
	return nil
}

// cannotWait is the problem of a request that cannot be entered into the pending table.
func cannotWait(err error) *problem.Details {
	switch {
	case errors.Is(err, reply.ErrFull):
		return overloaded()
	case errors.Is(err, reply.ErrLost): // since its address was read; nothing was sent
		return repliesDown()
	default:
		return problem.From(err)
	}
}

func abandon(inquiries []inquiry) {
	for i := range inquiries {
		inquiries[i].waiter.Cancel()
	}
}

// Expect says, before there is a picture, whether a question may name these models: nil, or what Ask would say. It is for who
// must spend something to have the picture; the models get up meanwhile.
func (s *Service) Expect(named []string) error {
	asked, rejection := s.resolve(named)
	if rejection != nil {
		return rejection
	}
	s.wake(asked)
	return nil
}

func (s *Service) wake(asked []*models.Model) {
	for _, m := range asked {
		s.cfg.Wake(m.Name)
	}
}

// resolve finds the models by their names, each once, in the order asked.
func (s *Service) resolve(named []string) ([]*models.Model, *problem.Details) {
	if len(named) == 0 {
		return nil, noModel(s.cfg.Models)
	}
	asked := make([]*models.Model, 0, min(len(named), s.cfg.MaxModels))
	seen := make(map[string]bool, cap(asked))
	for _, name := range named {
		m := s.byName[name]
		switch {
		case m == nil:
			return nil, unknownModel(name, s.cfg.Models)
		case seen[name]:
			continue
		case len(asked) == s.cfg.MaxModels:
			return nil, tooManyModels(len(named), s.cfg.MaxModels)
		}
		seen[name] = true
		asked = append(asked, m)
	}
	return asked, nil
}

// pursue sends one event and waits for its answer.
func (s *Service) pursue(ctx context.Context, in *inquiry, requestID string, began time.Time) Result {
	outcome := outcomeAnswered
	answer, failure := s.exchange(ctx, in, requestID)
	took := time.Since(began)
	var result Result
	switch {
	case answer != nil:
		result = resultFrom(answer, in.model.Question, requestID, took)
	default:
		failure.Instance = problem.InstanceOf(requestID)
		result = Result{Model: in.model.Name, Question: in.model.Question, Error: failure}
	}
	if failure != nil {
		outcome = failure.Code()
		if answer != nil {
			outcome = outcomeFailed
		}
	}
	s.meter.done(ctx, in.model.Name, outcome, took)
	return result
}

// resultFrom is what a caller reads of a model's answer, or of why there is none.
func resultFrom(r *events.Result, question, requestID string, took time.Duration) Result {
	result := Result{Model: r.Model, Question: question}
	if r.Problem != nil {
		// Whoever replied knew the event, not the request that its caller knows.
		own := *r.Problem
		own.Instance = problem.InstanceOf(requestID)
		result.Error = &own
		return result
	}
	a := r.Answer
	result.Answer, result.Probability, result.Top = a.Yes, a.Probability, a.Top
	result.ServedBy, result.BatchSize = &a.ServedBy, a.BatchSize
	result.Timing = &Timing{Total: float64(took) / float64(time.Millisecond), Timing: a.Timing}
	return result
}

// exchange is one event and the reply to it. The problem is set when there is no answer; the result, too, when the
// problem is what the other side replied.
func (s *Service) exchange(ctx context.Context, in *inquiry, requestID string) (*events.Result, *problem.Details) {
	f := s.send(ctx, in)
	if f != nil {
		// Nobody hears the reason of a caller that is gone.
		if ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "event not published", "request_id", requestID, "event_id", in.event.ID,
				"model", in.model.Name, "maybe", f.maybe, "error", f.cause)
		}
		// An event that may be in the queue is awaited like one that is: the answer, or its absence, will tell.
		if (!f.maybe || f.final) && ctx.Err() == nil {
			in.waiter.Cancel()
			return nil, f.problem
		}
	}
	r, err := in.waiter.Wait(ctx)
	switch {
	case errors.Is(err, reply.ErrLost):
		return nil, replyLost()
	case errors.Is(err, context.DeadlineExceeded) && f != nil:
		return nil, f.problem
	case errors.Is(err, context.DeadlineExceeded):
		return nil, noAnswerInTime()
	case errors.Is(err, context.Canceled) && s.stopping.Err() != nil:
		return nil, stopping()
	case errors.Is(err, context.Canceled):
		return nil, callerGone()
	case err != nil:
		return nil, problem.From(err)
	case r.Model != in.model.Name:
		s.cfg.Logger.ErrorContext(ctx, "reply does not answer its request", "request_id", requestID, "event_id", in.event.ID,
			"model", in.model.Name, "source", r.Source)
		return nil, badReply()
	case r.Problem != nil:
		return r, r.Problem
	}
	return r, nil
}

// send publishes the event within a span that the event carries on.
func (s *Service) send(ctx context.Context, in *inquiry) *fault {
	ctx, span := s.meter.tracer.Start(ctx, "publish "+in.model.Name, trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(attribute.String("cloudevents.event_id", in.event.ID), attribute.String("model", in.model.Name)))
	defer span.End()
	if span.SpanContext().IsValid() {
		carrier := propagation.MapCarrier{}
		propagation.TraceContext{}.Inject(ctx, carrier)
		in.event.TraceParent, in.event.TraceState = carrier["traceparent"], carrier["tracestate"]
	}
	f := s.publish.publish(ctx, &in.event)
	if f != nil {
		span.SetStatus(codes.Error, f.Error())
	}
	return f
}

// countable is the first of the models that is known, for metrics; names that clients make up are not.
func (s *Service) countable(named []string) string {
	for _, name := range named {
		if s.byName[name] != nil {
			return name
		}
	}
	return "unknown"
}
