// Package parking is where dead letters wait for an operator, who has them asked again or throws them away.
//
// It knows what a dead letter is, and nothing of who parks, of who replays, or of where the place is. Package
// events/reply/amqp has one in RabbitMQ.
package parking

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/ebb-inference/ebb/events"
)

// The bounds of a parking place: how many letters, how many bytes of data, and for how long. A letter that does not fit is
// refused; one that has been there too long is gone.
const (
	MaxLetters = 10_000
	MaxBytes   = 1 << 30
	TTL        = 7 * 24 * time.Hour
)

// MaxAttributeBytes bounds the names and values of a letter's attributes together. What is valid takes a third of it.
const MaxAttributeBytes = 64 << 10

var (
	// ErrFull says that the place takes no more letters: some have to be replayed or dropped first.
	ErrFull = errors.New("the parking place of dead letters is full")
	// ErrInUse says that somebody else has the letters in hand.
	ErrInUse = errors.New("somebody else has the dead letters in hand")
	// ErrNoPlace says that there is no parking place.
	ErrNoPlace = errors.New("there is no parking place of dead letters")
)

// Letter is an event that a broker gave up on, as it came: with its data and with what the broker says of why.
type Letter struct {
	Event  event.Event
	Parked time.Time // when it was put where it is
}

// Key is what tells letters apart. Deliveries are at least once, so two may have the same: they are copies.
type Key struct{ Source, ID string }

// Key is the identity of the letter's event.
func (l *Letter) Key() Key { return Key{Source: l.Event.Source(), ID: l.Event.ID()} }

// Model is the model that was asked, as far as the event says.
func (l *Letter) Model() string { return events.Extension(&l.Event, events.ExtModel) }

// Destination is the subscriber that would not take the event, as far as the broker says.
func (l *Letter) Destination() string { return events.Extension(&l.Event, events.ExtErrorDest) }

// What Status is when it is no HTTP status.
const (
	StatusUnknown  = 0  // the broker does not say
	StatusNoAnswer = -1 // there was none
)

// Status is the HTTP status of the last attempt.
func (l *Letter) Status() int {
	code, err := strconv.Atoi(events.Extension(&l.Event, events.ExtErrorCode))
	if err != nil || code < StatusNoAnswer || code > 999 {
		return StatusUnknown
	}
	return code
}

// StatusText is Status for people.
func (l *Letter) StatusText() string {
	switch s := l.Status(); s {
	case StatusUnknown:
		return "unknown"
	case StatusNoAnswer:
		return "none"
	default:
		return strconv.Itoa(s)
	}
}

// Place takes letters.
type Place interface {
	// Park returns nil when the letter is stored. The error may wrap ErrFull; or events.ErrTooLarge, when the letter can be
	// parked at no time.
	Park(ctx context.Context, l *Letter) error
}

// Hold has the letters of a place in hand: nobody else gets them meanwhile, but new ones may be parked. Remove may be called
// by many at once, and during Next.
type Hold interface {
	// Next is the next letter, the longest parked first, unless somebody read a part of them before; io.EOF when there are no
	// more.
	Next(ctx context.Context) (*Held, error)
	// Remove takes a letter away for good. That is so for certain when Close has returned nil.
	Remove(h *Held) error
	// Close puts back what was not removed: where it was, when there are no more; else behind those that were not read.
	Close() error
}

// Held is a letter in hand.
type Held struct {
	Letter *Letter // nil when what is there is none
	Err    error   // in what
	Bytes  int     // of its data
	Ticket uint64  // the Hold's
}
