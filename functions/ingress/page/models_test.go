package page_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/functions/ingress/networks"
	"github.com/ebb-inference/ebb/functions/ingress/page"
	"github.com/ebb-inference/ebb/functions/ingress/page/pagetest"
)

// reporter says how networks do, as a test wants.
type reporter struct {
	mu  sync.Mutex
	all []networks.Network
	err error
}

func (r *reporter) Networks(context.Context) ([]networks.Network, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all, r.err
}

func (r *reporter) say(all ...networks.Network) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = all
}

// report is a network in the middle of much.
func report() networks.Network {
	now := time.Now()
	return networks.Network{
		Name: "inception_v3", Models: []string{"cat", "dog", "imagenet"}, Source: "gs://models/inception_v3", Serving: 2, Previous: 1,
		Since: now.Add(-3 * time.Hour), LastCheck: now.Add(-20 * time.Second),
		Candidate: &networks.Candidate{Version: 5, Phase: "shift", Percent: 10, Began: now.Add(-2 * time.Minute)},
		Refused: []networks.Refusal{
			{Version: 3, Reason: `file "model.onnx": version is corrupt: it is not what SHA256SUMS says`, By: "check", Time: now.Add(-2 * time.Hour)},
			{Version: 4, Reason: "model cat: golden picture <b>cat.jpg</b>: the answer is no (0.800), and yes is known", By: "check", Time: now.Add(-time.Hour)},
		},
		LastFailure: &networks.Failure{Time: now.Add(-10 * time.Minute), Reason: "list the versions at gs://models/inception_v3: no route to host"},
		History: []networks.Entry{
			{Time: now.Add(-3 * time.Hour), Event: "serving", Version: 2},
			{Time: now.Add(-2 * time.Hour), Event: "refused", Version: 3},
			{Time: now.Add(-time.Minute), Event: "shifted", Version: 5, Percent: 10},
		},
	}
}

func serveNetworks(t *testing.T, r page.Networks) string {
	t.Helper()
	s := httptest.NewServer(page.New(page.Config{
		Asker: &asker{}, Fetcher: nil, Networks: r, Logger: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func lookAt(t *testing.T, url string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = w.Body.ReadFrom(resp.Body)
	require.NoError(t, err)
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	return resp.StatusCode, w.Body.String()
}

func TestThePageAboutNetworksIsThereWhenSomebodyKnowsAboutThem(t *testing.T) {
	t.Parallel()
	status, _ := lookAt(t, serveNetworks(t, nil)+"/home/models")
	require.Equal(t, http.StatusNotFound, status)
	_, text := lookAt(t, serveNetworks(t, nil)+"/home")
	require.NotContains(t, text, "/home/models")

	url := serveNetworks(t, &reporter{})
	_, text = lookAt(t, url+"/home")
	require.Contains(t, text, `href="/home/models"`)
	status, text = lookAt(t, url+"/home/models")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, text, "No network has a source")
}

func TestThePageSaysWhenModelsyncIsAway(t *testing.T) {
	t.Parallel()
	status, text := lookAt(t, serveNetworks(t, &reporter{err: fmt.Errorf("%w: secret", networks.ErrAway)})+"/home/models")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, text, "modelsync does not answer")
	require.NotContains(t, text, "secret")
	status, _ = lookAt(t, serveNetworks(t, &reporter{err: errors.New("odd")})+"/home/models")
	require.Equal(t, http.StatusServiceUnavailable, status)
}

func TestWhatAPublisherWroteIsText(t *testing.T) {
	t.Parallel()
	r := &reporter{}
	r.say(report())
	_, text := lookAt(t, serveNetworks(t, r)+"/home/models")
	require.Contains(t, text, "golden picture &lt;b&gt;cat.jpg&lt;/b&gt;")
	require.Contains(t, text, `<meta http-equiv="refresh" content="4">`, "something is going on")
	idle := report()
	idle.Candidate = nil
	r.say(idle)
	_, text = lookAt(t, serveNetworks(t, r)+"/home/models")
	require.Contains(t, text, `<meta http-equiv="refresh" content="20">`)
}

func TestEveryPhaseAndEventHasItsWords(t *testing.T) {
	t.Parallel()
	for phase, words := range map[string]string{
		"fetch": "is being fetched", "stage": "is being started", "check": "pictures whose answers are known",
		"shift": "is being watched with 10", "settle": "with all of the traffic", "another": "is on its way",
	} {
		n := report()
		n.Candidate.Phase = phase
		n.History = nil
		for _, event := range []string{"found", "staged", "returned", "allowed", "another"} {
			n.History = append(n.History, networks.Entry{Event: event, Version: 9, Time: time.Now()})
		}
		n.Refused = []networks.Refusal{{Version: 9, From: 7, By: "operator"}, {Version: 6, By: "watch"}}
		r := &reporter{}
		r.say(n)
		_, text := lookAt(t, serveNetworks(t, r)+"/home/models")
		text = strings.ReplaceAll(text, "\u00a0", " ")
		for _, want := range []string{words, "Version 9 was found", "Version 9 serves again", "Versions 7 to 9 taken back", "Version 6 refused, by how it did"} {
			require.Contains(t, text, want)
		}
	}
}

func TestThePageAboutNetworksInABrowser(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]pagetest.Option{
		"light": {pagetest.NoScript()},
		"dark":  {pagetest.Dark()},
		"phone": {pagetest.Phone(320)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &reporter{}
			r.say(report())
			b, err := browser()
			require.NoError(t, err)
			tab := b.Tab(t, append(options, pagetest.Still())...)
			tab.Open(serveNetworks(t, r) + "/home/models")
			tab.Wait("[data-network=inception_v3]")
			require.Equal(t, "Version 2 serves", tab.Text("[data-part=serving]"))
			require.Equal(t, "Version 5 is being watched with 10 % of the traffic.", tab.Text("[data-part=candidate]"))
			require.Contains(t, tab.Text("[data-part=failure]"), "no route to host")
			require.Contains(t, tab.Text("[data-part=refused]"), "and yes is known", "the newest first")
			if name != "light" { // without script nothing can be asked of the page
				require.Empty(t, pagetest.Eval[[]string](tab, contrasts))
				require.LessOrEqual(t, pagetest.Eval[int](tab, "document.documentElement.scrollWidth - innerWidth"), 0)
			}
			_, ok := pagetest.Find(tab.Tree(), "image", "10 % of the traffic")
			require.True(t, ok)
			tab.Screenshot("page-networks-" + name)

			done := report()
			done.Serving, done.Previous, done.Candidate, done.LastFailure = 5, 2, nil, nil
			r.say(done)
			tab.Wait("[data-serving='5']") // the page looks again by itself
			require.Equal(t, "Version 5 serves", tab.Text("[data-part=serving]"))
		})
	}
}
