// Package reply is how an answer finds its way back: a requester owns a reply queue, a responder sends a result to it
// by name, and a correlation id says which request it answers. It is RPC over a queue, as AMQP has it.
//
// It knows events and nothing of models or HTTP. Its implementations, in memory and over AMQP, behave alike; the
// conformance suite says what that means.
package reply

import (
	"context"
	"errors"

	"github.com/ebb-inference/ebb/events"
)

var (
	// ErrDown says that there is no reply queue at the moment: the connection is being made again.
	ErrDown = errors.New("reply queue is down")
	// ErrLost says that the reply queue that a request named is gone, and with it the answer.
	ErrLost = errors.New("reply queue was lost")
	// ErrFull says that as many requests wait as may wait.
	ErrFull = errors.New("too many requests are waiting")
	// ErrNoRequester says that nobody listens at a reply address: the requester is gone, or never was.
	ErrNoRequester = errors.New("no requester at the reply address")
	// ErrBadAddress says that a reply address has not the form of a reply queue's name.
	ErrBadAddress = errors.New("not a reply address")
)

// Listener is told what arrives at an Inbox. Its functions are called one at a time and must not block.
type Listener struct {
	Reply func(*events.Result)
	// Lost says that no reply to this address will arrive any more.
	Lost func(address string)
}

// Inbox is one requester's reply queue.
type Inbox interface {
	// Address is the name to put into a request's ReplyTo, or ErrDown. It changes after a reconnect.
	Address() (string, error)
	// Close removes the queue; nothing is delivered after it returns.
	Close() error
}

// Requester opens reply queues. The queue is being consumed before Listen returns.
type Requester interface {
	Listen(ctx context.Context, l Listener) (Inbox, error)
}

// Responder sends results to reply queues. Respond returns once the transport has taken the result, ErrNoRequester
// when nobody listens at to, and ErrBadAddress, before sending anything, when ValidAddress refuses it.
type Responder interface {
	Respond(ctx context.Context, to string, r *events.Result) error
}
