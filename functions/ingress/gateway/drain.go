package gateway

import (
	"io"
	"net/http"
	"strings"
)

// spill is how much of an unwanted body is read and dropped before the answer, in bytes.
const spill = 64 << 20

// boundedBody is a body of which a handler reads so much and no more, while the rest can still be dropped.
type boundedBody struct {
	io.ReadCloser           // bounded
	all           io.Reader // of it
	begun         bool
}

func (b *boundedBody) Read(p []byte) (int, error) {
	b.begun = true
	return b.ReadCloser.Read(p)
}

// bound lets no more than limit bytes of r's body be read.
func bound(w http.ResponseWriter, r *http.Request, limit int64) {
	r.Body = &boundedBody{ReadCloser: http.MaxBytesReader(w, r.Body, limit), all: r.Body}
}

// drain reads on, up to a bound and the server's time limit, what a client sends that its request is refused for anyway.
// Browsers and most libraries read an answer only when they could send everything: without it they would see a broken
// connection where they should read what is wrong. A client that waits to be told to go on is not.
func drain(r *http.Request) {
	from, begun := io.Reader(r.Body), false
	if b, ok := r.Body.(*boundedBody); ok {
		from, begun = b.all, b.begun
	}
	if !begun && strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
		return
	}
	_, _ = io.CopyN(io.Discard, from, spill) // whatever is wrong with the rest, the answer is on its way
}
