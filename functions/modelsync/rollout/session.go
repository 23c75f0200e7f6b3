package rollout

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// conflicts is how often a change of the State is tried when others change it at the same time.
	conflicts = 10
	// renewals is how often a lease is renewed in its time.
	renewals = 4
	// farewell is the time for what is written down at the end.
	farewell = 5 * time.Second
)

func newID() string { return uuid.NewString() }

// update changes the State, whoever else changes it at the same time. change is called again with what they left.
func (r *Rollout) update(ctx context.Context, change func(*State) error) (State, error) {
	for range conflicts {
		s, revision, err := r.Records.Load(ctx)
		if err != nil {
			return State{}, fmt.Errorf("read the state: %w", err)
		}
		s = s.clone()
		r.describe(&s)
		if err := change(&s); err != nil {
			return State{}, err
		}
		if _, err = r.Records.Save(ctx, s, revision); err == nil {
			return s, nil
		} else if !errors.Is(err, ErrConflict) {
			return State{}, fmt.Errorf("write the state: %w", err)
		}
	}
	return State{}, fmt.Errorf("write the state: %w, again and again", ErrConflict)
}

// session is the time in which the network is this process's to work on. What it knows of the State is what it wrote itself
// or read since.
type session struct {
	*Rollout
	id string

	mu       sync.Mutex
	state    State
	revision string
}

// work does something while the network is this process's. do's context ends when it is no more, or when somebody wants
// another version back; that is then done before work returns, and the error is errOrdered.
func (r *Rollout) work(ctx context.Context, do func(ctx context.Context, w *session) error) error {
	w := &session{Rollout: r, id: r.Holder + "/" + newID()}
	if err := w.acquire(ctx); err != nil {
		return err
	}
	held, lose := context.WithCancelCause(ctx)
	busy, interrupt := context.WithCancelCause(held)
	var renewing sync.WaitGroup
	renewing.Go(func() { w.renew(held, lose, interrupt) })
	defer func() {
		lose(nil)
		renewing.Wait()
		w.release(context.WithoutCancel(ctx))
	}()
	var err error
	if !w.ordered() {
		err = do(busy, w)
	}
	if cause := context.Cause(busy); err != nil && cause != nil && ctx.Err() == nil {
		err = cause // what do says follows from it
	}
	if w.ordered() {
		if err := w.obey(held); err != nil {
			return err
		}
		return errOrdered
	}
	return err
}

// acquire takes the lease, unless somebody has it.
func (w *session) acquire(ctx context.Context) error {
	s, revision, err := w.Records.Load(ctx)
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	if s.Holder != nil && time.Now().Before(s.Holder.Until) {
		return errBusy
	}
	w.state, w.revision = s, revision
	err = w.save(ctx, func(s *State) { w.describe(s) })
	if errors.Is(err, errLost) { // somebody was quicker
		return errBusy
	}
	return err
}

// save changes the State, and makes the lease last. When somebody else has changed it meanwhile the change is made to what
// they left, unless that is another's lease.
func (w *session) save(ctx context.Context, change func(*State), entries ...Entry) error {
	if err := w.write(ctx, change, entries); err != nil {
		return err
	}
	for _, e := range entries {
		w.tell(ctx, e)
	}
	return nil
}

func (w *session) write(ctx context.Context, change func(*State), entries []Entry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range conflicts {
		s := w.state.clone()
		change(&s)
		for _, e := range entries {
			s.note(e)
		}
		s.Holder = &Lease{ID: w.id, Until: time.Now().Add(w.Lease).UTC()}
		revision, err := w.Records.Save(ctx, s, w.revision)
		if err == nil {
			w.state, w.revision = s, revision
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			return fmt.Errorf("write the state: %w", err)
		}
		s, revision, err = w.Records.Load(ctx)
		if err != nil {
			return fmt.Errorf("read the state: %w", err)
		}
		if s.Holder != nil && s.Holder.ID != w.id && time.Now().Before(s.Holder.Until) {
			return errLost
		}
		if w.state.Holder != nil && w.state.Holder.ID == w.id && (s.Holder == nil || s.Holder.ID != w.id) {
			return errLost // it was another's meanwhile, and what we know of the network is old
		}
		w.state, w.revision = s, revision
	}
	return fmt.Errorf("write the state: %w, again and again", ErrConflict)
}

// renew makes the lease last, and looks for orders, until ctx ends.
func (w *session) renew(ctx context.Context, lose, interrupt context.CancelCauseFunc) {
	tick := time.NewTicker(w.Lease / renewals)
	defer tick.Stop()
	until := time.Now().Add(w.Lease)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-w.poke:
		}
		began := time.Now()
		try, cancel := context.WithTimeout(ctx, w.Lease/renewals)
		err := w.write(try, func(*State) {}, nil)
		cancel()
		switch {
		case err == nil:
			until = began.Add(w.Lease)
		case errors.Is(err, errLost):
			lose(errLost)
			return
		case !time.Now().Before(until):
			lose(fmt.Errorf("%w: %w", errLost, err))
			return
		}
		if w.ordered() {
			interrupt(errOrdered)
		}
	}
}

// release gives the lease back. When that cannot be written down it runs out.
func (w *session) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	_, err := w.update(ctx, func(s *State) error {
		if s.Holder == nil || s.Holder.ID != w.id {
			return errLost
		}
		s.Holder = nil
		return nil
	})
	if err != nil {
		w.Logger.WarnContext(ctx, "the lease is not given back: it runs out", "error", err)
	}
}

// now is the State as this session knows it.
func (w *session) now() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state.clone()
}

func (w *session) ordered() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state.Order != nil
}
