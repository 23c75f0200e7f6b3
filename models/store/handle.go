package store

import (
	"fmt"
	"sync/atomic"
)

// Ref names a version of a model. Without a version and a label it is the newest version that is available.
type Ref struct {
	Model   string
	Version int64
	Label   string
}

// Handle is a version in use: it is not closed before Release.
type Handle[S Servable] struct {
	Servable S
	Version  int64

	m        *model[S]
	v        *version[S]
	released atomic.Bool
}

// Acquire takes a version into use. The caller must Release the handle when its call has ended. The error is ErrModel,
// ErrVersion, ErrLabel, ErrNotLoaded or ErrClosed, with what is wrong.
func (s *Store[S]) Acquire(ref Ref) (*Handle[S], error) {
	m, err := s.model(ref.Model)
	if err != nil {
		return nil, err
	}
	wanted := ref.Version
	if ref.Label != "" {
		if wanted, err = m.resolve(ref.Label); err != nil {
			return nil, err
		}
	}
	return m.acquire(wanted)
}

// Release ends the use of the version. More than one call does nothing.
func (h *Handle[S]) Release() {
	if h.released.Swap(true) {
		return
	}
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	h.v.uses--
	if h.v.uses == 0 && h.v.state == Unloading {
		close(h.v.idle)
	}
}

func (m *model[S]) acquire(wanted int64) (*Handle[S], error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.versions[wanted]
	if wanted == 0 {
		v = m.latest()
	}
	if v == nil || v.state != Available {
		return nil, m.missing(wanted, v)
	}
	v.uses++
	return &Handle[S]{Servable: v.servable, Version: v.number, m: m, v: v}, nil
}

// latest returns the newest version that is available, or nil.
func (m *model[S]) latest() *version[S] {
	var latest *version[S]
	for _, v := range m.versions {
		if v.state == Available && (latest == nil || v.number > latest.number) {
			latest = v
		}
	}
	return latest
}

// missing says why there is no such version to use.
func (m *model[S]) missing(wanted int64, v *version[S]) error {
	switch {
	case wanted == 0:
		if why := m.why(); why != nil {
			return fmt.Errorf("model %q is %w: %w", m.name, ErrNotLoaded, why)
		}
		return fmt.Errorf("model %q is %w: it has no version yet", m.name, ErrNotLoaded)
	case v == nil && m.looks > 0, v != nil && v.state >= Unloading && v.err == nil:
		return fmt.Errorf("%w %d of model %q", ErrVersion, wanted, m.name)
	case v != nil && v.err != nil:
		return fmt.Errorf("version %d of model %q is %w: %w", wanted, m.name, ErrNotLoaded, v.err)
	default:
		return fmt.Errorf("version %d of model %q is %w yet", wanted, m.name, ErrNotLoaded)
	}
}

func (m *model[S]) resolve(label string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	version, ok := m.cfg.Labels[label]
	if !ok {
		return 0, fmt.Errorf("%w %q of model %q", ErrLabel, label, m.name)
	}
	return version, nil
}
