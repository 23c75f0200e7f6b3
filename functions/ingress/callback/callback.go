// Package callback brings answers to addresses that strangers named, as CloudEvents over HTTP. Which addresses may be
// called is package outside's to say.
//
// It makes one attempt a call, and says whether another is worth making; who makes it, and when, is not its business.
package callback

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/ingress/outside"
)

// The defaults of Config.
const (
	DefaultTimeout   = 10 * time.Second
	DefaultUserAgent = "Ebb (+https://github.com/ebb-inference/ebb)"
)

// Source is the source of the events: with the request's id, which is theirs, it is the same whoever calls, however often.
const Source = "/ebb/requests"

// CodeAddress is the code of the problem of an address that cannot be called.
const CodeAddress = "bad-callback" // 400

// maxAnswer is how much of an answer is read, to be polite; nothing of it is used.
const maxAnswer = 4 << 10

// Config bounds a Caller. The zero value has the defaults.
type Config struct {
	Timeout   time.Duration  // of one call, names, connection and answer
	UserAgent string         // says who is calling
	Allow     []netip.Prefix // as of outside.Config: networks that may be called though they are not public
	Resolver  *net.Resolver  // nil is the system's
}

// Caller calls. It keeps nothing between two calls.
type Caller struct {
	cfg    Config
	client *http.Client
}

var _ ask.Caller = (*Caller)(nil)

// New makes a Caller.
func New(c Config) *Caller {
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	if c.UserAgent == "" {
		c.UserAgent = DefaultUserAgent
	}
	return &Caller{cfg: c, client: &http.Client{
		Transport: outside.NewTransport(outside.Config{Allow: c.Allow, Resolver: c.Resolver}),
		// An answer goes where its caller said, and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Check says what is wrong with an address before it is called: a *problem.Details or nil. Where a name leads is seen only
// when it is called.
func (c *Caller) Check(address string) error {
	_, err := outside.Parse(address)
	var detail string
	switch {
	case err == nil:
		return nil
	case errors.Is(err, outside.ErrTooLong):
		detail = fmt.Sprintf("The callback's address is longer than %d characters.", outside.MaxURLBytes)
	case errors.Is(err, outside.ErrCredentials):
		detail = "The callback's address has a user name or password in it. Put a secret into its path or query, if it needs one."
	default:
		detail = "Use an address that begins with http:// or https://."
	}
	return problem.New(CodeAddress, http.StatusBadRequest, "This callback cannot be called", detail)
}

// Call posts a response to an address: a CloudEvent in binary mode whose data is the response as JSON. Any 2xx says that it
// was taken. The error wraps ask.ErrCallAgain when there was no answer, or 408, 425, 429 or 5xx.
func (c *Caller) Call(ctx context.Context, address string, r *ask.Response) error {
	u, err := outside.Parse(address)
	if err != nil {
		return err
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return outside.ErrAddress
	}
	typ := events.TypeCompleted
	if ask.Status(r) != http.StatusOK {
		typ = events.TypeFailed
	}
	for name, value := range map[string]string{
		"Ce-Specversion": "1.0", "Ce-Type": typ, "Ce-Id": r.ID, "Ce-Source": Source, "Ce-Time": time.Now().UTC().Format(time.RFC3339Nano),
		"Content-Type": "application/json", "User-Agent": c.cfg.UserAgent,
	} {
		req.Header.Set(name, value)
	}
	resp, err := c.client.Do(req)
	switch {
	case errors.Is(err, outside.ErrForbidden), errors.Is(err, outside.ErrPort):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", ask.ErrCallAgain, err)
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // the receiver may not expect that nobody reads
	_ = resp.Body.Close()                             // nothing of it is needed
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code >= 500, code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests:
		return fmt.Errorf("%w: it answered %d", ask.ErrCallAgain, code)
	default:
		return fmt.Errorf("it answered %d", code)
	}
}
