package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ebb-inference/ebb/models/store"
	"github.com/ebb-inference/ebb/models/tfserving"
	"github.com/ebb-inference/ebb/models/tfserving/serving"
	"github.com/ebb-inference/ebb/models/tfserving/tensorflow"
)

const (
	// minPing is how often clients may ask whether the connection is alive; those that ask more often are cut off.
	minPing = 30 * time.Second
	// maxStreams bounds the calls of one connection; more wait at the client.
	maxStreams = 1024
	// reloadTimeout bounds a reload whose caller has set no shorter one.
	reloadTimeout = 10 * time.Minute
	// signatureField is the one kind of metadata that there is.
	signatureField = "signature_def"
)

func (s *Server) newGRPC() *grpc.Server {
	g := grpc.NewServer(
		// Probes would bury the traces of requests.
		grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithFilter(filters.None(filters.HealthCheck(), tfserving.IsStatus)))),
		grpc.UnaryInterceptor(s.recoverPanic),
		grpc.StreamInterceptor(s.endStreams),
		grpc.MaxRecvMsgSize(tfserving.MaxMessageBytes),
		grpc.MaxSendMsgSize(tfserving.MaxMessageBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Minute, Timeout: 20 * time.Second}),
		grpc.WaitForHandlers(true), // also after Stop: handlers use the models, which are freed next
	)
	serving.RegisterPredictionServiceServer(g, predictionService{s: s})
	serving.RegisterModelServiceServer(g, modelService{s: s})
	grpc_health_v1.RegisterHealthServer(g, s.health)
	reflection.Register(g)
	return g
}

// recoverPanic answers INTERNAL for a call that panics, so that one request cannot end those of others.
func (s *Server) recoverPanic(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Logger.ErrorContext(ctx, "a call panicked", "method", info.FullMethod, "panic", p, "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "internal error")
		}
	}()
	return handler(ctx, req)
}

// endStreams ends streams when the server stops: those of the health service have no end of their own, and a stop would
// wait for them.
func (s *Server) endStreams(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-s.quit:
			cancel()
		case <-ended:
		}
	}()
	return handler(srv, endingStream{stream, ctx})
}

type endingStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // it is how a stream's context is replaced
}

func (s endingStream) Context() context.Context { return s.ctx }

// watch keeps the health service in line with the store.
func (s *Server) watch() {
	known := map[string]bool{}
	loaded := sync.OnceFunc(s.cfg.Loaded)
	for {
		changed := s.store.Changed()
		set := func(service string, serves bool) {
			state := grpc_health_v1.HealthCheckResponse_NOT_SERVING
			if serves {
				state = grpc_health_v1.HealthCheckResponse_SERVING
			}
			s.health.SetServingStatus(service, state) // does nothing once the server drains
		}
		for _, name := range s.store.Models() {
			known[name] = true // for good: a model that is gone is NOT_SERVING
		}
		for name := range known {
			set(name, s.store.Available(name))
		}
		ready := s.Ready() == nil
		set("", ready)
		if ready {
			loaded()
		}
		select {
		case <-changed:
		case <-s.quit:
			return
		}
	}
}

// refOf returns what a request asks for.
func refOf(spec *serving.ModelSpec) (store.Ref, error) {
	ref := store.Ref{Model: spec.GetName(), Label: spec.GetVersionLabel(), Version: spec.GetVersion().GetValue()}
	switch choice := spec.GetVersionChoice().(type) {
	case *serving.ModelSpec_Version:
		if ref.Version < 1 {
			return ref, fmt.Errorf("%w: version %d of model %q is not a positive number", tfserving.ErrInvalid, ref.Version, ref.Model)
		}
	case *serving.ModelSpec_VersionLabel:
		if choice.VersionLabel == "" {
			return ref, fmt.Errorf("%w: the version label of model %q is empty", tfserving.ErrInvalid, ref.Model)
		}
	}
	if ref.Model == "" {
		return ref, fmt.Errorf("%w: the request names no model (model_spec.name)", tfserving.ErrInvalid)
	}
	return ref, nil
}

// specOf says who answered.
func specOf(model string, version int64, signature string) *serving.ModelSpec {
	return &serving.ModelSpec{
		Name:          model,
		VersionChoice: &serving.ModelSpec_Version{Version: wrapperspb.Int64(version)},
		SignatureName: signature,
	}
}

type predictionService struct {
	serving.UnimplementedPredictionServiceServer // Classify, Regress and MultiInference
	s                                            *Server
}

func (p predictionService) Predict(ctx context.Context, r *serving.PredictRequest) (*serving.PredictResponse, error) {
	ref, err := refOf(r.GetModelSpec())
	if err == nil {
		err = checkSignature(r.GetModelSpec().GetSignatureName())
	}
	if err != nil {
		return nil, toStatus(err)
	}
	a, err := p.s.predict(ctx, ref, r.GetOutputFilter(), func(n Network) (map[string]tfserving.Tensor, error) {
		return readInputs(n, r.GetInputs())
	})
	if err != nil {
		return nil, err
	}
	outputs := make(map[string]*tensorflow.TensorProto, len(a.outputs))
	for name, t := range a.outputs {
		outputs[name] = t.Proto()
	}
	return &serving.PredictResponse{ModelSpec: specOf(ref.Model, a.version, SignatureName), Outputs: outputs}, nil
}

// readInputs reads a request's tensors. Their shapes are held against the network's before anything is allocated for
// them.
func readInputs(n Network, protos map[string]*tensorflow.TensorProto) (map[string]tfserving.Tensor, error) {
	inputs := make(map[string]tfserving.Tensor, len(protos))
	for name, p := range protos {
		dims := p.GetTensorShape().GetDim()
		shape := make([]int64, len(dims))
		for i, d := range dims {
			shape[i] = d.GetSize()
		}
		if err := n.Check(name, tfserving.DType(p.GetDtype()), shape); err != nil {
			return nil, err
		}
		t, err := tfserving.FromProto(p)
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", name, err)
		}
		inputs[name] = t
	}
	return inputs, nil
}

func (p predictionService) GetModelMetadata(_ context.Context, r *serving.GetModelMetadataRequest) (*serving.GetModelMetadataResponse, error) {
	if len(r.GetMetadataField()) == 0 {
		return nil, status.Errorf(codes.InvalidArgument, "the request names no metadata_field; the only one is %q", signatureField)
	}
	for _, field := range r.GetMetadataField() {
		if field != signatureField {
			return nil, status.Errorf(codes.InvalidArgument, "there is no metadata_field %q; the only one is %q", field, signatureField)
		}
	}
	ref, err := refOf(r.GetModelSpec())
	if err != nil {
		return nil, toStatus(err)
	}
	version, defs, err := p.s.signatures(ref)
	if err != nil {
		return nil, err
	}
	packed, err := anypb.New(defs)
	if err != nil {
		return nil, toStatus(fmt.Errorf("pack signatures: %w", err))
	}
	return &serving.GetModelMetadataResponse{
		ModelSpec: specOf(ref.Model, version, ""),
		Metadata:  map[string]*anypb.Any{signatureField: packed},
	}, nil
}

// signatures returns the version that a request asks for and its signatures.
func (s *Server) signatures(ref store.Ref) (int64, *serving.SignatureDefMap, error) {
	handle, err := s.store.Acquire(ref)
	if err != nil {
		return 0, nil, toStatus(err)
	}
	defer handle.Release()
	sig := handle.Servable.Signature()
	return handle.Version, &serving.SignatureDefMap{SignatureDef: map[string]*tensorflow.SignatureDef{SignatureName: {
		Inputs: tensorInfos(sig.Inputs), Outputs: tensorInfos(sig.Outputs), MethodName: sig.Method,
	}}}, nil
}

func tensorInfos(infos map[string]tfserving.TensorInfo) map[string]*tensorflow.TensorInfo {
	out := make(map[string]*tensorflow.TensorInfo, len(infos))
	for name, info := range infos {
		shape := &tensorflow.TensorShapeProto{UnknownRank: info.UnknownRank}
		for _, d := range info.Shape {
			shape.Dim = append(shape.Dim, &tensorflow.TensorShapeProto_Dim{Size: d})
		}
		out[name] = &tensorflow.TensorInfo{Name: info.Name, Dtype: tensorflow.DataType(info.DType), TensorShape: shape}
	}
	return out
}

type modelService struct {
	serving.UnimplementedModelServiceServer
	s *Server
}

func (m modelService) GetModelStatus(_ context.Context, r *serving.GetModelStatusRequest) (*serving.GetModelStatusResponse, error) {
	ref, err := refOf(r.GetModelSpec())
	if err != nil {
		return nil, toStatus(err)
	}
	return m.s.status(ref)
}

// status returns the states of the versions that a request asks for: all of them, or one.
func (s *Server) status(ref store.Ref) (*serving.GetModelStatusResponse, error) {
	all, err := s.store.Status(ref.Model)
	if err == nil && ref.Label != "" {
		ref.Version, err = s.store.Resolve(ref.Model, ref.Label)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	r := &serving.GetModelStatusResponse{}
	for _, v := range all {
		if ref.Version != 0 && ref.Version != v.Version {
			continue
		}
		r.ModelVersionStatus = append(r.ModelVersionStatus, &serving.ModelVersionStatus{
			Version: v.Version, State: states[v.State], Status: reason(v.Err),
		})
	}
	if len(r.ModelVersionStatus) == 0 {
		return nil, status.Errorf(codes.NotFound, "model %q has no such version", ref.Model)
	}
	return r, nil
}

var states = map[store.State]serving.ModelVersionStatus_State{
	store.Start:     serving.ModelVersionStatus_START,
	store.Loading:   serving.ModelVersionStatus_LOADING,
	store.Available: serving.ModelVersionStatus_AVAILABLE,
	store.Unloading: serving.ModelVersionStatus_UNLOADING,
	store.End:       serving.ModelVersionStatus_END,
}

// reason says why a version could not be loaded.
func reason(err error) *serving.StatusProto {
	if err == nil {
		return &serving.StatusProto{}
	}
	code := tensorflow.Code_UNKNOWN
	switch {
	case errors.Is(err, os.ErrNotExist):
		code = tensorflow.Code_NOT_FOUND
	case errors.Is(err, os.ErrPermission):
		code = tensorflow.Code_PERMISSION_DENIED
	case errors.Is(err, context.Canceled):
		code = tensorflow.Code_CANCELLED
	}
	return &serving.StatusProto{ErrorCode: code, ErrorMessage: err.Error()}
}

func (m modelService) HandleReloadConfigRequest(ctx context.Context, r *serving.ReloadConfigRequest) (*serving.ReloadConfigResponse, error) {
	list := r.GetConfig().GetModelConfigList()
	if list == nil {
		return nil, status.Error(codes.InvalidArgument, "the request has no model_config_list; it is the only kind of configuration")
	}
	models := make([]store.Model, 0, len(list.GetConfig()))
	for _, c := range list.GetConfig() {
		model := store.Model{Name: c.GetName(), Path: c.GetBasePath(), Labels: c.GetVersionLabels()}
		switch choice := c.GetModelVersionPolicy().GetPolicyChoice().(type) {
		case *serving.FileSystemStoragePathSourceConfig_ServableVersionPolicy_Latest_:
			model.Policy.Latest = int(choice.Latest.GetNumVersions())
		case *serving.FileSystemStoragePathSourceConfig_ServableVersionPolicy_All_:
			model.Policy.All = true
		case *serving.FileSystemStoragePathSourceConfig_ServableVersionPolicy_Specific_:
			model.Policy.Specific = append([]int64{}, choice.Specific.GetVersions()...)
		}
		models = append(models, model)
	}
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	if err := m.s.store.Reload(ctx, models); err != nil {
		return nil, toStatus(err)
	}
	m.s.cfg.Logger.InfoContext(ctx, "the models to serve were changed", "models", m.s.store.Models())
	return &serving.ReloadConfigResponse{Status: &serving.StatusProto{}}, nil
}
