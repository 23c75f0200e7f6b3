// Package rollout brings a newer version of a network to where it is served: fetched to a side, checked, tried with pictures whose
// answers are known, given a little of the traffic and then all of it, and taken back when it is worse.
//
// What it decides by is kept in Records and read from the Target, never remembered: whoever does the next step may be another
// process than who did the one before. It knows nothing of Kubernetes, folders and HTTP.
package rollout

import (
	"context"
	"errors"
)

// ErrRefused says that a candidate will not do, now or later: it is not tried again until somebody says so. What wraps it
// says why, in words for the people who published it.
var ErrRefused = errors.New("version refused")

// Target is where one network is served: what a roll-out acts on. Each method may be repeated, and by another process: what is
// done already changes nothing. Targets know nothing of sources, pictures and decisions.
type Target interface {
	// Serving says what is served, as the place itself has it, whoever made it so.
	Serving(ctx context.Context) (Serving, error)
	// Stage makes a candidate run beside what serves, without traffic, and returns the gRPC address at which it, and only it,
	// is asked, once it is ready. ErrRefused when it cannot be, with the server's own reason.
	Stage(ctx context.Context, c Candidate) (address string, err error)
	// Shift gives the staged candidate so many percent of the traffic. With 100 it is the one that serves, and what served
	// before is kept beside it.
	Shift(ctx context.Context, c Candidate, percent int) error
	// Abandon gives all of the traffic back to what served before, and takes the candidate away, whether it has been staged, has
	// some of the traffic, or all of it and is not settled.
	Abandon(ctx context.Context, c Candidate) error
	// Return makes a version serve again that did before, at once. ErrGone when it is not kept any more.
	Return(ctx context.Context, version int64) error
	// Prune removes all versions but those named.
	Prune(ctx context.Context, keep []int64) error
}

// ErrGone says that a version is not kept any more.
var ErrGone = errors.New("version is not kept")

// Serving is what a Target serves.
type Serving struct {
	Version int64   // what has the most of the traffic; 0 when nothing serves
	Kept    []int64 // versions that can serve again at once, ascending, Version among them
	// Renew says that what serves was made with another server than the one that is configured now: the same version is to be
	// rolled out anew.
	Renew bool
}

// Candidate is a version on its way.
type Candidate struct {
	Version int64
	Digest  string // of its files, see source.Fetched
	Source  string // the URL it was published at, without credentials
	Dir     string // where its files are, on this machine; empty for who only has to find it again
	// Percent is how much of the traffic it may have been given by now. With 0 what it has is not by this roll-out: a version that
	// is to be rolled out anew, on another server, serves already.
	Percent int
}
