package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// answering is a modelsync that gives one answer, and writes down what it was asked.
func answering(t *testing.T, status int, answer string) (url string, asked *string) {
	t.Helper()
	asked = new(string)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		*asked = strings.TrimSpace(r.Method + " " + r.URL.EscapedPath() + " " + string(body))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

const network = `{
  "network": "net", "models": ["cat", "dog"], "source": "gs://models/net", "serving": 2, "previous": 1, "since": "2026-01-02T03:04:05Z",
  "candidate": {"version": 4, "phase": "shift", "percent": 10, "began": "2026-01-02T03:04:05Z", "since": "2026-01-02T03:04:05Z"},
  "refused": [{"version": 3, "reason": "the answer is no (0.800), and yes is known", "by": "check", "time": "2026-01-02T03:04:05Z"}],
  "last_check": "2026-01-02T03:04:05Z",
  "last_failure": {"time": "2026-01-02T03:04:05Z", "reason": "no route to host"},
  "history": [{"time": "2026-01-02T03:04:05Z", "event": "shifted", "version": 4, "percent": 10}]
}`

func TestCommandsAreSentAndTheStateIsShown(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		args   []string
		answer string
		asked  string
		says   []string
	}{
		{"status of all", []string{"status"}, `{"networks": [` + network + `]}`, "GET /v1/networks", []string{
			"net (cat, dog), from gs://models/net", "version 2 since ", "version 4: shift, 10 % of the traffic",
			"refused    version 3 by check", "and yes is known", "no route to host", "shifted 4 (10 %)",
		}},
		{"status of none", []string{"status"}, `{"networks": []}`, "GET /v1/networks", []string{"No network has a source."}},
		{"status of one", []string{"status", "cat"}, network, "GET /v1/networks/cat", []string{"version 2"}},
		{"look", []string{"look", "cat"}, `{"outcome": "refused", "state": ` + network + `}`, "POST /v1/networks/cat/look", []string{"A newer version was refused."}},
		{"back", []string{"rollback", "cat"}, network, "POST /v1/networks/cat/rollback {}", []string{"version 2"}},
		{"back to", []string{"rollback", "cat", "1"}, network, `POST /v1/networks/cat/rollback {"to":1}`, []string{"version 2"}},
		{"allow", []string{"allow", "net", "3"}, network, `POST /v1/networks/net/allow {"version":3}`, []string{"version 2"}},
		{"a name with a slash", []string{"status", "a/b"}, network, "GET /v1/networks/a%2Fb", nil},
		{"for programs", []string{"status", "-json"}, `{"networks": [` + network + `]}`, "GET /v1/networks", []string{`"serving": 2`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			url, asked := answering(t, http.StatusOK, tc.answer)
			var stdout, stderr bytes.Buffer
			require.Equal(t, exitDone, run(t.Context(), append(tc.args, "--url", url), &stdout, &stderr), stderr.String())
			require.Equal(t, tc.asked, *asked)
			for _, text := range tc.says {
				require.Contains(t, stdout.String(), text)
			}
		})
	}
}

func TestWhatGoesWrongIsSaid(t *testing.T) {
	t.Parallel()
	url, _ := answering(t, http.StatusConflict, `{"type": "urn:ebb:problem:version-gone", "title": "The version is not kept", "status": 409, "detail": "kept are [2]"}`)
	strange, _ := answering(t, http.StatusOK, "<html>")
	broken, _ := answering(t, http.StatusBadGateway, "<html>")
	for _, tc := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"a problem", []string{"rollback", "cat", "1", "-url", url}, exitFailed, "The version is not kept: kept are [2]"},
		{"another server", []string{"status", "-url", strange}, exitFailed, "is it modelsync?"},
		{"a server that is broken", []string{"status", "-url", broken}, exitFailed, "answered 502 Bad Gateway"},
		{"no server", []string{"status", "-url", "http://127.0.0.1:1"}, exitFailed, "-url says where it is"},
		{"no command", nil, exitUsage, "name a command"},
		{"another command", []string{"undo", "cat"}, exitUsage, `"undo" is no command`},
		{"no name", []string{"look"}, exitUsage, "look takes one name"},
		{"no version", []string{"allow", "cat"}, exitUsage, "allow takes a name and a version"},
		{"a version that is none", []string{"rollback", "cat", "last"}, exitUsage, `"last" is no version`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			require.Equal(t, tc.code, run(t.Context(), tc.args, &stdout, &stderr))
			require.Contains(t, stderr.String(), tc.says)
		})
	}
	var stderr bytes.Buffer
	require.Equal(t, exitDone, run(t.Context(), []string{"-help"}, io.Discard, &stderr))
	require.Contains(t, stderr.String(), "rollback")
}
