package app

import (
	"context"
	"fmt"

	"github.com/sethvargo/go-envconfig"
)

// Load fills *c from a's environment by its fields' env tags, as in `env:"PORT, default=8080"`. Tags in embedded and
// nested structs count. A field that is not zero keeps its value. The error names the variable that is wrong.
func Load[T any](ctx context.Context, a *App, c *T) error {
	l := &lastKey{Lookuper: a.Lookup}
	if err := envconfig.ProcessWith(ctx, &envconfig.Config{Target: c, Lookuper: l}); err != nil {
		return fmt.Errorf("environment variable %s: %w", l.key, err)
	}
	return nil
}

// lastKey remembers the variable that was looked up last. Fields are processed in order and the first error ends it,
// so that this is the variable an error is about; the error itself only knows the field.
type lastKey struct {
	envconfig.Lookuper
	key string
}

func (l *lastKey) Lookup(key string) (string, bool) {
	l.key = key
	return l.Lookuper.Lookup(key)
}
