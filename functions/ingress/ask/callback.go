package ask

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ebb-inference/ebb/events/reply"
)

// ErrCallAgain says that a callback may be taken at another time.
var ErrCallAgain = errors.New("the callback may be taken later")

// Caller calls callbacks.
type Caller interface {
	// Check says what is wrong with an address, as far as it can be seen: a *problem.Details or nil.
	Check(address string) error
	// Call brings a response to an address. The error wraps ErrCallAgain when it may be taken at another time; any other
	// error is final. Calls about one request look alike, so that a receiver can tell that it has had one.
	Call(ctx context.Context, address string, r *Response) error
}

// CallBack calls whoever is to be called about an asynchronous request, if the answer is whole and they have not been
// called. Nil says that nothing is left to do at the moment; with an error it shall be tried again.
//
// It is for whoever is told that a result has arrived. Each result that arrives leads to a call of this, so somebody comes
// after the last one; and a stranger who knows a request's id can bring about nothing that is not due anyway.
func (s *Service) CallBack(ctx context.Context, id string) error {
	if !s.enter() {
		return errStopping
	}
	defer s.asking.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	unlock, err := s.calling.lock(ctx, id) // two results may arrive at once
	if err != nil {
		return fmt.Errorf("callback: %w", err)
	}
	defer unlock()
	outcome, err := s.callBack(ctx, id)
	s.meter.called(ctx, outcome)
	return err
}

func (s *Service) callBack(ctx context.Context, id string) (outcome string, _ error) {
	if s.cfg.Mailboxes == nil || s.cfg.Caller == nil {
		return outcomeCallNobody, nil
	}
	mail, err := s.cfg.Mailboxes.Read(ctx, id)
	switch {
	case errors.Is(err, reply.ErrNoMailbox):
		return outcomeCallNobody, nil
	case err != nil:
		return outcomeCallAgain, fmt.Errorf("callback: %w", err)
	case mail.Record.Callback == "" || mail.Has(reply.MarkCalled):
		return outcomeCallNobody, nil
	}
	p := progressOf(mail, time.Now())
	if p.Status != StatusDone {
		return outcomeCallEarly, nil
	}
	outcome = outcomeCalled
	if err := s.cfg.Caller.Call(ctx, mail.Record.Callback, p.Response()); err != nil {
		if errors.Is(err, ErrCallAgain) || ctx.Err() != nil {
			return outcomeCallAgain, fmt.Errorf("callback: %w", err)
		}
		s.cfg.Logger.WarnContext(ctx, "callback is not called any more", "request_id", id, "error", err)
		outcome = outcomeCallRefused
	}
	// Without the mark the receiver may be called once more.
	if err := s.cfg.Mailboxes.Set(ctx, id, reply.MarkCalled); err != nil && !errors.Is(err, reply.ErrNoMailbox) {
		s.cfg.Logger.WarnContext(ctx, "callback called, and not marked so", "request_id", id, "error", err)
	}
	return outcome, nil
}
