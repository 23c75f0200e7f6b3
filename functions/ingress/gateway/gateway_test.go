package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/events"
)

// concrete puts names that exist in the place of a path's wildcards.
func concrete(path string) string {
	return strings.NewReplacer("{model}", "dog", "{version}", "3", "{id}", keptID).Replace(path)
}

// keptID is the id of a request that keep asks.
const keptID = "0198c0de-0000-7000-8000-00000000000a"

func (w *world) keep(t *testing.T) {
	t.Helper()
	a := w.call(t, http.MethodPost, "/v1/infer?model=dog", dot(), "Prefer", "respond-async", "X-Request-Id", keptID)
	require.Equal(t, http.StatusAccepted, a.status)
	require.Eventually(t, func() bool {
		return w.call(t, http.MethodGet, pathRequests+keptID, nil).status == http.StatusOK
	}, 10*time.Second, time.Millisecond)
}

func TestPathsHaveTheirMethodsAndNoOthers(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	w.keep(t)
	for path, item := range w.doc.Paths.Map() {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			allow := "OPTIONS, POST"
			if item.Get != nil {
				allow = "GET, HEAD, OPTIONS"
				a := w.call(t, http.MethodHead, concrete(path), nil)
				require.Equal(t, http.StatusOK, a.status)
				require.Empty(t, a.body)
			}
			others := []string{http.MethodPut, http.MethodPatch, "BREW"}
			if item.Delete != nil {
				allow = "DELETE, " + allow
			} else {
				others = append(others, http.MethodDelete)
			}
			for _, method := range others {
				a := w.call(t, method, concrete(path), nil)
				require.Equal(t, http.StatusMethodNotAllowed, a.status)
				require.Equal(t, allow, a.header.Get("Allow"))
			}
			a := w.call(t, http.MethodOptions, concrete(path), nil)
			require.Equal(t, http.StatusNoContent, a.status)
			require.Equal(t, allow, a.header.Get("Allow"))
		})
	}
}

func TestPathsThatDoNotExist(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	for _, path := range []string{"/nothing", "/v1", "/v1/infer/", "/v1/modelss", "/homes", "/favicon.ico", "/%2e%2e/etc/passwd", "/" + strings.Repeat("é", 900)} {
		a := w.call(t, http.MethodGet, path, nil)
		a.requireProblem(t, codeNoSuchPath, 404, "/openapi.yaml")
		require.Less(t, len(a.body), 1000)
	}
	for _, path := range []string{"/v2/nothing", "/v2/models/dog/nothing", "/v1/models/dog/nothing"} {
		w.call(t, http.MethodGet, path, nil).requireError(t, 404, "There is nothing here")
	}
}

func TestThePageIsAtHome(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	a := w.call(t, http.MethodGet, "/", nil)
	require.Equal(t, http.StatusSeeOther, a.status)
	require.Equal(t, "/home", a.header.Get("Location"))
	w.call(t, http.MethodPost, "/", nil).requireProblem(t, codeMethod, 405, "GET")
	for _, request := range []string{"GET /home", "POST /home", "GET /home/assets/x.css"} {
		method, path, _ := strings.Cut(request, " ")
		require.Equal(t, "page "+request, string(w.call(t, method, path, nil).body))
	}
}

func TestWithoutAPageThereIsNoHome(t *testing.T) {
	t.Parallel()
	w := start(t, func(s *setup) { s.Page = nil })
	w.call(t, http.MethodGet, "/", nil).requireProblem(t, codeNoSuchPath, 404, "")
	w.call(t, http.MethodGet, "/home", nil).requireProblem(t, codeNoSuchPath, 404, "")
}

func TestHealthTellsTheTruth(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	require.Equal(t, 200, w.call(t, http.MethodGet, "/health/liveness", nil).status)
	require.Equal(t, 200, w.call(t, http.MethodGet, "/health/readiness", nil).status)
	require.JSONEq(t, `{"live":true}`, string(w.call(t, http.MethodGet, "/v2/health/live", nil).body))
	require.JSONEq(t, `{"ready":true}`, string(w.call(t, http.MethodGet, "/v2/health/ready", nil).body))
	require.JSONEq(t, `{"name":"cat","ready":true}`, string(w.call(t, http.MethodGet, "/v2/models/cat/ready", nil).body))

	require.NoError(t, w.service.Stop(t.Context()))
	require.Equal(t, 200, w.call(t, http.MethodGet, "/health/liveness", nil).status)
	require.Equal(t, 503, w.call(t, http.MethodGet, "/health/readiness", nil).status)
	require.Equal(t, 200, w.call(t, http.MethodGet, "/v2/health/live", nil).status)
	a := w.call(t, http.MethodGet, "/v2/health/ready", nil)
	require.Equal(t, 503, a.status)
	require.JSONEq(t, `{"ready":false}`, string(a.body))
	a = w.call(t, http.MethodGet, "/v2/models/cat/ready", nil)
	require.Equal(t, 503, a.status)
	require.JSONEq(t, `{"name":"cat","ready":false}`, string(a.body))
	require.Equal(t, false, w.call(t, http.MethodGet, "/v1/models/cat", nil).json(t)["ready"])
	w.call(t, http.MethodPost, "/v1/infer?model=cat", portrait(1)).requireProblem(t, "stopping", 503, "another one")
}

func TestSecurityHeadersAreOnEveryAnswer(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	for _, request := range []string{"GET /v1/models", "GET /nothing", "PUT /v1/infer", "POST /v1/infer", "GET /", "GET /health/liveness", "GET /v2", "GET /home"} {
		method, path, _ := strings.Cut(request, " ")
		h := w.call(t, method, path, nil).header
		require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"), request)
		require.Equal(t, "DENY", h.Get("X-Frame-Options"), request)
		require.Equal(t, "no-referrer", h.Get("Referrer-Policy"), request)
		require.Equal(t, "same-origin", h.Get("Cross-Origin-Resource-Policy"), request)
		require.Empty(t, h.Get("Access-Control-Allow-Origin"), request)
		require.Empty(t, h.Get("Server"), request)
		want := "default-src 'none'; frame-ancestors 'none'"
		if path == "/home" {
			want = "default-src 'self'" // the page's own
		}
		require.Equal(t, want, h.Get("Content-Security-Policy"), request)
	}
}

func TestOtherOriginsMayCallOnlyWhenConfigured(t *testing.T) {
	t.Parallel()
	const friend = "https://friend.example"
	preflight := []string{"Access-Control-Request-Method", "POST", "Origin"}
	for name, tc := range map[string]struct {
		configured []string
		origin     string
		want       string
	}{
		"nobody":             {nil, friend, ""},
		"a friend":           {[]string{"https://other.example", friend}, friend, friend},
		"not a friend":       {[]string{friend}, "https://friend.example.evil.example", ""},
		"not a friend: null": {[]string{friend}, "null", ""},
		"anyone":             {[]string{"*"}, "https://who.example", "*"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, func(s *setup) { s.CORSOrigins = tc.configured })
			a := w.call(t, http.MethodGet, "/v1/models", nil, "Origin", tc.origin)
			require.Equal(t, 200, a.status)
			require.Equal(t, tc.want, a.header.Get("Access-Control-Allow-Origin"))
			require.Empty(t, a.header.Get("Access-Control-Allow-Credentials"))
			a = w.call(t, http.MethodOptions, "/v1/infer", nil, append(preflight, tc.origin)...)
			require.Equal(t, 204, a.status)
			require.Equal(t, tc.want, a.header.Get("Access-Control-Allow-Origin"))
			require.Equal(t, tc.want != "", a.header.Get("Access-Control-Allow-Methods") != "")
		})
	}
}

func TestRequestIDIsTheClientsWhenItIsAUUID(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	const mine = "0198c2a4-5f0e-7abc-8def-001122334455"
	for sent, want := range map[string]string{
		mine: mine, strings.ToUpper(mine): mine,
		"": "", "x": "", "{" + mine + "}": "", "urn:uuid:" + mine: "", mine + mine: "", "0198c2a4-5f0e-7abc-8def-00112233445z": "",
	} {
		a := w.call(t, http.MethodPost, "/v1/infer?model=cat", portrait(2), "X-Request-Id", sent)
		got := a.header.Get("X-Request-Id")
		if want == "" {
			require.NoError(t, uuid.Validate(got))
			require.NotEqual(t, sent, got)
		} else {
			require.Equal(t, want, got)
		}
		require.Equal(t, got, a.json(t)["id"])
	}
}

func TestTheClientsTraceGoesOnInTheEvent(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	w.call(t, http.MethodPost, "/v1/infer?model=cat", portrait(3), "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	require.Contains(t, w.delivered()[0].TraceParent, "00-0af7651916cd43dd8448eb211c80319c-")
	require.NotContains(t, w.delivered()[0].TraceParent, "b7ad6b7169203331", "with a span of its own")
}

func TestAccessLogHasTheRequestAndNothingOfItsContent(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	a := w.call(t, http.MethodPost, "/v1/infer?model=cat&secret=hunter2", portrait(4), "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	line := w.log.of(t, "request", a.header.Get("X-Request-Id"))
	require.Equal(t, "/v1/infer", line["route"])
	require.Equal(t, "POST", line["method"])
	require.EqualValues(t, 200, line["status"])
	require.EqualValues(t, len(portrait(4)), line["bytes_in"])
	require.EqualValues(t, len(a.body), line["bytes_out"])
	require.Equal(t, "0af7651916cd43dd8448eb211c80319c", line["trace_id"])
	require.Positive(t, line["duration_ms"])
	require.NotContains(t, w.log.String(), "hunter2")

	a = w.call(t, http.MethodGet, "/health/liveness", nil)
	require.Equal(t, "DEBUG", w.log.of(t, "request", a.header.Get("X-Request-Id"))["level"])
}

// blocked is a log that takes no line until it is let, or loses patience.
type blocked struct {
	let  chan struct{}
	lost atomic.Bool
}

func (b *blocked) Write(p []byte) (int, error) {
	select {
	case <-b.let:
	case <-time.After(10 * time.Second):
		b.lost.Store(true)
	}
	return len(p), nil
}

func TestAnAnswerDoesNotWaitForItsLogLine(t *testing.T) {
	t.Parallel()
	log := &blocked{let: make(chan struct{})}
	w := start(t, func(s *setup) { s.Logger = slog.New(slog.NewJSONHandler(log, nil)) })
	t.Cleanup(func() { close(log.let) })
	a := w.call(t, http.MethodPost, "/v1/infer?model=cat", portrait(5))
	require.Equal(t, http.StatusOK, a.status)
	require.Contains(t, string(a.body), fingerprint("cat", portrait(5)))
	require.False(t, log.lost.Load())
}

func TestAPanicIsA500AndALogLine(t *testing.T) {
	t.Parallel()
	w := start(t, func(s *setup) {
		s.Page = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/home/late" {
				_, _ = io.WriteString(w, "half of it")
				_ = http.NewResponseController(w).Flush()
			}
			panic("the secret of " + r.URL.Path)
		})
	})
	a := w.call(t, http.MethodGet, "/home", nil)
	a.requireProblem(t, codeInternal, 500, "")
	require.NotContains(t, string(a.body), "secret")
	line := w.log.of(t, "panic", a.header.Get("X-Request-Id"))
	require.Equal(t, "the secret of /home", line["panic"])
	require.Contains(t, line["stack"], "gateway_test.go")

	// What was begun is broken off, so that nobody takes a half for the whole.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/home/late", http.NoBody)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	require.Error(t, err)
	require.NoError(t, resp.Body.Close())
	http.DefaultClient.CloseIdleConnections()
}

func TestAClientThatGoesIsNoError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	w := start(t, func(s *setup) {
		s.subscribe = func(*world, *events.Request) *events.Result {
			cancel()
			return nil
		}
	})
	id := uuid.NewString()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/v1/infer?model=cat", strings.NewReader(string(portrait(5))))
	require.NoError(t, err)
	req.Header.Set("X-Request-Id", id)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err == nil {
		_ = resp.Body.Close()
	}
	require.ErrorIs(t, err, context.Canceled)
	line := w.log.of(t, "request", id)
	require.EqualValues(t, 499, line["status"])
	require.Equal(t, "INFO", line["level"])
}

func TestBodiesTogetherAreBounded(t *testing.T) {
	t.Parallel()
	w := start(t, func(s *setup) { s.MaxBytes, s.Memory = 1000, 1500 })
	// The first client has announced 1000 bytes and is in no hurry.
	body, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/v1/infer?model=cat", body)
	require.NoError(t, err)
	req.ContentLength = 1000
	first := make(chan int, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			first <- 0
			return
		}
		_ = resp.Body.Close()
		first <- resp.StatusCode
	}()
	_, err = send.Write(dot())
	require.NoError(t, err)

	// There are 500 left; who does not say how much will come needs 1000, and so does the page.
	require.Eventually(t, func() bool { return w.stream(t, http.MethodPost, "/v1/infer?model=cat", portrait(6)).status == 503 }, 10*time.Second, time.Millisecond)
	a := w.stream(t, http.MethodPost, "/v1/infer?model=cat", portrait(6))
	a.requireProblem(t, codeBusy, 503, "Try again")
	require.Equal(t, "1", a.header.Get("Retry-After"))
	w.call(t, http.MethodPost, "/home", nil).requireProblem(t, codeBusy, 503, "")
	a = w.stream(t, http.MethodPost, "/v2/models/cat/infer", []byte("{}"))
	a.requireError(t, 503, "Try again")
	require.Equal(t, "1", a.header.Get("Retry-After"))
	require.Equal(t, 200, w.call(t, http.MethodPost, "/v1/infer?model=cat", portrait(6)).status, "a small one fits")
	require.Equal(t, 200, w.call(t, http.MethodGet, "/home", nil).status)

	_, err = send.Write(make([]byte, 1000-len(dot())))
	require.NoError(t, err)
	require.NoError(t, send.Close())
	require.Equal(t, 200, <-first)
	require.Equal(t, 200, w.stream(t, http.MethodPost, "/v1/infer?model=cat", portrait(6)).status, "everything was given back")
	http.DefaultClient.CloseIdleConnections()
}

func TestMemoryIsGivenBackAfterErrors(t *testing.T) {
	t.Parallel()
	w := start(t, func(s *setup) { s.MaxBytes, s.MaxBodyBytes, s.Memory = 1000, 1000, 270_000 })
	form, formType := multipartForm(t, part{name: "nonsense", data: "x"})
	for range 3 { // each holds most of it, because it does not say how long it is
		w.stream(t, http.MethodPost, "/v1/infer?model=cat", []byte("not a picture")).requireProblem(t, "not-a-picture", 415, "")
		w.stream(t, http.MethodPost, "/v1/infer", []byte("{"), "Content-Type", "application/json").requireProblem(t, codeRequest, 400, "")
		w.stream(t, http.MethodPost, "/v1/infer", form, "Content-Type", formType).requireProblem(t, codeRequest, 400, "")
		w.stream(t, http.MethodPost, "/v1/models/cat:predict", []byte("{")).requireError(t, 400, "")
		w.stream(t, http.MethodPost, "/v2/models/cat/infer", []byte("{")).requireError(t, 400, "")
	}
}

// raw sends bytes as they are, closes its writing side when half is set, and reads the answer.
func raw(t *testing.T, url, request string, half bool) (status int) {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() }) // the server may have closed it
	_, err = io.WriteString(conn, request)
	require.NoError(t, err)
	if half {
		require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

func TestABodyThatDoesNotArriveIs408(t *testing.T) {
	t.Parallel()
	w := start(t, func(s *setup) { s.server = func(srv *http.Server) { srv.ReadTimeout = 50 * time.Millisecond } })
	status := raw(t, w.url, "POST /v1/infer?model=cat HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nslow", false)
	require.Equal(t, http.StatusRequestTimeout, status)
}

func TestABodyThatEndsEarlyIs400(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	for _, request := range []string{
		"POST /v1/infer?model=cat HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\ncut",
		"POST /v1/infer?model=cat HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
		"POST /v1/infer?model=cat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
	} {
		status := raw(t, w.url, request, true)
		require.Contains(t, []int{400, 499}, status, "either the end or the closed connection is seen first")
	}
	status := raw(t, w.url, "POST /v1/infer?model=cat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", false)
	require.Equal(t, 400, status)
}

func TestAClientThatIsStillSendingReadsWhyItIsRefused(t *testing.T) {
	t.Parallel()
	w := start(t, func(s *setup) { s.MaxBytes, s.MaxBodyBytes = 1000, 1000 })
	const size = 20 << 20 // more than the kernel keeps for a server that does not read
	body := strings.Repeat("x", size)
	length := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, body)
	for name, tc := range map[string]struct {
		request string
		status  int
	}{
		"announced":         {"POST /v1/infer?model=cat HTTP/1.1\r\nHost: x\r\n" + length, 413},
		"not announced":     {fmt.Sprintf("POST /v1/infer?model=cat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", size, body), 413},
		"compressed":        {"POST /v1/infer?model=cat HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n" + length, 415},
		"no such path":      {"POST /nowhere HTTP/1.1\r\nHost: x\r\n" + length, 404},
		"V1, no such model": {"POST /v1/models/lion:predict HTTP/1.1\r\nHost: x\r\n" + length, 404},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tc.status, raw(t, w.url, tc.request, false))
		})
	}
}

func TestExpectContinueIsNotContinuedForWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	w := start(t, func(s *setup) { s.MaxBytes = 1000 })
	status := raw(t, w.url, "POST /v1/infer?model=cat HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n", false)
	require.Equal(t, http.StatusRequestEntityTooLarge, status, "before the body was sent")
}

func TestPreferSaysHowLongAClientWaits(t *testing.T) {
	t.Parallel()
	for sent, want := range map[string]int{
		"wait=10": 10, `wait="7"`: 7, "respond-async, wait=5": 5, "WAIT = 3": 3, "wait=9; x=y": 9,
		"": 0, "wait": 0, "wait=": 0, "wait=0": 0, "wait=-1": 0, "wait=soon": 0, "wait=99999": 0, "return=minimal": 0,
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		r.Header.Set("Prefer", sent)
		rec := httptest.NewRecorder()
		got, applied := patience(rec, r), rec.Header().Get("Preference-Applied")
		if want == 0 {
			require.Equal(t, time.Hour, got, sent)
			require.Empty(t, applied, sent)
			continue
		}
		require.Equal(t, time.Duration(want)*time.Second, got, sent)
		require.Equal(t, fmt.Sprintf("wait=%d", want), applied)
	}
}

func TestNoAnswerInTimeIs504(t *testing.T) {
	t.Parallel()
	w := start(t, func(s *setup) {
		s.ask.Timeout = 50 * time.Millisecond
		s.subscribe = func(*world, *events.Request) *events.Result { return nil }
	})
	a := w.call(t, http.MethodPost, "/v1/infer?model=cat", portrait(7))
	require.Equal(t, 504, a.status)
	require.Contains(t, string(a.body), "outcome is unknown")
	w.call(t, http.MethodPost, "/v1/models/cat:predict", v1Body(portrait(7))).requireError(t, 504, "outcome is unknown")
	w.call(t, http.MethodPost, "/v2/models/cat/infer", v2Body(portrait(7))).requireError(t, 504, "outcome is unknown")
}
