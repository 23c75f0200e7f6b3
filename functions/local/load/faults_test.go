package load_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/functions/local/load"
	"github.com/ebb-inference/ebb/functions/local/mirror"
	"github.com/ebb-inference/ebb/functions/local/stack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	requests  = 2000
	rate      = 200             // a second: what two busy cores take
	lastWords = 4 << 10         // of each program, in the log of a test that failed
	patience  = 2 * time.Minute // for what must happen
)

// Every request that was accepted is answered, rightly, or somebody is told that it is not, whatever ends meanwhile; and who
// was not accepted heard so.
func TestNoAcceptedRequestIsLostWhateverEnds(t *testing.T) {
	t.Parallel()
	s, err := stack.Start(t.Context(), stack.Config{Env: map[string][]string{"ingress": {"TIMEOUT=15s"}}})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for name := range s.Pids() {
				if text, err := s.Log(name); err == nil { // the data plane's programs have none
					t.Logf("=== %s\n%s", name, text[max(0, len(text)-lastWords):])
				}
			}
		}
		require.NoError(t, s.Stop(context.Background()))
	})
	kill := func(name string) func(context.Context) error {
		return func(context.Context) error { return s.Kill(name) }
	}
	for i, fault := range []struct {
		name   string
		strike func(context.Context) error
	}{
		{"kill -9 of dispatch", kill("dispatch-" + mirror.Plain)},
		{"kill -9 of a Knative dispatcher", kill("dispatcher of ebb/" + mirror.Plain)},
		{"kill -9 of Knative's broker ingress", kill("broker ingress")},
		{"kill -9 of ingress", kill("ingress")},
		{"a restart of RabbitMQ", s.RestartRabbitMQ},
	} {
		before := duplicates(t, s)
		struck := make(chan error, 1)
		l := load.New(load.Plan{
			URL: s.URL(), Requests: requests, Rate: rate, Question: load.Mirror, First: i * requests, Later: 4,
			Before: func(sent int) {
				if sent == requests/3 {
					go func() { struck <- fault.strike(t.Context()) }()
				}
			},
		})
		began := time.Now()
		l.Send(t.Context())
		require.NoError(t, <-struck, fault.name)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		account := l.Collect(ctx)
		cancel()
		t.Logf("%s, %.0f s:\n%s; %s", fault.name, time.Since(began).Seconds(), &account, duplicates(t, s).since(before))

		require.Empty(t, account.Lost, fault.name)
		require.Empty(t, account.Wrong, fault.name)
		require.Equal(t, requests, account.Sent, fault.name)
		require.Equal(t, requests, account.Answered+account.Accepted+account.Failed(), fault.name)
		require.Equal(t, account.Accepted, account.Collected+account.Told, fault.name)
		require.NotZero(t, account.Answered, fault.name)
		require.NotZero(t, account.Collected, fault.name)
		ctx, cancel = context.WithTimeout(t.Context(), patience)
		require.NoError(t, s.WaitReady(ctx), fault.name)
		cancel()
	}
}

// repeats is what came more than once and was seen to: by dispatch, before it computed anything, and by ingress, which had had
// the answer.
type repeats struct{ deliveries, answers float64 }

func (r repeats) String() string {
	return fmt.Sprintf("%.0f repeated deliveries, %.0f answers that nobody waited for any more", r.deliveries, r.answers)
}

// since is what came since before. Who was killed meanwhile has begun to count anew.
func (r repeats) since(before repeats) repeats {
	return repeats{max(r.deliveries-before.deliveries, 0), max(r.answers-before.answers, 0)}
}

func duplicates(t *testing.T, s *stack.Stack) (r repeats) {
	t.Helper()
	for _, name := range mirror.Names {
		r.deliveries += measured(t, s.MetricsURL("dispatch-"+name), "ebb_dispatch_requests_total", `outcome="duplicate"`)
	}
	r.answers = measured(t, s.MetricsURL("ingress"), "ebb_replies_unclaimed_total", "")
	return r
}

// measured sums up the values of a counter whose attributes have a text in them.
func measured(t *testing.T, url, counter, attributes string) (sum float64) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, resp.Body.Close()) }()
	for lines := bufio.NewScanner(io.LimitReader(resp.Body, 1<<20)); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), "} ")
		if !ok || !strings.HasPrefix(name, counter+"{") || !strings.Contains(name, attributes) {
			continue
		}
		v, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
		require.NoError(t, err)
		sum += v
	}
	return sum
}
