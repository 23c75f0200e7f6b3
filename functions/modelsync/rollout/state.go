package rollout

import (
	"maps"
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
	Order       *Order    `json:"order,omitempty"`   // what somebody wants of who works on it
}

// Progress is how far a candidate has come.
type Progress struct {
	Version int64     `json:"version"`
	Digest  string    `json:"digest,omitempty"` // of its files; known after PhaseFetch
	Phase   Phase     `json:"phase"`
	Percent int       `json:"percent,omitempty"` // of the traffic that it has
	Began   time.Time `json:"began"`             // the roll-out
	// Since is when the phase began or, of PhaseShift and PhaseSettle, since when the candidate has its Percent; zero: it may
	// not have it yet.
	Since time.Time `json:"since,omitzero"`
	// Before is how calls went before the candidate had traffic: what it is held to.
	Before *Rate `json:"before,omitempty"`
	// Counted is what had been counted at Since.
	Counted map[string]Tally `json:"counted,omitempty"`
	// Verdict says that the candidate is refused, and still to be taken away.
	Verdict *Refusal `json:"verdict,omitempty"`
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

// Refusal is a version that is not rolled out until it is allowed. Versions are immutable: one that was mended has another
// number.
type Refusal struct {
	Version int64     `json:"version"`
	From    int64     `json:"from,omitempty"`   // versions from this to Version are refused; 0: Version alone
	Digest  string    `json:"digest,omitempty"` // of its files, if they were fetched
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

// Order is a version that is wanted back.
type Order struct {
	ID   string    `json:"id"`
	To   int64     `json:"to"`
	Time time.Time `json:"time"`
}

// Bounds of what a State remembers. A reason is cut, the oldest entries go.
const (
	maxHistory = 50
	maxRefused = 50
	maxReason  = 1024 // bytes
)

// refusal finds why a version is not to be tried, nil when it may.
func (s *State) refusal(version int64) *Refusal {
	for i := range s.Refused {
		if s.Refused[i].covers(version) {
			return &s.Refused[i]
		}
	}
	return nil
}

func (r Refusal) covers(version int64) bool {
	return version == r.Version || r.From > 0 && r.From <= version && version < r.Version
}

// refuse remembers a refusal, in place of one of the same version.
func (s *State) refuse(r Refusal) {
	r.Reason = clip(r.Reason)
	s.Refused = slices.DeleteFunc(s.Refused, func(old Refusal) bool { return old.Version == r.Version })
	s.Refused = append(s.Refused, r)
	s.Refused = s.Refused[max(0, len(s.Refused)-maxRefused):]
}

// allow forgets that a version was refused, and says whether it was. Others that were refused with it stay so.
func (s *State) allow(version int64) bool {
	var left []Refusal
	found := false
	for _, r := range s.Refused {
		if !r.covers(version) {
			left = append(left, r)
			continue
		}
		found = true
		if below := r; r.From > 0 && r.From < version {
			below.Version = version - 1
			left = append(left, below)
		}
		if version < r.Version {
			r.From = version + 1
			left = append(left, r)
		}
	}
	s.Refused = left
	return found
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
		p.Before, p.Verdict, p.Counted = copied(p.Before), copied(p.Verdict), maps.Clone(p.Counted)
		c.Candidate = &p
	}
	c.LastFailure, c.Holder, c.Order = copied(s.LastFailure), copied(s.Holder), copied(s.Order)
	return c
}

func copied[T any](v *T) *T {
	if v == nil {
		return nil
	}
	c := *v
	return &c
}

// clip bounds a reason, which may come from a stranger's server.
func clip(reason string) string {
	if len(reason) > maxReason {
		return strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	return reason
}

// Took is how long the roll-out of what serves took, from finding it until it served for good; false when that is not known,
// or nothing was rolled out.
func (s *State) Took() (time.Duration, bool) {
	var found time.Time
	var took time.Duration
	for _, e := range s.History {
		switch {
		case e.Version != s.Serving:
		case e.Event == Found:
			found = e.Time
		case e.Event == Serves && !found.IsZero():
			took = e.Time.Sub(found)
		}
	}
	return took, took > 0
}
