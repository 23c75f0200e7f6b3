package wake

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Placeholder is what Route puts a model's name for.
const Placeholder = "{model}"

// client follows no redirect, uses no proxy and keeps no connection: what it asks, it asks seldom.
var client = &http.Client{
	Transport: &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout:    5 * time.Second,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Route is what a model has at an address, such as http://dispatch-{model}.ebb.svc.cluster.local/health/liveness. It is asked
// by GET, since Knative's activator starts what a request is for: a connection alone is not enough.
func Route(address, model string) (Target, error) {
	u, err := url.Parse(strings.ReplaceAll(address, Placeholder, escape(model)))
	switch {
	case err != nil:
		return Target{}, errors.New("it cannot be parsed") // the error repeats it, and there may be a password in it
	case (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return Target{}, fmt.Errorf("%q: want http://host/path or https://host/path, in which %s is the model's name", u.Redacted(), Placeholder)
	}
	return Target{Name: u.Redacted(), Ask: func(ctx context.Context) error { return get(ctx, u) }}, nil
}

// escape makes a name a part of an address that cannot be taken for another one. A model's name has nothing to escape.
func escape(name string) string { return strings.ReplaceAll(url.QueryEscape(name), "+", "%20") }

func get(ctx context.Context, u *url.URL) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "ebb-wake")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // nobody reads it
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}
