package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
)

// message is an event as it came: its headers and body are sent on as they are. It is never changed.
type message struct {
	id     string
	header http.Header
	body   []byte
}

// retryAfterFull is how many seconds a publisher should wait when a queue is full.
const retryAfterFull = 1

// ServeHTTP takes an event at POST / and answers 202 when it is in every queue that it belongs in, or belongs in none; 400
// when it is no event in binary mode, 413 when it is too large, 503 with Retry-After when a queue is full or the Broker is
// stopping.
func (b *Broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" && r.URL.Path != "" {
		problem.Write(w, problem.New("not-found", http.StatusNotFound, "Not found", "Events are posted to /."))
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		problem.Write(w, problem.New("method-not-allowed", http.StatusMethodNotAllowed, "Method not allowed", "Events are posted."))
		return
	}
	if d := b.receive(r); d != nil {
		problem.Write(w, d)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

func (b *Broker) receive(r *http.Request) *problem.Details {
	ev, err := events.ReadHTTPAttributes(r.Header)
	if err != nil {
		b.metrics.received(r.Context(), outcomeRefused)
		return problem.New("malformed-event", http.StatusBadRequest, "Malformed event", err.Error())
	}
	m := &message{id: ev.ID(), header: attributeHeaders(r.Header)}
	attributes := headerSize(m.header)
	if r.ContentLength > b.config.MaxEventBytes || attributes > maxAttributeBytes {
		b.metrics.received(r.Context(), outcomeRefused)
		return b.tooLarge()
	}
	matching, err := b.match(m.header)
	if err != nil {
		return stopping()
	}
	if len(matching) == 0 {
		if n, err := io.Copy(io.Discard, io.LimitReader(r.Body, b.config.MaxEventBytes+1)); err != nil || n > b.config.MaxEventBytes {
			b.metrics.received(r.Context(), outcomeRefused)
			return b.unreadable(err)
		}
		b.metrics.received(r.Context(), outcomeUnmatched)
		b.log.LogAttrs(r.Context(), slog.LevelInfo, "event matches no trigger", slog.String("event_id", m.id), slog.String("type", ev.Type()))
		return nil
	}

	// Room is reserved before the body is read, so that what is being received is bounded too.
	size := attributes + r.ContentLength
	if r.ContentLength < 0 {
		size = attributes + b.config.MaxEventBytes
	}
	if full := reserve(matching, size); full != nil {
		b.metrics.received(r.Context(), outcomeFull)
		b.log.LogAttrs(r.Context(), slog.LevelWarn, "queue is full", slog.String("event_id", m.id), slog.String("trigger", full.name))
		d := problem.New("broker-full", http.StatusServiceUnavailable, "Too many events are waiting", "Send this event again later.")
		d.RetryAfter = retryAfterFull
		return d
	}
	if m.body, err = events.ReadHTTPData(r, b.config.MaxEventBytes, nil); err != nil {
		release(matching, size)
		b.metrics.received(r.Context(), outcomeRefused)
		return b.unreadable(err)
	}
	for _, s := range matching {
		s.shrink(size - m.size())
	}
	if !b.enqueue(matching, m) {
		release(matching, m.size())
		return stopping()
	}
	b.metrics.received(r.Context(), outcomeAccepted)
	return nil
}

// publish puts an event that a subscriber answered with into the queues that it belongs in, if any.
func (b *Broker) publish(ctx context.Context, m *message) error {
	matching, err := b.match(m.header)
	if err != nil {
		return err
	}
	if len(matching) == 0 {
		b.metrics.received(ctx, outcomeUnmatched)
		return nil
	}
	if full := reserve(matching, m.size()); full != nil {
		b.metrics.received(ctx, outcomeFull)
		return fmt.Errorf("the queue of %s is full", full.name)
	}
	if !b.enqueue(matching, m) {
		release(matching, m.size())
		return errStopping
	}
	b.metrics.received(ctx, outcomeAccepted)
	return nil
}

var errStopping = errors.New("the broker is stopping")

func (b *Broker) match(h http.Header) ([]*subscription, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.stopping {
		return nil, errStopping
	}
	var matching []*subscription
	for _, s := range b.subs {
		if s.matches(h) {
			matching = append(matching, s)
		}
	}
	return matching, nil
}

// enqueue puts m into queues with room reserved for it: into all, or into none when the Broker is stopping.
func (b *Broker) enqueue(to []*subscription, m *message) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.stopping {
		return false
	}
	for _, s := range to {
		s.queue <- m
	}
	return true
}

// attributeHeaders is what of h belongs to the event.
func attributeHeaders(h http.Header) http.Header {
	out := make(http.Header, len(h))
	for name, values := range h {
		if events.IsHTTPAttribute(name) {
			out[name] = values
		}
	}
	return out
}

func headerSize(h http.Header) int64 {
	var n int64
	for name, values := range h {
		n += int64(len(name) + len(values[0])) // ReadHTTPAttributes allows one value
	}
	return n
}

func (m *message) size() int64 { return headerSize(m.header) + int64(len(m.body)) }

// unreadable is why an event's data was not taken; without an error there was too much of it.
func (b *Broker) unreadable(err error) *problem.Details {
	if err == nil || errors.Is(err, events.ErrTooLarge) {
		return b.tooLarge()
	}
	return problem.New("malformed-event", http.StatusBadRequest, "Malformed event", "The event's data ended too early.")
}

func (b *Broker) tooLarge() *problem.Details {
	return problem.New("too-large", http.StatusRequestEntityTooLarge, "Event too large",
		fmt.Sprintf("An event may have %d bytes of data and %d of attributes.", b.config.MaxEventBytes, maxAttributeBytes))
}

func stopping() *problem.Details {
	d := problem.New("stopping", http.StatusServiceUnavailable, "The broker is stopping", "Send this event again later.")
	d.RetryAfter = retryAfterFull
	return d
}
