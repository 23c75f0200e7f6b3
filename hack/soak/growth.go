package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// fewest looks at a process that say whether something grows.
const fewest = 6

// room is how much more than at first there may be of something at last: a share of it, and so many more.
var room = map[string]struct{ share, more float64 }{
	memory:     {0.25, 24}, // what is garbage, and not yet collected
	goroutines: {0, 8},
	files:      {0, 8}, // connections that are kept for a while
}

// judge says what grew, and of how many lives that can be said.
func (l *looks) judge() error {
	var errs []error
	judged := 0
	for who, measured := range l.series {
		for what, values := range measured {
			if len(values) < fewest {
				continue
			}
			judged++
			if first, last, yes := grew(values, room[what].share, room[what].more); yes {
				errs = append(errs, fmt.Errorf("%s (pid %d): %s grew from at most %.0f to at least %.0f: %.0f", who.name, who.pid, what, first, last, values))
			}
		}
	}
	fmt.Printf("%d series of processes that lived for %d rounds or more, %d of which grew\n", judged, fewest, len(errs))
	slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// grew says whether all of the last third of values are more than any of the first: what swings does not count, nor what
// was low only at first, and what leaks does.
func grew(values []float64, share, more float64) (first, last float64, yes bool) {
	third := len(values) / 3
	first, last = slices.Max(values[:third]), slices.Min(values[len(values)-third:])
	return first, last, last > first*(1+share)+more
}
