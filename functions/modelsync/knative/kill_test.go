package knative_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/functions/modelsync/knative"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
)

const (
	waitFor = 10 * time.Second
	tick    = 5 * time.Millisecond
)

func isRefused(err error) bool { return errors.Is(err, rollout.ErrRefused) }

// step is one call of a Target.
type step struct {
	name string
	do   func(context.Context, *knative.Target) error
}

func stage(version int64) step {
	return step{fmt.Sprintf("stage %d", version), func(ctx context.Context, t *knative.Target) error {
		_, err := t.Stage(ctx, candidate(version))
		return err
	}}
}

func shift(version int64, percent int) step {
	return step{fmt.Sprintf("shift %d to %d", version, percent), func(ctx context.Context, t *knative.Target) error {
		return t.Shift(ctx, candidate(version), percent)
	}}
}

func abandon(version int64, percent int) step {
	return step{fmt.Sprintf("abandon %d", version), func(ctx context.Context, t *knative.Target) error { return t.Abandon(ctx, given(version, percent)) }}
}

func giveBack(version int64) step {
	return step{fmt.Sprintf("return to %d", version), func(ctx context.Context, t *knative.Target) error { return t.Return(ctx, version) }}
}

func prune(keep ...int64) step {
	return step{"prune", func(ctx context.Context, t *knative.Target) error { return t.Prune(ctx, keep) }}
}

var look = step{"serving", func(ctx context.Context, t *knative.Target) error {
	_, err := t.Serving(ctx)
	return err
}}

// outcome is what is left in the cluster.
func (c *cluster) outcome() []string {
	svc := c.get()
	return append(append(c.revisions(), c.traffic()...), svc.Spec.Template.Spec.Containers[0].Image, svc.Annotations["ebb.dev/versions"])
}

// Between any two writes a process may die. Whoever goes on repeats the call that was under way, and it all ends as if nothing
// had happened; on the way, everything that serves is a version that may.
func TestProcessThatDiesBetweenTwoWritesIsFollowedByAnother(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		steps []step
	}{
		{"rolled out", []step{look, stage(2), shift(2, 10), shift(2, 50), shift(2, 100), prune(1, 2)}},
		{"rolled out twice and pruned", []step{look, stage(2), shift(2, 100), stage(3), shift(3, 10), shift(3, 100), prune(2, 3)}},
		{"abandoned at a step", []step{look, stage(2), shift(2, 50), abandon(2, 50), prune(1)}},
		{"abandoned at the end", []step{look, stage(2), shift(2, 100), stage(3), shift(3, 100), abandon(3, 100), prune(1, 2)}},
		{"taken back", []step{look, stage(2), shift(2, 100), giveBack(1), prune(1, 2)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			undisturbed := newCluster(t)
			for _, s := range tc.steps {
				require.NoError(t, s.do(t.Context(), undisturbed.target()), s.name)
			}
			require.Greater(t, undisturbed.writes, 3)
			for n := 1; n <= undisturbed.writes; n++ {
				for _, late := range []bool{false, true} {
					c := newCluster(t)
					c.killAt, c.killLate = n, late
					deaths := 0
					for _, s := range tc.steps {
						err := s.do(t.Context(), c.target())
						if c.died() {
							require.ErrorIs(t, err, errKilled)
							deaths++
							err = s.do(t.Context(), c.target())
						}
						require.NoError(t, err, "%s, after write %d, late %v", s.name, n, late)
					}
					require.Equal(t, 1, deaths)
					require.Equal(t, undisturbed.outcome(), c.outcome(), "write %d, late %v", n, late)
				}
			}
		})
	}
}
