package reply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ebb-inference/ebb/events"
)

var (
	// ErrMailboxExists says that a request of that id has a mailbox already.
	ErrMailboxExists = errors.New("the mailbox exists")
	// ErrNoMailbox says that a request of that id has no mailbox: it never had one, or it is gone.
	ErrNoMailbox = errors.New("no such mailbox")
	// ErrMailboxGone is an ErrNoMailbox that is known to have had one: it expired, or was deleted.
	ErrMailboxGone = fmt.Errorf("%w any more", ErrNoMailbox)
	// ErrMailboxBusy says that others read the mailbox all the time. It passes.
	ErrMailboxBusy = errors.New("the mailbox is being read by others")
)

// Mailboxes are the reply queues of requests whose requesters do not wait: what arrives stays there, to be read again and
// again, until the mailbox expires or is deleted. A Responder puts results into them, as MailboxAddress names them.
//
// A mailbox outlives the process that opened it, as far as the implementation outlives it. All methods may be called at
// once, also for one mailbox and by several processes.
type Mailboxes interface {
	// Open makes the mailbox of the request r.ID. When it returns nil, r is stored. The error is ErrMailboxExists when there
	// is one already, and ErrFull when there is no room for another.
	Open(ctx context.Context, r *Record) error
	// Read returns what is in a mailbox and leaves it there. The error may wrap ErrNoMailbox, ErrMailboxGone or
	// ErrMailboxBusy.
	Read(ctx context.Context, id string) (*Mail, error)
	// Set puts a mark on a mailbox, which is stored when it returns nil. The error may wrap ErrNoMailbox.
	Set(ctx context.Context, id string, m Mark) error
	// Delete removes a mailbox and what is in it; what is on its way there finds no requester. The error may wrap
	// ErrNoMailbox.
	Delete(ctx context.Context, id string) error
}

// Record is what was asked: the first thing in a mailbox.
type Record struct {
	ID       string    `json:"id"` // the request's: a UUID of 36 lower-case characters
	Asked    []Asked   `json:"asked"`
	Time     time.Time `json:"time"`
	Deadline time.Time `json:"deadline"` // who has not answered by then does not answer
	Expires  time.Time `json:"expires"`  // when the mailbox goes
	Callback string    `json:"callback,omitempty"`
}

// Asked is one model that was asked, and what.
type Asked struct {
	Model    string `json:"model"`
	Question string `json:"question,omitempty"`
}

// MaxRecordBytes bounds a record, in its form as JSON.
const MaxRecordBytes = 64 << 10

// Validate says whether r may be stored.
func (r *Record) Validate() error {
	switch {
	case !ValidMailboxID(r.ID):
		return errors.New("record: the id is not a UUID of 36 lower-case characters")
	case len(r.Asked) == 0:
		return errors.New("record: nothing was asked")
	case r.Time.IsZero() || r.Deadline.IsZero() || r.Expires.IsZero():
		return errors.New("record: a time is missing")
	}
	return nil
}

// Mark is something that happened to a request, once and for all.
type Mark string

// The marks.
const (
	MarkAsked  Mark = "asked"  // all its events are stored
	MarkCalled Mark = "called" // its callback needs no further call
)

// Mail is what is in a mailbox.
type Mail struct {
	Record  Record
	Results []*events.Result // in the order of their arrival; there may be several of one model
	Marks   []Mark
}

// Has says whether the mailbox has a mark.
func (m *Mail) Has(mark Mark) bool {
	for _, has := range m.Marks {
		if has == mark {
			return true
		}
	}
	return false
}
