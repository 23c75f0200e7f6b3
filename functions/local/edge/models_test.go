package edge_test

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebb-inference/ebb/functions/local/mirror"
	"github.com/ebb-inference/ebb/models/tfserving"
	pb "github.com/ebb-inference/ebb/models/tfserving/serving"
	"github.com/ebb-inference/ebb/models/tfserving/tensorflow"
)

// The models. Each answers as mirror's plain one does, unless it does something else.
const (
	plain    = "plain"
	poisoned = "poisoned" // refuses a batch in which a certain picture is
	failing  = "failing"  // always fails
	broken   = "broken"   // fails until it is mended
	stuck    = "stuck"    // is held up while its queue fills
	orphan   = "orphan"   // loses its Trigger
	mangled  = "mangled"  // gets events that nobody can deliver
)

// poison is the number of the picture that poisons a batch.
const poison = 666

// parallelism is how many deliveries each model gets at once: a batch for stuck, so that what it has not begun waits.
var parallelism = map[string]int{plain: 100, poisoned: 100, failing: 100, broken: 100, stuck: 8, orphan: 1, mangled: 1}

// manifests are the models and their Triggers as a cluster has them.
func manifests() []byte {
	var b strings.Builder
	for model, parallel := range parallelism {
		fmt.Fprintf(&b, manifest, model, parallel)
	}
	return []byte(b.String())
}

const manifest = `
apiVersion: v1
kind: ConfigMap
metadata:
  name: model-%[1]s
  labels:
    ebb.dev/model: %[1]s
data:
  labels.txt: |
    v0
    v1
    v2
    v3
    v4
    v5
    v6
    v7
    v8
    v9
    v10
    v11
  model.yaml: |
    name: %[1]s
    serving:
      address: set-by-the-environment:1
      model: %[1]s
    input:
      tensor: pixels
      dtype: uint8
      width: 2
      height: 2
    output:
      tensor: values
      labels: labels.txt
      top: 12
    batching:
      size: 8
      slots: 1
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata:
  name: %[1]s
  namespace: ebb
  annotations:
    rabbitmq.eventing.knative.dev/parallelism: "%[2]d"
spec:
  broker: ebb
  filter:
    attributes:
      type: dev.ebb.inference.requested.v1
      model: %[1]s
  subscriber:
    ref:
      apiVersion: serving.knative.dev/v1
      kind: Service
      name: dispatch-%[1]s
  delivery:
    retry: 2
    backoffPolicy: linear
    backoffDelay: PT0.1S
    timeout: PT90S
    deadLetterSink:
      ref:
        apiVersion: serving.knative.dev/v1
        kind: Service
        name: deadletter
---
`

// modelServer is a TensorFlow Serving with the models above.
type modelServer struct {
	pb.UnimplementedPredictionServiceServer
	pb.UnimplementedModelServiceServer
	address string
	stop    func() error
	poison  []byte

	mended atomic.Bool // the model broken is

	mu    sync.Mutex
	gates map[string]*gate      // by model
	calls map[string][][][]byte // by model: the rows of each call
}

// gate holds up the calls of a model until it is opened.
type gate struct {
	came chan struct{} // has something in it once somebody came
	open chan struct{}
}

func startModelServer() (*modelServer, error) {
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &modelServer{address: ln.Addr().String(), calls: map[string][][][]byte{}, gates: map[string]*gate{}}
	if s.poison, err = pixels(poison); err != nil {
		return nil, err
	}
	g := grpc.NewServer()
	pb.RegisterPredictionServiceServer(g, s)
	pb.RegisterModelServiceServer(g, s)
	done := make(chan error, 1)
	go func() { done <- g.Serve(ln) }()
	s.stop = func() error {
		g.Stop()
		return <-done
	}
	return s, nil
}

// pixels are a picture's values as a model gets them.
func pixels(n int) ([]byte, error) {
	data, err := mirror.Picture(n)
	if err != nil {
		return nil, err
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	var values []byte
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			r, g, b, _ := img.At(x, y).RGBA()
			values = append(values, byte(r>>8), byte(g>>8), byte(b>>8))
		}
	}
	return values, nil
}

// hold puts a gate before a model.
func (s *modelServer) hold(model string) *gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := &gate{make(chan struct{}, 1), make(chan struct{})}
	s.gates[model] = g
	return g
}

func (s *modelServer) GetModelStatus(context.Context, *pb.GetModelStatusRequest) (*pb.GetModelStatusResponse, error) {
	return &pb.GetModelStatusResponse{ModelVersionStatus: []*pb.ModelVersionStatus{{Version: 1, State: pb.ModelVersionStatus_AVAILABLE}}}, nil
}

func (s *modelServer) Predict(ctx context.Context, r *pb.PredictRequest) (*pb.PredictResponse, error) {
	model := r.GetModelSpec().GetName()
	in, err := tfserving.FromProto(r.GetInputs()["pixels"])
	if err != nil || len(in.Shape) == 0 || in.Shape[0] == 0 {
		return nil, status.Errorf(codes.InvalidArgument, "input: %v: %v", in.Shape, err)
	}
	rows := make([][]byte, in.Shape[0])
	for i := range rows {
		size := len(in.Data) / len(rows)
		rows[i] = in.Data[i*size : (i+1)*size]
	}
	s.mu.Lock()
	s.calls[model] = append(s.calls[model], rows)
	g := s.gates[model]
	s.mu.Unlock()
	if g != nil {
		select {
		case g.came <- struct{}{}:
		default:
		}
		select {
		case <-g.open:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	if model == failing || model == broken && !s.mended.Load() {
		return nil, status.Error(codes.Internal, "the network is broken")
	}
	values := &tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_FLOAT, TensorShape: &tensorflow.TensorShapeProto{}}
	for _, size := range []int{len(rows), len(rows[0])} {
		values.TensorShape.Dim = append(values.TensorShape.Dim, &tensorflow.TensorShapeProto_Dim{Size: int64(size)})
	}
	for _, row := range rows {
		if model == poisoned && bytes.Equal(row, s.poison) {
			return nil, status.Error(codes.InvalidArgument, "a picture cannot be computed")
		}
		for _, v := range row {
			values.FloatVal = append(values.FloatVal, float32(v)/255)
		}
	}
	return &pb.PredictResponse{Outputs: map[string]*tensorflow.TensorProto{"values": values}}, nil
}

// called is the rows of each call of a model.
func (s *modelServer) called(model string) [][][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([][][]byte(nil), s.calls[model]...)
}

// computed is how many pictures a model has been called with.
func (s *modelServer) computed(model string) (n int) {
	for _, rows := range s.called(model) {
		n += len(rows)
	}
	return n
}
