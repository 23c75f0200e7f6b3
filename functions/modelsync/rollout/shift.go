package rollout

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/ebb-inference/ebb/models/source"
)

const (
	whole    = 100
	pollMost = 10 * time.Second // between two looks at how a step goes
	pollPart = 10               // of a step's time
)

// prepare brings the candidate's files, makes it run without traffic, and checks it. All of it begins anew when its process
// dies: files and, where servers are no more than processes, servers are gone with it.
func (w *session) prepare(ctx context.Context, src source.Source) error {
	c := w.candidate()
	dir, err := os.MkdirTemp(w.Dir, fmt.Sprintf("%s-%d-*", w.Network.Name, c.Version))
	if err != nil {
		return fmt.Errorf("a folder for version %d: %w", c.Version, err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := w.enter(ctx, PhaseFetch); err != nil {
		return err
	}
	fetched, err := src.Fetch(ctx, c.Version, dir)
	if err != nil {
		return err
	}
	c.Dir, c.Digest = dir, fetched.Digest
	if err := w.save(ctx, func(s *State) { s.Candidate.Digest = fetched.Digest }); err != nil {
		return err
	}
	if err := w.enter(ctx, PhaseStage); err != nil {
		return err
	}
	address, err := w.Target.Stage(ctx, c)
	if err != nil {
		return err
	}
	if err := w.enter(ctx, PhaseCheck, Entry{Time: time.Now().UTC(), Event: Staged, Version: c.Version}); err != nil {
		return err
	}
	return w.check(ctx, address, c.Version)
}

// shift gives the candidate its traffic, step by step, and makes it the one that serves.
func (w *session) shift(ctx context.Context) (Outcome, error) {
	if err := w.measure(ctx); err != nil {
		return Failed, err
	}
	var steps []int
	if !w.Whole && w.now().Serving != 0 {
		steps = w.Network.Rollout.Steps
	}
	for _, percent := range append(slices.Clone(steps), whole) {
		if percent < w.now().Candidate.Percent {
			continue // it had so much already
		}
		if err := w.step(ctx, percent); err != nil {
			return w.judged(ctx, err, ByWatch)
		}
	}
	return w.settled(ctx)
}

// measure writes down how calls went before the candidate had traffic.
func (w *session) measure(ctx context.Context) error {
	if c := w.now().Candidate; c.Before != nil {
		return nil
	}
	counted, err := w.counted(ctx)
	if err != nil {
		return err
	}
	before := since(nil, counted).rate()
	return w.save(ctx, func(s *State) { s.Candidate.Before = &before })
}

// step gives the candidate so much traffic and watches it for as long as the definitions say.
func (w *session) step(ctx context.Context, percent int) error {
	phase := PhaseShift
	if percent == whole {
		phase = PhaseSettle
	}
	if c := w.now().Candidate; c.Percent != percent || c.Since.IsZero() || c.Phase != phase {
		if err := w.begin(ctx, phase, percent); err != nil {
			return err
		}
	}
	end := w.now().Candidate.Since.Add(time.Duration(w.Network.Rollout.Hold))
	for {
		reason, err := w.worse(ctx)
		if reason != "" {
			return fmt.Errorf("%w: with %d %% of the traffic %s", ErrRefused, percent, reason)
		}
		left := time.Until(end)
		switch {
		case left <= 0 && err != nil:
			return err // nobody knows how it did
		case left <= 0 && percent < whole:
			return w.askAgain(ctx)
		case left <= 0:
			return nil
		case err != nil:
			w.Logger.WarnContext(ctx, "calls cannot be counted just now", "error", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("watch version %d: %w", w.now().Candidate.Version, context.Cause(ctx))
		case <-time.After(min(left, pollMost, max(time.Duration(w.Network.Rollout.Hold)/pollPart, time.Millisecond))):
		}
	}
}

// begin shifts the traffic. It is written down before and after.
func (w *session) begin(ctx context.Context, phase Phase, percent int) error {
	err := w.save(ctx, func(s *State) {
		s.Candidate.Phase, s.Candidate.Percent, s.Candidate.Since, s.Candidate.Counted = phase, percent, time.Time{}, nil
	})
	if err != nil {
		return err
	}
	if err := w.Target.Shift(ctx, w.candidate(), percent); err != nil {
		return err
	}
	counted, err := w.counted(ctx)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	return w.save(ctx, func(s *State) { s.Candidate.Since, s.Candidate.Counted = now, counted },
		Entry{Time: now, Event: Shifted, Version: w.candidate().Version, Percent: percent})
}

// askAgain checks the candidate once more, by now with the company of real traffic.
func (w *session) askAgain(ctx context.Context) error {
	address, err := w.Target.Stage(ctx, w.candidate())
	if err != nil {
		return err
	}
	return w.check(ctx, address, w.candidate().Version)
}

// settled makes the candidate what serves, for good.
func (w *session) settled(ctx context.Context) (Outcome, error) {
	serving, err := w.Target.Serving(ctx)
	if err != nil {
		return Failed, fmt.Errorf("what serves: %w", err)
	}
	now := time.Now().UTC()
	err = w.save(ctx, func(s *State) {
		if s.Serving != s.Candidate.Version {
			s.Previous = s.Serving
		}
		s.Serving, s.Kept, s.Since = s.Candidate.Version, serving.Kept, now
		s.Candidate, s.LastFailure = nil, nil
	}, Entry{Time: now, Event: Serves, Version: w.candidate().Version})
	if err != nil {
		return Failed, err
	}
	return RolledOut, w.prune(ctx)
}

func (w *session) counted(ctx context.Context) (map[string]Tally, error) {
	if w.Watcher == nil {
		return nil, nil
	}
	counted, err := w.Watcher.Tallies(ctx)
	if err != nil {
		return nil, fmt.Errorf("count the calls: %w", err)
	}
	return counted, nil
}

// worse says in what the candidate does worse than it may, since it has its traffic.
func (w *session) worse(ctx context.Context) (reason string, err error) {
	counted, err := w.counted(ctx)
	if err != nil {
		return "", err
	}
	s := w.now()
	limits := Limits{Errors: w.Network.Rollout.Errors, Latency: w.Network.Rollout.Latency}
	return limits.worse(since(s.Candidate.Counted, counted), *s.Candidate.Before, s.Candidate.Version, s.Serving), nil
}

// since adds up what was counted by all processes after before was.
func since(before, now map[string]Tally) Tally {
	sum := Tally{Answered: make(map[int64]Count)}
	for process, tally := range now {
		old := before[process] // nothing of one that has begun since
		sum.Failed += less(tally.Failed, old.Failed)
		for version, count := range tally.Answered {
			was := old.Answered[version]
			all := sum.Answered[version]
			all.Calls += less(count.Calls, was.Calls)
			all.Seconds += max(count.Seconds-was.Seconds, 0)
			sum.Answered[version] = all
		}
	}
	maps.DeleteFunc(sum.Answered, func(_ int64, c Count) bool { return c.Calls == 0 })
	return sum
}

func less(now, before uint64) uint64 {
	if now < before {
		return now // it began again, under the same name
	}
	return now - before
}
