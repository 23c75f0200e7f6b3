package app

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

type logConfig struct {
	Level  string `env:"LOG_LEVEL, default=info"`  // debug, info, warn or error
	Format string `env:"LOG_FORMAT, default=json"` // json or text
}

// The values of LOG_FORMAT.
const (
	formatJSON = "json" // for programs
	formatText = "text" // for people
)

// newLogger makes the logger that LOG_LEVEL and LOG_FORMAT ask for, and says in which format it logs.
func newLogger(a *App, w io.Writer) (l *slog.Logger, format string, err error) {
	var c logConfig
	if err := Load(context.Background(), a, &c); err != nil {
		return nil, "", err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(cmp.Or(c.Level, "info"))); err != nil {
		return nil, "", fmt.Errorf("environment variable LOG_LEVEL is %q; want debug, info, warn or error", c.Level)
	}
	o := &slog.HandlerOptions{Level: level}
	var h slog.Handler
	switch c.Format {
	case "", formatJSON:
		h = slog.NewJSONHandler(w, o)
	case formatText:
		h = slog.NewTextHandler(w, o)
	default:
		return nil, "", fmt.Errorf("environment variable LOG_FORMAT is %q; want json or text", c.Format)
	}
	return slog.New(WithTrace(h)).With("function", a.Name), c.Format, nil
}

// WithTrace returns a handler that gives each record the ids of its context's span, trace_id and span_id.
func WithTrace(h slog.Handler) slog.Handler { return tracing{h} }

// tracing adds the ids of the context's span, so that a log line leads to its trace and back. The ids are there even
// when the trace itself is not sampled: they still tie the lines of one request together across functions.
type tracing struct{ slog.Handler }

func (t tracing) Handle(ctx context.Context, r slog.Record) error {
	if s := trace.SpanContextFromContext(ctx); s.IsValid() {
		r.AddAttrs(slog.String("trace_id", s.TraceID().String()), slog.String("span_id", s.SpanID().String()))
	}
	return t.Handler.Handle(ctx, r)
}

func (t tracing) WithAttrs(as []slog.Attr) slog.Handler { return tracing{t.Handler.WithAttrs(as)} }
func (t tracing) WithGroup(name string) slog.Handler    { return tracing{t.Handler.WithGroup(name)} }
