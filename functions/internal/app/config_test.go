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

func TestLoadNamesTheVariableThatIsWrong(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, variable string
		env            map[string]string
	}{
		{"missing", "STORE", nil},
		{"not a number", "PORT", map[string]string{"STORE": "/s", "PORT": "http"}},
		{"out of range", "METRICS_PORT", map[string]string{"STORE": "/s", "METRICS_PORT": "65536"}},
		{"not a duration", "DRAIN_TIMEOUT", map[string]string{"STORE": "/s", "DRAIN_TIMEOUT": "10"}},
		{"nested", "MAX_WAITING", map[string]string{"STORE": "/s", "MAX_WAITING": "many"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, tt.env)
			require.ErrorContains(t, err, "environment variable "+tt.variable+": ")
		})
	}
}
