package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

// HTTP is the configuration of a function that serves HTTP. A function embeds it in its own.
type HTTP struct {
	Host         string        `env:"HOST"`                       // address to listen on; empty: all of them
	Port         uint16        `env:"PORT, default=8080"`         // 0: any that is free
	MetricsPort  uint16        `env:"METRICS_PORT, default=9090"` // where /metrics is; 0 or empty: nowhere
	DrainTimeout time.Duration `env:"DRAIN_TIMEOUT, default=30s"` // for what is under way when the function is told to stop
}

// Serve serves h on c's port until ctx ends, and what a.Telemetry measures on c's metrics port; see the function Serve.
// c.DrainTimeout counts when o has none. The metrics are served until the drain is over.
func (a *App) Serve(ctx context.Context, c HTTP, h http.Handler, o ServeOptions) error {
	if o.DrainTimeout == 0 {
		o.DrainTimeout = c.DrainTimeout
	}
	if o.Logger == nil {
		o.Logger = a.Logger
	}
	ln, err := Listen(ctx, c.Host, c.Port)
	if err != nil {
		return fmt.Errorf("environment variables HOST and PORT: %w", err)
	}
	if c.MetricsPort != 0 && a.Telemetry != nil {
		metrics, err := Listen(ctx, c.Host, c.MetricsPort)
		if err != nil {
			// Nothing is served yet; the listener's own error would only hide this one.
			_ = ln.Close()
			return fmt.Errorf("environment variables HOST and METRICS_PORT: %w", err)
		}
		stop := a.serveMetrics(ctx, metrics, o.Logger)
		defer stop()
	}
	o.Logger.Info("serving", "address", ln.Addr().String(), "version", a.Version)
	return Serve(ctx, ln, h, o)
}

// serveMetrics serves /metrics until stop is called.
func (a *App) serveMetrics(ctx context.Context, ln net.Listener, log *slog.Logger) (stop func()) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", a.Telemetry.Metrics)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := Serve(ctx, ln, mux, ServeOptions{DrainTimeout: time.Second, Logger: log}); err != nil {
			log.Warn("serving metrics", "error", err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// Listen listens on TCP. Port 0 takes any that is free: see the listener's Addr.
func Listen(ctx context.Context, host string, port uint16) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: another program listens on port %d; end it or choose another port", err, port)
	}
	return ln, err
}

// ServeOptions bounds what a client can take. The zero value has the defaults; no bound can be switched off.
type ServeOptions struct {
	ReadHeaderTimeout time.Duration // default 5 s
	ReadTimeout       time.Duration // of header and body; default 30 s
	WriteTimeout      time.Duration // from the end of the header to the end of the answer; default 2 min
	IdleTimeout       time.Duration // of a kept connection; default 2 min
	MaxHeaderBytes    int           // default 64 KiB
	DrainTimeout      time.Duration // for requests under way when ctx ends; default 30 s
	// OnDrain is called first when ctx ends, while requests are still taken: readiness turns false here.
	OnDrain func()
	Logger  *slog.Logger // default slog.Default()
}

func (o ServeOptions) withDefaults() ServeOptions {
	set(&o.ReadHeaderTimeout, 5*time.Second)
	set(&o.ReadTimeout, 30*time.Second)
	set(&o.WriteTimeout, 2*time.Minute)
	set(&o.IdleTimeout, 2*time.Minute)
	set(&o.MaxHeaderBytes, 64<<10)
	set(&o.DrainTimeout, 30*time.Second)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

func set[T time.Duration | int](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Serve serves h on ln until ctx ends and the requests under way are answered, and returns nil. It closes ln. Requests'
// contexts do not end with ctx: they get DrainTimeout to finish; then they are cancelled, their connections closed, and
// Serve returns an error.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, o ServeOptions) error {
	o = o.withDefaults()
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: o.ReadHeaderTimeout,
		ReadTimeout:       o.ReadTimeout,
		WriteTimeout:      o.WriteTimeout,
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    o.MaxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}

	if o.OnDrain != nil {
		o.OnDrain()
	}
	drain, cancelDrain := context.WithTimeout(requests, o.DrainTimeout)
	defer cancelDrain()
	err := srv.Shutdown(drain)
	if err != nil {
		cancel()
		err = errors.Join(fmt.Errorf("requests were still under way %v after the stop: %w", o.DrainTimeout, err), srv.Close())
	}
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}
