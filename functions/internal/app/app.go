// Package app is what every function shares around its work: configuration from the environment, logger, signals,
// telemetry, HTTP servers that drain. It knows nothing of pictures, events or models.
//
// A function's main reads
//
//	func main() { app.Main("gateway", run) }
//
//	func run(ctx context.Context, a *app.App) error {
//		var c config // embeds app.HTTP
//		if err := app.Load(ctx, a, &c); err != nil {
//			return err
//		}
//		…                                   // build the handler
//		return a.Serve(ctx, c.HTTP, handler, app.ServeOptions{OnDrain: health.Drain})
//	}
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sethvargo/go-envconfig"
)

const scope = "github.com/ebb-inference/ebb/functions/internal/app"

// App is one running function.
type App struct {
	Name    string
	Version string // of the build: a module version, a VCS revision, or "devel"
	Logger  *slog.Logger
	Lookup  envconfig.Lookuper // where configuration comes from: the environment, or a map in tests
	// Telemetry is what the function measures; Main starts and stops it. Without it (in tests) nothing is exported.
	Telemetry *Telemetry

	ready sync.Once // see Ready
}

// stopTelemetryWithin bounds the last export, so that a collector that is down cannot hold up an exit.
const stopTelemetryWithin = 5 * time.Second

// gcPercent is GOGC unless the environment has another. What a function holds is small and what passes through it is large, so
// that Go's 100 collects garbage many times a second to save some megabytes: it took 3 % of the CPU time of a request. In a
// container GOMEMLIMIT bounds what may pile up.
const gcPercent = 400

// Main runs a function and ends the process. SIGINT or SIGTERM cancels ctx, upon which run is to drain and return; a
// second signal ends the process at once. The exit code is 0 when run returns nil (or only says that ctx was
// cancelled), and 1, after a log line that says why, when it returns anything else. With LOG_FORMAT=text it is said as a
// person wants to read it: plainly, and a line each when there are several reasons.
func Main(name string, run func(ctx context.Context, a *App) error) {
	os.Exit(realMain(name, run, envconfig.OsLookuper(), os.Stderr))
}

func realMain(name string, run func(ctx context.Context, a *App) error, lookup envconfig.Lookuper, stderr io.Writer) int {
	a := &App{Name: name, Version: version(), Lookup: lookup}
	var err error
	var format string
	if a.Logger, format, err = newLogger(a, stderr); err != nil {
		tell(stderr, name, err) // there is no logger yet
		return 1
	}
	slog.SetDefault(a.Logger)

	ctx, stop := withSignals(context.Background(), a.Logger)
	defer stop()
	CollectSeldom(lookup)

	if err := runWithTelemetry(ctx, a, run); err != nil && (ctx.Err() == nil || !errors.Is(err, context.Canceled)) {
		if format == formatText {
			tell(stderr, name, err)
		} else {
			a.Logger.Error("failed", "error", err)
		}
		return 1
	}
	return 0
}

// CollectSeldom has garbage collected as seldom as suits functions, unless GOGC is set.
func CollectSeldom(lookup envconfig.Lookuper) {
	if _, set := lookup.Lookup("GOGC"); !set {
		debug.SetGCPercent(gcPercent)
	}
}

// tell tells a person what went wrong.
func tell(to io.Writer, name string, err error) {
	for line := range strings.Lines(err.Error()) {
		// Nobody is left to tell when stderr cannot be written.
		_, _ = fmt.Fprintf(to, "%s: %s\n", name, strings.TrimSuffix(line, "\n"))
	}
}

func runWithTelemetry(ctx context.Context, a *App, run func(ctx context.Context, a *App) error) (err error) {
	if a.Telemetry, err = StartTelemetry(ctx, a); err != nil {
		return err
	}
	defer func() {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTelemetryWithin)
		defer cancel()
		// Losing the last measurements is not a failure of the function.
		if stopErr := a.Telemetry.Stop(stopCtx); stopErr != nil {
			a.Logger.Warn("telemetry was not flushed", "error", stopErr)
		}
	}()
	return run(ctx, a)
}

// withSignals returns a context that the first SIGINT or SIGTERM cancels; the second ends the process. stop gives the
// signals back.
func withSignals(parent context.Context, log *slog.Logger) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for first := true; ; first = false {
			select {
			case s := <-signals:
				if !first {
					log.Error("second signal: exiting without draining", "signal", s.String())
					os.Exit(1)
				}
				log.Info("stopping; signal again to exit at once", "signal", s.String())
				cancel()
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		<-ended
		cancel()
	}
}

// version is what the build says of itself.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "devel"
}
