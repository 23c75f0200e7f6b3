package oci

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// maxSaid bounds how much of a registry's own words an error repeats.
const maxSaid = 300

// failure is an error of a registry in words that may be logged.
type failure struct {
	words string
	cause error
}

func (f *failure) Error() string { return f.words }

func (f *failure) Unwrap() error { return f.cause }

// Explain says what went wrong between us and a registry, and what to do about it. What it says has no query of a URL, where
// registries put signatures and tokens, and not all that a registry answered. The cause stays what it was; with a context that is
// over it is that.
func Explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if over := ctx.Err(); over != nil {
		return fmt.Errorf("ask the registry: %w", over)
	}
	var answered *transport.Error
	var asked *url.Error
	switch {
	case errors.As(err, &answered):
		return &failure{said(answered), err}
	case errors.As(err, &asked):
		return &failure{fmt.Sprintf("%s %s: %v", asked.Op, place(asked.URL), asked.Err), err}
	}
	return &failure{clip(err.Error()), err}
}

// place is a URL without what may be secret.
func place(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "registry"
	}
	return u.Scheme + "://" + u.Host + u.Path
}

func said(e *transport.Error) string {
	var b strings.Builder
	if e.Request != nil {
		fmt.Fprintf(&b, "%s %s: ", e.Request.Method, place(e.Request.URL.String()))
	}
	fmt.Fprintf(&b, "%d %s", e.StatusCode, http.StatusText(e.StatusCode))
	for _, d := range e.Errors[:min(len(e.Errors), 3)] {
		fmt.Fprintf(&b, ", %s: %s", d.Code, d.Message)
	}
	text := clip(b.String())
	if e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden {
		text += " (give the function credentials that the registry accepts: docker's configuration in the folder DOCKER_CONFIG, " +
			"or on Google Cloud a service account with the role)"
	}
	return text
}

// clip makes a registry's words fit for a line of a log.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxSaid {
		s = strings.ToValidUTF8(s[:maxSaid], "") + "…"
	}
	return s
}

// IsGone says whether the registry has no such thing.
func IsGone(err error) bool {
	var answered *transport.Error
	return errors.As(err, &answered) && answered.StatusCode == http.StatusNotFound
}

// IsUnsupported says whether the registry does not do such a thing at all.
func IsUnsupported(err error) bool {
	var answered *transport.Error
	if !errors.As(err, &answered) {
		return false
	}
	for _, d := range answered.Errors {
		if d.Code == transport.UnsupportedErrorCode {
			return true
		}
	}
	return answered.StatusCode == http.StatusMethodNotAllowed || answered.StatusCode == http.StatusNotImplemented
}
