package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebb-inference/ebb/models/store"
	"github.com/ebb-inference/ebb/models/tfserving"
)

// reader turns a request's body into inputs, once the network that is to compute with them is known.
type reader func(Network) (inputs map[string]tfserving.Tensor, err error)

// answer is what a network answered, and which one.
type answer struct {
	version int64
	outputs map[string]tfserving.Tensor
}

// predict answers one call, of either protocol. Its errors are gRPC statuses.
func (s *Server) predict(ctx context.Context, ref store.Ref, outputs []string, read reader) (*answer, error) {
	begin := time.Now()
	handle, err := s.store.Acquire(ref)
	if err != nil {
		err = toStatus(err)
		if errors.Is(err, store.ErrModel) {
			ref.Model = "" // names that callers make up must not become metrics
		}
		s.metrics.predicted(ctx, ref.Model, begin, err)
		return nil, err
	}
	defer handle.Release()
	trace.SpanFromContext(ctx).SetAttributes(attribute.String("model", ref.Model), attribute.Int64("version", handle.Version))
	s.metrics.inFlight(ctx, ref.Model, 1)
	defer s.metrics.inFlight(ctx, ref.Model, -1)
	a, err := s.compute(ctx, ref.Model, handle, outputs, read)
	s.metrics.predicted(ctx, ref.Model, begin, err)
	return a, err
}

func (s *Server) compute(ctx context.Context, model string, handle *store.Handle[Network], outputs []string, read reader) (*answer, error) {
	select {
	case s.calls <- struct{}{}:
		defer func() { <-s.calls }()
	default:
		return nil, status.Errorf(codes.Unavailable, "%d predictions are under way or waiting; try again later", s.cfg.MaxCalls)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	inputs, err := read(handle.Servable)
	if err != nil {
		return nil, toStatus(err)
	}
	result, waited, err := handle.Servable.Predict(ctx, inputs, outputs)
	s.metrics.waited(ctx, model, waited)
	if err != nil {
		return nil, toStatus(err)
	}
	return &answer{handle.Version, result}, nil
}

// checkSignature refuses signatures that networks do not have.
func checkSignature(name string) error {
	if name != "" && name != SignatureName {
		return fmt.Errorf("%w: there is no signature %q, the only one is %q", tfserving.ErrInvalid, name, SignatureName)
	}
	return nil
}

// failure is an error with the gRPC status that it is answered with.
type failure struct {
	error
	code codes.Code
}

func (f failure) GRPCStatus() *status.Status { return status.New(f.code, f.Error()) }
func (f failure) Unwrap() error              { return f.error }

// toStatus gives an error the code that TensorFlow Serving answers it with.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return failure{err, codeOf(err)}
}

func codeOf(err error) codes.Code {
	switch {
	case errors.Is(err, tfserving.ErrInvalid), errors.Is(err, tfserving.ErrTensor), errors.Is(err, store.ErrLabel), errors.Is(err, store.ErrConfig):
		return codes.InvalidArgument
	case errors.Is(err, store.ErrModel), errors.Is(err, store.ErrVersion):
		return codes.NotFound
	case errors.Is(err, store.ErrNotLoaded), errors.Is(err, store.ErrClosed):
		return codes.Unavailable
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	default:
		return codes.Internal
	}
}
