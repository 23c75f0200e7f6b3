package callback

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/events/problem"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
	"github.com/ebb-inference/ebb/functions/ingress/outside"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// local is a Caller that may call this machine.
func local() *Caller {
	return New(Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func response() *ask.Response {
	yes, p := true, 0.75
	return &ask.Response{ID: "0198c0de-0000-7000-8000-000000000001", Results: []ask.Result{
		{Model: "cat", Answer: &yes, Probability: &p, Top: []events.Class{{Label: "<tabby>", Probability: 0.5}}},
		{Model: "dog", Error: problem.New("x", 503, "X", "X.")},
	}}
}

func TestAnAnswerArrivesAsACloudEvent(t *testing.T) {
	t.Parallel()
	type call struct {
		req  *http.Request
		body []byte
	}
	calls := make(chan call, 1)
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		calls <- call{r, body}
		w.WriteHeader(http.StatusAccepted)
	})
	for _, failed := range []bool{false, true} {
		sent, typ := response(), events.TypeCompleted
		if failed {
			sent.Results, typ = sent.Results[1:], events.TypeFailed
		}
		require.NoError(t, local().Call(t.Context(), base+"/hook?secret=s", sent))
		got := <-calls
		require.Equal(t, http.MethodPost, got.req.Method)
		require.Equal(t, "/hook?secret=s", got.req.URL.String())
		ev, err := events.ReadHTTPAttributes(got.req.Header)
		require.NoError(t, err)
		require.Equal(t, typ, ev.Type())
		require.Equal(t, sent.ID, ev.ID())
		require.Equal(t, "/ebb/requests", ev.Source())
		require.Equal(t, "application/json", ev.DataContentType())
		var read ask.Response
		require.NoError(t, json.Unmarshal(got.body, &read))
		require.Equal(t, sent, &read)
	}
}

func TestWhatTheReceiverSaysDecidesWhetherItIsCalledAgain(t *testing.T) {
	t.Parallel()
	followed := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") })
	for status, again := range map[int]bool{
		200: false, 204: false, 299: false,
		301: false, 307: false, 400: false, 401: false, 404: false, 410: false, 413: false,
		408: true, 425: true, 429: true, 500: true, 502: true, 503: true, 504: true,
	} {
		base := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", followed)
			w.WriteHeader(status)
		})
		err := local().Call(t.Context(), base, response())
		switch {
		case status < 300:
			require.NoError(t, err, status)
		case again:
			require.ErrorIs(t, err, ask.ErrCallAgain, status)
		default:
			require.Error(t, err, status)
			require.NotErrorIs(t, err, ask.ErrCallAgain, status)
		}
	}
}

func TestWhoDoesNotAnswerIsCalledAgain(t *testing.T) {
	t.Parallel()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	require.ErrorIs(t, local().Call(t.Context(), "http://"+ln.Addr().String(), response()), ask.ErrCallAgain)

	over := make(chan struct{})
	slow := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
		case <-over:
		}
	})
	defer close(over)
	c := local()
	c.cfg.Timeout = 50 * time.Millisecond
	err = c.Call(t.Context(), slow, response())
	require.ErrorIs(t, err, ask.ErrCallAgain)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestAddressesThatAreNotPublicAreNotCalled(t *testing.T) {
	t.Parallel()
	base := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("it was called") })
	c := New(Config{})
	for _, address := range []string{
		base, strings.Replace(base, "127.0.0.1", "localhost", 1), "http://169.254.169.254/latest/meta-data", "http://10.0.0.1", "http://[::1]:8080",
	} {
		err := c.Call(t.Context(), address, response())
		require.ErrorIs(t, err, outside.ErrForbidden, address)
		require.NotErrorIs(t, err, ask.ErrCallAgain, address)
	}
	require.ErrorIs(t, c.Call(t.Context(), "http://1.1.1.1:22", response()), outside.ErrPort)
}

func TestAnAddressThatCannotBeCalledIsRefused(t *testing.T) {
	t.Parallel()
	c := New(Config{})
	for address, detail := range map[string]string{
		"":                           "begins with http",
		"example.com/hook":           "begins with http",
		"ftp://example.com":          "begins with http",
		"http://":                    "begins with http",
		"http://%zz":                 "begins with http",
		"https://me:pw@example.com/": "password",
		"https://example.com/" + strings.Repeat("a", 2048): "longer than 2048",
	} {
		var p *problem.Details
		require.ErrorAs(t, c.Check(address), &p, address)
		require.Equal(t, http.StatusBadRequest, p.Status)
		require.Contains(t, p.Detail, detail)
		require.NotContains(t, p.Detail, "pw")
		require.Error(t, c.Call(t.Context(), address, response()))
	}
	require.NoError(t, c.Check("https://example.com/hook?a=b"))
}
