package app

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sethvargo/go-envconfig"
)

// Load fills *c from a's environment by its fields' env tags, as in `env:"PORT, default=8080"`. Tags in embedded and
// nested structs count. A field that is not zero keeps its value. The error names the variable that is wrong, its value
// and what would be right, in the words of who sets it and not of Go's parsers.
func Load[T any](ctx context.Context, a *App, c *T) error {
	l := &lastKey{Lookuper: a.Lookup}
	if err := envconfig.ProcessWith(ctx, &envconfig.Config{Target: c, Lookuper: l}); err != nil {
		return fmt.Errorf("environment variable %s%w", l.key, explain(err, l.value))
	}
	return nil
}

// explain says what is wrong with a variable's value.
func explain(err error, value string) error {
	var number *strconv.NumError
	switch {
	case errors.Is(err, envconfig.ErrMissingRequired):
		return errors.New(" is not set, and has to be")
	case errors.As(err, &number) && number.Func == "ParseBool":
		return fmt.Errorf(" is %q; want true or false", value)
	case errors.As(err, &number) && errors.Is(err, strconv.ErrRange):
		return fmt.Errorf(" is %q: the number is too large or too small", value)
	case errors.As(err, &number):
		return fmt.Errorf(" is %q; want a whole number", value)
	case strings.Contains(err.Error(), ": time: "): // the package has no error of its own
		return fmt.Errorf(" is %q; want a duration such as 500ms, 30s or 2m", value)
	default:
		return fmt.Errorf(" is %q: %w", value, err)
	}
}

// lastKey remembers the variable that was looked up last. Fields are processed in order and the first error ends it,
// so that this is the variable an error is about; the error itself only knows the field.
type lastKey struct {
	envconfig.Lookuper
	key, value string
}

func (l *lastKey) Lookup(key string) (string, bool) {
	value, ok := l.Lookuper.Lookup(key)
	l.key, l.value = key, value
	return value, ok
}
