package problem_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events/problem"
)

func TestNewAndError(t *testing.T) {
	t.Parallel()
	d := problem.New("too-large", 413, "The picture is too large", "It has 12 MB; send at most 10 MB.")
	require.Equal(t, &problem.Details{
		Type: "urn:ebb:problem:too-large", Title: "The picture is too large", Status: 413, Detail: "It has 12 MB; send at most 10 MB.",
	}, d)
	require.EqualError(t, d, "The picture is too large: It has 12 MB; send at most 10 MB.")
	d.Detail = ""
	require.EqualError(t, d, "The picture is too large")
}

func TestAProblemKnowsItsKindAndItsRequest(t *testing.T) {
	t.Parallel()
	d := problem.New("too-large", 413, "The picture is too large", "")
	require.Equal(t, "too-large", d.Code())
	require.Empty(t, d.RequestID())
	d.Instance = problem.InstanceOf("0198c2a4-0000-7000-8000-000000000001")
	require.Equal(t, "urn:uuid:0198c2a4-0000-7000-8000-000000000001", d.Instance)
	require.Equal(t, "0198c2a4-0000-7000-8000-000000000001", d.RequestID())
	d.Instance = "/somewhere/else"
	require.Empty(t, d.RequestID())
}

func TestWriteAnswersWithProblemDetails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		problem    problem.Details
		status     int
		retryAfter string
		body       string
	}{
		"plain": {problem.Details{Type: "urn:ebb:problem:x", Title: "X", Status: 404}, 404, "",
			`{"type":"urn:ebb:problem:x","title":"X","status":404}`},
		"all members": {problem.Details{Type: "urn:ebb:problem:busy", Title: "Busy", Status: 503, Detail: "Come back.", Instance: "urn:uuid:1", RetryAfter: 2}, 503, "2",
			`{"type":"urn:ebb:problem:busy","title":"Busy","status":503,"detail":"Come back.","instance":"urn:uuid:1","retry_after":2}`},
		"what people read": {problem.Details{Type: "t", Title: "X", Status: 400, Detail: "Write ?a=1&b=<2>."}, 400, "",
			`{"type":"t","title":"X","status":400,"detail":"Write ?a=1&b=<2>."}`},
		"a status of success is not written": {problem.Details{Type: "t", Title: "X", Status: 200}, 500, "", `{"type":"t","title":"X","status":500}`},
		"nor one that is not a status":       {problem.Details{Type: "t", Title: "X"}, 500, "", `{"type":"t","title":"X","status":500}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			problem.Write(w, &c.problem)
			require.Equal(t, c.status, w.Code)
			require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
			require.Equal(t, c.retryAfter, w.Header().Get("Retry-After"))
			require.Equal(t, c.body+"\n", w.Body.String())
		})
	}
}

func TestFromFindsTheProblemAndHidesEverythingElse(t *testing.T) {
	t.Parallel()
	d := problem.New("busy", http.StatusServiceUnavailable, "Busy", "")
	require.Same(t, d, problem.From(d))
	require.Same(t, d, problem.From(fmt.Errorf("asking: %w", d)))
	require.Nil(t, problem.From(nil))

	internal := problem.From(errors.New("dial 10.0.0.7: password is hunter2"))
	require.Equal(t, "urn:ebb:problem:internal", internal.Type)
	require.Equal(t, 500, internal.Status)
	require.NotContains(t, internal.Error(), "hunter2")

	var none *problem.Details
	require.Equal(t, 500, problem.From(fmt.Errorf("typed nil: %w", none)).Status)
}
