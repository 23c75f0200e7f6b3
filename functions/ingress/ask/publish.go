package ask

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
)

// publisher hands events to the broker over HTTP.
type publisher struct {
	url     string
	client  *http.Client
	timeout time.Duration // of one attempt
	pause   time.Duration // before the second one
	blocked func(context.Context) error
}

// fault is a publication that failed.
type fault struct {
	cause   error
	problem *problem.Details // what the caller shall read
	// maybe says that the event may be in the queue all the same: nothing was heard after it had been sent.
	maybe bool
	again bool // a second attempt may succeed
	final bool // it is known that the broker takes nothing, so that waiting for an answer is vain
}

func (f *fault) Error() string { return f.cause.Error() }
func (f *fault) Unwrap() error { return f.cause }

// publish hands r to the broker: at most twice, with the same id, so that whoever receives both can tell. Nil says
// that the event is stored.
func (p *publisher) publish(ctx context.Context, r *events.Request) *fault {
	first := p.attempt(ctx, r)
	if first == nil || !first.again {
		return first
	}
	pause := time.NewTimer(p.pause)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return first
	case <-pause.C:
	}
	second := p.attempt(ctx, r)
	if second == nil {
		return nil
	}
	if first.maybe { // which a refusal does not take back
		second.maybe, second.problem = true, brokerSilent()
	}
	return second
}

func (p *publisher) attempt(ctx context.Context, r *events.Request) *fault {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if err := p.blocked(ctx); err != nil {
		return &fault{cause: fmt.Errorf("event not sent: %w", err), problem: brokerBlocked(), final: true}
	}
	req, err := events.NewHTTPRequest(ctx, p.url, r)
	if err != nil {
		return &fault{cause: fmt.Errorf("write event: %w", err), problem: brokerRefused()}
	}
	resp, err := p.client.Do(req)
	if err != nil {
		cause := fmt.Errorf("send event: %w", err)
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
			return &fault{cause: cause, problem: brokerDown(), again: true}
		}
		return &fault{cause: cause, problem: brokerSilent(), maybe: true, again: true}
	}
	defer func() {
		_, _ = io.CopyN(io.Discard, resp.Body, 4096) // so that the connection can be used again; failing costs only that
		_ = resp.Body.Close()                        // nothing was written that closing could lose
	}()
	return verdict(resp)
}

// verdict reads what the broker said: 2xx is stored, 429 and 503 are a full or drowning broker that needs a pause longer
// than ours, another 5xx is worth a second attempt, and the rest will be the same each time.
func verdict(resp *http.Response) *fault {
	cause := fmt.Errorf("the broker answered %s", resp.Status)
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusTooManyRequests, code == http.StatusServiceUnavailable:
		return &fault{cause: cause, problem: brokerBusy(retryAfter(resp.Header))}
	case code == http.StatusGatewayTimeout:
		return &fault{cause: cause, problem: brokerSilent(), maybe: true, again: true}
	case code >= 500:
		return &fault{cause: cause, problem: brokerFailed(), again: true}
	default:
		return &fault{cause: cause, problem: brokerRefused()}
	}
}

// retryAfter is the broker's Retry-After in seconds, from 1 to 60. Its form as a date is read as 1: brokers do not use it.
func retryAfter(h http.Header) int {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil {
		return soon
	}
	return min(max(seconds, soon), 60)
}
