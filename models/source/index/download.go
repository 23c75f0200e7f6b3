package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-inference/ebb/models/source"
)

// download is a file on its way. Its first answer says what the file is; further ones must be of the same.
type download struct {
	client *client
	at     *url.URL
	first  http.Header
	size   int64 // -1 when the server does not say
}

// open makes the request for what comes from an offset on.
func (d *download) open(ctx context.Context, from int64) (io.ReadCloser, error) {
	if d.first == nil {
		answer, err := d.client.do(ctx, d.at, http.Header{}, http.StatusOK)
		if err != nil {
			return nil, err
		}
		d.first, d.size = answer.Header, answer.ContentLength
		return answer.Body, nil
	}
	same := d.validator()
	if same == "" {
		return nil, source.ErrBroken
	}
	header := http.Header{}
	header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	header.Set("If-Range", same)
	answer, err := d.client.do(ctx, d.at, header, http.StatusPartialContent, http.StatusOK)
	if err != nil {
		return nil, err
	}
	skip, err := d.check(answer, from)
	if err != nil {
		_ = answer.Body.Close()
		return nil, err
	}
	return &rest{answer.Body, skip}, nil
}

// age is how long ago the file was modified, by the server's clock; for ever, when it does not say.
func (d *download) age() time.Duration {
	modified, err := http.ParseTime(d.first.Get("Last-Modified"))
	if err != nil {
		return 1<<63 - 1
	}
	now, err := http.ParseTime(d.first.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return now.Sub(modified)
}

// validator returns what tells whether the file is still the same; nothing when the server has said nothing strong enough.
func (d *download) validator() string {
	if etag := d.first.Get("ETag"); etag != "" && !strings.HasPrefix(etag, "W/") {
		return etag
	}
	// RFC 9110, 8.8.2.2: a second in which a file changes twice is long past.
	if modified := d.first.Get("Last-Modified"); d.age() > time.Minute {
		return modified
	}
	return ""
}

// check says whether an answer goes on where the one before broke, and how much there is to skip until then.
func (d *download) check(answer *http.Response, from int64) (skip int64, err error) {
	changed := fmt.Errorf("%w: it was changed while it was fetched", source.ErrIncomplete)
	if answer.StatusCode == http.StatusPartialContent {
		var begin, end int64
		var size string
		_, err := fmt.Sscanf(answer.Header.Get("Content-Range"), "bytes %d-%d/%s", &begin, &end, &size)
		if err != nil || begin != from {
			return 0, fmt.Errorf("the server answers the range from %d with Content-Range %q", from, answer.Header.Get("Content-Range"))
		}
		if d.size >= 0 && size != "*" && size != strconv.FormatInt(d.size, 10) {
			return 0, changed
		}
		return 0, nil
	}
	// All of it: the file has changed, or the server knows no ranges.
	for _, name := range []string{"ETag", "Last-Modified", "Content-Length"} {
		if answer.Header.Get(name) != d.first.Get(name) {
			return 0, changed
		}
	}
	return from, nil
}

// rest is what comes after the bytes to skip.
type rest struct {
	io.ReadCloser
	skip int64
}

// Read returns nothing, and no error, for what it skips, so that who waits for each Read sees that something comes.
func (r *rest) Read(p []byte) (int, error) {
	if r.skip == 0 {
		return r.ReadCloser.Read(p)
	}
	n, err := r.ReadCloser.Read(p[:min(int64(len(p)), r.skip)])
	if r.skip -= int64(n); r.skip > 0 && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return 0, err
}
