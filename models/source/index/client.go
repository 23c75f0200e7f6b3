package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ebb-inference/ebb/models/source"
)

const (
	maxRedirects = 5
	maxPage      = 16 << 20
	pageTimeout  = 2 * time.Minute
)

// client asks servers, and bounds what they may do.
type client struct {
	http     http.Client
	patience source.Patience
}

func newClient(o Options) *client {
	transport := o.Transport
	if transport == nil {
		transport = source.Transport(o.Patience)
	}
	return &client{http.Client{Transport: transport, CheckRedirect: checkRedirect}, o.Patience}
}

func (c *client) close() { c.http.CloseIdleConnections() }

func checkRedirect(r *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("it redirects more than %d times", maxRedirects)
	case r.URL.Scheme != "https" && via[len(via)-1].URL.Scheme == "https":
		return errors.New("it redirects from https to less")
	}
	return nil
}

// statusError is an answer that is not what was asked for.
type statusError struct{ code int }

func (e statusError) Error() string {
	return fmt.Sprintf("the server answers %d %s", e.code, http.StatusText(e.code))
}

// isMissing says whether the server knows that there is nothing.
func isMissing(err error) bool {
	var s statusError
	return errors.As(err, &s) && (s.code == http.StatusNotFound || s.code == http.StatusGone)
}

// do makes a request. The answer's status is one of those that are wanted.
func (c *client) do(ctx context.Context, at *url.URL, header http.Header, want ...int) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	r.Header = header
	r.Header.Set("User-Agent", "ebb")
	// Nothing else: what is to be compared with checksums and taken up in the middle has to be as it is.
	r.Header.Set("Accept-Encoding", "identity")
	answer, err := c.http.Do(r)
	if err != nil {
		// The URL in it may be one that the server redirected to, signed for us alone.
		var of *url.Error
		if errors.As(err, &of) {
			err = of.Err
		}
		return nil, err
	}
	for _, code := range want {
		if answer.StatusCode == code {
			if coding := answer.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
				_ = answer.Body.Close()
				return nil, fmt.Errorf("the server answers with Content-Encoding %q, which was not asked for", coding)
			}
			return answer, nil
		}
	}
	_ = answer.Body.Close()
	return nil, statusError{answer.StatusCode}
}

// page is an answer that was read.
type page struct {
	body []byte
	kind string   // its media type
	etag string   // to ask whether it is still so
	at   *url.URL // after redirects
}

// get reads a page, or returns the one that is known if it is still so.
func (c *client) get(ctx context.Context, at *url.URL, known page) (page, error) {
	header, want := http.Header{}, []int{http.StatusOK}
	if known.etag != "" {
		header.Set("If-None-Match", known.etag)
		want = append(want, http.StatusNotModified)
	}
	ctx, stop := context.WithTimeout(ctx, pageTimeout)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	answer, err := c.do(ctx, at, header, want...)
	if err != nil {
		return page{}, err
	}
	defer func() { _ = answer.Body.Close() }() // it is only read
	if answer.StatusCode == http.StatusNotModified {
		return known, nil
	}
	body, err := io.ReadAll(io.LimitReader(source.Idle(ctx, cancel, c.patience.Idle, answer.Body), maxPage+1))
	if err != nil {
		return page{}, err
	}
	if len(body) > maxPage {
		return page{}, fmt.Errorf("%w: the list has more than %d bytes", source.ErrLimit, maxPage)
	}
	return page{body, answer.Header.Get("Content-Type"), answer.Header.Get("ETag"), answer.Request.URL}, nil
}
