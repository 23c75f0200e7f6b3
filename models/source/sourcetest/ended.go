package sourcetest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/source"
)

// maxSteps bounds how often a Fetch may look whether it is ended.
const maxSteps = 100_000

// endedAtSteps ends a Fetch when it looks at its context for the first time, the second time and so on, each further on than
// the one before, all into one folder, until one comes to its end. No step may do harm.
func endedAtSteps(t *testing.T, p *Place) {
	t.Helper()
	p.Publish(t, "1", network().withSums())
	s, dir := p.open(t, source.Limits{}), folder(t)
	ended := 0
	// The steps grow, so that there are few tries even where the context is looked at for each packet.
	for after := 0; after < maxSteps; after += 1 + after/8 {
		got, err := s.Fetch(newSteps(t.Context(), after), 1, dir)
		if err == nil {
			require.Equal(t, networkDigest, got.Digest)
			require.True(t, got.Verified)
			requireFiles(t, network(), dir)
			require.NotZero(t, ended, "the source never looked whether it was to end")
			return
		}
		require.ErrorIs(t, err, context.Canceled)
		ended++
	}
	require.Fail(t, "it came to no end")
}

// steps is a context that ends when it is looked at once too often.
type steps struct {
	context.Context //nolint:containedctx // it is one
	cancel          context.CancelFunc

	mu   sync.Mutex
	left int
}

func newSteps(parent context.Context, after int) *steps {
	ctx, cancel := context.WithCancel(parent)
	return &steps{Context: ctx, cancel: cancel, left: after}
}

func (s *steps) step() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left--; s.left < 0 {
		s.cancel()
	}
}

func (s *steps) Done() <-chan struct{} {
	s.step()
	return s.Context.Done()
}

func (s *steps) Err() error {
	s.step()
	return s.Context.Err()
}

// brokenInFiles loses the connection in the middle of each file, and at the start and end of it.
func brokenInFiles(t *testing.T, p *Place) {
	t.Helper()
	if p.Break == nil {
		t.Skip("there is no connection to lose")
	}
	files := network().withSums()
	p.Publish(t, "1", files)
	s := p.open(t, source.Limits{})
	total := files.bytes()
	for _, after := range []int64{0, 1, 100, total / 4, total / 2, total - 100, total - 1} {
		dir := folder(t)
		var lost bool
		var mu sync.Mutex
		p.Break(t, after, func() {
			mu.Lock()
			defer mu.Unlock()
			lost = true
		})
		got, err := s.Fetch(t.Context(), 1, dir)
		mu.Lock()
		require.True(t, lost, "the connection was to be lost after %d bytes of %d", after, total)
		mu.Unlock()
		if err != nil {
			for _, wrong := range []error{source.ErrGone, source.ErrCorrupt, source.ErrLimit} {
				require.NotErrorIs(t, err, wrong, "a lost connection is nobody's fault")
			}
			got, err = s.Fetch(t.Context(), 1, dir)
		}
		require.NoError(t, err)
		require.Equal(t, networkDigest, got.Digest)
		requireFiles(t, network(), dir)
	}
}

// replaced publishes other files as the same version, which nobody should, when half of the version has come.
func replaced(t *testing.T, p *Place) {
	t.Helper()
	if p.Break == nil {
		t.Skip("there is no connection to lose")
	}
	other := Files{}
	for name, content := range network() {
		other[name] = content + " and more"
	}
	p.Publish(t, "1", network())
	s, dir := p.open(t, source.Limits{}), folder(t)
	p.Break(t, network().bytes()/2, func() { p.Publish(t, "1", other) })
	_, err := s.Fetch(t.Context(), 1, dir)
	require.Error(t, err)
	require.NotErrorIs(t, err, source.ErrGone)
	_, err = s.Fetch(t.Context(), 1, dir)
	require.NoError(t, err)
	requireFiles(t, other, dir)
}

func isAny(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
