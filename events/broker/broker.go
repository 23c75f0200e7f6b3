// Package broker is a broker in memory, for everything in one process: it takes events by HTTP, keeps them in one queue per
// Trigger and delivers them by HTTP, as Knative's RabbitMQ broker and its dispatchers do.
//
// What it shares with them, and the conformance suite checks: an event goes to every Trigger whose filter it matches, and
// is accepted and dropped when there is none; delivery is at least once, in no order that anybody should rely on; no
// answer, 5xx, 404, 408, 409 and 429 are tried again after a pause that holds one of the Trigger's parallel deliveries,
// every other status is a delivery; what was tried in vain goes to the dead letter sink with the attributes
// knativeerrordest and knativeerrorcode; an event in the answer of a subscriber, or of a dead letter sink, is published, and
// a delivery whose answer cannot be goes to the dead letter sink, too.
//
// Where it differs: queues end with the process, so Stop delivers what they hold and reports what it could not; it takes
// events in binary mode only, and ignores others in a subscriber's answer; redirects are not followed; Retry-After of a subscriber is not read, the Trigger's back-off says when to come back. Its queues are bounded: a
// full one answers 503, and the event is in none of them.
//
// It knows nothing of what events mean.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/ebb-inference/ebb/events/trigger"
)

// The defaults of Config.
const (
	DefaultMaxEvents     = 10_000
	DefaultMaxBytes      = 256 << 20
	DefaultMaxEventBytes = 16 << 20
)

// maxAttributeBytes bounds the attributes of one event, names and values; a larger one is answered 413.
const maxAttributeBytes = 32 << 10

// Config bounds a Broker. Zero is the default. An event that several Triggers match counts in each of their queues, though
// they share its memory.
type Config struct {
	MaxEvents     int          // in one Trigger's queue, those being delivered included
	MaxBytes      int64        // of the same: data and attributes; at least room for one event
	MaxEventBytes int64        // of one event's data
	Logger        *slog.Logger // default slog.Default()
}

// Broker is an http.Handler that takes events, and the workers that deliver them. An idle one uses no CPU.
type Broker struct {
	config    Config
	log       *slog.Logger
	metrics   *metrics
	transport *http.Transport

	mu       sync.RWMutex // held for reading while an event enters queues
	stopping bool
	subs     []*subscription
	stopped  chan struct{} // closed when Stop is done; then left is final
	left     error
}

// New makes a Broker without Triggers. Stop ends it.
func New(c Config) *Broker {
	if c.MaxEvents <= 0 {
		c.MaxEvents = DefaultMaxEvents
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.MaxEventBytes <= 0 {
		c.MaxEventBytes = DefaultMaxEventBytes
	}
	c.MaxBytes = max(c.MaxBytes, c.MaxEventBytes+maxAttributeBytes)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	b := &Broker{config: c, log: c.Logger, transport: newTransport(), stopped: make(chan struct{})}
	b.metrics = newMetrics(b)
	return b
}

// newTransport keeps a connection per parallel delivery, where Go's default keeps two and opens the others anew.
func newTransport() *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 4 * trigger.MaxParallelism, // of several Triggers with one subscriber
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // answers are small
	}
}

// Subscribe starts delivering the events that match t to subscriberURL, and those that it does not take to deadLetterURL.
// Only events that are accepted after it returns are sure to match. t's own destinations are not looked at: who resolves
// them to URLs knows where things run.
func (b *Broker) Subscribe(t trigger.Trigger, subscriberURL, deadLetterURL string) error {
	s, err := newSubscription(b, t, subscriberURL, deadLetterURL)
	if err != nil {
		return fmt.Errorf("trigger %s: %w", t, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopping {
		return fmt.Errorf("trigger %s: the broker is stopping", t)
	}
	for _, other := range b.subs {
		if other.name == s.name {
			return fmt.Errorf("trigger %s: there is one of that name already", t)
		}
	}
	b.subs = append(b.subs, s)
	s.start()
	return nil
}

// Stop takes no more events and delivers those in the queues, retries and dead letters included. When ctx ends first it
// interrupts the deliveries under way and returns an *UndeliveredError; it has delivered everything when it returns nil.
// Called again it waits for the first call and returns the same.
func (b *Broker) Stop(ctx context.Context) error {
	if b.beginStop() {
		go b.drain()
	}
	select {
	case <-b.stopped:
	case <-ctx.Done():
		b.interrupt()
		<-b.stopped
	}
	return b.left
}

func (b *Broker) beginStop() (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopping {
		return false
	}
	b.stopping = true // no event enters a queue from here on, so they may be closed
	for _, s := range b.subs {
		close(s.queue)
	}
	return true
}

// interrupt ends the deliveries under way, and those to come before they begin. No Trigger is added any more.
func (b *Broker) interrupt() {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, s := range b.subs {
		s.interrupt()
	}
}

// drain ends when every worker has: at once after b.interrupt.
func (b *Broker) drain() {
	defer close(b.stopped)
	var left UndeliveredError
	for _, s := range b.subs {
		left.Events = append(left.Events, s.finish()...)
	}
	if len(left.Events) > 0 {
		b.left = &left
	}
	b.transport.CloseIdleConnections()
	b.metrics.stop()
}

// Undelivered is an event that Stop left in a queue. Its delivery may have been under way.
type Undelivered struct{ Trigger, ID string }

// UndeliveredError lists what Stop had no time to deliver.
type UndeliveredError struct{ Events []Undelivered }

func (e *UndeliveredError) Error() string {
	return fmt.Sprintf("the broker stopped with %d events undelivered", len(e.Events))
}

func parseTarget(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
		return nil, errors.New("not an absolute http or https URL")
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return u, nil
}
