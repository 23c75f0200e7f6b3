package app_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/sethvargo/go-envconfig"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/functions/internal/app"
)

// run starts a function on a port of its own.
func run(t *testing.T, start func(context.Context) (*app.Function, error)) *serving {
	t.Helper()
	lines := make(lineWriter, 16)
	a := &app.App{Name: "test", Lookup: envconfig.MapLookuper(nil), Logger: slog.New(slog.NewTextHandler(lines, nil))}
	ctx, stop := context.WithCancel(t.Context())
	transport := &http.Transport{}
	s := &serving{client: &http.Client{Transport: transport}, stop: stop, result: make(chan error, 1)}
	go func() { s.result <- a.Run(ctx, app.HTTP{Host: "127.0.0.1"}, app.ServeOptions{}, start) }()
	t.Cleanup(func() {
		stop()
		transport.CloseIdleConnections()
	})
	const address = "address="
	for line := range lines {
		if _, rest, ok := strings.Cut(line, address); ok {
			s.url = "http://" + strings.Fields(rest)[0]
			return s
		}
	}
	return nil
}

func (s *serving) require(t *testing.T, path string, status int, body string) {
	t.Helper()
	gotStatus, gotBody, err := s.get(t, path)
	require.NoError(t, err)
	require.Equal(t, status, gotStatus)
	require.Equal(t, body, gotBody)
}

func TestAFunctionIsAliveAndNotReadyUntilItHasStarted(t *testing.T) {
	t.Parallel()
	there, made, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s := run(t, func(context.Context) (*app.Function, error) {
		<-there
		health := app.NewHealth(nil)
		mux := http.NewServeMux()
		mux.Handle("/health/", health)
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "at work") })
		defer close(made)
		return &app.Function{Handler: mux, Health: health, Stop: func(context.Context) error {
			close(stopped)
			return errors.New("not everything was sent")
		}}, nil
	})
	const starting = "starting: what it needs is not there yet\n"
	s.require(t, "/health/liveness", http.StatusOK, "alive\n")
	s.require(t, "/health/readiness", http.StatusServiceUnavailable, starting)
	status, body, err := s.get(t, "/")
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, body, "urn:ebb:problem:starting")

	close(there)
	<-made
	require.Eventually(t, func() bool { // it is taken a moment after it is made
		status, _, err := s.get(t, "/health/readiness")
		return err == nil && status == http.StatusOK
	}, patience, tick)
	s.require(t, "/", http.StatusOK, "at work")

	s.stop()
	require.EqualError(t, <-s.result, "not everything was sent")
	<-stopped
}

func TestAFunctionIsStoppedWhenItsRequestsAreAnswered(t *testing.T) {
	t.Parallel()
	entered, draining := make(chan struct{}), make(chan struct{})
	answered := false
	s := run(t, func(ctx context.Context) (*app.Function, error) {
		context.AfterFunc(ctx, func() { close(draining) })
		health := app.NewHealth(nil)
		return &app.Function{
			Health: health,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				close(entered)
				<-draining
				answered = true
				_, _ = io.WriteString(w, "at work")
			}),
			Stop: func(context.Context) error {
				if !answered {
					return errors.New("stopped early")
				}
				return nil
			},
		}, nil
	})
	go func() {
		<-entered
		s.stop()
	}()
	require.Eventually(t, func() bool {
		_, body, err := s.get(t, "/")
		return err == nil && body == "at work"
	}, patience, tick)
	require.NoError(t, <-s.result)
}

func TestAFunctionThatCannotStartEnds(t *testing.T) {
	t.Parallel()
	s := run(t, func(context.Context) (*app.Function, error) { return nil, errors.New("wrong password") })
	require.EqualError(t, <-s.result, "wrong password")
}

func TestAFunctionThatIsStoppedBeforeItStartedEndsWithSuccess(t *testing.T) {
	t.Parallel()
	s := run(t, func(ctx context.Context) (*app.Function, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	s.stop()
	require.NoError(t, <-s.result)
}
