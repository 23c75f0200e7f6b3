package worker_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/functions/dispatch/worker"
	"github.com/ebb-inference/ebb/models"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// shifting is a model server in the middle of a roll-out: each call is answered by another version, here 100 times what it was asked.
type shifting struct{ *blocked }

func (s shifting) Predict(ctx context.Context, spec tfserving.Spec, in map[string]tfserving.Tensor, outputs ...string) (map[string]tfserving.Tensor, int64, error) {
	out, _, err := s.blocked.Predict(ctx, spec, in, outputs...)
	return out, in["image"].Shape[0] * 100, err
}

func TestABatchIsAnsweredByOneVersionThatEachOfItsAnswersNames(t *testing.T) {
	t.Parallel()
	bubble(t, "batching: {size: 4, slots: 1, queue: 8}\n", func(t *testing.T, m *models.Model) {
		t.Helper()
		p := shifting{newBlocked()}
		w := newWorld(t, worker.Config{Model: m, Predictor: p})
		var statuses []<-chan int
		for i := range 8 { // the first alone, then four, then three
			statuses = append(statuses, w.begin(w.request(w.event(picture(t, i)))))
		}
		close(p.let)
		for _, s := range statuses {
			require.Equal(t, http.StatusNoContent, <-s)
		}
		versions := map[int64]int{}
		for range 8 {
			r := <-w.replies
			require.Nil(t, r.Problem)
			require.EqualValues(t, r.Answer.BatchSize*100, r.Answer.ServedBy.Version)
			versions[r.Answer.ServedBy.Version]++
		}
		require.Equal(t, map[int64]int{100: 1, 400: 4, 300: 3}, versions)
	})
}
