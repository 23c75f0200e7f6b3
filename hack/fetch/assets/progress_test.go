package assets

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestProgressIsToldOfWhatTakesMoreThanASecond(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		total int64
		takes time.Duration
		want  string
	}{
		"quick":              {0, 900 * time.Millisecond, ""},
		"slow":               {0, 2500 * time.Millisecond, "fetch: work: 1 s, 1.5 MB\nfetch: work: 2 s, 1.5 MB\nfetch: work: 2 s, 1.5 MB, done\n"},
		"slow, with the sum": {3e6, 1100 * time.Millisecond, "fetch: work: 1 s, 1.5 of 3.0 MB\nfetch: work: 1 s, 1.5 of 3.0 MB, done\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				p := (&progress{what: "work", log: &log, total: c.total}).begin()
				p.bytes.Store(1_500_000)
				time.Sleep(c.takes) // of the bubble's time
				p.stop()
				require.Equal(t, c.want, log.String())
			})
		})
	}
}
