package rollout

import (
	"context"
	"errors"
)

// ErrConflict says that a State was replaced by somebody else since it was loaded.
var ErrConflict = errors.New("state was changed by somebody else")

// Records keep a network's State where every process finds it.
type Records interface {
	// Load returns the State and its revision, which only Save understands. Of a network that has none yet both are zero.
	Load(ctx context.Context) (s State, revision string, err error)
	// Save puts a State in place of the one with that revision and returns its own. ErrConflict when there is another one by
	// now, which then stays.
	Save(ctx context.Context, s State, revision string) (saved string, err error)
}
