package fetch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/outside"
)

// The codes of the problems that Fetch returns: the last part of problem.Details.Type.
const (
	CodeAddress     = "bad-address"             // 400: not an http(s) address, or one with a password in it
	CodeForbidden   = "address-not-allowed"     // 422: private, local and the like, or an unusual port
	CodeUnreachable = "address-unreachable"     // 422: no such name, no connection, or it broke
	CodeStatus      = "address-without-picture" // 422: the other side answered, but not 200 with something in it
	CodeSlow        = "address-too-slow"        // 422
	CodeTooLarge    = "too-large"               // 413
	CodeCallerGone  = "caller-gone"             // 499
)

// explain turns an error into what the caller shall read. What the address does wrong is the request's fault, not this
// server's, so there are no 5xx. own is the context that had the time limit.
func (f *Fetcher) explain(caller, own context.Context, err error) *problem.Details {
	var status statusError
	var timeout net.Error
	switch {
	case errors.Is(caller.Err(), context.Canceled):
		return problem.New(CodeCallerGone, 499, "The caller is gone", "The request was cancelled before the picture was there.")
	case errors.Is(err, outside.ErrForbidden):
		return problem.New(CodeForbidden, http.StatusUnprocessableEntity, "This address is not allowed",
			"The address leads into a private or local network. Use the address of a picture on the public web, or send the picture itself.")
	case errors.Is(err, outside.ErrPort):
		return problem.New(CodeForbidden, http.StatusUnprocessableEntity, "This address is not allowed",
			fmt.Sprintf("The address has an unusual port. The ports that can be used are %v.", f.cfg.Ports))
	case errors.Is(err, errRedirected):
		return problem.New(CodeForbidden, http.StatusUnprocessableEntity, "This address is not allowed",
			"The address leads on to one that is not a plain http or https address. Use the picture's own address.")
	case errors.Is(err, outside.ErrTooLong):
		return problem.New(CodeAddress, http.StatusBadRequest, "This is not a picture's address",
			fmt.Sprintf("The address is longer than %d characters.", outside.MaxURLBytes))
	case errors.Is(err, outside.ErrCredentials):
		return problem.New(CodeAddress, http.StatusBadRequest, "This is not a picture's address",
			"The address has a user name or password in it. Use an address that everyone may open, or send the picture itself.")
	case errors.Is(err, outside.ErrAddress), errors.Is(err, outside.ErrScheme):
		return problem.New(CodeAddress, http.StatusBadRequest, "This is not a picture's address",
			"Use an address that begins with http:// or https://.")
	case errors.Is(err, errRedirects):
		return problem.New(CodeStatus, http.StatusUnprocessableEntity, "There is no picture at this address",
			"The address leads on to another one too many times. Use the picture's own address.")
	case errors.Is(err, errTooLarge):
		return problem.New(CodeTooLarge, http.StatusRequestEntityTooLarge, "The picture is too large",
			fmt.Sprintf("What is at the address is larger than %d bytes. Use a smaller picture.", f.cfg.MaxBytes))
	case errors.Is(err, errEmpty):
		return problem.New(CodeStatus, http.StatusUnprocessableEntity, "There is no picture at this address",
			"What is at the address is empty.")
	case errors.As(err, &status):
		return problem.New(CodeStatus, http.StatusUnprocessableEntity, "There is no picture at this address",
			fmt.Sprintf("The address answered %q. Open it in a browser to see whether it still exists.", status.Error()))
	case own.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return problem.New(CodeSlow, http.StatusUnprocessableEntity, "The address took too long",
			fmt.Sprintf("The picture did not arrive within %v. Try again, or send the picture itself.", f.cfg.Timeout))
	default:
		return problem.New(CodeUnreachable, http.StatusUnprocessableEntity, "The address cannot be reached",
			"There is no such name, or nothing answers there. Check the address for mistakes.")
	}
}
