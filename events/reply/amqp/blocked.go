package amqp

import (
	"context"
	"errors"
	"time"
)

// How long RabbitMQ is believed to take messages once it took one, and how long it may take to say so.
const (
	believeFlow = 200 * time.Millisecond
	probeWithin = time.Second
)

// Blocked is ErrBlocked while RabbitMQ takes no messages from anybody, and nil when it does or when it is not known, as when
// there is no connection. It is for who publishes over another way on which nobody would say so. It takes a round trip to
// RabbitMQ now and then, and a second at most.
func (r *Responder) Blocked(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	p, err := r.enter()
	if err != nil {
		return nil // it is not known
	}
	defer r.calls.Done()
	r.probing.Lock() // whoever comes while RabbitMQ is being asked has the same answer
	defer r.probing.Unlock()
	if time.Since(r.flowed) < believeFlow {
		return nil
	}
	err = p.probe(ctx)
	if err == nil {
		r.flowed = time.Now()
	}
	if errors.Is(err, ErrBlocked) {
		return ErrBlocked
	}
	return nil
}

// Blocked is ErrBlocked while RabbitMQ takes no messages; see Responder.Blocked.
func (m *Mailboxes) Blocked(ctx context.Context) error { return m.out.Blocked(ctx) }
