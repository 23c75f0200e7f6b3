package index_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/source/index"
	"github.com/ebb-inference/ebb/models/source/sourcetest"
)

// recorder keeps what a server was asked and what it answered.
type recorder struct {
	mu  sync.Mutex
	log []string
}

func (r *recorder) around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		seen := &status{ResponseWriter: w, code: http.StatusOK}
		defer func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.log = append(r.log, strings.TrimSpace(fmt.Sprint(seen.code, " ", req.URL.Path, " ", req.Header.Get("Range"))))
		}()
		next.ServeHTTP(seen, req)
	})
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	log := r.log
	r.log = nil
	return log
}

type status struct {
	http.ResponseWriter
	code int
}

func (s *status) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

func (s *status) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server
}

func openAndClose(t *testing.T, at string) source.Source {
	t.Helper()
	s := open(t, at, source.Limits{})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestASecondLookAsksOnlyWhetherTheIndexHasChanged(t *testing.T) {
	t.Parallel()
	var rec recorder
	var mu sync.Mutex
	text, etag := `{"versions": [{"version": 1}]}`, `"a"`
	server := serve(t, rec.around(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("ETag", etag)
		http.ServeContent(w, r, "index.json", time.Time{}, strings.NewReader(text))
	})))
	s := openAndClose(t, server.URL)
	for range 2 {
		versions, err := s.Versions(t.Context())
		require.NoError(t, err)
		require.Equal(t, []int64{1}, versions)
	}
	require.Equal(t, []string{"200 /index.json", "304 /index.json"}, rec.take())

	mu.Lock()
	text, etag = `{"versions": [{"version": 2}, {"version": 1}]}`, `"b"`
	mu.Unlock()
	versions, err := s.Versions(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int64{1, 2}, versions)
	require.Equal(t, []string{"200 /index.json"}, rec.take())
}

// network is larger than what a connection takes at once.
var network = strings.Repeat("weights ", 100_000)

// oneFile is a server of version 1 of a network, that is one file; content answers when it is asked for.
func oneFile(t *testing.T, content http.HandlerFunc) (string, *sourcetest.Tap, *recorder) {
	t.Helper()
	tap := &sourcetest.Tap{Files: func(r *http.Request) bool { return r.URL.Path == "/1/model" }}
	tap.Place = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			_, _ = w.Write([]byte(`<!doctype html><a href="1/">1</a>`))
		case "/1/":
			_, _ = w.Write([]byte(`<!doctype html><a href="model">model</a>`))
		case "/1/model":
			content(w, r)
		default:
			http.NotFound(w, r)
		}
	})
	rec := &recorder{}
	return serve(t, rec.around(tap)).URL, tap, rec
}

func TestABrokenDownloadIsTakenUpWhereItBroke(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		content http.HandlerFunc
		second  string // request for the file
	}{
		{"by an ETag", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"a"`)
			http.ServeContent(w, r, "model", time.Time{}, strings.NewReader(network))
		}, "206 /1/model bytes=500000-"},
		{"by its time", func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "model", longAgo, strings.NewReader(network))
		}, "206 /1/model bytes=500000-"},
		{"of a server without ranges", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"a"`)
			_, _ = w.Write([]byte(network))
		}, "200 /1/model bytes=500000-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			at, tap, rec := oneFile(t, c.content)
			tap.Break(500_000, func() {})
			dir := t.TempDir()
			_, err := openAndClose(t, at).Fetch(t.Context(), 1, dir)
			require.NoError(t, err)
			content, err := os.ReadFile(filepath.Join(dir, "model"))
			require.NoError(t, err)
			require.Equal(t, sha256.Sum256([]byte(network)), sha256.Sum256(content))
			log := rec.take()
			require.Contains(t, log, c.second)
		})
	}
}

func TestABrokenDownloadOfAFileThatHasChangedIsNotComplete(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		then http.HandlerFunc // answers when the download is taken up
	}{
		{"another ETag", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"b"`)
			http.ServeContent(w, r, "model", time.Time{}, strings.NewReader(network))
		}},
		{"another size", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 500000-500003/500004")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte("more"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			at, tap, _ := oneFile(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") != "" {
					c.then(w, r)
					return
				}
				w.Header().Set("ETag", `"a"`)
				http.ServeContent(w, r, "model", time.Time{}, strings.NewReader(network))
			})
			tap.Break(500_000, func() {})
			_, err := openAndClose(t, at).Fetch(t.Context(), 1, t.TempDir())
			require.ErrorIs(t, err, source.ErrIncomplete)
		})
	}
}

func TestADownloadIsNotTakenUpWhereItCannotBe(t *testing.T) {
	t.Parallel()
	whole := func(w http.ResponseWriter) {
		w.Header().Set("ETag", `"a"`)
		w.Header().Set("Content-Length", fmt.Sprint(len(network)))
		_, _ = w.Write([]byte(network))
	}
	for _, c := range []struct {
		name    string
		content http.HandlerFunc
		want    string
		tries   int
	}{
		{"nothing tells whether the file is the same", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `W/"a"`)
			_, _ = w.Write([]byte(network))
		}, "broken after 500000 bytes", 1},
		{"the server goes on elsewhere", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "" {
				whole(w)
				return
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 400000-799999/%d", len(network)))
			w.WriteHeader(http.StatusPartialContent)
		}, "Content-Range", 11},
		{"the server has had enough", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "" {
				whole(w)
				return
			}
			w.WriteHeader(http.StatusServiceUnavailable)
		}, "503", 11},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			at, tap, rec := oneFile(t, c.content)
			tap.Break(500_000, func() {})
			_, err := openAndClose(t, at).Fetch(t.Context(), 1, t.TempDir())
			require.ErrorContains(t, err, c.want)
			require.NotErrorIs(t, err, source.ErrCorrupt)
			require.Len(t, rec.take(), 2+c.tries) // index.json and the page of the version come first
		})
	}
}

func TestAServerThatSendsNothingIsGivenUp(t *testing.T) {
	t.Parallel()
	over := make(chan struct{})
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/body/"):
			_, _ = w.Write([]byte(`{"versions": [`))
			_ = http.NewResponseController(w).Flush()
		case !strings.HasPrefix(r.URL.Path, "/header/"):
			return
		}
		<-over
	}))
	t.Cleanup(func() { close(over) }) // before the server waits for its handlers
	for _, c := range []struct {
		in        string
		transport http.RoundTripper
		want      string
	}{
		{"header", nil, "timeout awaiting response headers"},
		{"body", &http.Transport{}, "nothing has come for 20ms"},
	} {
		opener := index.Opener(index.Options{Transport: c.transport, Patience: source.Patience{Idle: 20 * time.Millisecond}})
		s, err := source.Openers{"http": opener}.Open(t.Context(), server.URL+"/"+c.in, source.Limits{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		_, err = s.Versions(t.Context())
		require.ErrorContains(t, err, server.URL+"/"+c.in)
		require.ErrorContains(t, err, c.want)
	}
}

func TestWithSHA256SUMSAVersionIsTakenHoweverNewItIs(t *testing.T) {
	t.Parallel()
	place, p := newPlace(t, false)
	sum := describe("model", "weights").SHA256
	p.publish(t, "1", sourcetest.Files{"model": "weights", "SHA256SUMS": sum + " *model\n"}, time.Now())
	p.publish(t, "2", sourcetest.Files{"model": "weights"}, time.Now())
	s := openAndClose(t, place.URL)
	got, err := s.Fetch(t.Context(), 1, t.TempDir())
	require.NoError(t, err)
	require.True(t, got.Verified)
	_, err = s.Fetch(t.Context(), 2, t.TempDir())
	require.ErrorIs(t, err, source.ErrIncomplete)
	require.ErrorContains(t, err, "SHA256SUMS")
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	files := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/elsewhere/index.json":
			_, _ = w.Write([]byte(`{"versions": [{"version": 7}]}`))
		case "/pages/":
			_, _ = w.Write([]byte(`<html><a href="/pages/8/">8</a><a href="/models/9/">9</a>`))
		default:
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	hop := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := map[string]string{
			"/index/index.json":  files.URL + "/elsewhere/index.json",
			"/pages/":            files.URL + "/pages/",
			"/round/index.json":  "/round/index.json",
			"/signed/index.json": files.URL + "/nothing?signature=secret",
			"/away/index.json":   "http://127.0.0.1:1/?signature=secret",
			"/odd/index.json":    "file:///etc/passwd",
		}[r.URL.Path]
		if to == "" {
			http.NotFound(w, r)
			return
		}
		http.Redirect(w, r, to, http.StatusFound)
	}))
	for _, c := range []struct {
		path string
		want []int64
		fail string
	}{
		{path: "/index", want: []int64{7}},
		{path: "/pages", want: []int64{8}},
		{path: "/round", fail: "it redirects more than 5 times"},
		{path: "/signed", fail: "418"},
		{path: "/away", fail: "connection refused"},
		{path: "/odd", fail: "unsupported protocol scheme"},
	} {
		t.Run(c.path, func(t *testing.T) {
			t.Parallel()
			versions, err := openAndClose(t, hop.URL+c.path).Versions(t.Context())
			if c.fail == "" {
				require.NoError(t, err)
				require.Equal(t, c.want, versions)
				return
			}
			require.ErrorContains(t, err, c.fail)
			require.NotContains(t, err.Error(), "secret", "a URL that was redirected to may be signed")
		})
	}
}

func TestARedirectFromHTTPSToLessIsRefused(t *testing.T) {
	t.Parallel()
	plain := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"versions": [{"version": 7}]}`))
	}))
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	t.Cleanup(secure.Close)
	opener := index.Opener(index.Options{Transport: secure.Client().Transport})
	s, err := source.Openers{"https": opener}.Open(t.Context(), secure.URL, source.Limits{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	_, err = s.Versions(t.Context())
	require.ErrorContains(t, err, "it redirects from https to less")
}

func TestWhatIsNoIndexIsAnErrorThatSaysWhy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, doc, want string
		is              error // nil: of none of the kinds
	}{
		{"no JSON", "<html>", "cannot be read", nil},
		{"an array", "[]", "cannot be read", nil},
		{"no versions", `{"version": 3}`, `it has no "versions"`, nil},
		{"a version that is a text", `{"versions": [{"version": "3"}]}`, "cannot be read", nil},
		{"a version that is no integer", `{"versions": [{"version": 1.5}]}`, "cannot be read", nil},
		{"no version number", `{"versions": [{"version": 3}, {"files": []}]}`, "versions[1]", nil},
		{"a negative version", `{"versions": [{"version": -3}]}`, "positive", nil},
		{"a version twice", `{"versions": [{"version": 3}, {"version": 3}]}`, "twice", nil},
		{"no size", `{"versions": [{"version": 3, "files": [{"name": "a", "sha256": "` + strings.Repeat("0", 64) + `"}]}]}`, "size", source.ErrCorrupt},
		{"a negative size", `{"versions": [{"version": 3, "files": [{"name": "a", "size": -1, "sha256": "` + strings.Repeat("0", 64) + `"}]}]}`, "size", source.ErrCorrupt},
		{"no checksum", `{"versions": [{"version": 3, "files": [{"name": "a", "size": 1}]}]}`, "sha256", source.ErrCorrupt},
		{"half a checksum", `{"versions": [{"version": 3, "files": [{"name": "a", "size": 1, "sha256": "00"}]}]}`, "sha256", source.ErrCorrupt},
		{"no files", `{"versions": [{"version": 3, "files": []}]}`, "no files", source.ErrIncomplete},
		{"a name twice", `{"versions": [{"version": 3, "files": [` + strings.Repeat(`{"name": "a", "size": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},`, 2) +
			`{"name": "b", "size": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}]}`, "two things", source.ErrCorrupt},
		{"too much", strings.Repeat(" ", 16<<20) + "{}", "16777216 bytes", source.ErrLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/index.json" {
					_, _ = w.Write([]byte(c.doc))
				}
			}))
			s := openAndClose(t, server.URL)
			_, err := s.Fetch(t.Context(), 3, t.TempDir())
			require.ErrorContains(t, err, c.want)
			for _, is := range []error{source.ErrCorrupt, source.ErrLimit, source.ErrIncomplete, source.ErrGone} {
				require.Equal(t, errors.Is(c.is, is), errors.Is(err, is), "%v: %v", is, err)
			}
		})
	}
}

func TestAServerThatListsNothingIsAnError(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		page http.HandlerFunc
		want string
	}{
		{"another kind of list", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/xml")
			_, _ = w.Write([]byte("<ListBucketResult/>"))
		}, "application/xml"},
		{"no right to list", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, "403 Forbidden"},
		{"nothing there", http.NotFound, "404 Not Found"},
		{"compressed unasked", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bytes.Repeat([]byte{0x1f}, 100))
		}, "Content-Encoding"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/index.json" {
					http.NotFound(w, r)
					return
				}
				c.page(w, r)
			}))
			_, err := openAndClose(t, server.URL).Versions(t.Context())
			require.ErrorContains(t, err, c.want)
			require.NotErrorIs(t, err, source.ErrGone)
		})
	}
}

func TestURLsOfIndexes(t *testing.T) {
	t.Parallel()
	openers := source.Openers{"http": index.Opener(index.Options{})}
	for _, at := range []string{"http:///models", "http://host/models?token=secret", "http://host/models?"} {
		_, err := openers.Open(t.Context(), at, source.Limits{})
		require.ErrorIs(t, err, source.ErrURL)
		require.NotContains(t, err.Error(), "secret")
	}
}
