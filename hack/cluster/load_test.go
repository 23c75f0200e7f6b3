package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	inference "github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/local/load"
)

const (
	rate  = 5    // requests a second: what two cores take beside a cluster's own work, and pods that start
	later = 3    // of so many requests one is asked asynchronously
	most  = 4000 // requests under one load: what patience has time for, several times
)

// shown are the pictures, and what is on them.
var shown = []struct{ file, model string }{{"chelsea.png", "cat"}, {"dog.jpg", "dog"}, {"coffee.png", "imagenet"}}

// catsAndDogs are questions whose neighbours have other answers, so that one of somebody else's is seen.
func catsAndDogs(number int) (load.Question, error) {
	return question(number, []string{"cat", "dog"}[number%2])
}

// question asks a model about one picture after another.
func question(number int, model string) (load.Question, error) {
	on := shown[number/2%len(shown)]
	data, err := os.ReadFile(pictures + on.file)
	return load.Question{Model: model, Picture: data, Check: func(r inference.Result) error {
		if r.ServedBy == nil || r.ServedBy.Version == 0 || len(r.Top) == 0 {
			return fmt.Errorf("%s, %s: an answer of no network", model, on.file)
		}
		if model != "imagenet" && (r.Answer == nil || *r.Answer != (model == on.model)) {
			return fmt.Errorf("%s, %s: the answer is wrong, or another picture's", model, on.file)
		}
		return nil
	}}, err
}

// under asks steadily, has happen what does while it asks, asks on for a while, and returns what became of each request, once
// all is collected and no event waits for anybody.
func under(t *testing.T, what string, question func(int) (load.Question, error), happen func(context.Context) error) load.Account {
	t.Helper()
	const before, after = 8 * time.Second, 12 * time.Second
	enough, happened := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(enough)
		err := errors.Join(pause(t.Context(), before), happen(t.Context()))
		happened <- errors.Join(err, pause(t.Context(), after))
	}()
	l := load.New(load.Plan{
		URL: address(t), Requests: most, Rate: rate, Question: question, Later: later, Gateway: true, Enough: enough,
		First: int(time.Now().UnixMilli()), // a number, and so a key, that no earlier run has used
	})
	began := time.Now()
	l.Send(t.Context())
	require.NoError(t, <-happened)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	account := l.Collect(ctx)
	t.Logf("%s, %.0f s: %s", what, time.Since(began).Seconds(), &account)
	require.Empty(t, account.Lost)
	require.Empty(t, account.Wrong)
	require.Equal(t, account.Sent, account.Answered+account.Accepted+account.Failed())
	require.Equal(t, account.Accepted, account.Collected+account.Told)
	require.NotZero(t, account.Accepted)
	eventually(t, func() string { return waits(t) })
	return account
}

// pause waits while requests are sent.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waits is what waits in the queues of Triggers.
func waits(t *testing.T) string {
	t.Helper()
	var waiting []string
	for _, q := range queues(t) {
		if q.Messages > 0 && !strings.HasPrefix(q.Name, "ebb.mailbox.") && q.Name != parkingPlace {
			waiting = append(waiting, fmt.Sprintf("%d in %s", q.Messages, q.Name))
		}
	}
	return strings.Join(waiting, ", ")
}

// became says in short what became of requests.
func became(a load.Account) string {
	said := fmt.Sprintf("%d answered, %d accepted and collected, 0 lost", a.Answered, a.Collected)
	for _, code := range slices.Sorted(maps.Keys(a.Problems)) {
		said += fmt.Sprintf("; %d refused: %s", a.Problems[code], code)
	}
	if a.Broken > 0 {
		said += fmt.Sprintf("; a connection broke %d times, and the request was sent again", a.Broken)
	}
	return said
}
