package app_test

import (
	"testing"
	"time"

	"github.com/sethvargo/go-envconfig"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/functions/internal/app"
)

type config struct {
	app.HTTP
	Store   string `env:"STORE, required"`
	Limits  limits
	Verbose bool `env:"VERBOSE"`
	Replica struct {
		Name string `env:"NAME, default=one"`
	} `env:", prefix=REPLICA_"`
}

type limits struct {
	Waiting int `env:"MAX_WAITING, default=7"`
}

func load(t *testing.T, env map[string]string) (config, error) {
	t.Helper()
	var c config
	err := app.Load(t.Context(), &app.App{Lookup: envconfig.MapLookuper(env)}, &c)
	return c, err
}

func TestLoadFillsEveryFieldFromTheEnvironment(t *testing.T) {
	t.Parallel()
	c, err := load(t, map[string]string{
		"STORE": "/s", "HOST": "127.0.0.1", "PORT": "0", "METRICS_PORT": "", "DRAIN_TIMEOUT": "2m", "MAX_WAITING": "9", "REPLICA_NAME": "two",
	})
	require.NoError(t, err)
	require.Equal(t, app.HTTP{Host: "127.0.0.1", DrainTimeout: 2 * time.Minute}, c.HTTP)
	require.Equal(t, "/s", c.Store)
	require.Equal(t, 9, c.Limits.Waiting)
	require.Equal(t, "two", c.Replica.Name)
}

func TestLoadFillsDefaults(t *testing.T) {
	t.Parallel()
	c, err := load(t, map[string]string{"STORE": "/s"})
	require.NoError(t, err)
	require.Equal(t, app.HTTP{Port: 8080, MetricsPort: 9090, DrainTimeout: 30 * time.Second}, c.HTTP)
	require.Equal(t, 7, c.Limits.Waiting)
	require.Equal(t, "one", c.Replica.Name)
}

func TestLoadSaysWhatIsWrongWithAVariable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		env  map[string]string
		want string
	}{
		{"missing", nil, "STORE is not set, and has to be"},
		{"not a number", map[string]string{"STORE": "/s", "PORT": "http"}, `PORT is "http"; want a whole number`},
		{"out of range", map[string]string{"STORE": "/s", "METRICS_PORT": "65536"}, `METRICS_PORT is "65536": the number is too large or too small`},
		{"not a duration", map[string]string{"STORE": "/s", "DRAIN_TIMEOUT": "10"}, `DRAIN_TIMEOUT is "10"; want a duration such as 500ms, 30s or 2m`},
		{"nested", map[string]string{"STORE": "/s", "MAX_WAITING": "many"}, `MAX_WAITING is "many"; want a whole number`},
		{"not a switch", map[string]string{"STORE": "/s", "VERBOSE": "maybe"}, `VERBOSE is "maybe"; want true or false`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, tt.env)
			require.EqualError(t, err, "environment variable "+tt.want)
		})
	}
}
