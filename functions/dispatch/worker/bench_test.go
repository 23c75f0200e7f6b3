package worker_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/functions/dispatch/worker"
	pic "github.com/ebb-inference/ebb/models/picture"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// What a delivery costs beside the picture and the network: the picture has four pixels, and the network is a no-op.
func BenchmarkDelivery(b *testing.B) {
	w := newWorld(b, worker.Config{Model: newModel(b, pixels), Predictor: &predictor{predict: network}})
	data := picture(b, 1)
	requests := make([]*http.Request, b.N)
	for i := range requests {
		requests[i] = w.request(w.event(data))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, req := range requests {
		rec := httptest.NewRecorder()
		w.worker.ServeHTTP(rec, req)
		require.Equal(b, http.StatusNoContent, rec.Code)
		<-w.replies
	}
}

// One picture at a time to a real gRPC server: by way of a worker over HTTP, and as directly as can be. The difference is
// what dispatch adds.
func BenchmarkOneAtATime(b *testing.B) {
	const large = "input: {tensor: image, dtype: uint8, width: 299, height: 299}\n"
	m := newModel(b, large)
	client := (&modelServer{predict: flat}).dial(b)
	data := picture(b, 1)

	b.Run("direct", func(b *testing.B) {
		for b.Loop() {
			img, err := pic.Decode(data, pic.DefaultLimits)
			require.NoError(b, err)
			tensor, err := pic.AppendTensor(nil, img, m.Input)
			require.NoError(b, err)
			_, _, err = client.Predict(b.Context(), tfserving.Spec{Model: "net"},
				map[string]tfserving.Tensor{"image": {DType: tfserving.Uint8, Shape: []int64{1, 299, 299, 3}, Data: tensor}}, "probabilities")
			require.NoError(b, err)
		}
	})
	b.Run("worker", func(b *testing.B) {
		w := newWorld(b, worker.Config{Model: m, Predictor: client})
		front := httptest.NewServer(w.worker)
		defer front.Close()
		for b.Loop() {
			req, err := events.NewHTTPRequest(b.Context(), front.URL, w.event(data))
			require.NoError(b, err)
			res, err := front.Client().Do(req)
			require.NoError(b, err)
			require.NoError(b, res.Body.Close())
			<-w.replies
		}
	})
}

// flat answers any picture alike, at no cost.
func flat(context.Context, tfserving.Tensor) (tfserving.Tensor, error) {
	return floats([]float32{.25, .75}), nil
}
