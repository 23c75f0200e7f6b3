package assets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var content = strings.Repeat("0123456789", 100_000)

// web is a server that counts its requests, and a fetcher that trusts it.
func web(t *testing.T, serve func(n int64, w http.ResponseWriter, r *http.Request)) (f *Fetcher, from webFile, requests *atomic.Int64) {
	t.Helper()
	requests = &atomic.Int64{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(requests.Add(1), w, r) }))
	t.Cleanup(server.Close)
	f = fetcher(t)
	f.client.Transport.(*http.Transport).TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig
	return f, webFile{server.URL + "/file", pinOf(content)}, requests
}

func whole(w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
}

// half is what a connection gives that breaks in the middle.
func half(w http.ResponseWriter, r *http.Request) {
	whole(&breaking{w, len(content) / 2}, r)
}

type breaking struct {
	http.ResponseWriter
	left int
}

func (b *breaking) Write(p []byte) (int, error) {
	if len(p) > b.left {
		_, _ = b.ResponseWriter.Write(p[:b.left])
		panic(http.ErrAbortHandler)
	}
	b.left -= len(p)
	return b.ResponseWriter.Write(p)
}

func TestDownload(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		serve    func(n int64, w http.ResponseWriter, r *http.Request)
		requests int64
		want     string // the error; none when empty
	}{
		"whole": {func(_ int64, w http.ResponseWriter, r *http.Request) { whole(w, r) }, 1, ""},
		"broken off, and gone on with": {func(n int64, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				half(w, r)
			}
			if r.Header.Get("Range") == "" {
				w.WriteHeader(http.StatusTeapot)
				return
			}
			whole(w, r)
		}, 2, ""},
		"broken off, and begun again by the server": {func(n int64, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				half(w, r)
			}
			r.Header.Del("Range")
			whole(w, r)
		}, 2, ""},
		"broken off, and not gone on with": {func(n int64, w http.ResponseWriter, r *http.Request) {
			switch n {
			case 1:
				half(w, r)
			case 2:
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			default:
				whole(w, r)
			}
		}, 3, ""},
		"broken off, and gone on with somewhere else": {func(n int64, w http.ResponseWriter, r *http.Request) {
			switch n {
			case 1:
				half(w, r)
			case 2:
				r.Header.Set("Range", "bytes=7-")
				whole(w, r)
			default:
				whole(w, r)
			}
		}, 3, ""},
		"always broken off at the start": {func(_ int64, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, 3, "unexpected EOF"},
		"redirected": {func(n int64, w http.ResponseWriter, r *http.Request) {
			if n < 3 {
				http.Redirect(w, r, fmt.Sprintf("/%d", n), http.StatusFound)
				return
			}
			whole(w, r)
		}, 3, ""},
		"redirected to plain HTTP": {func(_ int64, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+r.Host, http.StatusFound)
		}, 1, "is not HTTPS"},
		"redirected in circles": {func(_ int64, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/file", http.StatusFound)
		}, 5, "redirect refused"},
		"not found":   {func(_ int64, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, 1, "the server answered 404 Not Found"},
		"unavailable": {func(_ int64, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, 3, "the server answered 503"},
		"unavailable at first": {func(n int64, w http.ResponseWriter, r *http.Request) {
			if n < 3 {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			whole(w, r)
		}, 3, ""},
		"of another length": {func(_ int64, w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "a page that says log in")
		}, 1, "wrong checksum: the server has 23 bytes; want 1000000"},
		"without end": {func(_ int64, w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			for {
				if _, err := io.WriteString(w, content); err != nil {
					return
				}
			}
		}, 3, "wrong checksum: it is 1000001 bytes"},
		"of other bytes": {func(_ int64, w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("x", len(content)))
		}, 3, "somebody changed it on the way, or there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, from, requests := web(t, c.serve)
			path := filepath.Join(f.out, "model.onnx")
			err := f.ensure(t.Context(), from.pin, path, func(ctx context.Context, temp string) error { return f.download(ctx, from, temp) })
			if c.want == "" {
				require.NoError(t, err)
				requireContent(t, content, path)
			} else {
				require.ErrorContains(t, err, c.want)
				require.NoFileExists(t, path)
			}
			require.Equal(t, c.requests, requests.Load(), "requests")
		})
	}
}

func TestDownloadGoesOnWithWhatAnEarlierRunLeft(t *testing.T) {
	t.Parallel()
	f, from, _ := web(t, func(_ int64, w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "bytes=1000-" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		whole(w, r)
	})
	temp := filepath.Join(f.root, "temp")
	write(t, temp+"."+from.sha256[:16]+".part", content[:1000])
	require.NoError(t, f.download(t.Context(), from, temp))
	requireContent(t, content, temp)
	require.Equal(t, []string{"temp"}, names(t, f.root))
}

func TestDownloadThatStallsIsGivenUp(t *testing.T) {
	t.Parallel()
	f, from, _ := web(t, func(_ int64, w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, content[:1000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	f.stall = 20 * time.Millisecond
	err := f.download(t.Context(), from, filepath.Join(f.root, "temp"))
	require.ErrorIs(t, err, errStalled)
}

func TestDownloadEndsWithTheContext(t *testing.T) {
	t.Parallel()
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	f, from, requests := web(t, func(_ int64, _ http.ResponseWriter, r *http.Request) {
		cancel(enough)
		<-r.Context().Done()
	})
	err := f.download(ctx, from, filepath.Join(f.root, "temp"))
	require.ErrorIs(t, err, enough)
	require.EqualValues(t, 1, requests.Load())
}

func TestDownloadFromNobodySaysToCheckTheNetwork(t *testing.T) {
	t.Parallel()
	f := fetcher(t)
	gone := httptest.NewTLSServer(nil)
	gone.Close()
	err := f.download(t.Context(), webFile{gone.URL, pinOf("x")}, filepath.Join(f.root, "temp"))
	require.ErrorContains(t, err, "check the network and HTTPS_PROXY")
}

func TestDownloadIntoNowhereFailsAtOnce(t *testing.T) {
	t.Parallel()
	f, from, requests := web(t, func(_ int64, w http.ResponseWriter, r *http.Request) { whole(w, r) })
	err := f.download(t.Context(), from, filepath.Join(f.root, "no such folder", "temp"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Zero(t, requests.Load())
}
