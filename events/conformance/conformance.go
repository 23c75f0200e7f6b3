// Package conformance is what a broker and a reply transport must do for Ebb to work over them, as one test suite. The
// implementations in memory pass it, and so must any other: it speaks to a broker by URL, and asserts no times, so a broker
// may be other processes.
//
// Nothing in it waits for time to pass: a test goes on when what it waits for has happened, and fails when that takes
// longer than Patience.
package conformance

import (
	"testing"
	"time"

	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/events/trigger"
)

// Patience is how long a test waits for something before it fails.
const Patience = time.Minute

// Factory makes what is tested.
type Factory struct {
	// New starts a broker without Triggers and a reply transport, for one test; t.Cleanup ends them. Tests run in parallel.
	New func(t *testing.T) *System
	// Mailboxes says that the systems have mailboxes to test.
	Mailboxes bool
	// Restart ends the broker as a crash would and starts it again at the same URL, with its Triggers. Nil when the broker
	// keeps nothing; then the test of it is not there.
	Restart func(t *testing.T, s *System)
}

// System is a broker and a reply transport.
type System struct {
	// URL is where events are published.
	URL string
	// Subscribe adds a Trigger; when it returns, events that are published match it.
	Subscribe func(t *testing.T, tr trigger.Trigger, subscriberURL, deadLetterURL string)
	// Requester makes a requester with a connection of its own.
	Requester func(t *testing.T) reply.Requester
	Responder reply.Responder
	Mailboxes reply.Mailboxes // that Responder answers to; with Factory.Mailboxes
	// BreakReplies cuts the connections of all requesters, as a network would.
	BreakReplies func(t *testing.T)
}

// Run runs the suite.
func Run(t *testing.T, f Factory) {
	t.Helper()
	for _, c := range []struct {
		group string
		tests []test
	}{
		{"publishing", publishing},
		{"filters", filters},
		{"delivery", delivering},
		{"retries", retries},
		{"dead letters", deadLetters},
		{"answers", answers},
		{"parallelism", parallelism},
		{"replies", replies},
		{"requests and replies", roundTrips},
	} {
		f.run(t, c.group, c.tests)
	}
	if f.Mailboxes {
		f.run(t, "mailboxes", mailboxes)
	}
	if f.Restart != nil {
		t.Run("restart/what was accepted is delivered after it", func(t *testing.T) {
			t.Parallel()
			acceptedSurvives(t, f.New(t), f.Restart)
		})
	}
}

func (f Factory) run(t *testing.T, group string, tests []test) {
	t.Helper()
	t.Run(group, func(t *testing.T) {
		for _, c := range tests {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.run(t, f.New(t))
			})
		}
	})
}

type test struct {
	name string
	run  func(t *testing.T, s *System)
}
