package broker

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/ebb-inference/ebb/events"
)

// maxAnswer is how much of an answer is read: of an event that is to be published, and of any other to keep its connection.
const maxAnswer = 64 << 10

// post makes one attempt: the status of the answer, or noAnswer and why there was none. With the status of a delivery
// comes the event that the answer is, if it is one.
func (s *subscription) post(ctx context.Context, to *url.URL, m *message) (int, *message, error) {
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
		return noAnswer, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // what is needed was read
	if answer := s.answer(ctx, m, resp); answer != nil {
		return resp.StatusCode, answer, nil
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // only to use the connection again
	return resp.StatusCode, nil, nil
}

// answer is the event in a subscriber's answer. What is no event is none, and what cannot be taken as one is said in the
// log: the delivery is as good as without.
func (s *subscription) answer(ctx context.Context, m *message, resp *http.Response) *message {
	if resp.Header.Get("Ce-Specversion") == "" || retriable(resp.StatusCode) {
		return nil
	}
	ignore := func(err error) *message {
		s.broker.log.LogAttrs(ctx, slog.LevelWarn, "a subscriber's answer is no event that can be published", s.about(m, slog.Any("error", err))...)
		return nil
	}
	ev, err := events.ReadHTTPAttributes(resp.Header)
	if err != nil {
		return ignore(err)
	}
	a := &message{id: ev.ID(), header: attributeHeaders(resp.Header)}
	if headerSize(a.header) > maxAttributeBytes {
		return ignore(events.ErrTooLarge)
	}
	if a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1)); err != nil {
		return ignore(err)
	}
	if len(a.body) > maxAnswer {
		return ignore(events.ErrTooLarge)
	}
	return a
}
