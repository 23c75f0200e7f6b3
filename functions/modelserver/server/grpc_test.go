package server_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ebb-inference/ebb/functions/modelserver/onnx/onnxtest"
	"github.com/ebb-inference/ebb/functions/modelserver/server"
	"github.com/ebb-inference/ebb/models/store"
	"github.com/ebb-inference/ebb/models/tfserving"
	"github.com/ebb-inference/ebb/models/tfserving/serving"
	"github.com/ebb-inference/ebb/models/tfserving/tensorflow"
)

func TestPredictAnswersAndNamesWhoAnswered(t *testing.T) {
	t.Parallel()
	fx := serveAffine(t, nil)
	x := floats([]int64{3, 2}, 1, 2, 3, 4, 5, 6)
	for _, spec := range []tfserving.Spec{{Model: "affine"}, {Model: "affine", Version: 1, Signature: "serving_default"}} {
		out, version, err := fx.client.Predict(t.Context(), spec, map[string]tfserving.Tensor{"x": x})
		require.NoError(t, err)
		require.EqualValues(t, 1, version)
		require.Equal(t, map[string]tfserving.Tensor{"y": floats([]int64{3, 2}, 3, 5, 7, 9, 11, 13)}, out)
	}
	response, err := serving.NewPredictionServiceClient(fx.dial(t)).Predict(t.Context(), &serving.PredictRequest{
		ModelSpec: &serving.ModelSpec{Name: "affine"},
		Inputs: map[string]*tensorflow.TensorProto{"x": {
			Dtype:       tensorflow.DataType_DT_FLOAT,
			TensorShape: &tensorflow.TensorShapeProto{Dim: []*tensorflow.TensorShapeProto_Dim{{Size: 2}, {Size: 2}}},
			FloatVal:    []float32{20}, // fills the shape
		}},
		OutputFilter: []string{"y"},
	})
	require.NoError(t, err)
	require.Equal(t, "affine", response.GetModelSpec().GetName())
	require.Equal(t, "serving_default", response.GetModelSpec().GetSignatureName())
	y, err := tfserving.FromProto(response.GetOutputs()["y"])
	require.NoError(t, err)
	require.Equal(t, floats([]int64{2, 2}, 41, 41, 41, 41), y)
}

func TestMistakesHaveTheCodesOfTensorFlowServing(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	onnxtest.Publish(t, base, "affine", 1, onnxtest.Affine(2, 2, 1))
	onnxtest.Publish(t, base, "lookup", 1, onnxtest.Lookup(1, 2, 3))
	onnxtest.PublishFile(t, base, "broken", 1, []byte("not a network"))
	fx := start(t, base, nil)
	fx.ready(t)
	good := floats([]int64{1, 2}, 1, 2).Proto()
	predict := serving.NewPredictionServiceClient(fx.dial(t))
	version := func(v int64) *serving.ModelSpec {
		return &serving.ModelSpec{Name: "affine", VersionChoice: &serving.ModelSpec_Version{Version: wrapperspb.Int64(v)}}
	}
	huge := &tensorflow.TensorProto{
		Dtype:       tensorflow.DataType_DT_FLOAT,
		TensorShape: &tensorflow.TensorShapeProto{Dim: []*tensorflow.TensorShapeProto_Dim{{Size: 1 << 40}, {Size: 2}}},
		FloatVal:    []float32{1},
	}
	index := tfserving.Tensor{DType: tfserving.Int64, Shape: []int64{1}, Data: []byte{9, 0, 0, 0, 0, 0, 0, 0}}.Proto()
	for _, c := range []struct {
		name   string
		spec   *serving.ModelSpec
		input  string
		tensor *tensorflow.TensorProto
		filter []string
		code   codes.Code
		why    string
	}{
		{"no spec", nil, "x", good, nil, codes.InvalidArgument, "names no model"},
		{"unknown model", &serving.ModelSpec{Name: "cow"}, "x", good, nil, codes.NotFound, `unknown model "cow"`},
		{"a path as a model", &serving.ModelSpec{Name: "../affine"}, "x", good, nil, codes.NotFound, "unknown model"},
		{"unknown version", version(7), "x", good, nil, codes.NotFound, `unknown version 7 of model "affine"`},
		{"version zero", version(0), "x", good, nil, codes.InvalidArgument, "not a positive number"},
		{"unknown label", &serving.ModelSpec{Name: "affine", VersionChoice: &serving.ModelSpec_VersionLabel{VersionLabel: "x"}}, "x", good, nil, codes.InvalidArgument, `unknown version label "x"`},
		{"empty label", &serving.ModelSpec{Name: "affine", VersionChoice: &serving.ModelSpec_VersionLabel{}}, "x", good, nil, codes.InvalidArgument, "label"},
		{"failed model", &serving.ModelSpec{Name: "broken"}, "x", good, nil, codes.Unavailable, "not loaded"},
		{"signature", &serving.ModelSpec{Name: "affine", SignatureName: "classify"}, "x", good, nil, codes.InvalidArgument, `the only one is "serving_default"`},
		{"input", version(1), "y", good, nil, codes.InvalidArgument, `there is no input "y"`},
		{"output", version(1), "x", good, []string{"z"}, codes.InvalidArgument, `there is no output "z"`},
		{"absent tensor", version(1), "x", &tensorflow.TensorProto{}, nil, codes.InvalidArgument, "expected DT_FLOAT"},
		{"shape", version(1), "x", floats([]int64{2}, 1, 2).Proto(), nil, codes.InvalidArgument, "has shape [2], expected [-1 2]"},
		{"a tebi of items from one value", version(1), "x", huge, nil, codes.InvalidArgument, "at most 64"},
		{"data", &serving.ModelSpec{Name: "lookup"}, "index", index, nil, codes.InvalidArgument, "cannot compute with these inputs"},
	} {
		_, err := predict.Predict(t.Context(), &serving.PredictRequest{
			ModelSpec: c.spec, Inputs: map[string]*tensorflow.TensorProto{c.input: c.tensor}, OutputFilter: c.filter,
		})
		require.Equal(t, c.code, status.Code(err), "%s: %v", c.name, err)
		require.Contains(t, status.Convert(err).Message(), c.why, c.name)
	}

	for name, call := range map[string]func(context.Context) error{
		"Classify": func(ctx context.Context) error {
			_, err := predict.Classify(ctx, &serving.ClassificationRequest{})
			return err
		},
		"Regress": func(ctx context.Context) error {
			_, err := predict.Regress(ctx, &serving.RegressionRequest{})
			return err
		},
		"MultiInference": func(ctx context.Context) error {
			_, err := predict.MultiInference(ctx, &serving.MultiInferenceRequest{})
			return err
		},
	} {
		require.Equal(t, codes.Unimplemented, status.Code(call(t.Context())), name)
	}
}

func TestMetadataIsTheNetworksSignature(t *testing.T) {
	t.Parallel()
	fx := serveAffine(t, nil)
	signatures, err := fx.client.Metadata(t.Context(), tfserving.Spec{Model: "affine"})
	require.NoError(t, err)
	require.Equal(t, map[string]tfserving.Signature{"serving_default": {
		Method:  "tensorflow/serving/predict",
		Inputs:  map[string]tfserving.TensorInfo{"x": {Name: "x", DType: tfserving.Float32, Shape: []int64{-1, 2}}},
		Outputs: map[string]tfserving.TensorInfo{"y": {Name: "y", DType: tfserving.Float32, Shape: []int64{-1, 2}}},
	}}, signatures)

	predict := serving.NewPredictionServiceClient(fx.dial(t))
	for _, fields := range [][]string{nil, {"signature_def", "else"}} {
		_, err := predict.GetModelMetadata(t.Context(), &serving.GetModelMetadataRequest{ModelSpec: &serving.ModelSpec{Name: "affine"}, MetadataField: fields})
		require.Equal(t, codes.InvalidArgument, status.Code(err))
	}
	_, err = fx.client.Metadata(t.Context(), tfserving.Spec{Model: "cow"})
	require.ErrorIs(t, err, tfserving.ErrNotFound)
}

func TestTheStatusOfOneVersionOrAllIsTold(t *testing.T) {
	t.Parallel()
	fx := serveAffine(t, func(c *server.Config) {
		c.Models = []store.Model{{Name: "affine", Labels: map[string]int64{"stable": 1}}}
	})
	for _, spec := range []tfserving.Spec{{Model: "affine"}, {Model: "affine", Version: 1}, {Model: "affine", Label: "stable"}} {
		all, err := fx.client.Status(t.Context(), spec)
		require.NoError(t, err)
		require.Equal(t, []tfserving.VersionStatus{{Version: 1, State: serving.ModelVersionStatus_AVAILABLE}}, all)
	}
	_, err := fx.client.Status(t.Context(), tfserving.Spec{Model: "affine", Version: 2})
	require.ErrorIs(t, err, tfserving.ErrNotFound)
	_, err = fx.client.Status(t.Context(), tfserving.Spec{Model: "affine", Label: "canary"})
	require.ErrorIs(t, err, tfserving.ErrInvalid)
}

func TestReloadChangesTheModels(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	for version, scale := range []float32{10, 20, 30} {
		onnxtest.Publish(t, base, "affine", version+1, onnxtest.Affine(1, scale, 0))
	}
	fx := start(t, base, nil)
	fx.ready(t)
	models := serving.NewModelServiceClient(fx.dial(t))
	reload := func(configs ...*serving.ModelConfig) error {
		_, err := models.HandleReloadConfigRequest(t.Context(), &serving.ReloadConfigRequest{Config: &serving.ModelServerConfig{
			Config: &serving.ModelServerConfig_ModelConfigList{ModelConfigList: &serving.ModelConfigList{Config: configs}},
		}})
		return err
	}
	require.NoError(t, reload(&serving.ModelConfig{
		Name: "renamed", BasePath: base + "/affine", ModelPlatform: "tensorflow",
		ModelVersionPolicy: &serving.FileSystemStoragePathSourceConfig_ServableVersionPolicy{
			PolicyChoice: &serving.FileSystemStoragePathSourceConfig_ServableVersionPolicy_Specific_{
				Specific: &serving.FileSystemStoragePathSourceConfig_ServableVersionPolicy_Specific{Versions: []int64{1, 3}},
			},
		},
		VersionLabels: map[string]int64{"stable": 1, "canary": 3},
	}))
	for label, want := range map[string]float32{"stable": 10, "canary": 30, "": 30} {
		out, _, err := fx.client.Predict(t.Context(), tfserving.Spec{Model: "renamed", Label: label}, map[string]tfserving.Tensor{"x": floats([]int64{1, 1}, 1)})
		require.NoError(t, err)
		require.Equal(t, floats([]int64{1, 1}, want), out["y"])
	}
	_, err := fx.client.Status(t.Context(), tfserving.Spec{Model: "affine"})
	require.ErrorIs(t, err, tfserving.ErrNotFound)

	all := &serving.FileSystemStoragePathSourceConfig_ServableVersionPolicy{
		PolicyChoice: &serving.FileSystemStoragePathSourceConfig_ServableVersionPolicy_All_{},
	}
	require.NoError(t, reload(&serving.ModelConfig{Name: "affine", ModelVersionPolicy: all}))
	versions, err := fx.client.Status(t.Context(), tfserving.Spec{Model: "affine"})
	require.NoError(t, err)
	require.Len(t, versions, 3)

	for name, c := range map[string]struct {
		config *serving.ModelConfig
		code   codes.Code
	}{
		"out of the base folder":    {&serving.ModelConfig{Name: "x", BasePath: "/etc"}, codes.InvalidArgument},
		"up and out":                {&serving.ModelConfig{Name: "x", BasePath: "affine/../../y"}, codes.InvalidArgument},
		"a bad name":                {&serving.ModelConfig{Name: "a/b"}, codes.InvalidArgument},
		"a label without a version": {&serving.ModelConfig{Name: "affine", ModelVersionPolicy: all, VersionLabels: map[string]int64{"x": 9}}, codes.NotFound},
		"no folder":                 {&serving.ModelConfig{Name: "nowhere"}, codes.Unavailable},
	} {
		require.Equal(t, c.code, status.Code(reload(c.config)), name)
	}
	_, err = models.HandleReloadConfigRequest(t.Context(), &serving.ReloadConfigRequest{})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
}

func TestHealthFollowsTheModels(t *testing.T) {
	t.Parallel()
	const serves, not = grpc_health_v1.HealthCheckResponse_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING
	fx := start(t, t.TempDir(), nil)
	health := grpc_health_v1.NewHealthClient(fx.dial(t))
	check := func(service string) grpc_health_v1.HealthCheckResponse_ServingStatus {
		r, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if status.Code(err) == codes.NotFound {
			return grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
		}
		require.NoError(t, err)
		return r.GetStatus()
	}
	require.Equal(t, not, check(""))
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN, check("affine"))

	watch, err := health.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: ""})
	require.NoError(t, err)
	r, err := watch.Recv()
	require.NoError(t, err)
	require.Equal(t, not, r.GetStatus())
	onnxtest.Publish(t, fx.base, "affine", 1, onnxtest.Affine(1, 1, 1))
	onnxtest.PublishFile(t, fx.base, "broken", 1, []byte("not a network"))
	r, err = watch.Recv()
	require.NoError(t, err)
	require.Equal(t, serves, r.GetStatus())
	require.Eventually(t, func() bool { return check("affine") == serves && check("broken") == not }, patience, interval)

	fx.Drain()
	r, err = watch.Recv()
	require.NoError(t, err)
	require.Equal(t, not, r.GetStatus())
	require.Equal(t, not, check("affine"))
	require.Error(t, fx.Ready())
	// The stream that is still open must not hold up the stop at the end of the test.
}

func TestACallThatPanicsIsAnInternalError(t *testing.T) {
	t.Parallel()
	fx := startFake(t, func(context.Context) error { panic("a bug") }, nil)
	require.Equal(t, codes.Internal, status.Code(fx.askFake(t.Context())))
	require.Equal(t, codes.Internal, status.Code(fx.askFake(t.Context())), "and the server lives on")
}

func TestReflectionNamesTheServices(t *testing.T) {
	t.Parallel()
	fx := start(t, t.TempDir(), nil)
	stream, err := grpc_reflection_v1.NewServerReflectionClient(fx.dial(t)).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}))
	r, err := stream.Recv()
	require.NoError(t, err)
	names := make([]string, 0, 5)
	for _, s := range r.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	require.Subset(t, names, []string{"tensorflow.serving.PredictionService", "tensorflow.serving.ModelService", "grpc.health.v1.Health"})
	require.NoError(t, stream.CloseSend())
}

func TestWhatHappensIsMeasured(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	model := fmt.Sprintf("measured-%p", t) // the metrics are shared with other tests
	onnxtest.Publish(t, base, model, 1, onnxtest.Affine(1, 1, 1))
	fx := start(t, base, nil)
	fx.ready(t)
	spec, x := tfserving.Spec{Model: model}, map[string]tfserving.Tensor{"x": floats([]int64{1, 1}, 1)}
	for range 3 {
		_, _, err := fx.client.Predict(t.Context(), spec, x)
		require.NoError(t, err)
	}
	_, _, err := fx.client.Predict(t.Context(), spec, nil)
	require.Error(t, err)

	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	got := map[string]any{}
	note := func(name string, set attribute.Set, value any) {
		if m, _ := set.Value("model"); m.AsString() == model {
			outcome, _ := set.Value("outcome")
			got[name+" "+outcome.AsString()] = value
		}
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					note(m.Name, p.Attributes, p.Value)
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					note(m.Name, p.Attributes, p.Count)
				}
			}
		}
	}
	require.Equal(t, map[string]any{
		"ebb.modelserver.loads ok":                 int64(1),
		"ebb.modelserver.load.duration ok":         uint64(1),
		"ebb.modelserver.predict.duration ok":      uint64(3),
		"ebb.modelserver.predict.duration invalid": uint64(1),
		"ebb.modelserver.session.wait ":            uint64(4),
		"ebb.modelserver.inflight ":                int64(0),
	}, got)
}
