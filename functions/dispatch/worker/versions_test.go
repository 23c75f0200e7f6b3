package worker_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebb-inference/ebb/functions/dispatch/worker"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// calls is how many calls of the model server each version answered, and how many failed.
func (w *world) calls() (answered map[string]uint64, failed int64) {
	w.tb.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(w.tb, metrics.Collect(context.Background(), &all))
	answered = map[string]uint64{}
	mine := func(set attribute.Set) bool {
		model, _ := set.Value("model")
		network, _ := set.Value("network")
		return model.AsString() == w.model.Name && network.AsString() == "net"
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch m.Name {
			case "ebb.dispatch.compute.duration":
				for _, p := range m.Data.(metricdata.Histogram[float64]).DataPoints {
					if version, _ := p.Attributes.Value("version"); mine(p.Attributes) {
						answered[version.AsString()] += p.Count
					}
				}
			case "ebb.dispatch.compute.failures":
				for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
					if mine(p.Attributes) {
						failed += p.Value
					}
				}
			}
		}
	}
	return answered, failed
}

func TestCallsAreCountedByTheVersionThatAnswered(t *testing.T) {
	t.Parallel()
	fail := false
	w := newWorld(t, worker.Config{Model: newModel(t, pixels), Predictor: &predictor{
		predict: func(ctx context.Context, in tfserving.Tensor) (tfserving.Tensor, error) {
			if fail {
				return tfserving.Tensor{}, status.Error(codes.Internal, "broken")
			}
			return network(ctx, in)
		},
	}})
	require.Equal(t, http.StatusNoContent, w.deliver(w.request(w.event(picture(t, 1)))).Code)
	fail = true
	require.Equal(t, http.StatusInternalServerError, w.deliver(w.request(w.event(picture(t, 2)))).Code)
	answered, failed := w.calls()
	require.Equal(t, map[string]uint64{"3": 1}, answered)
	require.EqualValues(t, 1, failed)
}

func TestAPictureThatTheNetworkRefusesIsNoFailureOfTheNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worker.Config{Model: newModel(t, pixels), Predictor: &predictor{
		predict: func(context.Context, tfserving.Tensor) (tfserving.Tensor, error) {
			return tfserving.Tensor{}, tfserving.ErrInvalid
		},
	}})
	w.deliver(w.request(w.event(poison(t))))
	answered, failed := w.calls()
	require.Empty(t, answered)
	require.Zero(t, failed)
}

func TestAnOutputThatIsNoAnswerIsAFailureOfTheNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worker.Config{Model: newModel(t, pixels), Predictor: &predictor{
		predict: func(context.Context, tfserving.Tensor) (tfserving.Tensor, error) {
			return floats([]float32{1, 2, 3}), nil
		},
	}})
	w.deliver(w.request(w.event(picture(t, 1))))
	_, failed := w.calls()
	require.EqualValues(t, 1, failed)
}

func TestAServerThatNamesAnotherVersionEachTimeCostsNoMemory(t *testing.T) {
	t.Parallel()
	server := &everyVersion{}
	w := newWorld(t, worker.Config{Model: newModel(t, pixels), Predictor: server})
	for i := range 210 {
		require.Equal(t, http.StatusNoContent, w.deliver(w.request(w.event(picture(t, i)))).Code)
	}
	answered, _ := w.calls()
	require.Len(t, answered, 201)
	require.EqualValues(t, 10, answered["other"])
}

// everyVersion answers with a version of its own each time.
type everyVersion struct {
	predictor
	version int64
}

func (e *everyVersion) Predict(ctx context.Context, _ tfserving.Spec, in map[string]tfserving.Tensor, outputs ...string) (map[string]tfserving.Tensor, int64, error) {
	e.version++
	out, err := network(ctx, in["image"])
	return map[string]tfserving.Tensor{outputs[0]: out}, e.version, err
}
