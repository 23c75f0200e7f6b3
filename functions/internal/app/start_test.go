package app

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sethvargo/go-envconfig"
	"github.com/stretchr/testify/require"
)

func TestWhatLinuxSaysOfAProcessIsHowLongItHasBeenThere(t *testing.T) {
	t.Parallel()
	const fields = " S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 "
	for _, tt := range []struct {
		name, stat, uptime string
		age                time.Duration
		err                string
	}{
		{"a plain name", "7 (ingress)" + fields + "1234 5 6\n", "13.00 20.00\n", 660 * time.Millisecond, ""},
		{"a name that looks like fields", "7 (a) S 1 (b) )" + fields + "1234 5 6\n", "12.34 20.00\n", 0, ""},
		{"a clock that is behind", "7 (ingress)" + fields + "1234 5 6\n", "12.33 20.00\n", -10 * time.Millisecond, ""},
		{"days", "7 (ingress)" + fields + "86400000 5 6\n", "864001.50 20.00\n", 1500 * time.Millisecond, ""},
		{"nothing", "", "13.00 20.00\n", 0, "/proc/self/stat: too short"},
		{"no name", "7 8 9", "13.00 20.00\n", 0, "/proc/self/stat: too short"},
		{"cut off", "7 (ingress) S 1 7", "13.00 20.00\n", 0, "/proc/self/stat: too short"},
		{"no number", "7 (ingress)" + fields + "-1 5 6\n", "13.00 20.00\n", 0, "start time"},
		{"no uptime", "7 (ingress)" + fields + "1234 5 6\n", "", 0, "/proc/uptime: too short"},
		{"uptime is no number", "7 (ingress)" + fields + "1234 5 6\n", "long 20.00\n", 0, "/proc/uptime"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			age, err := processAge([]byte(tt.stat), []byte(tt.uptime))
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.InDelta(t, tt.age, age, float64(time.Microsecond))
		})
	}
}

func TestAStartIsLoggedAndMeasuredOnce(t *testing.T) {
	var log bytes.Buffer
	a := &App{Name: "test", Lookup: envconfig.MapLookuper(nil), Logger: slog.New(slog.NewTextHandler(&log, nil))}
	tel, err := StartTelemetry(t.Context(), a)
	require.NoError(t, err)
	defer func() { require.NoError(t, tel.Stop(t.Context())) }()
	before := time.Since(initialized)
	a.Ready()
	a.Ready()
	require.Equal(t, 1, strings.Count(log.String(), "msg=ready"))
	require.Contains(t, log.String(), "start_ms=")
	require.GreaterOrEqual(t, sinceStart(), before, "the process is older than its code")
	w := httptest.NewRecorder()
	tel.Metrics.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Regexp(t, `\nebb_start_duration_seconds(\{[^}]*\})? [0-9.e-]+\n`, w.Body.String())
}
