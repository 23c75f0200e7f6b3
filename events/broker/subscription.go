package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/trigger"
)

// deadLetterWorkers is how many dead letters of a Trigger are delivered at once.
const deadLetterWorkers = 4

// noAnswer is the status of an attempt that nobody answered, as knativeerrorcode has it.
const noAnswer = -1

// subscription is one Trigger at work: its queue, the workers that empty it, and the same for its dead letters. An event
// holds its room from before its body is read until it was delivered, died, or was left by Stop.
type subscription struct {
	broker     *Broker
	name       string
	filter     map[string]string // header to value
	delivery   trigger.Delivery
	address    string // of the subscriber, as it was given
	subscriber *url.URL
	deadLetter *url.URL
	outcomes   deliveryOutcomes

	queue       chan *message // never blocks: it is as long as there is room
	dead        chan *message // the same, for the same room
	workers     sync.WaitGroup
	deadWorkers sync.WaitGroup
	interrupt   context.CancelFunc // ends every delivery; Stop may wait no longer

	mu     sync.Mutex
	events int
	bytes  int64
	left   []Undelivered
}

func newSubscription(b *Broker, t trigger.Trigger, subscriberURL, deadLetterURL string) (*subscription, error) {
	subscriber, err := parseTarget(subscriberURL)
	if err != nil {
		return nil, fmt.Errorf("subscriber: %w", err)
	}
	deadLetter, err := parseTarget(deadLetterURL)
	if err != nil {
		return nil, fmt.Errorf("dead letter sink: %w", err)
	}
	d := t.Delivery
	switch {
	case t.Name == "":
		return nil, errors.New("has no name")
	case d.Parallelism < 1 || d.Parallelism > trigger.MaxParallelism:
		return nil, fmt.Errorf("parallelism is %d; should be 1 to %d", d.Parallelism, trigger.MaxParallelism)
	case d.Timeout <= 0:
		return nil, errors.New("has no timeout: an attempt could hold its place for ever")
	case d.Retry < 0 || d.BackoffDelay < 0:
		return nil, errors.New("retry or back-off delay is negative")
	}
	filter := make(map[string]string, len(t.Filter))
	for attribute, value := range t.Filter {
		filter[attributeHeader(attribute)] = value
	}
	s := &subscription{
		broker: b, name: t.String(), filter: filter, delivery: d, address: subscriberURL, subscriber: subscriber, deadLetter: deadLetter,
		queue: make(chan *message, b.config.MaxEvents),
		dead:  make(chan *message, b.config.MaxEvents),
	}
	s.outcomes = newDeliveryOutcomes(s.name)
	return s, nil
}

func attributeHeader(attribute string) string {
	if attribute == "datacontenttype" {
		return "Content-Type"
	}
	return textproto.CanonicalMIMEHeaderKey("Ce-" + attribute)
}

func (s *subscription) matches(h http.Header) bool {
	for name, want := range s.filter {
		if values := h[name]; len(values) == 0 || values[0] != want {
			return false
		}
	}
	return true
}

// reserve takes room for an event of size bytes in every queue, or in none and returns a full one.
func reserve(subs []*subscription, size int64) (full *subscription) {
	for i, s := range subs {
		if !s.reserve(size) {
			release(subs[:i], size)
			return s
		}
	}
	return nil
}

func release(subs []*subscription, size int64) {
	for _, s := range subs {
		s.release(size)
	}
}

func (s *subscription) reserve(size int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events >= s.broker.config.MaxEvents || s.bytes+size > s.broker.config.MaxBytes {
		return false
	}
	s.events++
	s.bytes += size
	return true
}

func (s *subscription) shrink(by int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes -= by
}

func (s *subscription) release(size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events--
	s.bytes -= size
}

func (s *subscription) depth() (events int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events, s.bytes
}

func (s *subscription) start() {
	ctx, cancel := context.WithCancel(context.Background()) // not the caller's: deliveries outlive Subscribe
	s.interrupt = cancel
	for range s.delivery.Parallelism {
		s.workers.Go(func() {
			for m := range s.queue {
				s.deliver(ctx, m)
			}
		})
	}
	for range min(deadLetterWorkers, s.delivery.Parallelism) {
		s.deadWorkers.Go(func() {
			for m := range s.dead {
				s.bury(ctx, m)
			}
		})
	}
}

// finish waits until the queue, which is closed, and then the dead letters are done with, and returns what was left.
func (s *subscription) finish() []Undelivered {
	s.workers.Wait()
	close(s.dead)
	s.deadWorkers.Wait()
	s.interrupt() // nothing is left to interrupt: the context is let go
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}

// deliver brings one event to the subscriber, or makes a dead letter of it.
func (s *subscription) deliver(ctx context.Context, m *message) {
	status, err := s.send(ctx, s.subscriber, m)
	switch {
	case err == nil:
		s.done(ctx, m, s.outcomes.delivered)
		s.broker.log.LogAttrs(ctx, slog.LevelDebug, "event delivered", s.about(m, slog.Int("status", status))...)
	case ctx.Err() != nil:
		s.leave(ctx, m)
	default:
		s.broker.log.LogAttrs(ctx, slog.LevelWarn, "event not delivered; sending it to the dead letter sink", s.about(m, slog.Int("status", status), slog.Any("error", err))...)
		s.dead <- s.deadLetterOf(m, status)
	}
}

// bury brings one event to the dead letter sink.
func (s *subscription) bury(ctx context.Context, m *message) {
	status, err := s.send(ctx, s.deadLetter, m)
	switch {
	case err == nil:
		s.done(ctx, m, s.outcomes.deadLettered)
	case ctx.Err() != nil:
		s.leave(ctx, m)
	default:
		s.done(ctx, m, s.outcomes.lost)
		s.broker.log.LogAttrs(ctx, slog.LevelError, "event lost: the dead letter sink did not take it", s.about(m, slog.Int("status", status), slog.Any("error", err))...)
	}
}

// deadLetterOf is m with the attributes that say where and how it failed. The room that it holds grows by them.
func (s *subscription) deadLetterOf(m *message, status int) *message {
	header := maps.Clone(m.header)
	header[attributeHeader(events.ExtErrorDest)] = []string{s.address}
	header[attributeHeader(events.ExtErrorCode)] = []string{strconv.Itoa(status)}
	d := &message{id: m.id, header: header, body: m.body}
	s.shrink(m.size() - d.size())
	return d
}

func (s *subscription) done(ctx context.Context, m *message, o outcome) {
	s.release(m.size())
	s.broker.metrics.delivered(ctx, o)
}

// leave gives up an event because Stop may wait no longer.
func (s *subscription) leave(ctx context.Context, m *message) {
	s.done(ctx, m, s.outcomes.left)
	s.broker.log.LogAttrs(ctx, slog.LevelError, "event left undelivered: the broker stops", s.about(m)...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = append(s.left, Undelivered{Trigger: s.name, ID: m.id})
}

// about says in a log which event of which Trigger it is about.
func (s *subscription) about(m *message, attrs ...slog.Attr) []slog.Attr {
	return append(attrs, slog.String("event_id", m.id), slog.String("trigger", s.name))
}

// send tries until somebody took m, no try is left, or ctx ends. The status is that of the last try.
func (s *subscription) send(ctx context.Context, to *url.URL, m *message) (status int, err error) {
	for retry := 1; ; retry++ {
		if err := ctx.Err(); err != nil {
			return noAnswer, err
		}
		var answer *message
		status, answer, err = s.post(ctx, to, m)
		if err == nil && !retriable(status) {
			return status, s.forward(ctx, answer)
		}
		if err == nil {
			err = fmt.Errorf("answered %d", status)
		}
		if retry > s.delivery.Retry {
			return status, err
		}
		s.broker.metrics.delivered(ctx, s.outcomes.retried)
		s.broker.log.LogAttrs(ctx, slog.LevelInfo, "event will be tried again", s.about(m, slog.Int("retry", retry), slog.Int("status", status), slog.Any("error", err))...)
		if err := pause(ctx, s.delivery.Pause(retry)); err != nil {
			return status, err
		}
	}
}

// forward publishes the event that a subscriber answered with, if there is one. While it cannot be, it is tried again as a
// delivery is.
func (s *subscription) forward(ctx context.Context, answer *message) error {
	if answer == nil {
		return nil
	}
	for retry := 1; ; retry++ {
		err := s.broker.publish(ctx, answer)
		if errors.Is(err, errStopping) { // the event itself is delivered
			s.broker.log.LogAttrs(ctx, slog.LevelWarn, "answer not published: the broker stops", s.about(answer)...)
			return nil
		}
		if err == nil || retry > s.delivery.Retry {
			return err
		}
		s.broker.log.LogAttrs(ctx, slog.LevelInfo, "answer will be published again", s.about(answer, slog.Int("retry", retry), slog.Any("error", err))...)
		if err := pause(ctx, s.delivery.Pause(retry)); err != nil {
			return err
		}
	}
}

// retriable is what Knative tries again.
func retriable(status int) bool {
	switch status {
	case http.StatusNotFound, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return true
	default:
		return status >= 500
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
