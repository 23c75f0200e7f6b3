package app_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sethvargo/go-envconfig"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/functions/internal/app"
)

// serving is a Serve that a test can ask and stop.
type serving struct {
	url    string
	client *http.Client
	stop   context.CancelFunc
	result chan error
}

func serve(t *testing.T, h http.Handler, o app.ServeOptions) *serving {
	t.Helper()
	ln, err := app.Listen(t.Context(), "127.0.0.1", 0)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	transport := &http.Transport{}
	s := &serving{"http://" + ln.Addr().String(), &http.Client{Transport: transport}, stop, make(chan error, 1)}
	o.Logger = slog.New(slog.DiscardHandler)
	go func() { s.result <- app.Serve(ctx, ln, h, o) }()
	t.Cleanup(func() {
		stop()
		transport.CloseIdleConnections()
	})
	return s
}

func (s *serving) get(t *testing.T, path string) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
	require.NoError(t, err)
	res, err := s.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { require.NoError(t, res.Body.Close()) }()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), err
}

func TestServeAnswersWhatIsUnderWayBeforeItReturns(t *testing.T) {
	t.Parallel()
	entered, draining := make(chan struct{}), make(chan struct{})
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-draining // the drain has begun, and the request's context goes on
		if r.Context().Err() == nil {
			_, _ = io.WriteString(w, "answered")
		}
	}), app.ServeOptions{OnDrain: func() { close(draining) }})
	go func() {
		<-entered
		s.stop()
	}()
	status, body, err := s.get(t, "/")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "answered", body)
	require.NoError(t, <-s.result)
	_, _, err = s.get(t, "/")
	require.Error(t, err, "nothing listens any more")
}

func TestServeIsNotReadyBeforeItStopsTakingRequests(t *testing.T) {
	t.Parallel()
	health := app.NewHealth(nil)
	var s *serving
	seen := make(chan int, 2)
	ask := func() {
		status, _, err := s.get(t, "/health/readiness")
		if err != nil {
			t.Error(err)
		}
		seen <- status
	}
	s = serve(t, health, app.ServeOptions{OnDrain: func() {
		health.Drain()
		ask() // the listener still takes a request that was on its way
	}})
	ask()
	s.stop()
	require.NoError(t, <-s.result)
	require.Equal(t, http.StatusOK, <-seen)
	require.Equal(t, http.StatusServiceUnavailable, <-seen)
}

func TestServeCutsWhatDoesNotFinishInTime(t *testing.T) {
	t.Parallel()
	entered, cut, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(cut)
		<-over // or its empty answer could overtake the end of the connection
	}), app.ServeOptions{DrainTimeout: time.Millisecond})
	go func() {
		<-entered
		s.stop()
	}()
	_, _, err := s.get(t, "/")
	require.Error(t, err)
	require.ErrorIs(t, <-s.result, context.DeadlineExceeded)
	<-cut
	close(over)
}

func TestListenSaysWhatToDoAboutATakenPort(t *testing.T) {
	t.Parallel()
	first, err := app.Listen(t.Context(), "127.0.0.1", 0)
	require.NoError(t, err)
	defer first.Close()
	_, err = app.Listen(t.Context(), "127.0.0.1", uint16(first.Addr().(*net.TCPAddr).Port))
	require.ErrorContains(t, err, first.Addr().String())
	require.ErrorContains(t, err, "choose another port")
}

func TestServeReturnsTheListenersError(t *testing.T) {
	t.Parallel()
	ln, err := app.Listen(t.Context(), "127.0.0.1", 0)
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	require.ErrorIs(t, app.Serve(t.Context(), ln, http.NotFoundHandler(), app.ServeOptions{}), net.ErrClosed)
}

func TestServeRefusesAHeaderThatIsTooLarge(t *testing.T) {
	t.Parallel()
	s := serve(t, http.NotFoundHandler(), app.ServeOptions{MaxHeaderBytes: 1 << 10})
	status, _, err := s.get(t, "/?"+strings.Repeat("x", 16<<10))
	require.NoError(t, err)
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, status)
}

// pipes is a listener whose connections are in memory, so that its time can be a synctest bubble's.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func TestServeHangsUpOnSlowClients(t *testing.T) {
	t.Parallel()
	readAll := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusRequestTimeout)
		}
	})
	for _, tt := range []struct {
		name, sends string
		after       time.Duration
	}{
		{"header", "GET / HTTP/1.1\r\nHost:", 5 * time.Second},
		{"body", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234", 30 * time.Second},
		{"idle", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 2 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ln := &pipes{make(chan net.Conn), make(chan struct{})}
				ctx, stop := context.WithCancel(t.Context())
				result := make(chan error, 1)
				go func() { result <- app.Serve(ctx, ln, readAll, app.ServeOptions{}) }()
				client, server := net.Pipe()
				ln.conns <- server
				began := time.Now()
				_, err := io.WriteString(client, tt.sends)
				require.NoError(t, err)
				_, err = io.Copy(io.Discard, bufio.NewReader(client))
				require.NoError(t, err)
				require.Equal(t, tt.after, time.Since(began))
				require.NoError(t, client.Close())
				stop()
				require.NoError(t, <-result)
			})
		})
	}
}

func TestHealthSaysWhyItIsNotReady(t *testing.T) {
	t.Parallel()
	var reason error
	s := serve(t, app.NewHealth(func() error { return reason }), app.ServeOptions{})
	for _, tt := range []struct {
		path   string
		reason error
		status int
		body   string
	}{
		{"/health/liveness", nil, 200, "alive\n"},
		{"/health/readiness", nil, 200, "ready\n"},
		{"/health/readiness", errors.New("the model server is away"), 503, "the model server is away\n"},
		{"/health/liveness", errors.New("the model server is away"), 200, "alive\n"},
		{"/health/other", nil, 404, "404 page not found\n"},
	} {
		reason = tt.reason
		status, body, err := s.get(t, tt.path)
		require.NoError(t, err)
		require.Equal(t, tt.status, status, tt.path)
		require.Equal(t, tt.body, body, tt.path)
	}
}

func TestAppServesItsMetricsOnAPortOfTheirOwn(t *testing.T) {
	t.Parallel()
	lines := make(lineWriter, 4)
	a := &app.App{Name: "test", Lookup: envconfig.MapLookuper(nil), Logger: slog.New(slog.NewTextHandler(lines, nil))}
	a.Telemetry = &app.Telemetry{Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ebb 1") })}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	result := make(chan error, 1)
	var free net.Listener
	for served := false; !served; {
		var err error
		free, err = app.Listen(t.Context(), "127.0.0.1", 0)
		require.NoError(t, err)
		require.NoError(t, free.Close())
		go func() {
			result <- a.Serve(ctx, app.HTTP{Host: "127.0.0.1", MetricsPort: uint16(free.Addr().(*net.TCPAddr).Port)}, http.NotFoundHandler(), app.ServeOptions{})
		}()
		select {
		case line := <-lines:
			require.Contains(t, line, "msg=serving address=127.0.0.1:")
			served = true
		case err := <-result:
			require.ErrorIs(t, err, syscall.EADDRINUSE) // somebody took the port since it was free: another one
		}
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	s := &serving{url: "http://" + free.Addr().String(), client: &http.Client{Transport: transport}}
	status, body, err := s.get(t, "/metrics")
	require.NoError(t, err)
	require.Equal(t, 200, status)
	require.Equal(t, "ebb 1", body)
	stop()
	require.NoError(t, <-result)

	taken, err := app.Listen(t.Context(), "127.0.0.1", 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, taken.Close()) }()
	c := app.HTTP{Host: "127.0.0.1", MetricsPort: uint16(taken.Addr().(*net.TCPAddr).Port)}
	require.ErrorContains(t, a.Serve(t.Context(), c, http.NotFoundHandler(), app.ServeOptions{}), "METRICS_PORT")
	c.Port, c.MetricsPort = c.MetricsPort, 0
	require.ErrorContains(t, a.Serve(t.Context(), c, http.NotFoundHandler(), app.ServeOptions{}), "HOST and PORT")
}

// What a test waits for something that must happen, and between two looks.
const (
	patience = 30 * time.Second
	tick     = 5 * time.Millisecond
)

// lineWriter is a log that a test can wait for.
type lineWriter chan string

func (w lineWriter) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}
