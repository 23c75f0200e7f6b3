package system_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
	"github.com/ebb-inference/ebb/functions/ingress/ask"
)

// later asks about a picture without waiting, and returns where the answer is to be collected.
func later(t *testing.T, query string, picture []byte, header ...string) (location string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v1/infer?"+query, bytes.NewReader(picture))
	require.NoError(t, err)
	req.Header.Set("Prefer", "respond-async")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, resp.StatusCode, "%s", body)
	return resp.Header.Get("Location")
}

// collect looks until the answer is whole.
func collect(t *testing.T, location string) []ask.Result {
	t.Helper()
	var status int
	var data []byte
	if !assert.Eventually(t, func() bool {
		status, data = send(t, http.MethodGet, location, "", nil)
		return status != http.StatusAccepted
	}, time.Minute, 20*time.Millisecond) || status != http.StatusOK {
		t.Fatalf("%d: %s", status, data)
	}
	return decode[ask.Response](t, data).Results
}

func TestWhoDoesNotWaitCollectsTheAnswerAgainAndAgainUntilItIsDropped(t *testing.T) {
	t.Parallel()
	location := later(t, "model=cat&model=dog", read(t, "dog.jpg"))
	for range 3 {
		got := collect(t, location)
		require.Len(t, got, 2)
		requireSure(t, got[0], "cat", false)
		requireSure(t, got[1], "dog", true)
	}
	status, _ := send(t, http.MethodDelete, location, "", nil)
	require.Equal(t, http.StatusNoContent, status)
	status, data := send(t, http.MethodGet, location, "", nil)
	require.Contains(t, []int{http.StatusNotFound, http.StatusGone}, status, "%s", data)
	status, data = send(t, http.MethodGet, "/v1/requests/"+uuid.NewString(), "", nil)
	require.Equal(t, http.StatusNotFound, status, "%s", data)
}

func TestAKeyThatWasUsedNamesTheSameRequest(t *testing.T) {
	t.Parallel()
	key := uuid.NewString()
	location := later(t, "model=cat", read(t, "chelsea.png"), "Idempotency-Key", key)
	require.Equal(t, location, later(t, "model=cat", read(t, "chelsea.png"), "Idempotency-Key", key))
	requireSure(t, collect(t, location)[0], "cat", true)
	require.Equal(t, location, later(t, "model=cat", read(t, "chelsea.png"), "Idempotency-Key", key))
}

func TestAnAnswerIsBroughtToACallbackThatIsNotThereAtFirst(t *testing.T) {
	t.Parallel()
	type call struct {
		header http.Header
		body   []byte
	}
	calls := make(chan call, 10)
	var refused atomic.Bool
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if !refused.Swap(true) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		calls <- call{r.Header, body}
	}))
	t.Cleanup(receiver.Close)
	location := later(t, "model=dog&callback="+url.QueryEscape(receiver.URL+"/hook"), read(t, "dog.jpg"))
	for range 2 {
		select {
		case c := <-calls:
			require.Equal(t, events.TypeCompleted, c.header.Get("Ce-Type"))
			require.Equal(t, location, "/v1/requests/"+c.header.Get("Ce-Id"))
			var got ask.Response
			require.NoError(t, json.Unmarshal(c.body, &got))
			requireSure(t, got.Results[0], "dog", true)
		case <-time.After(time.Minute):
			t.Fatal("nobody called")
		}
	}
}
