// Package fetch gets a picture from an address that a stranger typed in. What a server may be talked into asking for is
// the whole difficulty: the addresses that it may connect to are checked when it connects, after names were resolved
// and after every redirect, and everything that the other side sends is bounded.
//
// It does not look at what it fetched; that is for whoever asks about the picture. It uses no proxy, not even one that
// the environment names: the check would see the proxy's address and nothing else.
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
	"net/url"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// The defaults of Config.
const (
	DefaultMaxBytes     = 10 << 20
	DefaultMaxRedirects = 5
	DefaultTimeout      = 10 * time.Second
	DefaultUserAgent    = "Ebb (+https://github.com/ebb-inference/ebb)"
)

const (
	maxAddressBytes = 2048     // of the URL's text
	maxHeaderBytes  = 64 << 10 // of the answer
	firstBuffer     = 1 << 20  // the most that is reserved because the other side says that so much will come
)

// DefaultPorts are the ports of web servers.
var DefaultPorts = []uint16{80, 443, 8080, 8443}

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
	rule   rule
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
		c.Ports = DefaultPorts
	}
	if c.UserAgent == "" {
		c.UserAgent = DefaultUserAgent
	}
	f := &Fetcher{cfg: c, rule: rule{allow: slices.Clone(c.Allow), ports: slices.Clone(c.Ports)}}
	dialer := &net.Dialer{Resolver: c.Resolver, ControlContext: f.control}
	f.client = &http.Client{
		CheckRedirect: f.redirect,
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			DisableKeepAlives:      true, // so that every request dials, and every dial is checked
			DisableCompression:     true, // pictures are compressed, and the size cap counts what arrives
			MaxResponseHeaderBytes: maxHeaderBytes,
		},
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
	if len(address) > maxAddressBytes {
		return nil, errAddressLong
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, errAddress
	}
	if err := checkURL(u); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errAddress
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

// checkURL refuses what no picture has in its address. It also sees every redirect.
func checkURL(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return errScheme
	case u.Hostname() == "":
		return errAddress
	case u.User != nil:
		return errCredentials
	}
	return nil
}

func (f *Fetcher) redirect(req *http.Request, via []*http.Request) error {
	if len(via) > f.cfg.MaxRedirects {
		return errRedirects
	}
	req.Header.Del("Referer") // nobody's business
	if err := checkURL(req.URL); err != nil {
		return fmt.Errorf("%w: %w", errRedirected, err)
	}
	return nil
}

// control is called for every connection, with the address that it is about to be made to.
func (f *Fetcher) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || (network != "tcp4" && network != "tcp6") {
		return errForbidden
	}
	return f.rule.check(ap)
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
	errAddress     = errors.New("not a web address")
	errAddressLong = errors.New("address too long")
	errScheme      = errors.New("neither http nor https")
	errCredentials = errors.New("credentials in the address")
	errRedirects   = errors.New("too many redirects")
	errRedirected  = errors.New("redirected to a bad address")
	errForbidden   = errors.New("address not allowed")
	errPort        = errors.New("port not allowed")
	errTooLarge    = errors.New("too large")
	errEmpty       = errors.New("empty")
)
