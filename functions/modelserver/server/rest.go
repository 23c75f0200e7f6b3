package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/ebb-inference/ebb/functions/modelserver/tensorjson"
	"github.com/ebb-inference/ebb/models/store"
	"github.com/ebb-inference/ebb/models/tfserving"
)

func (s *Server) newREST() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/health/", s.probes)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, status.Error(codes.NotFound, "there is nothing here; models are at /v1/models/{name}"))
	})
	mux.Handle("/v1/models/", otelhttp.NewHandler(http.HandlerFunc(s.models), "/v1/models",
		otelhttp.WithSpanNameFormatter(func(route string, r *http.Request) string { return r.Method + " " + route })))
	return mux
}

// route is what a path below /v1/models/ asks for.
type route struct {
	ref  store.Ref
	noun string // "metadata", or empty
	verb string // "predict", or empty
}

// parse reads {name}[/versions/{number}|/labels/{label}][/metadata][:verb]. Names may contain no slash and no colon.
func parse(path string) (route, error) {
	var r route
	malformed := status.Errorf(codes.NotFound, "malformed path; it must be /v1/models/{name}[/versions/{version}|/labels/{label}][/metadata|:predict]")
	path, r.verb, _ = strings.Cut(path, ":")
	parts := strings.Split(path, "/")
	if parts[0] == "" {
		return r, malformed
	}
	r.ref.Model = parts[0]
	parts = parts[1:]
	if len(parts) >= 2 && parts[0] == "versions" {
		version, err := strconv.ParseInt(parts[1], 10, 64)
		if err != nil || version < 1 {
			return r, status.Errorf(codes.InvalidArgument, "version %q is not a positive number", parts[1])
		}
		r.ref.Version, parts = version, parts[2:]
	} else if len(parts) >= 2 && parts[0] == "labels" && parts[1] != "" {
		r.ref.Label, parts = parts[1], parts[2:]
	}
	if len(parts) == 1 && parts[0] == "metadata" && r.verb == "" {
		r.noun, parts = parts[0], nil
	}
	if len(parts) > 0 {
		return r, malformed
	}
	return r, nil
}

func (s *Server) models(w http.ResponseWriter, r *http.Request) {
	route, err := parse(strings.TrimPrefix(r.URL.Path, "/v1/models/"))
	if err != nil {
		fail(w, err)
		return
	}
	method := http.MethodGet
	if route.verb != "" {
		method = http.MethodPost
	}
	if r.Method != method && (r.Method != http.MethodHead || method != http.MethodGet) {
		w.Header().Set("Allow", method)
		respond(w, http.StatusMethodNotAllowed, quoted(fmt.Sprintf("method %s is not allowed here, use %s", r.Method, method)))
		return
	}
	switch {
	case route.verb == "predict":
		s.restPredict(w, r, route.ref)
	case route.verb == "classify" || route.verb == "regress":
		fail(w, status.Errorf(codes.Unimplemented, "%s is not implemented, use predict", route.verb))
	case route.verb != "":
		fail(w, status.Errorf(codes.NotFound, "there is no method %q, use predict", route.verb))
	case route.noun == "metadata":
		s.restMetadata(w, route.ref)
	default:
		answer, err := s.status(route.ref)
		if err != nil {
			fail(w, err)
			return
		}
		body, err := marshal.Marshal(answer)
		if err != nil {
			fail(w, toStatus(fmt.Errorf("write the status: %w", err)))
			return
		}
		respond(w, http.StatusOK, body)
	}
}

// marshal writes messages as TensorFlow Serving does.
var marshal = protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}

func (s *Server) restMetadata(w http.ResponseWriter, ref store.Ref) {
	version, defs, err := s.signatures(ref)
	if err != nil {
		fail(w, err)
		return
	}
	spec, err1 := raw(specOf(ref.Model, version, ""))
	signatures, err2 := raw(defs)
	body, err3 := json.Marshal(map[string]any{
		"model_spec": spec,
		"metadata":   map[string]any{signatureField: signatures},
	})
	if err := errors.Join(err1, err2, err3); err != nil {
		fail(w, toStatus(fmt.Errorf("write the metadata: %w", err)))
		return
	}
	respond(w, http.StatusOK, body)
}

func raw(m proto.Message) (json.RawMessage, error) { return marshal.Marshal(m) }

func (s *Server) restPredict(w http.ResponseWriter, r *http.Request, ref store.Ref) {
	body, err := s.body(w, r)
	if err != nil {
		fail(w, err)
		return
	}
	rows := false
	answer, err := s.predict(r.Context(), ref, nil, func(n Network) (map[string]tfserving.Tensor, error) {
		request, err := tensorjson.Decode(body, n.Signature().Inputs)
		if err != nil {
			return nil, err
		}
		rows = request.Rows
		return request.Inputs, checkSignature(request.Signature)
	})
	if err != nil {
		fail(w, err)
		return
	}
	written, err := tensorjson.Append(nil, rows, answer.outputs)
	if err != nil {
		fail(w, status.Error(codes.InvalidArgument, err.Error()))
		return
	}
	respond(w, http.StatusOK, written)
}

// errTooLarge is a body over the limit.
var errTooLarge = errors.New("the body is too large")

func (s *Server) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	tooLarge := fmt.Errorf("%w: at most %d bytes are taken; gRPC takes more", errTooLarge, s.cfg.MaxBodyBytes)
	if r.ContentLength > s.cfg.MaxBodyBytes {
		return nil, tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.cfg.MaxBodyBytes))
	var limit *http.MaxBytesError
	switch {
	case errors.As(err, &limit):
		return nil, tooLarge
	case err != nil:
		return nil, status.Errorf(codes.InvalidArgument, "the body could not be read: %v", err)
	}
	return body, nil
}

// fail answers with an error, as TensorFlow Serving writes it.
func fail(w http.ResponseWriter, err error) {
	code := httpStatus(err)
	if code == http.StatusServiceUnavailable || code == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	respond(w, code, quoted(status.Convert(err).Message()))
}

func httpStatus(err error) int {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.NotFound:
		return http.StatusNotFound
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Canceled:
		return 499 // nobody reads it; logs do
	default:
		if errors.Is(err, errTooLarge) {
			return http.StatusRequestEntityTooLarge
		}
		return http.StatusInternalServerError
	}
}

// quoted returns {"error": message}.
func quoted(message string) []byte {
	body, err := json.Marshal(map[string]string{"error": message})
	if err != nil {
		return []byte(`{"error":""}`) // cannot be: strings can always be marshalled
	}
	return body
}

func respond(w http.ResponseWriter, code int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	// The client hung up when this fails; there is nobody to tell.
	_, _ = w.Write(append(body, '\n'))
}
