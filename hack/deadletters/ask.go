package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/parking"
	"github.com/ebb-inference/ebb/events/reply"
	"github.com/ebb-inference/ebb/events/reply/amqp"
)

// connectTimeout bounds connecting, and closeTimeout closing.
const (
	connectTimeout = 30 * time.Second
	closeTimeout   = 10 * time.Second
)

// asker publishes events and waits for their answers, over a reply queue of its own: whoever asked has gone.
type asker struct {
	broker  string // URL
	timeout time.Duration
	client  *http.Client
	inbox   reply.Inbox
	pending *reply.Pending
	mail    *amqp.Responder // to mailboxes
}

var _ questioner = (*asker)(nil)

func newAsker(ctx context.Context, c amqp.Config, broker string, timeout time.Duration) (_ *asker, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	a := &asker{broker: broker, timeout: timeout, client: &http.Client{Transport: &http.Transport{}}, pending: reply.NewPending(maxUnderWay)}
	requester, err := amqp.NewRequester(c)
	if err != nil {
		return nil, err
	}
	a.inbox, err = requester.Listen(ctx, reply.Listener{
		Reply: func(r *events.Result) { a.pending.Deliver(r) },
		Lost:  a.pending.Lose,
	})
	if err != nil {
		return nil, err
	}
	if a.mail, err = amqp.NewResponder(ctx, c); err != nil {
		return nil, errors.Join(err, a.inbox.Close())
	}
	return a, nil
}

func (a *asker) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	a.client.CloseIdleConnections()
	return errors.Join(a.inbox.Close(), a.mail.Close(ctx))
}

// ask has a letter answered. It is an error if it fails again, and if its answer cannot be put where somebody looks for it.
func (a *asker) ask(ctx context.Context, l *parking.Letter) (*events.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	address, err := a.inbox.Address()
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	r, err := requestOf(l, answerTo{address: address, correlationID: uuid.NewString(), deadline: deadline})
	if err != nil {
		return nil, err
	}
	waiter, err := a.pending.Add(r.CorrelationID, address)
	if err != nil {
		return nil, err
	}
	defer waiter.Cancel()
	if err := a.publish(ctx, r); err != nil {
		return nil, err
	}
	result, err := waiter.Wait(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("no answer in %v", a.timeout)
	case err != nil:
		return nil, err
	case result.Problem != nil:
		return nil, fmt.Errorf("%s (status %d)", plain(result.Problem.Error()), result.Problem.Status)
	}
	return result, a.post(ctx, l, *result)
}

func (a *asker) publish(ctx context.Context, r *events.Request) error {
	req, err := events.NewHTTPRequest(ctx, a.broker, r)
	if err != nil {
		return err
	}
	res, err := a.client.Do(req)
	if err != nil {
		return fmt.Errorf("the broker: %w", err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // for the next to use the connection
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("the broker answered with status %d", res.StatusCode)
	}
	return nil
}

// post puts the answer into the mailbox of a request that was asked asynchronously, if there is one yet.
func (a *asker) post(ctx context.Context, l *parking.Letter, result events.Result) error {
	to := events.Extension(&l.Event, events.ExtReplyTo)
	if _, ok := reply.MailboxID(to); !ok {
		return nil
	}
	result.CorrelationID = events.Extension(&l.Event, events.ExtCorrelationID)
	if err := a.mail.Respond(ctx, to, &result); err != nil && !errors.Is(err, reply.ErrNoRequester) {
		return fmt.Errorf("it was answered, and the answer could not be put into its mailbox: %w", err)
	}
	return nil
}

// answerTo is where an answer goes, and until when.
type answerTo struct {
	address, correlationID string
	deadline               time.Time
}

// requestOf is a letter's question, to be asked again: the same event, to be answered elsewhere. Dispatch computes it again,
// for it knows deliveries by where their answer goes, too.
func requestOf(l *parking.Letter, to answerTo) (*events.Request, error) {
	ev := l.Event.Clone()
	ev.SetExtension(events.ExtReplyTo, to.address)
	ev.SetExtension(events.ExtCorrelationID, to.correlationID)
	ev.SetExtension(events.ExtDeadline, to.deadline.UTC().Format(time.RFC3339Nano))
	ev.SetExtension(events.ExtReplay, "true")
	ev.SetExtension(events.ExtCallback, nil) // whoever is to be called was, when it failed
	r, err := events.ParseRequest(&ev)
	if err != nil {
		return nil, fmt.Errorf("it cannot be asked again: %w", err)
	}
	return r, nil
}

// replayable says why a letter cannot be asked again.
func replayable(l *parking.Letter) error {
	_, err := requestOf(l, answerTo{address: "anywhere", correlationID: "any", deadline: time.Now()})
	return err
}
