// Package load asks an Ebb at a steady rate, and keeps account of what became of every request: whether it was answered,
// rightly, or said clearly that it was not. It is for tests and tools that break something meanwhile. What is asked, and
// which answer is right, whoever asks says; Mirror is for those whose models are the mirror's.
package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/local/mirror"
)

const (
	requestTimeout = time.Minute            // longer than ingress lets anybody wait
	pause          = 100 * time.Millisecond // before a request without an answer is sent again, and between two looks
	tries          = 20                     // of one request
	collectors     = 8
	maxAnswer      = 64 << 10
)

// Plan is what is asked.
type Plan struct {
	URL      string
	Requests int
	Rate     float64 // requests a second
	First    int     // number of the first question; each request has one of its own
	Question func(number int) (Question, error)
	Later    int // of how many requests one is asked asynchronously; 0: of none
	// Gateway says that something is in front of ingress, which answers 502, 503 or 504 in words of its own when a connection
	// to ingress breaks. Such a request is sent again, as one whose connection broke is.
	Gateway bool
	// Before is called before a request is sent, with how many were. The next one waits for it.
	Before func(sent int)
	// Enough, once it is closed, ends the sending before all Requests were sent.
	Enough <-chan struct{}
}

// Question is a picture, and the model that is asked about it.
type Question struct {
	Model   string
	Picture []byte
	Check   func(ask.Result) error // says what is wrong with an answer of the model
}

// Mirror is the question about the mirror's picture of a number.
func Mirror(number int) (Question, error) {
	model := mirror.Names[number%len(mirror.Names)]
	picture, err := mirror.Picture(number)
	return Question{model, picture, func(r ask.Result) error { return mirror.Check(model, number, r.Top) }}, err
}

// Load is requests under way.
type Load struct {
	plan   Plan
	client *http.Client

	mu       sync.Mutex
	account  Account
	accepted []request // that are to be collected
}

// request is one question that is asked.
type request struct {
	Question
	number int
	path   string // of the answer, when it was accepted
}

// New makes a Load.
func New(p Plan) *Load {
	return &Load{
		plan: p, account: Account{Problems: map[string]int{}},
		// A connection that is kept may be closed by the server in the moment in which it is used, and a POST not be repeated:
		// that would look like what is looked for.
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: requestTimeout},
	}
}

// Send sends the requests and returns when each had its response, or ctx ends.
func (l *Load) Send(ctx context.Context) {
	var asking sync.WaitGroup
	defer asking.Wait()
	began := time.Now()
	for i := range l.plan.Requests {
		due := time.NewTimer(time.Until(began.Add(time.Duration(float64(i) / l.plan.Rate * float64(time.Second)))))
		select {
		case <-due.C:
		case <-l.plan.Enough:
			due.Stop()
			return
		case <-ctx.Done():
			due.Stop()
			return
		}
		if l.plan.Before != nil {
			l.plan.Before(i)
		}
		number, later := l.plan.First+i, l.plan.Later > 0 && i%l.plan.Later == 0
		asking.Go(func() { l.ask(ctx, number, later) })
	}
}

// Collect collects what was accepted, waiting until it is there or ctx ends, and returns the account.
func (l *Load) Collect(ctx context.Context) Account {
	waiting := make(chan request, len(l.accepted))
	for _, r := range l.accepted {
		waiting <- r
	}
	close(waiting)
	var collecting sync.WaitGroup
	for range collectors {
		collecting.Go(func() {
			for r := range waiting {
				l.collect(ctx, r)
			}
		})
	}
	collecting.Wait()
	return l.account
}

// response is what came back.
type response struct {
	status int
	header http.Header
	body   []byte
}

func (l *Load) do(ctx context.Context, method, path string, body []byte, header map[string]string) (*response, error) {
	req, err := http.NewRequestWithContext(ctx, method, l.plan.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return &response{resp.StatusCode, resp.Header, answer}, errors.Join(err, resp.Body.Close())
}

// ask asks one request and puts what it was answered into the account.
func (l *Load) ask(ctx context.Context, number int, later bool) {
	header := map[string]string{"Content-Type": "application/octet-stream", "Idempotency-Key": fmt.Sprintf("load-%d", number)}
	if later {
		header["Prefer"] = "respond-async"
	}
	question, err := l.plan.Question(number)
	if err != nil {
		l.note(func(a *Account) { a.wrong(err) })
		return
	}
	r := request{Question: question, number: number}
	began := time.Now()
	var resp *response
	for range tries { // its key makes sending it again harmless
		resp, err = l.do(ctx, http.MethodPost, "/v1/infer?model="+url.QueryEscape(r.Model), r.Picture, header)
		if err == nil && !l.isGateways(resp) {
			break
		}
		why := err
		if why == nil {
			why = fmt.Errorf("status %d: %s", resp.status, resp.body)
		}
		l.note(func(a *Account) { a.Broken, a.Break = a.Broken+1, why.Error() })
		if !wait(ctx) {
			break
		}
	}
	took := time.Since(began)
	l.note(func(a *Account) {
		a.Sent++
		switch {
		case err != nil:
			a.wrong(fmt.Errorf("question %d: no answer at all: %w", r.number, err))
		case later && resp.status == http.StatusAccepted:
			a.Accepted++
			r.path = resp.header.Get("Location")
			l.accepted = append(l.accepted, r)
		default:
			a.sort(r, resp, took)
		}
	})
}

// collect looks for the answer of a request that was accepted until it is there.
func (l *Load) collect(ctx context.Context, r request) {
	for {
		resp, err := l.do(ctx, http.MethodGet, r.path, nil, nil)
		switch {
		case ctx.Err() != nil:
			l.note(func(a *Account) { a.lost(r, "it has no answer yet") })
			return
		case err == nil && resp.status != http.StatusAccepted && !comesLater(resp) && !l.isGateways(resp):
			l.note(func(a *Account) { a.sortCollected(r, resp) })
			return
		}
		wait(ctx)
	}
}

// wait waits for a moment, and says whether ctx goes on.
func wait(ctx context.Context) bool {
	moment := time.NewTimer(pause)
	defer moment.Stop()
	select {
	case <-moment.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// comesLater says whether a response says that what is asked for cannot be read at the moment.
func comesLater(r *response) bool {
	return r.status >= 500 && r.header.Get("Retry-After") != "" && resultOf(r) == nil
}

// isGateways says whether a response is of what is in front of ingress: one of ingress says what is wrong.
func (l *Load) isGateways(r *response) bool {
	switch r.status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return l.plan.Gateway && problemOf(r) == nil
	default:
		return false
	}
}

func (l *Load) note(f func(*Account)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.account)
}

// resultOf is the one result in a response, nil when there is none.
func resultOf(r *response) *ask.Result {
	var answer ask.Response
	if json.Unmarshal(r.body, &answer) != nil || len(answer.Results) != 1 {
		return nil
	}
	return &answer.Results[0]
}

// problemOf is the problem in a response, nil when there is none.
func problemOf(r *response) *problem.Details {
	if result := resultOf(r); result != nil {
		return result.Error
	}
	var p problem.Details
	if err := json.Unmarshal(r.body, &p); err == nil && p.Status == r.status {
		return &p
	}
	return nil
}

// check says what is wrong with a response of status 200.
func check(r request, resp *response) error {
	result := resultOf(resp)
	switch {
	case result == nil:
		return fmt.Errorf("question %d: no result, or several: %s", r.number, resp.body)
	case result.Model != r.Model:
		return fmt.Errorf("question %d: an answer of %s, want %s", r.number, result.Model, r.Model)
	}
	if err := r.Check(*result); err != nil {
		return fmt.Errorf("question %d: %w", r.number, err)
	}
	return nil
}
