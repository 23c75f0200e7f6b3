package worker_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/functions/dispatch/worker"
	"github.com/ebb-inference/ebb/models/tfserving"
	"github.com/ebb-inference/ebb/models/tfserving/serving"
	"github.com/ebb-inference/ebb/models/tfserving/tensorflow"
)

// modelServer is the network behind TF Serving's protocol.
type modelServer struct {
	serving.UnimplementedPredictionServiceServer
	serving.UnimplementedModelServiceServer

	predict func(context.Context, tfserving.Tensor) (tfserving.Tensor, error)

	mu   sync.Mutex
	last *serving.PredictRequest
}

func (s *modelServer) Predict(ctx context.Context, req *serving.PredictRequest) (*serving.PredictResponse, error) {
	s.mu.Lock()
	s.last = req
	s.mu.Unlock()
	in, err := tfserving.FromProto(req.GetInputs()["image"])
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	out, err := s.predict(ctx, in)
	if err != nil {
		return nil, err
	}
	return &serving.PredictResponse{
		Outputs:   map[string]*tensorflow.TensorProto{"probabilities": out.Proto()},
		ModelSpec: &serving.ModelSpec{Name: "net", VersionChoice: &serving.ModelSpec_Version{Version: wrapperspb.Int64(7)}},
	}, nil
}

// fussy is a network that refuses a batch with poison in it.
func fussy(ctx context.Context, in tfserving.Tensor) (tfserving.Tensor, error) {
	for pixel := in.Data; len(pixel) > 0; pixel = pixel[12:] {
		if pixel[2] == 255 {
			return tfserving.Tensor{}, status.Error(codes.InvalidArgument, "an item is too blue")
		}
	}
	return network(ctx, in)
}

func (s *modelServer) GetModelStatus(context.Context, *serving.GetModelStatusRequest) (*serving.GetModelStatusResponse, error) {
	return &serving.GetModelStatusResponse{ModelVersionStatus: []*serving.ModelVersionStatus{
		{Version: 7, State: serving.ModelVersionStatus_AVAILABLE},
	}}, nil
}

// dial starts the server on loopback and returns a client of it.
func (s *modelServer) dial(tb testing.TB) *tfserving.Client {
	tb.Helper()
	ln, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	server := grpc.NewServer()
	serving.RegisterPredictionServiceServer(server, s)
	serving.RegisterModelServiceServer(server, s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	client, err := tfserving.Dial(ln.Addr().String())
	require.NoError(tb, err)
	tb.Cleanup(func() {
		require.NoError(tb, client.Close())
		server.Stop()
		require.NoError(tb, <-served)
	})
	return client
}

func TestEachOfManyRequestsGetsItsOwnAnswerAndPoisonFailsAlone(t *testing.T) {
	t.Parallel()
	const requests, poisonEvery = 300, 50
	server := &modelServer{predict: fussy}
	w := newWorld(t, worker.Config{Model: newModel(t, pixels), Predictor: server.dial(t)})
	front := httptest.NewServer(w.worker)
	defer front.Close()

	type asked struct{ number int }
	var mu sync.Mutex
	byID := map[string]asked{}
	var deliveries errgroup.Group
	deliveries.SetLimit(100) // a Trigger's parallelism
	for i := range requests {
		deliveries.Go(func() error {
			number := i * 65535 / requests
			data := picture(t, number)
			if i%poisonEvery == 0 {
				data = poison(t)
			}
			r := w.event(data)
			mu.Lock()
			byID[r.CorrelationID] = asked{number}
			mu.Unlock()
			req, err := events.NewHTTPRequest(t.Context(), front.URL, r)
			if err != nil {
				return err
			}
			res, err := front.Client().Do(req)
			if err != nil {
				return err
			}
			if res.StatusCode != http.StatusNoContent {
				return fmt.Errorf("delivery %d was answered with %s", i, res.Status)
			}
			return res.Body.Close()
		})
	}
	require.NoError(t, deliveries.Wait())

	failed, batched := 0, 0
	for range requests {
		r := <-w.replies
		mu.Lock()
		want, ok := byID[r.CorrelationID]
		delete(byID, r.CorrelationID)
		mu.Unlock()
		require.True(t, ok, "a request is answered once")
		if r.Problem != nil {
			require.Equal(t, 422, r.Problem.Status)
			require.Equal(t, "urn:ebb:problem:input-refused", r.Problem.Type)
			require.NotContains(t, r.Problem.Detail, "blue", "what the server says stays inside")
			failed++
			continue
		}
		require.InDelta(t, float64(want.number)/65535, *r.Answer.Probability, 1e-6)
		require.Equal(t, want.number*2 >= 65535, *r.Answer.Yes)
		require.Equal(t, int64(7), r.Answer.ServedBy.Version)
		if r.Answer.BatchSize > 1 {
			batched++
		}
	}
	require.Empty(t, w.replies)
	require.Equal(t, requests/poisonEvery, failed)
	require.Positive(t, batched)
	require.Equal(t, map[string]int64{"completed": int64(requests - failed), "failed": int64(failed)}, w.outcomes())
}

func TestAnAnswerSaysWhereItCameFromAndWhereTheTimeWent(t *testing.T) {
	t.Parallel()
	server := &modelServer{predict: network}
	w := newWorld(t, worker.Config{Model: newModel(t, pixels), Predictor: server.dial(t)})
	r := w.event(picture(t, 65535))
	r.Time = r.Time.Add(time.Hour) // a clock that is ahead
	require.Equal(t, http.StatusNoContent, w.deliver(w.request(r)).Code)

	got := <-w.replies
	require.Equal(t, r.ID, got.RequestID)
	require.Equal(t, r.CorrelationID, got.CorrelationID)
	require.Equal(t, w.model.Name, got.Model)
	require.Equal(t, "/ebb/dispatch/"+w.model.Name+"/r1", got.Source)
	require.NotEqual(t, r.ID, got.ID)
	require.True(t, *got.Answer.Yes)
	require.Equal(t, []events.Class{{Label: "bright", Probability: 1}, {Label: "dark", Probability: 0}}, got.Answer.Top)
	require.Equal(t, events.ServedBy{Model: "net", Version: 7}, got.Answer.ServedBy)
	require.Equal(t, 1, got.Answer.BatchSize)
	require.Zero(t, got.Answer.Timing.Queue)
	require.Positive(t, got.Answer.Timing.Decode)
	require.Positive(t, got.Answer.Timing.Compute)

	spec := server.last.GetModelSpec()
	require.Equal(t, "net", spec.GetName())
	require.Equal(t, "pixels", spec.GetSignatureName())
	require.Equal(t, []string{"probabilities"}, server.last.GetOutputFilter())
	require.NoError(t, w.worker.Served())
}

func TestTheNetworkGetsItsInputInTheFormItWants(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, input string
		dtype       tfserving.DType
		shape       []int64
		bytes       int // of one item
	}{
		{"uint8", pixels, tfserving.Uint8, []int64{1, 2, 2, 3}, 12},
		{"float32", "input: {tensor: image, dtype: float32, width: 2, height: 2}\n", tfserving.Float32, []int64{1, 2, 2, 3}, 48},
		{"NCHW", "input: {tensor: image, dtype: uint8, width: 3, height: 2, layout: NCHW}\n", tfserving.Uint8, []int64{1, 3, 2, 3}, 18},
		{"not square", "input: {tensor: image, dtype: uint8, width: 3, height: 2}\n", tfserving.Uint8, []int64{1, 2, 3, 3}, 18},
		{"encoded", "input: {tensor: image, kind: encoded}\n", tfserving.String, []int64{1}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got tfserving.Tensor
			p := &predictor{predict: func(_ context.Context, in tfserving.Tensor) (tfserving.Tensor, error) {
				got = in
				got.Data = append([]byte(nil), in.Data...)
				return floats([]float32{.25, .75}), in.Validate()
			}}
			w := newWorld(t, worker.Config{Model: newModel(t, tt.input), Predictor: p})
			require.Equal(t, http.StatusNoContent, w.deliver(w.request(w.event(picture(t, 1)))).Code)
			require.InDelta(t, .75, *(<-w.replies).Answer.Probability, 1e-6)
			require.Equal(t, tt.dtype, got.DType)
			require.Equal(t, tt.shape, got.Shape)
			require.Len(t, got.Data, tt.bytes)
			if tt.dtype == tfserving.String {
				require.Equal(t, []byte{0xff, 0xd8}, got.Strings[0][:2], "a JPEG file")
			}
		})
	}
}

func TestTheTraceGoesFromTheEventToTheModelServerAndBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worker.Config{Model: newModel(t, pixels), Predictor: (&modelServer{predict: network}).dial(t)})
	r := w.event(picture(t, 1))
	r.TraceParent, r.TraceState = "00-11f7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "vendor=x"
	require.Equal(t, http.StatusNoContent, w.deliver(w.request(r)).Code)
	got := <-w.replies

	byName := map[string]traced{}
	for _, s := range spans.Ended() {
		if s.SpanContext().TraceID().String() == "11f7651916cd43dd8448eb211c80319c" {
			byName[s.Name()] = traced{s.SpanContext().SpanID().String(), s.Parent().SpanID().String(), len(s.Links())}
			if s.Name() == "batch" {
				require.Equal(t, byName["batch"].parent, s.Links()[0].SpanContext.SpanID().String())
			}
		}
	}
	require.Equal(t, "b7ad6b7169203331", byName["dispatch"].parent)
	require.Equal(t, byName["dispatch"].id, byName["batch"].parent)
	require.Equal(t, 1, byName["batch"].links)
	require.Equal(t, byName["batch"].id, byName["tensorflow.serving.PredictionService/Predict"].parent)
	require.Equal(t, "00-11f7651916cd43dd8448eb211c80319c-"+byName["dispatch"].id+"-01", got.TraceParent)
	require.Equal(t, "vendor=x", got.TraceState)
}

func TestAProbeIsNoTrace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worker.Config{Model: newModel(t, pixels), Predictor: (&modelServer{predict: network}).dial(t)})
	require.NoError(t, w.worker.Served())
	for _, s := range spans.Ended() {
		require.NotContains(t, s.Name(), "GetModelStatus")
	}
}

type traced struct {
	id, parent string
	links      int
}
