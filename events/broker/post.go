package broker

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
)

// maxAnswer is how much of an answer is read to keep its connection; the answer itself is not looked at.
const maxAnswer = 64 << 10

// post makes one attempt: the status of the answer, or noAnswer and why there was none.
func (s *subscription) post(ctx context.Context, to *url.URL, m *message) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, s.delivery.Timeout)
	defer cancel()
	req := (&http.Request{
		Method: http.MethodPost, URL: to, Host: to.Host, Header: m.header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: http.NoBody,
	}).WithContext(ctx)
	if len(m.body) > 0 {
		// GetBody lets the transport send again when a kept connection turns out to be closed.
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(m.body)), nil }
		req.Body, _ = req.GetBody() // it has no way to fail
		req.ContentLength = int64(len(m.body))
	}
	// The transport itself, not a Client: redirects are answers like any other.
	resp, err := s.broker.transport.RoundTrip(req)
	if err != nil {
		return noAnswer, err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // only to use the connection again
	_ = resp.Body.Close()                             // nothing of it is needed
	return resp.StatusCode, nil
}
