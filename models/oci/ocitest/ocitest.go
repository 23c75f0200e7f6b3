// Package ocitest has registries of images for tests: on loopback, in memory, with whatever a test wants to befall them.
package ocitest

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// Registry is a registry that runs as long as its test.
type Registry struct {
	Host string
	// Close ends it, before its test ends.
	Close func()

	mu       sync.Mutex
	requests []string // "PUT /v2/…", in the order in which they came
	handler  http.Handler
}

// New starts one.
func New(tb testing.TB) *Registry {
	tb.Helper()
	r := &Registry{handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.requests = append(r.requests, req.Method+" "+req.URL.Path)
		h := r.handler
		r.mu.Unlock()
		h.ServeHTTP(w, req)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // HTTPS is tried first
	server.Start()
	tb.Cleanup(server.Close)
	r.Close = server.Close
	r.Host = server.Listener.Addr().String()
	return r
}

// Wrap puts a handler around the registry, from the next request on.
func (r *Registry) Wrap(wrap func(http.Handler) http.Handler) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handler = wrap(r.handler)
}

// Answer makes the registry answer requests with a method, of paths with a part in them, with a status and OCI's error code.
func (r *Registry) Answer(method, part string, status int, code string) {
	r.Wrap(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method != method || !strings.Contains(req.URL.Path, part) {
				next.ServeHTTP(w, req)
				return
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"errors":[{"code":"`+code+`","message":"a test says so"}]}`)
		})
	})
}

// Corrupt turns over the last bit of what is read from paths with a part in them.
func (r *Registry) Corrupt(part string) {
	r.Wrap(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method != http.MethodGet || !strings.Contains(req.URL.Path, part) {
				next.ServeHTTP(w, req)
				return
			}
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, req)
			body := answer.Body.Bytes()
			body[len(body)-1] ^= 1
			for key, values := range answer.Header() {
				w.Header()[key] = values
			}
			w.WriteHeader(answer.Code)
			_, _ = w.Write(body)
		})
	})
}

// Protect asks for a user and a password from now on.
func (r *Registry) Protect(user, password string) {
	r.Wrap(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if u, p, ok := req.BasicAuth(); ok && u == user && p == password {
				next.ServeHTTP(w, req)
				return
			}
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}`)
		})
	})
}

// Took returns how many requests with a method came, of paths with a part in them.
func (r *Registry) Took(method, part string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, request := range r.requests {
		if strings.HasPrefix(request, method+" ") && strings.Contains(request, part) {
			n++
		}
	}
	return n
}

// Forget makes Took begin at zero.
func (r *Registry) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = nil
}

// ErrBroken is what a request fails with at a Breaker.
var ErrBroken = errors.New("the network broke, as the test wants")

// Breaker is a network that breaks at one request: its body is cut in the middle, and everything after it fails.
type Breaker struct {
	At int // the first is 0

	mu   sync.Mutex
	seen int
}

// Broke says whether there were so many requests.
func (b *Breaker) Broke() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen > b.At
}

// RoundTrip is http.RoundTripper's.
func (b *Breaker) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "https" {
		return nil, errors.New("no certificate here") // no registry of this package has one
	}
	b.mu.Lock()
	at := b.seen
	b.seen++
	b.mu.Unlock()
	if at < b.At {
		return http.DefaultTransport.RoundTrip(req)
	}
	if req.Body != nil {
		_, _ = io.CopyN(io.Discard, req.Body, 10)
		_ = req.Body.Close()
	}
	if at > b.At || req.Method != http.MethodGet {
		return nil, ErrBroken
	}
	answer, err := http.DefaultTransport.RoundTrip(req)
	if err == nil {
		answer.Body = cut{io.LimitReader(answer.Body, answer.ContentLength/2), answer.Body}
	}
	return answer, err
}

// cut is a body that breaks off.
type cut struct {
	io.Reader
	io.Closer
}

func (c cut) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if err == io.EOF {
		err = ErrBroken
	}
	return n, err
}
