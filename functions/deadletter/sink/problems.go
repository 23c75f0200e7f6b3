package sink

import (
	"fmt"
	"net/http"

	"github.com/ebb-inference/ebb/events/parking"
	"github.com/ebb-inference/ebb/events/problem"
)

// gaveUp is what the requester is told: whether asking again makes sense depends on what the last attempt met. attempts is
// how many a Trigger has made when it gives up on a status or the lack of one; 0 when nobody knows.
func gaveUp(l letter, attempts int) *problem.Details {
	status := l.Status()
	if status == parking.StatusUnknown { // it waited too long, perhaps, and was not tried at all
		attempts = 0
	}
	tried := "The last attempt"
	switch {
	case attempts == 1:
		tried = "One attempt was made, and it"
	case attempts > 1:
		tried = fmt.Sprintf("%d attempts were made, and the last one", attempts)
	}
	var p *problem.Details
	switch status {
	case parking.StatusNoAnswer, http.StatusRequestTimeout, http.StatusGatewayTimeout:
		p = problem.New("no-answer", http.StatusGatewayTimeout, "The model did not answer",
			tried+" had no answer in time. Try again in a while; if it stays, tell the operator.")
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		p = problem.New("model-unavailable", http.StatusServiceUnavailable, "The model is not available",
			fmt.Sprintf("%s was answered with status %d: the model is overloaded, or away. Try again in a while.", tried, status))
		p.RetryAfter = 10
	case parking.StatusUnknown:
		p = problem.New("gave-up", http.StatusBadGateway, "The model failed",
			"The broker gave up and does not say why: the event waited too long, perhaps. Tell the operator the request's id.")
	default:
		p = problem.New("gave-up", http.StatusBadGateway, "The model failed",
			fmt.Sprintf("%s was answered with status %d. Tell the operator the request's id.", tried, status))
	}
	p.Attempts = attempts
	p.Instance = problem.InstanceOf(l.Event.ID())
	return p
}
