package assets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// attempts at a download, each going on where the last one broke off.
const attempts = 3

// errRedirect is wrapped by refusals to follow a redirect.
var errRedirect = errors.New("redirect refused")

// newClient is an HTTP client for downloads: it bounds every step but the body, for which each attempt has a stall timer.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
			TLSHandshakeTimeout:   15 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
			ForceAttemptHTTP2:     true,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Scheme != "https" {
				return fmt.Errorf("%w: %s is not HTTPS", errRedirect, r.URL.Redacted())
			}
			if len(via) >= 5 {
				return fmt.Errorf("%w: that was the fifth", errRedirect)
			}
			return nil
		},
	}
}

// permanent marks an error that another attempt would only meet again.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// download gets a file from the web. What came before an attempt broke off is kept beside the target, also for the next
// call.
func (f *Fetcher) download(ctx context.Context, from webFile, temp string) error {
	part := temp + "." + from.sha256[:16] + ".part"
	p := (&progress{what: "downloading " + from.url, log: f.log, total: from.size}).begin()
	defer p.stop()
	defer f.client.CloseIdleConnections()
	var err error
	for range attempts {
		err = f.attempt(ctx, from, part, p)
		if err == nil {
			err = check(from.pin, part)
			if err == nil {
				return os.Rename(part, temp)
			}
			// Either end may have been wrong from its first byte: nothing of it is worth keeping.
			if errors.Is(err, ErrChecksum) {
				err = errors.Join(err, os.Remove(part))
			}
		}
		if _, stop := errors.AsType[permanent](err); stop || ctx.Err() != nil {
			break
		}
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	switch {
	case errors.Is(err, ErrChecksum):
		return fmt.Errorf("download %s: %w; do not use it: somebody changed it on the way, or there", from.url, err)
	case !errors.Is(err, errRedirect) && isNetwork(err):
		return fmt.Errorf("download %s: %w; this one needs the whole internet, not just package registries: check the network and HTTPS_PROXY, then run it again, and it goes on where it was", from.url, err)
	}
	return fmt.Errorf("download %s: %w", from.url, err)
}

func isNetwork(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// errStalled is why an attempt was given up that got no bytes.
var errStalled = errors.New("the server sends nothing any more")

// attempt appends what is missing to the partial file.
func (f *Fetcher) attempt(ctx context.Context, from webFile, part string, p *progress) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(f.stall, func() { cancel(errStalled) })
	defer stall.Stop()

	file, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return permanent{err}
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	have, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return permanent{err}
	}
	if have >= from.size {
		return nil // the checksum tells
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from.url, http.NoBody)
	if err != nil {
		return permanent{err}
	}
	if have > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	response, err := f.client.Do(request)
	switch {
	case errors.Is(err, errRedirect):
		return permanent{err}
	case err != nil:
		return stalled(ctx, err)
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusPartialContent && strings.HasPrefix(response.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", have)):
	case response.StatusCode == http.StatusPartialContent, response.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return errors.Join(fmt.Errorf("the server cannot go on at byte %d", have), file.Truncate(0))
	case response.StatusCode == http.StatusOK:
		// All of it, whatever was asked for.
		if err := errors.Join(file.Truncate(0), seekStart(file)); err != nil {
			return permanent{err}
		}
		have = 0
	case response.StatusCode >= 500, response.StatusCode == http.StatusTooManyRequests, response.StatusCode == http.StatusRequestTimeout:
		return fmt.Errorf("the server answered %s", response.Status)
	default:
		return permanent{fmt.Errorf("the server answered %s", response.Status)}
	}
	if n := response.ContentLength; n >= 0 && have+n != from.size {
		return permanent{fmt.Errorf("%w: the server has %d bytes; want %d", ErrChecksum, have+n, from.size)}
	}
	p.bytes.Store(have)
	// One byte more than expected is enough to be wrong.
	n, err := io.Copy(file, io.LimitReader(&watched{response.Body, stall, f.stall, p}, from.size-have+1))
	if err != nil {
		return stalled(ctx, err)
	}
	if have+n < from.size {
		return stalled(ctx, fmt.Errorf("it ended after %d of %d bytes: %w", have+n, from.size, io.ErrUnexpectedEOF))
	}
	return nil
}

// stalled is the reason why an attempt's context ended, where that is what ended the attempt.
func stalled(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func seekStart(file *os.File) error {
	_, err := file.Seek(0, io.SeekStart)
	return err
}

// watched counts what is read and puts the stall timer off.
type watched struct {
	io.Reader
	timer *time.Timer
	stall time.Duration
	p     *progress
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Reader.Read(b)
	if n > 0 {
		w.timer.Reset(w.stall)
		w.p.bytes.Add(int64(n))
	}
	return n, err
}
