package tfserving

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ebb-inference/ebb/models/tfserving/serving"
	"github.com/ebb-inference/ebb/models/tfserving/tensorflow"
)

// Spec chooses a model, and which of its versions and signatures.
type Spec struct {
	Model     string // required
	Version   int64  // 0: the newest, or the one that Label names
	Label     string // such as "stable"; not together with Version
	Signature string // empty: the server's default, "serving_default"
}

// String returns the model and what was chosen of it, such as "resnet@3".
func (s Spec) String() string {
	switch {
	case s.Label != "":
		return s.Model + "@" + s.Label
	case s.Version != 0:
		return fmt.Sprintf("%s@%d", s.Model, s.Version)
	}
	return s.Model
}

func (s Spec) proto() (*serving.ModelSpec, error) {
	switch {
	case s.Model == "":
		return nil, fmt.Errorf("%w: no model is named", ErrInvalid)
	case s.Version < 0:
		return nil, fmt.Errorf("%w: version %d of model %s, must not be negative", ErrInvalid, s.Version, s.Model)
	case s.Version != 0 && s.Label != "":
		return nil, fmt.Errorf("%w: both version %d and label %q of model %s", ErrInvalid, s.Version, s.Label, s.Model)
	}
	p := &serving.ModelSpec{Name: s.Model, SignatureName: s.Signature}
	switch {
	case s.Label != "":
		p.VersionChoice = &serving.ModelSpec_VersionLabel{VersionLabel: s.Label}
	case s.Version != 0:
		p.VersionChoice = &serving.ModelSpec_Version{Version: wrapperspb.Int64(s.Version)}
	}
	return p, nil
}

// VersionStatus is where one version of a model is in its life.
type VersionStatus struct {
	Version int64
	State   serving.ModelVersionStatus_State
	Err     error // why it is where it is, when something went wrong
}

// Available says whether the version answers requests.
func (v VersionStatus) Available() bool { return v.State == serving.ModelVersionStatus_AVAILABLE }

// Signature is one way to call a model.
type Signature struct {
	Method  string
	Inputs  map[string]TensorInfo // by the name that Predict uses
	Outputs map[string]TensorInfo
}

// TensorInfo describes an input or output of a signature.
type TensorInfo struct {
	Name        string // inside the network
	DType       DType
	Shape       []int64 // -1 is any number
	UnknownRank bool    // then Shape is empty
}

const (
	// reconnectDelay bounds the pause between attempts to connect: after a cold start, nobody should have to wait for the
	// two minutes that gRPC's back-off grows to by itself.
	reconnectDelay = 3 * time.Second
	connectTimeout = 5 * time.Second
	// pingInterval is above the five minutes that servers tolerate by default; one that is pinged more often hangs up.
	pingInterval = 5*time.Minute + 30*time.Second
	// pingTimeout is also how long sent data may stay unacknowledged before the connection counts as dead.
	pingTimeout = 20 * time.Second
)

// IsStatus chooses the calls that ask how a model stands. They are neither traced nor measured: most are probes, which come every
// few seconds, and each would be a trace.
var IsStatus = filters.MethodName("GetModelStatus")

// Client calls one model server, or several behind one name. It is safe for concurrent use.
type Client struct {
	conn    *grpc.ClientConn
	predict serving.PredictionServiceClient
	models  serving.ModelServiceClient
}

// Dial returns a client of the server at target, such as "tf-serving.models:8500". It does not wait for a connection: that
// is made by the first call, and again whenever it is lost. All addresses that a name resolves to are used in turn, so
// a headless Service spreads the load. The connection is not encrypted unless opts say otherwise; messages are at most
// MaxMessageBytes.
func Dial(target string, opts ...grpc.DialOption) (*Client, error) {
	if target == "" {
		return nil, errors.New("model server address is empty")
	}
	reconnect := backoff.DefaultConfig
	reconnect.BaseDelay = 100 * time.Millisecond
	reconnect.MaxDelay = reconnectDelay
	all := append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(otelgrpc.WithFilter(filters.Not(IsStatus)))),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithDisableServiceConfig(), // nobody's DNS TXT records configure us
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: connectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingInterval, Timeout: pingTimeout}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(MaxMessageBytes), grpc.MaxCallSendMsgSize(MaxMessageBytes)),
	}, opts...)
	conn, err := grpc.NewClient(target, all...)
	if err != nil {
		return nil, fmt.Errorf("model server address %q: %w", target, err)
	}
	return &Client{
		conn:    conn,
		predict: serving.NewPredictionServiceClient(conn),
		models:  serving.NewModelServiceClient(conn),
	}, nil
}

// Close ends the connection and the calls that are under way.
func (c *Client) Close() error {
	if err := c.conn.Close(); err != nil {
		return fmt.Errorf("closing model server connection: %w", err)
	}
	return nil
}

// Predict runs the model on inputs and returns the outputs that are named, or all of them, and the version of the model
// that answered (0 when the server does not say). Every output that was named is there and is a valid tensor, otherwise
// the error wraps ErrAnswer.
func (c *Client) Predict(ctx context.Context, spec Spec, inputs map[string]Tensor, outputs ...string) (map[string]Tensor, int64, error) {
	model, err := spec.proto()
	if err != nil {
		return nil, 0, fmt.Errorf("predict: %w", err)
	}
	request := &serving.PredictRequest{
		ModelSpec:    model,
		Inputs:       make(map[string]*tensorflow.TensorProto, len(inputs)),
		OutputFilter: outputs,
	}
	for name, t := range inputs {
		if err := t.Validate(); err != nil {
			return nil, 0, fmt.Errorf("predict %s: %w: input %q: %w", spec, ErrInvalid, name, err)
		}
		request.Inputs[name] = t.Proto()
	}
	response, err := c.predict.Predict(ctx, request)
	if err != nil {
		return nil, 0, wrap("predict", spec, err)
	}
	answer := make(map[string]Tensor, len(response.GetOutputs()))
	for name, p := range response.GetOutputs() {
		t, err := FromProto(p)
		if err != nil {
			return nil, 0, fmt.Errorf("predict %s: %w: output %q: %w", spec, ErrAnswer, name, err)
		}
		answer[name] = t
	}
	for _, name := range outputs {
		if _, ok := answer[name]; !ok {
			return nil, 0, fmt.Errorf("predict %s: %w: output %q is missing", spec, ErrAnswer, name)
		}
	}
	return answer, response.GetModelSpec().GetVersion().GetValue(), nil
}

// Status returns where the versions of a model are in their lives: all versions, or the one that spec chooses.
func (c *Client) Status(ctx context.Context, spec Spec) ([]VersionStatus, error) {
	model, err := spec.proto()
	if err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	response, err := c.models.GetModelStatus(ctx, &serving.GetModelStatusRequest{ModelSpec: model})
	if err != nil {
		return nil, wrap("status of", spec, err)
	}
	versions := make([]VersionStatus, 0, len(response.GetModelVersionStatus()))
	for _, v := range response.GetModelVersionStatus() {
		s := VersionStatus{Version: v.GetVersion(), State: v.GetState()}
		if code := v.GetStatus().GetErrorCode(); code != tensorflow.Code_OK {
			s.Err = errors.New(code.String() + ": " + v.GetStatus().GetErrorMessage())
		}
		versions = append(versions, s)
	}
	return versions, nil
}

// signatureField is the one kind of metadata that TF Serving has.
const signatureField = "signature_def"

// Metadata returns the signatures of a model by their names.
func (c *Client) Metadata(ctx context.Context, spec Spec) (map[string]Signature, error) {
	model, err := spec.proto()
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	response, err := c.predict.GetModelMetadata(ctx, &serving.GetModelMetadataRequest{
		ModelSpec: model, MetadataField: []string{signatureField},
	})
	if err != nil {
		return nil, wrap("metadata of", spec, err)
	}
	packed, ok := response.GetMetadata()[signatureField]
	if !ok {
		return nil, fmt.Errorf("metadata of %s: %w: no %s", spec, ErrAnswer, signatureField)
	}
	var defs serving.SignatureDefMap
	if err := packed.UnmarshalTo(&defs); err != nil {
		return nil, fmt.Errorf("metadata of %s: %w: %w", spec, ErrAnswer, err)
	}
	signatures := make(map[string]Signature, len(defs.GetSignatureDef()))
	for name, def := range defs.GetSignatureDef() {
		signatures[name] = Signature{
			Method:  def.GetMethodName(),
			Inputs:  tensorInfos(def.GetInputs()),
			Outputs: tensorInfos(def.GetOutputs()),
		}
	}
	return signatures, nil
}

func tensorInfos(infos map[string]*tensorflow.TensorInfo) map[string]TensorInfo {
	out := make(map[string]TensorInfo, len(infos))
	for name, info := range infos {
		shape := info.GetTensorShape()
		t := TensorInfo{Name: info.GetName(), DType: DType(info.GetDtype()), UnknownRank: shape.GetUnknownRank()}
		for _, d := range shape.GetDim() {
			t.Shape = append(t.Shape, d.GetSize())
		}
		out[name] = t
	}
	return out
}
