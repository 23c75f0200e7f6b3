package reply

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/ebb-inference/ebb/events"
)

// Hub is reply queues and mailboxes in memory, for requesters and responders in one process. A result has to become an event on its
// way, as it would for a wire, so what passes here passes over AMQP; its receiver gets a copy, so no two functions share memory.
//
// It has no goroutine: Respond calls the Listener itself, which is why that must not block.
type Hub struct {
	mu      sync.RWMutex
	inboxes map[string]*hubInbox // by their present address

	mail *mailboxes
}

var (
	_ Requester = (*Hub)(nil)
	_ Responder = (*Hub)(nil)
)

// NewHub makes a Hub that nobody listens to.
func NewHub() *Hub { return &Hub{inboxes: make(map[string]*hubInbox), mail: newMailboxes()} }

type hubInbox struct {
	hub      *Hub
	listener Listener
	calls    sync.Mutex // held around each call of listener; taken before hub.mu

	address string // guarded by hub.mu; "" once closed
}

// Listen opens a reply queue.
func (h *Hub) Listen(ctx context.Context, l Listener) (Inbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("listening for replies: %w", err)
	}
	in := &hubInbox{hub: h, listener: l, address: newAddress()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inboxes[in.address] = in
	return in, nil
}

// Respond hands r to the Inbox at address to, or puts it into the mailbox, before it returns.
func (h *Hub) Respond(ctx context.Context, to string, r *events.Result) error {
	if !ValidAddress(to) {
		return fmt.Errorf("%w: %.64q", ErrBadAddress, to)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("responding: %w", err)
	}
	ev, err := r.Event()
	if err != nil {
		return fmt.Errorf("responding: %w", err)
	}
	received := r.Clone()
	if id, ok := MailboxID(to); ok {
		return h.mail.put(id, received, int64(len(ev.Data())))
	}

	h.mu.RLock()
	in := h.inboxes[to]
	h.mu.RUnlock()
	if in == nil {
		return ErrNoRequester
	}
	in.calls.Lock()
	defer in.calls.Unlock()
	if a, err := in.Address(); err != nil || a != to { // it closed or broke while we waited for our turn
		return ErrNoRequester
	}
	in.listener.Reply(received)
	// Who waits for the reply has it to send on, while nobody waits for the responder: so they run first.
	runtime.Gosched()
	return nil
}

// Break does to every Inbox what a lost connection does: its queue is gone, Lost is told, and a new one has taken its
// place when Break returns.
func (h *Hub) Break() {
	h.mu.RLock()
	inboxes := make([]*hubInbox, 0, len(h.inboxes))
	for _, in := range h.inboxes {
		inboxes = append(inboxes, in)
	}
	h.mu.RUnlock()
	for _, in := range inboxes {
		in.renew()
	}
}

func (in *hubInbox) renew() {
	in.calls.Lock()
	defer in.calls.Unlock()
	old := in.move(newAddress())
	if old != "" {
		in.listener.Lost(old)
	}
}

// Address is the present name of the queue; ErrDown once the Inbox is closed.
func (in *hubInbox) Address() (string, error) {
	in.hub.mu.RLock()
	defer in.hub.mu.RUnlock()
	if in.address == "" {
		return "", ErrDown
	}
	return in.address, nil
}

// Close removes the queue, waiting for a call of the Listener that is under way; so a Listener must not call it.
func (in *hubInbox) Close() error {
	in.calls.Lock()
	defer in.calls.Unlock()
	in.move("")
	return nil
}

// move gives an open queue another name, or none, and returns the one it had: "" when it was closed already.
func (in *hubInbox) move(to string) (old string) {
	in.hub.mu.Lock()
	defer in.hub.mu.Unlock()
	old = in.address
	if old == "" {
		return ""
	}
	delete(in.hub.inboxes, old)
	in.address = to
	if to != "" {
		in.hub.inboxes[to] = in
	}
	return old
}
