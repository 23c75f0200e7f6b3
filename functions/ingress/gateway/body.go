package gateway

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/ebb-inference/ebb/events/problem"
)

// body is a request's body in memory, with what it holds of the gateway's.
type body struct {
	data []byte
	hold *hold
}

func (b *body) release() { b.hold.release() }

// admit makes room for a body of at most limit bytes, times factor when decoding it takes more, and bounds what can be
// read of it. Nothing has been read when it returns.
func (g *gateway) admit(w http.ResponseWriter, r *http.Request, limit int64, factor int64) (*hold, *problem.Details) {
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, wrongEncoding("The body is compressed; send it as it is. Pictures are compressed already.")
	}
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	size := r.ContentLength
	if size < 0 {
		size = limit // it does not say; hold as much as may come
	}
	hold := g.memory.take(size * factor)
	if hold == nil {
		return nil, busy()
	}
	bound(w, r, limit)
	return hold, nil
}

// read reads a whole body of at most limit bytes. The caller releases it.
func (g *gateway) read(w http.ResponseWriter, r *http.Request, limit int64, factor int64) (*body, *problem.Details) {
	hold, failure := g.admit(w, r, limit, factor)
	if failure != nil {
		return nil, failure
	}
	data, err := readAll(r.Body, r.ContentLength)
	if err != nil {
		hold.release()
		return nil, unreadable(r, err)
	}
	hold.shrink(int64(len(data)) * factor)
	return &body{data: data, hold: hold}, nil
}

// readAll reads to the end. expect is how much will come, or negative; what does come may be less, never more.
func readAll(from io.Reader, expect int64) ([]byte, error) {
	if expect >= 0 {
		data := make([]byte, expect)
		_, err := io.ReadFull(from, data)
		if errors.Is(err, io.EOF) && expect > 0 {
			err = io.ErrUnexpectedEOF
		}
		return data, err
	}
	var buf bytes.Buffer
	_, err := buf.ReadFrom(from)
	return buf.Bytes(), err
}

// mediaType is a body's media type and its parameters. What cannot be parsed is no type at all: pictures are recognised
// by their bytes.
func mediaType(r *http.Request) (string, map[string]string) {
	t, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return "", nil
	}
	return t, parameters
}

func isJSON(mediaType string) bool {
	return mediaType == "application/json" || strings.HasSuffix(mediaType, "+json")
}

// shrinkTo gives back what was held beyond the pictures themselves, once they have been taken out of the body.
func (b *body) shrinkTo(pictures [][]byte) {
	var size int64
	for _, p := range pictures {
		size += int64(len(p))
	}
	b.data = nil
	b.hold.shrink(size)
}
