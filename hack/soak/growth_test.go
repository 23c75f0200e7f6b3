package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatLeaksGrewAndWhatSwingsDidNot(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		values []float64
		want   bool
	}{
		{"steady", []float64{10, 10, 10, 10, 10, 10}, false},
		{"leaks", []float64{10, 20, 30, 40, 50, 60, 70, 80, 90}, true},
		{"leaks less than there is room for", []float64{10, 11, 12, 13, 14, 15}, false},
		{"swings", []float64{10, 90, 10, 90, 10, 90}, false},
		{"falls", []float64{90, 80, 70, 60, 50, 40}, false},
		{"a step up", []float64{10, 10, 10, 90, 90, 90}, true},
		{"one look that was high at last", []float64{10, 10, 10, 10, 10, 90}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, _, got := grew(tc.values, 0.25, 5)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestRoomIsKnownForAllThatIsMeasured(t *testing.T) {
	t.Parallel()
	for _, what := range []string{memory, goroutines, files} {
		require.NotZero(t, room[what].more, what)
	}
}
