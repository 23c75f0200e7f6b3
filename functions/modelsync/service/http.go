package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
)

// Path is where networks are.
const Path = "/v1/networks"

// maxBody bounds what a command may say.
const maxBody = 4 << 10

// Looked is the answer to a look.
type Looked struct {
	Outcome rollout.Outcome `json:"outcome"`
	State   rollout.State   `json:"state"`
}

// Networks is the answer to who asks for all.
type Networks struct {
	Networks []rollout.State `json:"networks"`
}

func (s *Service) routes() {
	s.mux.HandleFunc("POST /{$}", s.event)
	s.mux.HandleFunc("GET "+Path, s.list)
	s.mux.HandleFunc("GET "+Path+"/{name}", s.of(s.show))
	s.mux.HandleFunc("POST "+Path+"/{name}/look", s.of(s.lookNow))
	s.mux.HandleFunc("POST "+Path+"/{name}/rollback", s.of(s.rollback))
	s.mux.HandleFunc("POST "+Path+"/{name}/allow", s.of(s.allow))
	for path, allowed := range map[string]string{
		"/{$}": "POST", Path: "GET, HEAD", Path + "/{name}": "GET, HEAD",
		Path + "/{name}/look": "POST", Path + "/{name}/rollback": "POST", Path + "/{name}/allow": "POST",
	} {
		s.mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", allowed)
			problem.Write(w, problem.New("method-not-allowed", http.StatusMethodNotAllowed, "Method not allowed", "The methods here are "+allowed+"."))
		})
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		problem.Write(w, problem.New("no-such-path", http.StatusNotFound, "There is nothing here", "Networks are at "+Path+"."))
	})
}

// ServeHTTP answers. What a browser sends for a page of somebody else's is refused: on a person's own machine no network
// keeps such a page from asking for a version back.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	if err := s.origin.Check(r); err != nil {
		problem.Write(w, problem.New("cross-origin", http.StatusForbidden, "Not for other sites",
			"A page of another site sent this request. Use hack/model, or curl."))
		return
	}
	s.mux.ServeHTTP(w, r)
}

// event takes what a PingSource sends, or somebody by hand. Its answer tells a sender that tries again when something fails
// that there is no need to: what failed is tried at the next look, and is in the states.
func (s *Service) event(w http.ResponseWriter, r *http.Request) {
	ev, err := events.ReadHTTPAttributes(r.Header)
	if err != nil {
		problem.Write(w, badRequest(err.Error()))
		return
	}
	if t := ev.Type(); t != events.TypePing && t != events.TypeModelLook {
		problem.Write(w, badRequest(fmt.Sprintf("The event has the type %.100q; a look has %s or %s.", t, events.TypePing, events.TypeModelLook)))
		return
	}
	outcomes := s.LookAll(r.Context())
	if slices.ContainsFunc(outcomes, unfinished) {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func unfinished(o rollout.Outcome) bool { return o == rollout.UnderWay || o == rollout.Busy }

func (s *Service) list(w http.ResponseWriter, r *http.Request) {
	states, err := s.States(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	write(w, http.StatusOK, Networks{states})
}

// of finds the network that a path names.
func (s *Service) of(handle func(http.ResponseWriter, *http.Request, Network)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		found, ok := s.find(name)
		if !ok {
			problem.Write(w, problem.New("unknown-network", http.StatusNotFound, "No such network",
				fmt.Sprintf("No network or model %.100q has a source. There are: %s.", name, s.known())))
			return
		}
		handle(w, r, found)
	}
}

// known are the names that find takes.
func (s *Service) known() string {
	names := make([]string, 0, len(s.Networks))
	for _, n := range s.Networks {
		names = append(names, n.Name+" ("+strings.Join(n.modelNames(), ", ")+")")
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func (s *Service) show(w http.ResponseWriter, r *http.Request, n Network) {
	state, err := n.Rollout.State(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	write(w, http.StatusOK, trimmed(state))
}

// lookNow looks, within the request. 202 says that it goes on at the next look.
func (s *Service) lookNow(w http.ResponseWriter, r *http.Request, n Network) {
	outcome, err := s.look(r.Context(), n)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	state, err := n.Rollout.State(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	status := http.StatusOK
	if unfinished(outcome) {
		status = http.StatusAccepted
	}
	write(w, status, Looked{outcome, trimmed(state)})
}

func (s *Service) rollback(w http.ResponseWriter, r *http.Request, n Network) {
	var command struct {
		To int64 `json:"to"`
	}
	if !read(w, r, &command) {
		return
	}
	if command.To < 0 {
		problem.Write(w, badRequest("\"to\" is a version, which is a positive number; leave it out for the version before."))
		return
	}
	s.command(w, r, n, func(ctx context.Context) (rollout.State, error) { return n.Rollout.Rollback(ctx, command.To) })
}

func (s *Service) allow(w http.ResponseWriter, r *http.Request, n Network) {
	var command struct {
		Version int64 `json:"version"`
	}
	if !read(w, r, &command) {
		return
	}
	if command.Version < 1 {
		problem.Write(w, badRequest("\"version\" is missing: the one to allow."))
		return
	}
	s.command(w, r, n, func(ctx context.Context) (rollout.State, error) { return n.Rollout.Allow(ctx, command.Version) })
}

// command does what an operator wants, in a time of its own: who began to take a version back ends it, even when nobody waits
// for the answer any more.
func (s *Service) command(w http.ResponseWriter, r *http.Request, n Network, do func(context.Context) (rollout.State, error)) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), commandTimeout)
	defer cancel()
	state, err := do(ctx)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.measure(ctx, n, "")
	write(w, http.StatusOK, trimmed(state))
}

// fail answers with what went wrong. Who may ask here may read it all.
func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, rollout.ErrNothing):
		problem.Write(w, problem.New("nothing-before", http.StatusConflict, "There is no version to go back to", sentence(err)))
	case errors.Is(err, rollout.ErrGone):
		problem.Write(w, problem.New("version-gone", http.StatusConflict, "The version is not kept", sentence(err)))
	case errors.Is(err, rollout.ErrNotRefused):
		problem.Write(w, problem.New("not-refused", http.StatusConflict, "The version was not refused", sentence(err)))
	default:
		s.Logger.ErrorContext(r.Context(), "a request failed", "path", r.URL.Path, "error", err)
		p := problem.New("failed", http.StatusServiceUnavailable, "That did not work", sentence(err))
		p.RetryAfter = 10
		problem.Write(w, p)
	}
}

func sentence(err error) string {
	const most = 1000
	text := err.Error()
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// read reads a command, strictly. No body at all is an empty command.
func read(w http.ResponseWriter, r *http.Request, command any) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		problem.Write(w, badRequest(fmt.Sprintf("The body cannot be read, or has more than %d bytes.", maxBody)))
		return false
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return true
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(command); err != nil {
		problem.Write(w, badRequest("The body is not what is asked for here: "+sentence(err)))
		return false
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		problem.Write(w, badRequest("The body goes on after the command."))
		return false
	}
	return true
}

func badRequest(detail string) *problem.Details {
	return problem.New("bad-request", http.StatusBadRequest, "The request makes no sense", detail)
}

func write(w http.ResponseWriter, status int, v any) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false) // people read it too, and browsers take it for nothing but JSON
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		problem.Write(w, problem.From(err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = body.WriteTo(w) // the client hung up: nobody is left to tell
}
