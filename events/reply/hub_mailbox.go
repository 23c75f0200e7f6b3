package reply

import (
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ebb-inference/ebb/events"
)

// The bounds of the mailboxes of a Hub.
const (
	hubMailboxes    = 10_000
	hubMailboxBytes = 64 << 20 // of all of them
	hubMailboxGone  = 10_000   // ids that are remembered of those that are gone
)

// mailboxes are those of a Hub. They end with the process. Those that have expired are thrown out when somebody
// comes; there is no goroutine and no timer.
type mailboxes struct {
	mu    sync.Mutex
	open  map[string]*hubMailbox
	order *list.List // of ids, the oldest first: all live equally long but for a changed setting
	bytes int64
	gone  map[string]bool
	ring  []string // of gone, oldest at next
	next  int
}

type hubMailbox struct {
	record  []byte // as JSON
	expires time.Time
	results []*events.Result // never changed; as they were parsed
	marks   []Mark
	bytes   int64
	place   *list.Element
}

func newMailboxes() *mailboxes {
	return &mailboxes{open: make(map[string]*hubMailbox), order: list.New(), gone: make(map[string]bool), ring: make([]string, hubMailboxGone)}
}

var _ Mailboxes = (*Hub)(nil)

// Open makes a mailbox. ErrFull says that there are as many, or as large ones, as there may be.
func (h *Hub) Open(ctx context.Context, r *Record) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("opening a mailbox: %w", err)
	}
	if err := r.Validate(); err != nil {
		return fmt.Errorf("opening a mailbox: %w", err)
	}
	record, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("opening a mailbox: %w", err)
	}
	if len(record) > MaxRecordBytes {
		return errors.New("opening a mailbox: the record is too large")
	}
	m := h.mail
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep()
	switch size := int64(len(record)); {
	case m.open[r.ID] != nil:
		return ErrMailboxExists
	case len(m.open) >= hubMailboxes || m.bytes+size > hubMailboxBytes:
		return ErrFull
	default:
		m.open[r.ID] = &hubMailbox{record: record, expires: r.Expires, bytes: size, place: m.order.PushBack(r.ID)}
		m.bytes += size
	}
	return nil
}

// Read returns what is in a mailbox.
func (h *Hub) Read(ctx context.Context, id string) (*Mail, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("reading a mailbox: %w", err)
	}
	h.mail.mu.Lock()
	defer h.mail.mu.Unlock()
	box, err := h.mail.find(id)
	if err != nil {
		return nil, err
	}
	mail := &Mail{Results: slices.Clone(box.results), Marks: slices.Clone(box.marks)}
	if err := json.Unmarshal(box.record, &mail.Record); err != nil {
		return nil, fmt.Errorf("reading a mailbox: %w", err)
	}
	return mail, nil
}

// Set puts a mark on a mailbox.
func (h *Hub) Set(ctx context.Context, id string, mark Mark) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("marking a mailbox: %w", err)
	}
	h.mail.mu.Lock()
	defer h.mail.mu.Unlock()
	box, err := h.mail.find(id)
	if err != nil {
		return err
	}
	if !slices.Contains(box.marks, mark) {
		box.marks = append(box.marks, mark)
	}
	return nil
}

// Delete removes a mailbox.
func (h *Hub) Delete(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("deleting a mailbox: %w", err)
	}
	h.mail.mu.Lock()
	defer h.mail.mu.Unlock()
	if _, err := h.mail.find(id); err != nil {
		return err
	}
	h.mail.remove(id)
	return nil
}

// put puts a result into a mailbox. ErrFull says that there is no room.
func (m *mailboxes) put(id string, r *events.Result, size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	box, err := m.find(id)
	if err != nil {
		return ErrNoRequester
	}
	if m.bytes+size > hubMailboxBytes {
		return fmt.Errorf("the mailbox takes no result: %w", ErrFull)
	}
	box.results = append(box.results, r)
	box.bytes += size
	m.bytes += size
	return nil
}

// find finds a mailbox that has not expired.
func (m *mailboxes) find(id string) (*hubMailbox, error) {
	m.sweep()
	box := m.open[id]
	if box != nil && !time.Now().Before(box.expires) { // behind one that lives longer
		m.remove(id)
		box = nil
	}
	switch {
	case box != nil:
		return box, nil
	case m.gone[id]:
		return nil, ErrMailboxGone
	default:
		return nil, ErrNoMailbox
	}
}

// sweep removes what has expired.
func (m *mailboxes) sweep() {
	now := time.Now()
	for e := m.order.Front(); e != nil; e = m.order.Front() {
		id, _ := e.Value.(string)
		if now.Before(m.open[id].expires) {
			return
		}
		m.remove(id)
	}
}

// remove takes a mailbox away and remembers that there was one.
func (m *mailboxes) remove(id string) {
	box := m.open[id]
	m.order.Remove(box.place)
	m.bytes -= box.bytes
	delete(m.open, id)
	if m.gone[id] {
		return
	}
	delete(m.gone, m.ring[m.next])
	m.gone[id], m.ring[m.next] = true, id
	m.next = (m.next + 1) % len(m.ring)
}
