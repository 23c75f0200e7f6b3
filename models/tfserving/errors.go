package tfserving

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What a caller decides on. The errors of a Client wrap one of these, or context.DeadlineExceeded or context.Canceled,
// and always the status that the server answered, so that status.Code works on them too.
var (
	// ErrInvalid says that the server finds fault with the request; sending it again will not help.
	ErrInvalid = errors.New("invalid request")
	// ErrNotFound says that the server does not serve the model, the version or the label, perhaps not yet.
	ErrNotFound = errors.New("model not found")
	// ErrUnavailable says that no server took the request: it is starting, stopping, overloaded or away. Try again.
	ErrUnavailable = errors.New("model server unavailable")
	// ErrAnswer says that the server's answer makes no sense.
	ErrAnswer = errors.New("malformed answer")
)

// wrap adds what was being done, and to what, and the sentinel that fits the status.
func wrap(doing string, s Spec, err error) error {
	var kind error
	switch status.Code(err) {
	case codes.InvalidArgument:
		kind = ErrInvalid
	case codes.NotFound:
		kind = ErrNotFound
	case codes.Unavailable:
		kind = ErrUnavailable
	case codes.Unimplemented:
		if !noRoute(err) {
			return fmt.Errorf("%s %s: %w", doing, s, err)
		}
		kind = ErrUnavailable
	case codes.DeadlineExceeded:
		kind = context.DeadlineExceeded
	case codes.Canceled:
		kind = context.Canceled
	default:
		return fmt.Errorf("%s %s: %w", doing, s, err)
	}
	return fmt.Errorf("%s %s: %w: %w", doing, s, kind, err)
}

// noRoute says whether it was no model server that answered, but a gateway before it, which knows no such place: HTTP's 404. The
// route of a server that was just deployed is made when the server is ready. gRPC makes one code of that and of a method that a
// server does not have, and only the text tells them apart.
func noRoute(err error) bool {
	return strings.HasPrefix(status.Convert(err).Message(), "unexpected HTTP status code received from server: 404")
}
