package load

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ebb-inference/ebb/functions/ingress/ask"
)

// Account is what became of requests. Each that was sent is in one of Answered, Accepted, Problems and Wrong; and each
// that was accepted, when it was collected, in one of Collected, Told, Lost and Wrong.
type Account struct {
	Sent     int
	Answered int             // rightly, at once
	Took     []time.Duration // until each of those; the order is nobody's
	Accepted int             // to be collected
	Problems map[string]int  // answered 5xx and why, by the problem's code
	Broken   int             // how often a connection broke before there was an answer; the request is sent again
	Break    string          // how one broke last

	Collected int // answered rightly, later
	Told      int // that there will be no answer: a dead letter
	Lost      []string
	Wrong     []string // answers that are somebody else's, or no clear word
}

// Failed is how many were answered 5xx.
func (a *Account) Failed() int {
	sum := 0
	for _, n := range a.Problems {
		sum += n
	}
	return sum
}

func (a *Account) String() string {
	problems := make([]string, 0, len(a.Problems))
	for _, code := range slices.Sorted(maps.Keys(a.Problems)) {
		problems = append(problems, fmt.Sprintf("%s %d", code, a.Problems[code]))
	}
	broken := fmt.Sprintf("%d connections broke", a.Broken)
	if a.Broken > 0 {
		broken += fmt.Sprintf(" (the last: %s)", a.Break)
	}
	return fmt.Sprintf("%d sent: %d answered, %d accepted (%d collected, %d told that there is no answer), %d failed (%s), %s; %d lost, %d wrong",
		a.Sent, a.Answered, a.Accepted, a.Collected, a.Told, a.Failed(), strings.Join(problems, ", "), broken, len(a.Lost), len(a.Wrong))
}

func (a *Account) wrong(err error) { a.Wrong = append(a.Wrong, err.Error()) }

func (a *Account) lost(r request, why string) {
	a.Lost = append(a.Lost, fmt.Sprintf("question %d, %s: %s", r.number, r.path, why))
}

// sort puts a final response to a request into the account.
func (a *Account) sort(r request, resp *response, took time.Duration) {
	p := problemOf(resp)
	switch {
	case resp.status == http.StatusOK:
		if err := check(r, resp); err != nil {
			a.wrong(err)
			return
		}
		a.Answered++
		a.Took = append(a.Took, took)
	case resp.status >= 500 && p != nil && p.Code() != "":
		a.Problems[p.Code()]++
	default:
		a.wrong(fmt.Errorf("question %d: status %d: %s", r.number, resp.status, resp.body))
	}
}

// sortCollected does so with a request that was accepted.
func (a *Account) sortCollected(r request, resp *response) {
	p := problemOf(resp)
	switch {
	case resp.status == http.StatusOK:
		if err := check(r, resp); err != nil {
			a.wrong(err)
			return
		}
		a.Collected++
	case resp.status >= 500 && p != nil && p.Code() != "" && p.Code() != ask.CodeNoAnswerInTime:
		a.Told++
	default:
		a.lost(r, fmt.Sprintf("status %d: %s", resp.status, resp.body))
	}
}
