package app_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"go.opentelemetry.io/otel"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/functions/internal/app"
)

// childVar makes the test binary be a function of this name instead: Main ends its process, so it is tested in one of
// its own.
const childVar = "APP_TEST_CHILD"

// children are the functions that a test can be. They tell the test on stdout how far they are.
var children = map[string]func(context.Context, *app.App) error{
	"clean": func(context.Context, *app.App) error { return nil },
	"failing": func(context.Context, *app.App) error {
		return fmt.Errorf("connect to the broker: %w", errors.New("refused"))
	},
	"misconfigured": func(context.Context, *app.App) error {
		return errors.Join(errors.New("cat.yaml:3: colour: is no field"), errors.New(`the model "dog" has no Trigger`))
	},
	"logging": func(ctx context.Context, a *app.App) error {
		ctx, span := otel.Tracer("test").Start(ctx, "work")
		defer span.End()
		a.Logger.InfoContext(ctx, "with a span", "expected", span.SpanContext().TraceID().String())
		a.Logger.Debug("detail")
		return nil
	},
	"draining": func(ctx context.Context, _ *app.App) error {
		fmt.Println("started")
		<-ctx.Done()
		fmt.Println("drained")
		return fmt.Errorf("serve: %w", ctx.Err())
	},
	"hanging": func(ctx context.Context, _ *app.App) error {
		fmt.Println("started")
		<-ctx.Done()
		fmt.Println("stopping")
		select {}
	},
	"measuring": func(ctx context.Context, _ *app.App) error {
		counter, err := otel.Meter("test").Int64Counter("ebb.test.count")
		if err != nil {
			return err
		}
		counter.Add(ctx, 3)
		_, span := otel.Tracer("test").Start(ctx, "work")
		span.End()
		return nil
	},
}

func TestMain(m *testing.M) {
	if name := os.Getenv(childVar); name != "" {
		app.Main(name, children[name])
	}
	goleak.VerifyTestMain(m)
}
