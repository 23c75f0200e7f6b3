package models

import (
	"errors"
	"fmt"
	"slices"
)

// Network is one network at its server, which several models may share, with what they say of its source. A newer version
// of it is one for all of them.
type Network struct {
	Name    string // at its server: Serving.Model
	Address string
	Source  Source
	Rollout Rollout  // its golden pictures are the models' own
	Models  []*Model // all that are served by it, at least one of which names the source
}

// Networks are the networks of models that name a source, in the order of their first models. It is an error when models
// that share one say different things of where it comes from or how it is rolled out, or keep a version of their own; and when
// two servers have networks of one name, since a name is what people call them by; and when one of their golden pictures is not
// beside its definition.
func Networks(all []*Model) ([]*Network, error) {
	var networks []*Network
	var errs []error
	for _, m := range all {
		if m.Serving.Source == (Source{}) {
			continue
		}
		n := &Network{Name: m.Serving.Model, Address: m.Serving.Address, Source: m.Serving.Source, Rollout: m.Serving.Rollout}
		n.Rollout.Golden = nil
		i := slices.IndexFunc(networks, func(other *Network) bool { return other.Name == n.Name })
		if i < 0 {
			n.Models, errs = sharing(all, n, errs)
			networks = append(networks, n)
			continue
		}
		if err := networks[i].agrees(n); err != nil {
			errs = append(errs, fmt.Errorf("model %s: %w", m.Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return networks, nil
}

// sharing are the models that a network serves; it adds to errs what keeps one of them from a newer version.
func sharing(all []*Model, n *Network, errs []error) ([]*Model, []error) {
	var served []*Model
	for _, m := range all {
		if m.Serving.Model != n.Name || m.Serving.Address != n.Address {
			continue
		}
		if m.Serving.Version != 0 || m.Serving.Label != "" {
			errs = append(errs, fmt.Errorf("model %s: serving keeps a version of the network %s, which another model has a source of newer ones for; remove the version or label",
				m.Name, n.Name))
		}
		errs = append(errs, m.absent...)
		served = append(served, m)
	}
	return served, errs
}

// agrees says what another model says differently of the network.
func (n *Network) agrees(other *Network) error {
	first := n.Models[0].Name
	switch {
	case n.Address != other.Address:
		return fmt.Errorf("serving.model is %s, as model %s has it at another address, %s; call the network otherwise at one of them",
			n.Name, first, n.Address)
	case n.Source != other.Source:
		return fmt.Errorf("serving.source differs from that of model %s, which shares the network %s; say the same, or say it once", first, n.Name)
	case !slices.Equal(n.Rollout.Steps, other.Rollout.Steps), n.Rollout.Hold != other.Rollout.Hold,
		n.Rollout.Errors != other.Rollout.Errors, n.Rollout.Latency != other.Rollout.Latency:
		return fmt.Errorf("serving.rollout differs from that of model %s, which shares the network %s; give the same steps, hold, errors and latency",
			first, n.Name)
	}
	return nil
}
