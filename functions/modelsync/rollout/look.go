package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ebb-inference/ebb/models/source"
)

// look goes on with the candidate that is under way, or looks for one.
func (w *session) look(ctx context.Context) (Outcome, error) {
	outcome, err := w.advance(ctx)
	if err != nil && ctx.Err() == nil {
		failure := Failure{Time: time.Now().UTC(), Reason: clip(err.Error())}
		if c := w.now().Candidate; c != nil {
			failure.Version, failure.Phase = c.Version, c.Phase
		}
		err = errors.Join(err, w.save(ctx, func(s *State) { s.LastFailure = &failure }))
	}
	return outcome, err
}

func (w *session) advance(ctx context.Context) (Outcome, error) {
	serving, err := w.Target.Serving(ctx)
	if err != nil {
		return Failed, fmt.Errorf("what serves: %w", err)
	}
	if err := w.reconcile(ctx, serving); err != nil {
		return Failed, err
	}
	c := w.now().Candidate
	switch {
	case c != nil && c.Verdict != nil:
		return w.dismiss(ctx)
	case c != nil && (c.Phase == PhaseShift || c.Phase == PhaseSettle):
		return w.shift(ctx)
	}
	src, err := w.Open(ctx)
	if err != nil {
		return Failed, err
	}
	defer func() { _ = src.Close() }() // it was only read
	if err := w.choose(ctx, src, serving); err != nil {
		return Failed, err
	}
	if w.now().Candidate == nil {
		return Current, w.prune(ctx)
	}
	if err := w.prepare(ctx, src); err != nil {
		return w.judged(ctx, err, ByCheck)
	}
	return w.shift(ctx)
}

// judged ends the candidate when err says that it will not do.
func (w *session) judged(ctx context.Context, err error, by string) (Outcome, error) {
	if !refuses(err) || ctx.Err() != nil {
		return Failed, err
	}
	c := w.now().Candidate
	verdict := Refusal{Version: c.Version, Digest: c.Digest, Reason: clip(err.Error()), By: by, Time: time.Now().UTC()}
	// It is written down before anything is done about it: who comes after us must not give the candidate traffic again.
	if err := w.save(ctx, func(s *State) { s.Candidate.Verdict = &verdict }); err != nil {
		return Failed, err
	}
	return w.dismiss(ctx)
}

// refuses says whether an error is the candidate's own fault, which will not pass.
func refuses(err error) bool {
	return errors.Is(err, ErrRefused) || errors.Is(err, source.ErrCorrupt) || errors.Is(err, source.ErrLimit)
}

// dismiss takes a refused candidate away.
func (w *session) dismiss(ctx context.Context) (Outcome, error) {
	before := w.now()
	c := before.Candidate
	if err := w.Target.Abandon(ctx, w.candidate()); err != nil {
		return Failed, fmt.Errorf("take away version %d, which was refused (%s): %w", c.Version, c.Verdict.Reason, err)
	}
	now := time.Now().UTC()
	entries := []Entry{{Time: now, Event: Refused, Version: c.Version, Reason: c.Verdict.Reason}}
	if c.Percent > 0 {
		entries = append(entries, Entry{Time: now, Event: Returned, Version: before.Serving, Reason: c.Verdict.Reason})
	}
	err := w.save(ctx, func(s *State) {
		s.refuse(*c.Verdict)
		s.Candidate = nil
	}, entries...)
	return NotTaken, err
}

// reconcile takes over what somebody did by hand: a version that was given its traffic back is a rollback.
func (w *session) reconcile(ctx context.Context, serving Serving) error {
	s := w.now()
	c := s.Candidate
	settled := c != nil && c.Phase == PhaseSettle && !c.Since.IsZero()
	expected := s.Serving
	switch {
	case settled:
		expected = c.Version
	case c != nil && c.Percent > 0 && serving.Version == c.Version:
		return nil // it has the most of the traffic, or all of it and who gave it died before that was written down
	}
	if serving.Version == expected {
		if slices.Equal(s.Kept, serving.Kept) {
			return nil
		}
		return w.save(ctx, func(s *State) { s.Kept = serving.Kept })
	}
	now := time.Now().UTC()
	var entries []Entry
	var refusal *Refusal
	switch {
	case expected == 0: // the first look ever
	case serving.Version == 0:
		w.Logger.WarnContext(ctx, "nothing serves any more", "expected", expected)
	case serving.Version < expected:
		refusal = &Refusal{Version: expected, From: serving.Version + 1, By: ByOperator, Time: now,
			Reason: fmt.Sprintf("version %d was made to serve again by hand", serving.Version)}
		entries = append(entries, Entry{Time: now, Event: Returned, Version: serving.Version, Reason: "by hand"})
	default:
		entries = append(entries, Entry{Time: now, Event: Serves, Version: serving.Version, Reason: "by hand"})
	}
	return w.save(ctx, func(s *State) {
		if refusal != nil {
			s.refuse(*refusal)
		}
		s.Previous = predecessor(serving, s.Serving)
		s.Serving, s.Kept, s.Since = serving.Version, serving.Kept, now
		if settled {
			s.Candidate = nil
		}
	}, entries...)
}

// choose makes the newest version that may be tried the candidate.
func (w *session) choose(ctx context.Context, src source.Source, serving Serving) error {
	published, err := src.Versions(ctx)
	if err != nil {
		return err
	}
	s := w.now()
	var newest int64
	for _, v := range published {
		wanted := v > serving.Version || serving.Renew && v == serving.Version
		if wanted && s.refusal(v) == nil {
			newest = max(newest, v)
		}
	}
	now := time.Now().UTC()
	old := s.Candidate
	switch {
	case old != nil && old.Version == newest:
		return w.save(ctx, func(s *State) { s.LastCheck = now })
	case old != nil: // it has no traffic yet, and will have none
		if err := w.Target.Abandon(ctx, w.candidate()); err != nil {
			return fmt.Errorf("take away version %d, in whose place there is another: %w", old.Version, err)
		}
	}
	if newest == 0 {
		return w.save(ctx, func(s *State) { s.LastCheck, s.Candidate = now, nil })
	}
	return w.save(ctx, func(s *State) {
		s.LastCheck = now
		s.Candidate = &Progress{Version: newest, Phase: PhaseFetch, Began: now, Since: now}
	}, Entry{Time: now, Event: Found, Version: newest})
}

// candidate is the one that is under way, for the Target.
func (w *session) candidate() Candidate {
	c := w.now().Candidate
	return Candidate{Version: c.Version, Digest: c.Digest, Source: w.Network.Source.URL, Percent: c.Percent}
}

// enter writes down that a phase begins.
func (w *session) enter(ctx context.Context, p Phase, entries ...Entry) error {
	return w.save(ctx, func(s *State) { s.Candidate.Phase, s.Candidate.Since = p, time.Now().UTC() }, entries...)
}

// prune removes the versions that are not kept any more.
func (w *session) prune(ctx context.Context) error {
	s := w.now()
	keep := kept(s, w.Network.Source.Keep)
	if len(keep) >= len(s.Kept) {
		return nil
	}
	if err := w.Target.Prune(ctx, keep); err != nil {
		return fmt.Errorf("remove old versions: %w", err)
	}
	return w.save(ctx, func(s *State) { s.Kept = keep })
}

// kept are the versions that stay, ascending: what serves, what served before it, and the newest others.
func kept(s State, most int) []int64 {
	keep := make([]int64, 0, most)
	for _, v := range []int64{s.Serving, s.Previous} {
		if slices.Contains(s.Kept, v) {
			keep = append(keep, v)
		}
	}
	for _, v := range slices.Backward(s.Kept) {
		if len(keep) < most && !slices.Contains(keep, v) {
			keep = append(keep, v)
		}
	}
	slices.Sort(keep)
	return keep
}

// obey makes the version serve again that somebody wants back.
func (w *session) obey(ctx context.Context) error {
	s := w.now()
	order := *s.Order
	serving, err := w.Target.Serving(ctx)
	if err != nil {
		return fmt.Errorf("what serves: %w", err)
	}
	newest := max(serving.Version, s.Serving)
	if s.Candidate != nil {
		newest = max(newest, s.Candidate.Version)
		if err := w.Target.Abandon(ctx, w.candidate()); err != nil {
			return fmt.Errorf("take away version %d: %w", s.Candidate.Version, err)
		}
		if serving, err = w.Target.Serving(ctx); err != nil {
			return fmt.Errorf("what serves: %w", err)
		}
	}
	if serving.Version != order.To {
		switch err := w.Target.Return(ctx, order.To); {
		case errors.Is(err, ErrGone):
			return errors.Join(err, w.save(ctx, func(s *State) { s.Order, s.Candidate = nil, nil }))
		case err != nil:
			return err
		}
		if serving, err = w.Target.Serving(ctx); err != nil {
			return fmt.Errorf("what serves: %w", err)
		}
	}
	now := time.Now().UTC()
	return w.save(ctx, func(s *State) {
		s.allow(order.To)
		if order.To < newest {
			s.refuse(Refusal{Version: newest, From: order.To + 1, By: ByOperator, Time: now,
				Reason: fmt.Sprintf("version %d was ordered back", order.To)})
		}
		s.Serving, s.Previous, s.Kept = order.To, predecessor(serving, 0), serving.Kept
		s.Since, s.Candidate, s.Order = now, nil, nil
	}, Entry{Time: now, Event: Returned, Version: order.To, Reason: "by an operator"})
}
