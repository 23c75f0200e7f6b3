package gateway

import (
	"net/http"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
)

const (
	headerIdempotencyKey    = "Idempotency-Key"
	headerPreferenceApplied = "Preference-Applied"
	preferAsync             = "respond-async"
	pathRequests            = "/v1/requests/"
	lookAgain               = "1" // seconds until it is worth to look for an answer again
)

// prefersAsync says whether a request's client does not want to wait (RFC 7240), and need not.
func (g *gateway) prefersAsync(r *http.Request) bool {
	for name := range preferences(r) {
		if name == preferAsync {
			return g.Service.Later()
		}
	}
	return false
}

// idempotencyKey is the key by which a client names its request, "" when it does not.
func idempotencyKey(r *http.Request) (string, *problem.Details) {
	keys := r.Header.Values(headerIdempotencyKey)
	switch {
	case len(keys) == 0:
		return "", nil
	case len(keys) > 1 || !ask.ValidKey(keys[0]):
		return "", badRequest("An %s is one of 1 to %d visible characters of ASCII, such as a UUID.", headerIdempotencyKey, ask.MaxKeyLength)
	}
	return keys[0], nil
}

// accept answers POST /v1/infer for who does not want to wait: 202, and where to look.
func (g *gateway) accept(w http.ResponseWriter, r *http.Request, q ask.Question) {
	p, err := g.Service.AskLater(r.Context(), q)
	if err != nil {
		failNamed(w, r, problem.From(err))
		return
	}
	adopt(w, r, p.ID)
	h := w.Header()
	h.Set(headerPreferenceApplied, preferAsync)
	h.Set("Location", pathRequests+p.ID)
	h.Set("Retry-After", lookAgain)
	writeJSON(w, http.StatusAccepted, p)
}

// failNamed is fail for a problem of a request that may have got its id from its key.
func failNamed(w http.ResponseWriter, r *http.Request, p *problem.Details) {
	if id := p.RequestID(); id != "" {
		adopt(w, r, id)
	}
	fail(w, r, p)
}

// collect answers GET /v1/requests/{id}: 202 while the answer is not whole, and then what POST would have answered.
func (g *gateway) collect(w http.ResponseWriter, r *http.Request) {
	p, err := g.Service.Collect(r.Context(), r.PathValue("id"))
	if err != nil {
		fail(w, r, problem.From(err))
		return
	}
	adopt(w, r, p.ID) // what is answered is that request, whatever asked for it
	if p.Status == ask.StatusDone {
		writeResponse(w, p.Response())
		return
	}
	w.Header().Set("Retry-After", lookAgain)
	writeJSON(w, http.StatusAccepted, p)
}

// drop answers DELETE /v1/requests/{id}.
func (g *gateway) drop(w http.ResponseWriter, r *http.Request) {
	if err := g.Service.Drop(r.Context(), r.PathValue("id")); err != nil {
		fail(w, r, problem.From(err))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// callbacks takes the events that say that a callback is due.
func (g *gateway) callbacks(w http.ResponseWriter, r *http.Request) {
	if g.Callbacks == nil {
		fail(w, r, noSuchPath(r))
		return
	}
	g.Callbacks.ServeHTTP(w, r)
}
