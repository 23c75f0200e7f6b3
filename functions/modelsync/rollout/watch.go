package rollout

import "context"

// Watcher counts the calls of a network: by those who make them, dispatch.
type Watcher interface {
	// Tallies returns what each process that makes calls has counted since it began, by a name that no later process will
	// have. A process that is gone is not in it any more.
	Tallies(ctx context.Context) (map[string]Tally, error)
}

// Tally is what one process counted.
type Tally struct {
	Answered map[int64]Count `json:"answered"` // by the version that answered
	Failed   uint64          `json:"failed"`   // calls that were not answered, of which no version can be told
}

// Count is calls that were answered.
type Count struct {
	Calls   uint64  `json:"calls"`
	Seconds float64 `json:"seconds"` // all of them together
}
