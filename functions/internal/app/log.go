package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

type logConfig struct {
	Level  slog.Level `env:"LOG_LEVEL, default=INFO"`  // DEBUG, INFO, WARN or ERROR
	Format string     `env:"LOG_FORMAT, default=json"` // json or text
}

// newLogger makes the logger that LOG_LEVEL and LOG_FORMAT ask for.
func newLogger(a *App, w io.Writer) (*slog.Logger, error) {
	var c logConfig
	if err := Load(context.Background(), a, &c); err != nil {
		return nil, err
	}
	o := &slog.HandlerOptions{Level: c.Level}
	var h slog.Handler
	switch c.Format {
	case "", "json":
		h = slog.NewJSONHandler(w, o)
	case "text":
		h = slog.NewTextHandler(w, o)
	default:
		return nil, fmt.Errorf("environment variable LOG_FORMAT is %q; want json or text", c.Format)
	}
	return slog.New(tracing{h}).With("function", a.Name), nil
}

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
