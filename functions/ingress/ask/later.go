package ask

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/models"
)

// The values of Progress.Status.
const (
	StatusWaiting = "waiting"
	StatusDone    = "done"
)

// Progress is how an asynchronous request stands, as its caller reads it while it is not done.
type Progress struct {
	ID      string   `json:"id"`
	Status  string   `json:"status"`
	Models  []string `json:"models"`            // that were asked, in the order asked
	Waiting []string `json:"waiting"`           // those of them that have not answered
	Results []Result `json:"results,omitempty"` // of those that have

	Time    time.Time `json:"-"` // when it was asked
	Expires time.Time `json:"-"` // until when it can be collected
}

// Response is the answer of a request that is done.
func (p *Progress) Response() *Response { return &Response{ID: p.ID, Results: p.Results} }

// Later says whether questions can be asked asynchronously here.
func (s *Service) Later() bool { return s.cfg.Mailboxes != nil }

// AskLater asks like Ask and does not wait for the answer, which is to be collected by the request's id. When it returns
// without an error, everything is stored: the answer, or the reason why there is none, is there at the latest when
// Config.AsyncTimeout has passed, whatever restarts in between. The error is a *problem.Details; then nothing is kept.
//
// A question with a key that was asked already is not asked again while it can be collected.
func (s *Service) AskLater(ctx context.Context, q Question) (*Progress, error) {
	if !s.enter() {
		return nil, stopping()
	}
	defer s.asking.Done()
	// What was begun is finished, though the caller hangs up: there is nothing half asked. Each step has a time-out.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	if q.ID == "" {
		q.ID = s.cfg.NewID()
	}
	ctx, span := s.meter.tracer.Start(ctx, "ask later")
	defer span.End()
	progress, outcome, rejection := s.askLater(ctx, &q)
	span.SetAttributes(attribute.String("ebb.request.id", q.ID))
	if rejection != nil {
		rejection.Instance = problem.InstanceOf(q.ID)
		span.SetStatus(codes.Error, rejection.Title)
		outcome = rejection.Code()
	}
	s.meter.accepted(ctx, outcome)
	if rejection != nil {
		return nil, rejection
	}
	return progress, nil
}

func (s *Service) askLater(ctx context.Context, q *Question) (_ *Progress, outcome string, _ *problem.Details) {
	switch {
	case s.cfg.Mailboxes == nil:
		return nil, "", notLater("This server keeps no answers. Ask without Prefer: respond-async, and wait.")
	case q.Callback != "" && s.cfg.Caller == nil:
		return nil, "", notLater("This server calls nobody. Ask without a callback, and collect the answer.")
	case q.Callback != "":
		if err := s.cfg.Caller.Check(q.Callback); err != nil {
			return nil, "", problem.From(err)
		}
	}
	asked, info, rejection := s.examine(*q)
	if rejection != nil {
		return nil, "", rejection
	}
	if err := s.cfg.Blocked(ctx); err != nil { // no mailbox could be opened
		s.cfg.Logger.WarnContext(ctx, "request not accepted", "request_id", q.ID, "error", err)
		return nil, "", brokerBlocked()
	}
	if q.Key != "" {
		q.ID = keyedID(q.Key, asked, q.Picture)
	}
	unlock, err := s.opening.lock(ctx, q.ID)
	if err != nil {
		return nil, "", stopping()
	}
	defer unlock()

	record, again, rejection := s.openMailbox(ctx, q, asked)
	if rejection != nil {
		return nil, "", rejection
	}
	if again {
		return waitingFor(record), outcomeAgain, nil
	}
	if fault := s.publishAll(ctx, record, s.inquiries(*q, asked, info)); fault != nil {
		// Better nothing than a part: who hears no asks again.
		if err := s.cfg.Mailboxes.Delete(ctx, q.ID); err != nil && !errors.Is(err, reply.ErrNoMailbox) {
			s.cfg.Logger.WarnContext(ctx, "mailbox not deleted", "request_id", q.ID, "error", err)
		}
		return nil, "", fault.problem
	}
	if q.Key != "" { // for whoever asks the same again
		if err := s.cfg.Mailboxes.Set(ctx, q.ID, reply.MarkAsked); err != nil {
			s.cfg.Logger.WarnContext(ctx, "mailbox not marked as asked", "request_id", q.ID, "error", err)
		}
	}
	return waitingFor(record), outcomeAccepted, nil
}

// openMailbox makes a request's mailbox, or finds the one of an equal question, again, that needs no more asking.
func (s *Service) openMailbox(ctx context.Context, q *Question, asked []*models.Model) (_ *reply.Record, again bool, _ *problem.Details) {
	now := time.Now().UTC()
	record := &reply.Record{
		ID: q.ID, Time: now, Deadline: now.Add(s.cfg.AsyncTimeout), Expires: now.Add(s.cfg.AsyncTTL), Callback: q.Callback,
	}
	for _, m := range asked {
		record.Asked = append(record.Asked, reply.Asked{Model: m.Name, Question: m.Question})
	}
	err := s.cfg.Mailboxes.Open(ctx, record)
	if !errors.Is(err, reply.ErrMailboxExists) {
		return record, false, s.mailboxProblem(ctx, q.ID, err)
	}
	if q.Key == "" {
		return nil, false, requestExists()
	}
	mail, err := s.cfg.Mailboxes.Read(ctx, q.ID)
	if err != nil {
		return nil, false, s.mailboxProblem(ctx, q.ID, err)
	}
	// Without the mark whoever opened it may have died before everything was asked. Asking once more is harmless: dispatch
	// knows the events by their ids.
	return &mail.Record, mail.Has(reply.MarkAsked), nil
}

// publishAll hands a request's events to the broker. Nil says that all of them are stored; the first that surely is not, or
// may not be, is the reason otherwise.
func (s *Service) publishAll(ctx context.Context, record *reply.Record, inquiries []inquiry) *fault {
	faults := make([]*fault, len(inquiries))
	var publishing sync.WaitGroup
	for i := range inquiries {
		in := &inquiries[i]
		in.event.ReplyTo, in.event.Deadline, in.event.Callback = reply.MailboxAddress(record.ID), record.Deadline, record.Callback != ""
		publishing.Go(func() { faults[i] = s.send(ctx, in) })
	}
	publishing.Wait()
	for i, f := range faults {
		if f != nil {
			s.cfg.Logger.WarnContext(ctx, "event not published", "request_id", record.ID, "event_id", inquiries[i].event.ID,
				"model", inquiries[i].model.Name, "maybe", f.maybe, "error", f.cause)
			return f
		}
	}
	return nil
}

// Collect says how an asynchronous request stands. The error is a *problem.Details.
func (s *Service) Collect(ctx context.Context, id string) (*Progress, error) {
	mail, rejection := s.readMailbox(ctx, id)
	if rejection != nil {
		s.meter.collected(ctx, rejection.Code())
		return nil, rejection
	}
	p := progressOf(mail, time.Now())
	s.meter.collected(ctx, p.Status)
	return p, nil
}

// Drop forgets an asynchronous request: its answer goes nowhere. The error is a *problem.Details.
func (s *Service) Drop(ctx context.Context, id string) error {
	if rejection := s.collectable(id); rejection != nil {
		return rejection
	}
	if rejection := s.mailboxProblem(ctx, id, s.cfg.Mailboxes.Delete(ctx, id)); rejection != nil {
		return rejection
	}
	return nil
}

func (s *Service) readMailbox(ctx context.Context, id string) (*reply.Mail, *problem.Details) {
	if rejection := s.collectable(id); rejection != nil {
		return nil, rejection
	}
	mail, err := s.cfg.Mailboxes.Read(ctx, id)
	return mail, s.mailboxProblem(ctx, id, err)
}

func (s *Service) collectable(id string) *problem.Details {
	switch {
	case s.cfg.Mailboxes == nil:
		return notLater("This server keeps no answers.")
	case !reply.ValidMailboxID(id):
		return badRequestID()
	}
	return nil
}

// mailboxProblem is the problem that an error of a mailbox means for the request's caller.
func (s *Service) mailboxProblem(ctx context.Context, id string, err error) *problem.Details {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, reply.ErrMailboxGone), errors.Is(err, reply.ErrNoMailbox) && olderThan(id, s.cfg.AsyncTTL):
		return requestGone()
	case errors.Is(err, reply.ErrNoMailbox):
		return unknownRequest()
	case errors.Is(err, reply.ErrFull):
		return mailboxesFull()
	case errors.Is(err, context.Canceled) && s.stopping.Err() == nil:
		return callerGone()
	}
	s.cfg.Logger.WarnContext(ctx, "mailbox cannot be used", "request_id", id, "error", err)
	return mailboxesDown()
}

// olderThan says whether an id tells that it was made so long ago. Those that are made here do, but for keyed ones.
func olderThan(id string, age time.Duration) bool {
	u, err := uuid.Parse(id)
	if err != nil || u.Version() != 7 {
		return false
	}
	made := time.UnixMilli(int64(binary.BigEndian.Uint64(append([]byte{0, 0}, u[:6]...))))
	return time.Since(made) > age
}

// waitingFor is how a request stands of which nothing is known but what was asked.
func waitingFor(r *reply.Record) *Progress {
	p := &Progress{ID: r.ID, Status: StatusWaiting, Time: r.Time, Expires: r.Expires}
	for _, a := range r.Asked {
		p.Models, p.Waiting = append(p.Models, a.Model), append(p.Waiting, a.Model)
	}
	return p
}

// progressOf says how a request stands. Of several results of one model the first answer counts, or, when there is none,
// the last failure: an answer may come after a failure when a dead letter is replayed.
func progressOf(mail *reply.Mail, now time.Time) *Progress {
	p := &Progress{
		ID: mail.Record.ID, Status: StatusWaiting, Waiting: []string{}, Time: mail.Record.Time, Expires: mail.Record.Expires,
	}
	over := !now.Before(mail.Record.Deadline)
	for _, a := range mail.Record.Asked {
		p.Models = append(p.Models, a.Model)
		r := resultOf(mail, a.Model)
		switch {
		case r == nil && !over:
			p.Waiting = append(p.Waiting, a.Model)
			continue
		case r == nil:
			late := noAnswerInTime()
			late.Instance = problem.InstanceOf(p.ID)
			p.Results = append(p.Results, Result{Model: a.Model, Question: a.Question, Error: late})
		default:
			p.Results = append(p.Results, resultFrom(r, a.Question, p.ID, max(r.Time.Sub(mail.Record.Time), 0)))
		}
	}
	if len(p.Waiting) == 0 {
		p.Status = StatusDone
	}
	return p
}

func resultOf(mail *reply.Mail, model string) *events.Result {
	var failed *events.Result
	for _, r := range mail.Results {
		switch {
		case r.Model != model:
		case r.Answer != nil:
			return r
		default:
			failed = r
		}
	}
	return failed
}
