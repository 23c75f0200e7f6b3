package tfserving_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ebb-inference/ebb/models/tfserving"
	"github.com/ebb-inference/ebb/models/tfserving/serving"
	"github.com/ebb-inference/ebb/models/tfserving/tensorflow"
)

// server answers with what a test wants, over a real connection.
type server struct {
	serving.UnimplementedPredictionServiceServer
	serving.UnimplementedModelServiceServer
	predict  func(context.Context, *serving.PredictRequest) (*serving.PredictResponse, error)
	status   func(*serving.GetModelStatusRequest) (*serving.GetModelStatusResponse, error)
	metadata func(*serving.GetModelMetadataRequest) (*serving.GetModelMetadataResponse, error)
}

func (s *server) Predict(ctx context.Context, r *serving.PredictRequest) (*serving.PredictResponse, error) {
	return s.predict(ctx, r)
}

func (s *server) GetModelStatus(_ context.Context, r *serving.GetModelStatusRequest) (*serving.GetModelStatusResponse, error) {
	return s.status(r)
}

func (s *server) GetModelMetadata(_ context.Context, r *serving.GetModelMetadataRequest) (*serving.GetModelMetadataResponse, error) {
	return s.metadata(r)
}

func dial(t *testing.T, s *server) *tfserving.Client {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grpc.NewServer(grpc.MaxRecvMsgSize(tfserving.MaxMessageBytes))
	serving.RegisterPredictionServiceServer(g, s)
	serving.RegisterModelServiceServer(g, s)
	done := make(chan error, 1)
	go func() { done <- g.Serve(ln) }()
	c, err := tfserving.Dial(ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		g.Stop()
		require.NoError(t, <-done)
	})
	return c
}

// doubled answers the sum of each row of bytes, doubled, as TF Serving would.
func doubled(_ context.Context, r *serving.PredictRequest) (*serving.PredictResponse, error) {
	in, err := tfserving.FromProto(r.GetInputs()["in"])
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	rows := int(in.Shape[0])
	sums := &tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_FLOAT, TensorShape: shape(in.Shape[0])}
	for row := range rows {
		sum := 0
		for _, b := range in.Data[row*len(in.Data)/rows : (row+1)*len(in.Data)/rows] {
			sum += int(b)
		}
		sums.FloatVal = append(sums.FloatVal, 2*float32(sum))
	}
	return &serving.PredictResponse{
		ModelSpec: &serving.ModelSpec{Name: r.GetModelSpec().GetName(), VersionChoice: &serving.ModelSpec_Version{Version: wrapperspb.Int64(3)}},
		Outputs:   map[string]*tensorflow.TensorProto{"sums": sums},
	}, nil
}

func rows(n, width int, fill byte) map[string]tfserving.Tensor {
	data := make([]byte, n*width)
	for i := range data {
		data[i] = fill + byte(i/width)
	}
	return map[string]tfserving.Tensor{"in": {DType: tfserving.Uint8, Shape: []int64{int64(n), int64(width)}, Data: data}}
}

func TestPredictReturnsOutputsAndTheVersionThatAnswered(t *testing.T) {
	t.Parallel()
	c := dial(t, &server{predict: doubled})
	out, version, err := c.Predict(t.Context(), tfserving.Spec{Model: "m"}, rows(3, 10, 1), "sums")
	require.NoError(t, err)
	require.EqualValues(t, 3, version)
	floats, err := out["sums"].Floats()
	require.NoError(t, err)
	require.Equal(t, []float32{20, 40, 60}, floats)
}

func TestPredictSendsTensorsThatAreLargerThanGRPCsDefault(t *testing.T) {
	t.Parallel()
	c := dial(t, &server{predict: func(_ context.Context, r *serving.PredictRequest) (*serving.PredictResponse, error) {
		return &serving.PredictResponse{Outputs: r.GetInputs()}, nil
	}})
	in := rows(8, 1<<20, 0)
	out, version, err := c.Predict(t.Context(), tfserving.Spec{Model: "m"}, in)
	require.NoError(t, err)
	require.Zero(t, version, "the server did not say")
	require.True(t, bytes.Equal(in["in"].Data, out["in"].Data))
}

func TestSpecTravelsAsTFServingExpectsIt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spec  tfserving.Spec
		names string
		want  *serving.ModelSpec
	}{
		"newest":  {tfserving.Spec{Model: "m"}, "m", &serving.ModelSpec{Name: "m"}},
		"version": {tfserving.Spec{Model: "m", Version: 7}, "m@7", &serving.ModelSpec{Name: "m", VersionChoice: &serving.ModelSpec_Version{Version: wrapperspb.Int64(7)}}},
		"label and signature": {
			tfserving.Spec{Model: "m", Label: "stable", Signature: "s"}, "m@stable",
			&serving.ModelSpec{Name: "m", VersionChoice: &serving.ModelSpec_VersionLabel{VersionLabel: "stable"}, SignatureName: "s"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := make(chan *serving.PredictRequest, 1)
			c := dial(t, &server{predict: func(_ context.Context, r *serving.PredictRequest) (*serving.PredictResponse, error) {
				got <- r
				return nil, status.Error(codes.Internal, "enough")
			}})
			_, _, err := c.Predict(t.Context(), test.spec, nil, "a", "b")
			require.ErrorContains(t, err, "predict "+test.names+": ")
			r := <-got
			require.True(t, proto.Equal(test.want, r.GetModelSpec()), "%v", r)
			require.Equal(t, []string{"a", "b"}, r.GetOutputFilter())
		})
	}
}

func TestRequestThatMakesNoSenseIsNotSent(t *testing.T) {
	t.Parallel()
	c := dial(t, &server{predict: func(context.Context, *serving.PredictRequest) (*serving.PredictResponse, error) {
		return nil, status.Error(codes.Internal, "must not be called")
	}})
	for name, test := range map[string]struct {
		spec   tfserving.Spec
		inputs map[string]tfserving.Tensor
		says   string
	}{
		"no model":          {tfserving.Spec{}, nil, "no model"},
		"version and label": {tfserving.Spec{Model: "m", Version: 1, Label: "l"}, nil, "both"},
		"negative version":  {tfserving.Spec{Model: "m", Version: -1}, nil, "negative"},
		"malformed tensor":  {tfserving.Spec{Model: "m"}, map[string]tfserving.Tensor{"in": {DType: tfserving.Float32, Shape: []int64{3}}}, `input "in": malformed tensor: 0 bytes`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := c.Predict(t.Context(), test.spec, test.inputs)
			require.ErrorIs(t, err, tfserving.ErrInvalid)
			require.ErrorContains(t, err, test.says)
		})
	}
	_, err := c.Status(t.Context(), tfserving.Spec{})
	require.ErrorIs(t, err, tfserving.ErrInvalid)
	_, err = c.Metadata(t.Context(), tfserving.Spec{})
	require.ErrorIs(t, err, tfserving.ErrInvalid)
}

func TestAnswerThatMakesNoSenseIsAnError(t *testing.T) {
	t.Parallel()
	for name, outputs := range map[string]map[string]*tensorflow.TensorProto{
		"nothing":              nil,
		"another output":       {"other": tfserving.Tensor{DType: tfserving.Bool, Data: []byte{1}}.Proto()},
		"shape without values": {"out": {Dtype: tensorflow.DataType_DT_FLOAT, TensorShape: shape(1, 1001)}},
		"content too short":    {"out": {Dtype: tensorflow.DataType_DT_FLOAT, TensorShape: shape(2), TensorContent: []byte{1}}},
		"shape that overflows": {"out": {Dtype: tensorflow.DataType_DT_FLOAT, TensorShape: shape(1<<62, 4), FloatVal: []float32{1}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, &server{predict: func(context.Context, *serving.PredictRequest) (*serving.PredictResponse, error) {
				return &serving.PredictResponse{Outputs: outputs}, nil
			}})
			_, _, err := c.Predict(t.Context(), tfserving.Spec{Model: "m"}, nil, "out")
			require.ErrorIs(t, err, tfserving.ErrAnswer)
			require.ErrorContains(t, err, `output "out"`)
		})
	}
}

func TestStatusOfACallDecidesTheError(t *testing.T) {
	t.Parallel()
	sentinels := []error{
		tfserving.ErrInvalid, tfserving.ErrNotFound, tfserving.ErrUnavailable, tfserving.ErrAnswer,
		context.DeadlineExceeded, context.Canceled,
	}
	for code, want := range map[codes.Code]error{
		codes.InvalidArgument:   tfserving.ErrInvalid,
		codes.NotFound:          tfserving.ErrNotFound,
		codes.Unavailable:       tfserving.ErrUnavailable,
		codes.DeadlineExceeded:  context.DeadlineExceeded,
		codes.Canceled:          context.Canceled,
		codes.ResourceExhausted: nil,
		codes.Internal:          nil,
	} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			answer := status.Error(code, "said the server")
			c := dial(t, &server{
				predict:  func(context.Context, *serving.PredictRequest) (*serving.PredictResponse, error) { return nil, answer },
				status:   func(*serving.GetModelStatusRequest) (*serving.GetModelStatusResponse, error) { return nil, answer },
				metadata: func(*serving.GetModelMetadataRequest) (*serving.GetModelMetadataResponse, error) { return nil, answer },
			})
			spec := tfserving.Spec{Model: "m", Version: 2}
			_, _, predict := c.Predict(t.Context(), spec, nil)
			_, state := c.Status(t.Context(), spec)
			_, metadata := c.Metadata(t.Context(), spec)
			for doing, err := range map[string]error{"predict": predict, "status of": state, "metadata of": metadata} {
				require.ErrorContains(t, err, doing+" m@2: ")
				require.ErrorContains(t, err, "said the server")
				require.Equal(t, code, status.Code(err))
				for _, sentinel := range sentinels {
					require.Equal(t, errors.Is(want, sentinel), errors.Is(err, sentinel), "%v is %v", err, sentinel)
				}
			}
		})
	}
}

func TestServerThatIsAwayIsUnavailableAtOnce(t *testing.T) {
	t.Parallel()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close()) // nobody listens there any more
	c, err := tfserving.Dial(ln.Addr().String())
	require.NoError(t, err, "dialling does not wait for a connection")
	defer func() { require.NoError(t, c.Close()) }()
	_, _, err = c.Predict(t.Context(), tfserving.Spec{Model: "m"}, nil)
	require.ErrorIs(t, err, tfserving.ErrUnavailable)
}

func TestPredictEndsWithItsContext(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	c := dial(t, &server{predict: func(ctx context.Context, _ *serving.PredictRequest) (*serving.PredictResponse, error) {
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	_, _, err := c.Predict(ctx, tfserving.Spec{Model: "m"}, nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestAddressThatMakesNoSenseIsAnError(t *testing.T) {
	t.Parallel()
	_, err := tfserving.Dial("")
	require.ErrorContains(t, err, "empty")
	_, err = tfserving.Dial("dns://%zz/x")
	require.ErrorContains(t, err, `model server address "dns://%zz/x"`)
}

func TestStatusListsVersions(t *testing.T) {
	t.Parallel()
	c := dial(t, &server{status: func(r *serving.GetModelStatusRequest) (*serving.GetModelStatusResponse, error) {
		if r.GetModelSpec().GetName() != "m" {
			return nil, status.Error(codes.NotFound, r.String())
		}
		return &serving.GetModelStatusResponse{ModelVersionStatus: []*serving.ModelVersionStatus{
			{Version: 2, State: serving.ModelVersionStatus_AVAILABLE, Status: &serving.StatusProto{}},
			{Version: 1, State: serving.ModelVersionStatus_END, Status: &serving.StatusProto{
				ErrorCode: tensorflow.Code_INTERNAL, ErrorMessage: "half a file",
			}},
		}}, nil
	}})
	got, err := c.Status(t.Context(), tfserving.Spec{Model: "m"})
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.Equal(t, tfserving.VersionStatus{Version: 2, State: serving.ModelVersionStatus_AVAILABLE}, got[0])
	require.True(t, got[0].Available())
	require.EqualValues(t, 1, got[1].Version)
	require.False(t, got[1].Available())
	require.EqualError(t, got[1].Err, "INTERNAL: half a file")
}

func TestMetadataListsSignatures(t *testing.T) {
	t.Parallel()
	packed, err := anypb.New(&serving.SignatureDefMap{SignatureDef: map[string]*tensorflow.SignatureDef{"serving_default": {
		MethodName: "tensorflow/serving/predict",
		Inputs: map[string]*tensorflow.TensorInfo{"in": {
			Name: "in:0", Dtype: tensorflow.DataType_DT_UINT8, TensorShape: shape(-1, 299, 299, 3),
		}},
		Outputs: map[string]*tensorflow.TensorInfo{"out": {
			Name: "out:0", Dtype: tensorflow.DataType_DT_FLOAT, TensorShape: &tensorflow.TensorShapeProto{UnknownRank: true},
		}},
	}}})
	require.NoError(t, err)
	c := dial(t, &server{metadata: func(r *serving.GetModelMetadataRequest) (*serving.GetModelMetadataResponse, error) {
		if len(r.GetMetadataField()) != 1 || r.GetMetadataField()[0] != "signature_def" {
			return nil, status.Error(codes.InvalidArgument, r.String())
		}
		return &serving.GetModelMetadataResponse{Metadata: map[string]*anypb.Any{"signature_def": packed}}, nil
	}})
	got, err := c.Metadata(t.Context(), tfserving.Spec{Model: "m"})
	require.NoError(t, err)
	require.Equal(t, map[string]tfserving.Signature{"serving_default": {
		Method:  "tensorflow/serving/predict",
		Inputs:  map[string]tfserving.TensorInfo{"in": {Name: "in:0", DType: tfserving.Uint8, Shape: []int64{-1, 299, 299, 3}}},
		Outputs: map[string]tfserving.TensorInfo{"out": {Name: "out:0", DType: tfserving.Float32, UnknownRank: true}},
	}}, got)
}

func TestMetadataThatMakesNoSenseIsAnError(t *testing.T) {
	t.Parallel()
	wrong, err := anypb.New(wrapperspb.Int64(1))
	require.NoError(t, err)
	for name, metadata := range map[string]map[string]*anypb.Any{
		"nothing":      nil,
		"another type": {"signature_def": wrong},
		"garbage":      {"signature_def": {TypeUrl: "type.googleapis.com/tensorflow.serving.SignatureDefMap", Value: []byte{0xff}}},
		"absent value": {"signature_def": nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, &server{metadata: func(*serving.GetModelMetadataRequest) (*serving.GetModelMetadataResponse, error) {
				return &serving.GetModelMetadataResponse{Metadata: metadata}, nil
			}})
			_, err := c.Metadata(t.Context(), tfserving.Spec{Model: "m"})
			require.ErrorIs(t, err, tfserving.ErrAnswer)
		})
	}
}

func TestAGatewayWithoutTheRouteIsAServerThatIsAway(t *testing.T) {
	t.Parallel()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	gateway := httptest.NewUnstartedServer(http.NotFoundHandler())
	gateway.Config.Protocols = &protocols
	gateway.Start()
	t.Cleanup(gateway.Close)
	c, err := tfserving.Dial(gateway.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	_, err = c.Status(t.Context(), tfserving.Spec{Model: "net"})
	require.ErrorIs(t, err, tfserving.ErrUnavailable)
}

func TestAMethodThatAServerDoesNotHaveIsNoServerThatIsAway(t *testing.T) {
	t.Parallel()
	c := dial(t, &server{status: func(*serving.GetModelStatusRequest) (*serving.GetModelStatusResponse, error) {
		return nil, status.Error(codes.Unimplemented, "method GetModelStatus not implemented")
	}})
	_, err := c.Status(t.Context(), tfserving.Spec{Model: "net"})
	require.NotErrorIs(t, err, tfserving.ErrUnavailable)
	require.Equal(t, codes.Unimplemented, status.Code(err))
}
