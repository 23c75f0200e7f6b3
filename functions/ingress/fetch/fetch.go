// Package fetch gets a picture from an address that a stranger typed in. Which addresses it may connect to is package
// outside's to say; everything that the other side sends is bounded here.
//
// It does not look at what it fetched; that is for whoever asks about the picture.
package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/ebb-inference/ebb/functions/ingress/outside"
)

// The defaults of Config.
const (
	DefaultMaxBytes     = 10 << 20
	DefaultMaxRedirects = 5
	DefaultTimeout      = 10 * time.Second
	DefaultUserAgent    = "Ebb (+https://github.com/ebb-inference/ebb)"
)

// firstBuffer is the most that is reserved because the other side says that so much will come.
const firstBuffer = 1 << 20

// Config bounds a Fetcher. The zero value has the defaults.
type Config struct {
	MaxBytes     int64         // of the picture
	MaxRedirects int           // 0: DefaultMaxRedirects; negative: none is followed
	Timeout      time.Duration // of everything: names, connections, redirects, the picture
	Ports        []uint16      // that may be connected to at public addresses
	UserAgent    string        // says who is asking

	// Allow are addresses that may be connected to, at any port, although they are not public: FETCH_ALLOW=10.1.0.0/16
	// of an operator whose pictures are in there. Everyone who can ask a question can then read what is there.
	Allow []netip.Prefix
	// Resolver finds addresses; nil is the system's. What it finds is checked all the same.
	Resolver *net.Resolver
}

// Fetcher fetches. It keeps no connections, no cookies and nothing else between two calls.
type Fetcher struct {
	cfg    Config
	client *http.Client
}

// New makes a Fetcher.
func New(c Config) *Fetcher {
	if c.MaxBytes <= 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.MaxRedirects == 0 {
		c.MaxRedirects = DefaultMaxRedirects
	}
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	if len(c.Ports) == 0 {
		c.Ports = outside.DefaultPorts
	}
	if c.UserAgent == "" {
		c.UserAgent = DefaultUserAgent
	}
	f := &Fetcher{cfg: c}
	f.client = &http.Client{
		CheckRedirect: f.redirect,
		Transport:     outside.NewTransport(outside.Config{Ports: c.Ports, Allow: c.Allow, Resolver: c.Resolver}),
	}
	return f
}

// Fetch gets what is at address, an http or https URL: at most Config.MaxBytes bytes. Its errors are *problem.Details: 400
// when address is not an address that could be fetched, 413 when what is there is too large, 422 when it cannot be had,
// and 499 when ctx was cancelled.
func (f *Fetcher) Fetch(ctx context.Context, address string) ([]byte, error) {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	data, err := f.fetch(ctx, address)
	if err != nil {
		return nil, f.explain(caller, ctx, err)
	}
	return data, nil
}

func (f *Fetcher) fetch(ctx context.Context, address string) ([]byte, error) {
	u, err := outside.Parse(address)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, outside.ErrAddress
	}
	req.Header.Set("User-Agent", f.cfg.UserAgent)
	req.Header.Set("Accept", "image/*")
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // what mattered was read
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(resp.StatusCode)
	}
	if resp.ContentLength > f.cfg.MaxBytes {
		return nil, errTooLarge
	}
	var picture bytes.Buffer
	picture.Grow(int(min(max(resp.ContentLength+bytes.MinRead, 4096), firstBuffer)))
	n, err := picture.ReadFrom(io.LimitReader(resp.Body, f.cfg.MaxBytes+1))
	switch {
	case n > f.cfg.MaxBytes:
		return nil, errTooLarge
	case err != nil:
		return nil, fmt.Errorf("read: %w", err)
	case n == 0:
		return nil, errEmpty
	}
	return picture.Bytes(), nil
}

func (f *Fetcher) redirect(req *http.Request, via []*http.Request) error {
	if len(via) > f.cfg.MaxRedirects {
		return errRedirects
	}
	req.Header.Del("Referer") // nobody's business
	if err := outside.Check(req.URL); err != nil {
		return fmt.Errorf("%w: %w", errRedirected, err)
	}
	return nil
}

// statusError is an answer that is not 200.
type statusError int

func (s statusError) Error() string {
	if text := http.StatusText(int(s)); text != "" {
		return fmt.Sprintf("%d %s", int(s), text)
	}
	return strconv.Itoa(int(s))
}

var (
	errRedirects  = errors.New("too many redirects")
	errRedirected = errors.New("redirected to a bad address")
	errTooLarge   = errors.New("too large")
	errEmpty      = errors.New("empty")
)
