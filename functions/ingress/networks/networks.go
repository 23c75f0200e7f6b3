// Package networks asks modelsync how the networks do whose versions come from a source. It takes from the answer what people
// want to know, and nothing else of modelsync is known here: ingress starts quicker without.
package networks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	timeout  = 5 * time.Second // modelsync may have to start
	maxBytes = 4 << 20
)

// ErrAway says that modelsync does not answer, or not as it should.
var ErrAway = errors.New("modelsync does not answer")

// Network is how one network does.
type Network struct {
	Name        string     `json:"network"`
	Models      []string   `json:"models"`
	Source      string     `json:"source"`
	Serving     int64      `json:"serving"` // 0: none
	Previous    int64      `json:"previous"`
	Since       time.Time  `json:"since"`
	Candidate   *Candidate `json:"candidate"` // nil: none is on its way
	Refused     []Refusal  `json:"refused"`   // the newest last
	LastCheck   time.Time  `json:"last_check"`
	LastFailure *Failure   `json:"last_failure"`
	History     []Entry    `json:"history"` // the newest last
}

// Candidate is a version on its way.
type Candidate struct {
	Version int64     `json:"version"`
	Phase   string    `json:"phase"`   // fetch, stage, check, shift, settle
	Percent int       `json:"percent"` // of the traffic
	Began   time.Time `json:"began"`
}

// Refusal is a version that is not rolled out.
type Refusal struct {
	Version int64     `json:"version"`
	From    int64     `json:"from"` // those from this to Version; 0: Version alone
	Reason  string    `json:"reason"`
	By      string    `json:"by"` // check, watch, operator
	Time    time.Time `json:"time"`
}

// Failure is what went wrong and is tried again.
type Failure struct {
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

// Entry is one thing that happened.
type Entry struct {
	Time    time.Time `json:"time"`
	Event   string    `json:"event"` // found, staged, shifted, serving, refused, returned, allowed
	Version int64     `json:"version"`
	Percent int       `json:"percent"`
}

// Client asks a modelsync.
type Client struct {
	url  string
	http *http.Client
}

// New makes a Client of the modelsync at a URL.
func New(url string) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone() // it is one
	transport.Proxy = nil                                        // it is next door
	transport.DisableKeepAlives = true                           // people look now and then, and modelsync shall be able to go to sleep
	return &Client{
		url:  strings.TrimSuffix(url, "/") + "/v1/networks",
		http: &http.Client{Timeout: timeout, Transport: transport},
	}
}

// Networks asks for all networks. The error wraps ErrAway, or is ctx's.
func (c *Client) Networks(ctx context.Context) ([]Network, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: it says %s", ErrAway, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	case len(body) > maxBytes:
		return nil, fmt.Errorf("%w: it says more than %d MiB", ErrAway, maxBytes>>20)
	}
	var all struct {
		Networks []Network `json:"networks"`
	}
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	return all.Networks, nil
}
