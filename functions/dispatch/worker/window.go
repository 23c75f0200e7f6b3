package worker

import (
	"sync"

	"github.com/ebb-inference/ebb/events"
)

// recentDeliveries is how many events a Worker remembers after it is done with them. Redeliveries come within seconds, or
// after the event's deadline and then do no harm; this is minutes of the fastest model. An entry takes about 500 bytes.
const recentDeliveries = 4096

// key is an event's identity: source and id, as CloudEvents has it. With where the answer goes, so that a copy under
// another address can neither suppress an answer nor receive one that was meant for somebody else. (What is asked twice on purpose
// is the memo's.)
type key struct{ source, id, replyTo, correlationID string }

func keyOf(r *events.Request) key { return key{r.Source, r.ID, r.ReplyTo, r.CorrelationID} }

// window remembers the events that are under way and those that were finished last, so that a redelivery costs nothing:
// brokers deliver at least once.
type window struct {
	mu      sync.Mutex
	entries map[key]*delivery
	recent  []*delivery // finished ones, a ring
	next    int         // the oldest of recent
}

// delivery is one event that is, or was, worked on.
type delivery struct {
	key    key
	result *events.Result // computed, but not known to be sent
	done   chan struct{}  // closed when verdict is there
	verdict
}

func newWindow(size int) *window {
	return &window{entries: make(map[key]*delivery), recent: make([]*delivery, size)}
}

// begin enters an event. When it returns true the caller works on it, from d.result on if that is set, and must call
// finish. Otherwise d is somebody else's: what becomes of it is there when d.done is closed.
func (w *window) begin(k key) (d *delivery, mine bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.entries[k]
	d = &delivery{key: k, done: make(chan struct{})}
	if old != nil {
		select {
		case <-old.done:
		default:
			return old, false
		}
		if !old.again() {
			return old, false
		}
		d.result = old.result
	}
	w.entries[k] = d
	return d, true
}

// finish says what became of an event. One that comes again is forgotten, unless its result is there already.
func (w *window) finish(d *delivery, v verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d.verdict = v
	close(d.done)
	if !v.again() {
		d.result = nil
	} else if d.result == nil {
		delete(w.entries, d.key)
		return
	}
	if old := w.recent[w.next]; old != nil && w.entries[old.key] == old {
		delete(w.entries, old.key)
	}
	w.recent[w.next] = d
	w.next = (w.next + 1) % len(w.recent)
}
