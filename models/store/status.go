package store

import "strconv"

// State is where a version is in its life.
type State int

// The states, in the order in which a version goes through them.
const (
	Start     State = iota + 1 // found, not yet being loaded: its files are still changing
	Loading                    // being loaded and warmed
	Available                  // in use
	Unloading                  // takes no more calls; those under way are being finished
	End                        // gone, or failed to load
)

// String returns the state's name, as TensorFlow Serving writes it.
func (s State) String() string {
	switch s {
	case Start:
		return "START"
	case Loading:
		return "LOADING"
	case Available:
		return "AVAILABLE"
	case Unloading:
		return "UNLOADING"
	case End:
		return "END"
	default:
		return "State(" + strconv.Itoa(int(s)) + ")"
	}
}

// Status is the state of one version.
type Status struct {
	Version int64
	State   State
	Err     error // why the version ended, when it failed to load
}
