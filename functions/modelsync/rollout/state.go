package rollout

import (
	"slices"
	"strings"
	"time"
)

// Phase is what is done with a candidate. Each is recorded before it begins, and begins again when its process died.
type Phase string

// The phases, in their order.
const (
	PhaseFetch  Phase = "fetch"  // its files are brought here and checked by their checksums
	PhaseStage  Phase = "stage"  // it is made to run beside what serves
	PhaseCheck  Phase = "check"  // it is asked for its signature, and golden pictures
	PhaseShift  Phase = "shift"  // it has some of the traffic, and is watched
	PhaseSettle Phase = "settle" // it has all of the traffic, and is watched
)

// State is all that is known of a network's roll-outs, and all that a process needs to go on with one that another began.
// It is kept as JSON. An operator may read it, and so may a page.
type State struct {
	Network     string    `json:"network"`
	Models      []string  `json:"models"`             // that it serves
	Source      string    `json:"source"`             // where versions are published
	Serving     int64     `json:"serving,omitempty"`  // 0: nothing, or not known yet
	Previous    int64     `json:"previous,omitempty"` // what served before, and can again at once
	Kept        []int64   `json:"kept,omitempty"`     // can serve at once, ascending
	Since       time.Time `json:"since,omitzero"`     // since when Serving serves
	Candidate   *Progress `json:"candidate,omitempty"`
	Refused     []Refusal `json:"refused,omitempty"`   // the newest last
	LastCheck   time.Time `json:"last_check,omitzero"` // of the source
	LastFailure *Failure  `json:"last_failure,omitempty"`
	History     []Entry   `json:"history,omitempty"` // the newest last
	Holder      *Lease    `json:"holder,omitempty"`  // who works on it
}

// Progress is how far a candidate has come.
type Progress struct {
	Version int64     `json:"version"`
	Digest  string    `json:"digest,omitempty"` // of its files; known after PhaseFetch
	Phase   Phase     `json:"phase"`
	Percent int       `json:"percent,omitempty"` // of the traffic that it has
	Began   time.Time `json:"began"`             // the roll-out
	Since   time.Time `json:"since"`             // the phase, or the step of one
	// Before is how calls went before the candidate had traffic: what it is held to.
	Before *Rate `json:"before,omitempty"`
}

// Rate is how calls of a network went.
type Rate struct {
	Failed  float64 `json:"failed"`  // the share that failed
	Seconds float64 `json:"seconds"` // of computing, the mean; 0: none was answered
}

// Who refused a version.
const (
	ByCheck    = "check"    // before it had traffic
	ByWatch    = "watch"    // by how it did with traffic
	ByOperator = "operator" // somebody took it back
)

// Refusal is a version that is not rolled out until it is allowed, unless it is published anew with other files.
type Refusal struct {
	Version int64     `json:"version"`
	Digest  string    `json:"digest,omitempty"` // of its files; empty: whatever they are
	Reason  string    `json:"reason"`
	By      string    `json:"by"`
	Time    time.Time `json:"time"`
}

// Failure is what went wrong and may pass.
type Failure struct {
	Time    time.Time `json:"time"`
	Version int64     `json:"version,omitempty"` // 0: no version's
	Phase   Phase     `json:"phase,omitempty"`   // "": of the look at what there is
	Reason  string    `json:"reason"`
}

// Event is what happened to a network.
type Event string

// The events, in the order in which a version goes through them when all is well, and then what goes otherwise.
const (
	Found    Event = "found"    // a newer version is published
	Staged   Event = "staged"   // it runs beside what serves
	Shifted  Event = "shifted"  // it has some of the traffic
	Serves   Event = "serving"  // it has all of it, for good
	Refused  Event = "refused"  // it will not do
	Returned Event = "returned" // an earlier version serves again
	Allowed  Event = "allowed"  // somebody allowed what was refused
)

// Entry is one thing that happened.
type Entry struct {
	Time    time.Time `json:"time"`
	Event   Event     `json:"event"`
	Version int64     `json:"version"`
	Percent int       `json:"percent,omitempty"` // with Shifted
	Reason  string    `json:"reason,omitempty"`
}

// Lease says who works on a network, and until when it is his alone.
type Lease struct {
	ID    string    `json:"id"`
	Until time.Time `json:"until"`
}

// Bounds of what a State remembers. A reason is cut, the oldest entries go.
const (
	maxHistory = 50
	maxRefused = 50
	maxReason  = 1024 // bytes
)

// refusal finds why a version with such files is not to be tried, nil when it may.
func (s *State) refusal(version int64, digest string) *Refusal {
	for i := range s.Refused {
		r := &s.Refused[i]
		if r.Version == version && (r.Digest == "" || digest == "" || r.Digest == digest) {
			return r
		}
	}
	return nil
}

// refuse remembers a refusal, in place of one of the same version.
func (s *State) refuse(r Refusal) {
	r.Reason = clip(r.Reason)
	s.allow(r.Version)
	s.Refused = append(s.Refused, r)
	s.Refused = s.Refused[max(0, len(s.Refused)-maxRefused):]
}

// allow forgets the refusal of a version, and says whether there was one.
func (s *State) allow(version int64) bool {
	before := len(s.Refused)
	s.Refused = slices.DeleteFunc(s.Refused, func(r Refusal) bool { return r.Version == version })
	return len(s.Refused) < before
}

// note adds to the history.
func (s *State) note(e Entry) {
	e.Reason = clip(e.Reason)
	s.History = append(s.History, e)
	s.History = s.History[max(0, len(s.History)-maxHistory):]
}

// clone is a State that shares nothing with s.
func (s *State) clone() State {
	c := *s
	c.Models, c.Kept = slices.Clone(s.Models), slices.Clone(s.Kept)
	c.Refused, c.History = slices.Clone(s.Refused), slices.Clone(s.History)
	if s.Candidate != nil {
		p := *s.Candidate
		if p.Before != nil {
			before := *p.Before
			p.Before = &before
		}
		c.Candidate = &p
	}
	if s.LastFailure != nil {
		f := *s.LastFailure
		c.LastFailure = &f
	}
	if s.Holder != nil {
		l := *s.Holder
		c.Holder = &l
	}
	return c
}

// clip bounds a reason, which may come from a stranger's server.
func clip(reason string) string {
	if len(reason) > maxReason {
		return strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	return reason
}
