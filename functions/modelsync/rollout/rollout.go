package rollout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// Server is a model server that a candidate is asked at; *tfserving.Client is one.
type Server interface {
	Metadata(ctx context.Context, spec tfserving.Spec) (map[string]tfserving.Signature, error)
	Predict(ctx context.Context, spec tfserving.Spec, inputs map[string]tfserving.Tensor, outputs ...string) (map[string]tfserving.Tensor, int64, error)
	Close() error
}

// Config is what a Rollout works with. All but Watcher, Notify and what has a default is required.
type Config struct {
	Network *models.Network
	Open    func(ctx context.Context) (source.Source, error) // the network's source
	Target  Target
	Records Records
	Watcher Watcher // nil: nobody counts, and only golden pictures tell how a candidate does
	// Dial finds a server at an address that the Target gives. Default: tfserving.Dial.
	Dial func(address string) (Server, error)
	// Fetch gets a golden picture from its URL. What it brings is held to the checksum.
	Fetch func(ctx context.Context, url string) ([]byte, error)
	// Whole says that the Target cannot divide traffic: a candidate gets none or all of it.
	Whole  bool
	Holder string // names this process among those that may work on the network
	Dir    string // for files on their way; default: the system's for temporary ones
	// Notify is told of everything that happens, after it was recorded. A process that dies between the two tells nobody.
	Notify func(ctx context.Context, e Entry)
	Lease  time.Duration // that a process which died keeps others waiting; default 20 s
	Logger *slog.Logger  // default slog.Default()
}

// Rollout brings newer versions of one network to serve. Its methods may be called at any time and by many processes: the
// Records say who works, and others do not.
type Rollout struct {
	Config
	poke chan struct{} // that there is an order, for a session of this process
}

// New makes a Rollout.
func New(c Config) (*Rollout, error) {
	switch {
	case c.Network == nil, c.Open == nil, c.Target == nil, c.Records == nil, c.Fetch == nil:
		return nil, errors.New("rollout: a network, its source, target and records, and a way to fetch pictures are needed")
	case c.Holder == "":
		return nil, errors.New("rollout: the process has no name")
	}
	if c.Dial == nil {
		c.Dial = func(address string) (Server, error) { return tfserving.Dial(address) }
	}
	if c.Notify == nil {
		c.Notify = func(context.Context, Entry) {}
	}
	if c.Lease <= 0 {
		c.Lease = 20 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Logger = c.Logger.With("network", c.Network.Name)
	return &Rollout{Config: c, poke: make(chan struct{}, 1)}, nil
}

// Outcome is what came of a look.
type Outcome string

// The outcomes.
const (
	Current   Outcome = "current"    // there is nothing newer that may serve
	RolledOut Outcome = "rolled-out" // a newer version serves
	NotTaken  Outcome = "refused"    // a newer version was refused
	UnderWay  Outcome = "under-way"  // time was up; the next look goes on
	TakenBack Outcome = "taken-back" // somebody wanted another version back meanwhile
	Busy      Outcome = "busy"       // another process is at it
	Failed    Outcome = "failed"     // something went wrong that may pass; the next look tries again
)

// Errors of Rollback and Allow.
var (
	// ErrNothing says that there is nothing to take back.
	ErrNothing = errors.New("there is no version to take back to")
	// ErrNotRefused says that a version was not refused.
	ErrNotRefused = errors.New("version is not refused")
	// errBusy says that another process has the lease.
	errBusy = errors.New("another process works on the network")
	// errOrdered ends work when there is an order.
	errOrdered = errors.New("another version is wanted back")
	// errLost ends work when the lease is somebody else's, or may be.
	errLost = errors.New("the lease was lost")
)

// State returns what is known of the network.
func (r *Rollout) State(ctx context.Context) (State, error) {
	s, _, err := r.Records.Load(ctx)
	if err != nil {
		return State{}, fmt.Errorf("read the state of network %s: %w", r.Network.Name, err)
	}
	r.describe(&s)
	return s, nil
}

// Look looks whether there is a newer version and rolls it out, or goes on with the one that is under way. The error says
// what went wrong with the outcome Failed; it is in the State, too.
func (r *Rollout) Look(ctx context.Context) (Outcome, error) {
	outcome := Current
	err := r.work(ctx, func(ctx context.Context, w *session) error {
		var err error
		outcome, err = w.look(ctx)
		return err
	})
	switch {
	case errors.Is(err, errBusy):
		return Busy, nil
	case errors.Is(err, errOrdered):
		return TakenBack, nil
	case err != nil && ctx.Err() != nil:
		return UnderWay, nil //nolint:nilerr // time was up, which is no failure: the next look goes on
	case err != nil:
		return Failed, fmt.Errorf("network %s: %w", r.Network.Name, err)
	}
	return outcome, nil
}

const orderPoll = time.Second

// Rollback makes an earlier version serve again, at once: version to, or with 0 the one before; of a roll-out that is under
// way, the one that served when it began. Versions newer than that are not rolled out again before they are allowed.
//
// Who works on the network carries it out. When that is another process, this one waits until it has.
func (r *Rollout) Rollback(ctx context.Context, to int64) (State, error) {
	order, err := r.order(ctx, to)
	if err != nil {
		return State{}, err
	}
	for {
		err := r.work(ctx, func(context.Context, *session) error { return nil })
		if err != nil && !errors.Is(err, errBusy) && !errors.Is(err, errOrdered) {
			return State{}, fmt.Errorf("network %s: version %d is wanted back, which will be tried again at the next look: %w", r.Network.Name, order.To, err)
		}
		s, err := r.State(ctx)
		if err != nil {
			return State{}, err
		}
		if s.Order == nil || s.Order.ID != order.ID {
			if s.Serving != order.To {
				return s, fmt.Errorf("network %s: version %d does not serve, %d does; see the network's state", r.Network.Name, order.To, s.Serving)
			}
			return s, nil
		}
		select {
		case r.poke <- struct{}{}: // who works here need not wait for its next look at the state
		default:
		}
		select {
		case <-ctx.Done():
			return State{}, fmt.Errorf("network %s: version %d is ordered back and will be: %w", r.Network.Name, order.To, ctx.Err())
		case <-time.After(orderPoll):
		}
	}
}

// order writes down which version is wanted back.
func (r *Rollout) order(ctx context.Context, to int64) (Order, error) {
	order := Order{ID: newID(), To: to, Time: time.Now().UTC()}
	serving, err := r.Target.Serving(ctx)
	if err != nil {
		return order, fmt.Errorf("network %s: what serves: %w", r.Network.Name, err)
	}
	_, err = r.update(ctx, func(s *State) error {
		if to == 0 {
			order.To = s.before(serving)
		}
		switch {
		case order.To == 0:
			return ErrNothing
		case !slices.Contains(serving.Kept, order.To):
			return fmt.Errorf("%w: %d; kept are %v", ErrGone, order.To, serving.Kept)
		}
		s.Order = &order
		return nil
	})
	if err != nil {
		return order, fmt.Errorf("network %s: %w", r.Network.Name, err)
	}
	return order, nil
}

// before is the version to go back to when none is named.
func (s *State) before(serving Serving) int64 {
	if s.Candidate != nil && s.Serving != 0 {
		return s.Serving
	}
	return predecessor(serving, s.Previous)
}

// predecessor is the version that can be gone back to: the one that served before, or else the newest that is older.
func predecessor(serving Serving, previous int64) int64 {
	if previous != serving.Version && slices.Contains(serving.Kept, previous) {
		return previous
	}
	var found int64
	for _, v := range serving.Kept {
		if v < serving.Version {
			found = max(found, v)
		}
	}
	return found
}

// Allow makes a version that was refused one that may be rolled out, at the next look.
func (r *Rollout) Allow(ctx context.Context, version int64) (State, error) {
	entry := Entry{Time: time.Now().UTC(), Event: Allowed, Version: version}
	s, err := r.update(ctx, func(s *State) error {
		if !s.allow(version) {
			return fmt.Errorf("%w: %d", ErrNotRefused, version)
		}
		s.note(entry)
		return nil
	})
	if err != nil {
		return State{}, fmt.Errorf("network %s: %w", r.Network.Name, err)
	}
	r.tell(ctx, entry)
	return s, nil
}

// tell tells of what happened, in the log and elsewhere.
func (r *Rollout) tell(ctx context.Context, e Entry) {
	r.Logger.InfoContext(ctx, "roll-out", "event", e.Event, "version", e.Version, "percent", e.Percent, "reason", e.Reason)
	r.Notify(ctx, e)
}

// describe writes into a State what the definitions say.
func (r *Rollout) describe(s *State) {
	s.Network, s.Source = r.Network.Name, r.Network.Source.URL
	s.Models = make([]string, len(r.Network.Models))
	for i, m := range r.Network.Models {
		s.Models[i] = m.Name
	}
}
