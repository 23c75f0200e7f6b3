// Package service is modelsync over HTTP: a CloudEvent asks for a look at all networks, and people and programs ask how one
// does, for a look at it, for an earlier version back, and for a version that was refused to be allowed.
//
//	POST /                            CloudEvent dev.knative.sources.ping or dev.ebb.model.look.v1
//	GET  /v1/networks                 {"networks": [state …]}
//	GET  /v1/networks/{name}          state
//	POST /v1/networks/{name}/look     {"outcome": …, "state": …}
//	POST /v1/networks/{name}/rollback {"to": 3}, or {} for the version before
//	POST /v1/networks/{name}/allow    {"version": 4}
//
// A name is a network's or that of one of its models. The package decides nothing: package rollout does.
package service

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/models"
)

// Defaults of Config.
const (
	DefaultPatience = 8 * time.Minute
	commandTimeout  = time.Minute // for a rollback, or allowing a version
)

// Network is one network and what rolls it out; *rollout.Rollout does.
type Network struct {
	*models.Network
	Rollout Rollout
}

// Rollout is what a Service asks of a network.
type Rollout interface {
	State(ctx context.Context) (rollout.State, error)
	Look(ctx context.Context) (rollout.Outcome, error)
	Rollback(ctx context.Context, to int64) (rollout.State, error)
	Allow(ctx context.Context, version int64) (rollout.State, error)
}

var _ Rollout = (*rollout.Rollout)(nil)

// Config says what a Service offers. Networks are required.
type Config struct {
	Networks []Network
	// Patience is how long a look may take before it leaves the rest to the next one; default DefaultPatience. Whoever sends
	// the request has to wait for longer.
	Patience time.Duration
	Logger   *slog.Logger // default slog.Default()
}

// Service is an http.Handler. It has no goroutine that is not a request's, but for Every.
type Service struct {
	Config
	in     *instruments
	mux    *http.ServeMux
	origin *http.CrossOriginProtection
}

// New makes a Service.
func New(c Config) (*Service, error) {
	c.Patience = cmp.Or(c.Patience, DefaultPatience)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	in, err := newInstruments()
	if err != nil {
		return nil, err
	}
	s := &Service{Config: c, in: in, mux: http.NewServeMux(), origin: http.NewCrossOriginProtection()}
	s.routes()
	return s, nil
}

// LookAll looks at all networks at the same time, and says what came of each, in their order. What went wrong is in their
// states.
func (s *Service) LookAll(ctx context.Context) []rollout.Outcome {
	outcomes := make([]rollout.Outcome, len(s.Networks))
	var looks sync.WaitGroup
	for i, n := range s.Networks {
		looks.Go(func() { outcomes[i], _ = s.look(ctx, n) })
	}
	looks.Wait()
	return outcomes
}

// look looks at one network, and measures it.
func (s *Service) look(ctx context.Context, n Network) (rollout.Outcome, error) {
	began := time.Now()
	patient, cancel := context.WithTimeout(ctx, s.Patience)
	defer cancel()
	outcome, err := n.Rollout.Look(patient)
	log := s.Logger.With("network", n.Name, "outcome", outcome, "duration_ms", time.Since(began).Milliseconds())
	switch {
	case err != nil:
		log.WarnContext(ctx, "a look at the versions of a network failed; the next one tries again", "error", err)
	case outcome == rollout.Current, outcome == rollout.Busy:
		log.DebugContext(ctx, "looked at the versions of a network")
	default:
		log.InfoContext(ctx, "looked at the versions of a network")
	}
	s.in.looked(ctx, n.Name, outcome)
	s.measure(ctx, n, outcome)
	return outcome, err
}

// measure reads from the state what is measured of it. It is read after the caller's time is up, too.
func (s *Service) measure(ctx context.Context, n Network, outcome rollout.Outcome) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	state, err := n.Rollout.State(ctx)
	if err != nil {
		s.Logger.WarnContext(ctx, "the state of a network is not measured", "network", n.Name, "error", err)
		return
	}
	s.in.measure(ctx, state, outcome)
}

// Every looks at all networks, now and then at an interval, until ctx ends.
func (s *Service) Every(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		s.LookAll(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// find returns the network of a name, or the one of the model of that name.
func (s *Service) find(name string) (Network, bool) {
	for _, n := range s.Networks {
		if n.Name == name {
			return n, true
		}
	}
	for _, n := range s.Networks {
		if slices.Contains(n.modelNames(), name) {
			return n, true
		}
	}
	return Network{}, false
}

func (n Network) modelNames() []string {
	names := make([]string, len(n.Models))
	for i, m := range n.Models {
		names[i] = m.Name
	}
	return names
}

// States are the states of all networks.
func (s *Service) States(ctx context.Context) ([]rollout.State, error) {
	states := make([]rollout.State, len(s.Networks))
	for i, n := range s.Networks {
		state, err := n.Rollout.State(ctx)
		if err != nil {
			return nil, err //nolint:wrapcheck // it names the network
		}
		states[i] = trimmed(state)
	}
	return states, nil
}

// trimmed is a state without what only the next look needs.
func trimmed(s rollout.State) rollout.State {
	if s.Candidate != nil {
		c := *s.Candidate
		c.Counted = nil
		s.Candidate = &c
	}
	return s
}
