package ask

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/models"
)

// MaxKeyLength is how long a Question's Key may be.
const MaxKeyLength = 255

// ValidKey says whether key may be a Question's: 1 to MaxKeyLength visible characters of ASCII.
func ValidKey(key string) bool {
	for _, c := range []byte(key) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return key != "" && len(key) <= MaxKeyLength
}

// keyedID is the id of a request whose caller named it by a key: the same for the same key, models and picture, and
// another for another question, so that nobody gets the answer to a question that they did not ask.
func keyedID(key string, asked []*models.Model, picture []byte) string {
	parts := [][]byte{[]byte("request"), []byte(key)}
	for _, m := range asked {
		parts = append(parts, []byte(m.Name))
	}
	return digestID(append(parts, picture)...)
}

// keyedEventID is the id of the event to one model of such a request: dispatch then knows the question again, whichever
// replica of ingress asks it.
func keyedEventID(requestID, model string) string {
	return digestID([]byte("event"), []byte(requestID), []byte(model))
}

// digestID is a UUIDv8 of the SHA-256 of parts.
func digestID(parts ...[]byte) string {
	h := sha256.New()
	var length [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(length[:], uint64(len(p))) // or two questions could be one text
		_, _ = h.Write(length[:])                             // a hash takes everything
		_, _ = h.Write(p)
	}
	id := uuid.UUID(h.Sum(nil)[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// errLeft says that somebody did not wait for the end of a flight.
var errLeft = errors.New("left a flight")

// flights are the keyed questions under way. Who asks one that is under way waits for its answer. It is bounded by who
// asks: an entry stays as long as somebody waits for it.
type flights struct {
	mu       sync.Mutex
	underWay map[string]*flight
}

type flight struct {
	waiting  int // guarded by flights.mu
	end      context.CancelFunc
	done     chan struct{} // closed when response is there
	response *Response
	err      error
}

// fly returns what ask returns, which is called once for all who want the same at the same time. It ends early only when
// nobody wants it any more. The error is errLeft when ctx ended first.
func (f *flights) fly(ctx context.Context, id string, ask func(context.Context) (*Response, error)) (*Response, error) {
	fl := f.board(ctx, id, ask)
	defer f.leave(id, fl)
	select {
	case <-fl.done:
		return fl.response, fl.err
	case <-ctx.Done():
		return nil, errLeft
	}
}

func (f *flights) board(ctx context.Context, id string, ask func(context.Context) (*Response, error)) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl := f.underWay[id]
	if fl == nil {
		own, end := context.WithCancel(context.WithoutCancel(ctx))
		fl = &flight{end: end, done: make(chan struct{})}
		f.underWay[id] = fl
		go func() {
			defer close(fl.done)
			fl.response, fl.err = ask(own)
		}()
	}
	fl.waiting++
	return fl
}

// leave ends a flight that nobody waits for any more, and waits until it has ended.
func (f *flights) leave(id string, fl *flight) {
	f.mu.Lock()
	fl.waiting--
	last := fl.waiting == 0
	if last {
		delete(f.underWay, id)
	}
	f.mu.Unlock()
	if last {
		fl.end()
		<-fl.done
	}
}

// askKeyed asks a question that others may be asking, too.
func (s *Service) askKeyed(ctx context.Context, id string, asked []*models.Model, ask func(context.Context) (*Response, error)) (*Response, error) {
	began := time.Now()
	response, err := s.flights.fly(ctx, id, ask)
	if !errors.Is(err, errLeft) {
		return response, err
	}
	// Others may still wait; this caller does not, and hears what all hear who stop waiting.
	why := noAnswerInTime
	switch {
	case s.stopping.Err() != nil:
		why = stopping
	case errors.Is(ctx.Err(), context.Canceled):
		why = callerGone
	}
	response = &Response{ID: id, Results: make([]Result, len(asked))}
	for i, m := range asked {
		p := why()
		p.Instance = problem.InstanceOf(id)
		response.Results[i] = Result{Model: m.Name, Question: m.Question, Error: p}
		s.meter.done(ctx, m.Name, p.Code(), time.Since(began))
	}
	return response, nil
}
