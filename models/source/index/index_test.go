package index_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/source/index"
	"github.com/ebb-inference/ebb/models/source/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// longAgo is when the files of complete versions were modified.
var longAgo = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, at string, limits source.Limits) source.Source {
	t.Helper()
	opener := index.Opener(index.Options{Patience: source.Patience{Pause: time.Nanosecond}})
	s, err := source.Openers{"http": opener, "https": opener}.Open(t.Context(), at, limits)
	require.NoError(t, err)
	return s
}

// published is a folder that Go's file server shows, with an index.json or without.
type published struct {
	dir   string
	index bool

	mu    sync.Mutex
	doc   map[string]version // index.json
	pages map[string]string  // instead of what is in the folder
}

type version struct {
	Version json.RawMessage `json:"version"`
	Files   []file          `json:"files"`
}

type file struct {
	Name   string `json:"name"`
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
}

func (p *published) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	page, ok := p.pages[r.URL.Path]
	p.mu.Unlock()
	if ok {
		_, _ = w.Write([]byte(page))
		return
	}
	http.FileServer(http.Dir(p.dir)).ServeHTTP(w, r)
}

func (p *published) publish(t *testing.T, name string, files sourcetest.Files, modified time.Time) {
	t.Helper()
	dir := filepath.Join(p.dir, "models", name)
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.MkdirAll(dir, 0o755))
	listed := version{Version: json.RawMessage(name)}
	for name, content := range files {
		at := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o755))
		require.NoError(t, os.WriteFile(at, []byte(content), 0o644))
		require.NoError(t, os.Chtimes(at, modified, modified))
		listed.Files = append(listed.Files, describe(name, content))
	}
	if _, ok := source.ParseVersion(name); ok {
		p.list(t, name, listed)
	}
}

func describe(name, content string) file {
	sum := sha256.Sum256([]byte(content))
	return file{name, len(content), hex.EncodeToString(sum[:])}
}

// list puts a version into index.json.
func (p *published) list(t *testing.T, name string, v version) {
	t.Helper()
	if !p.index {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doc[name] = v
	var versions []version
	for _, v := range p.doc {
		versions = append(versions, v)
	}
	text, err := json.Marshal(map[string]any{"versions": versions, "by": "us"})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(p.dir, "models", "index.json"), text, 0o644))
}

func newPlace(t *testing.T, withIndex bool) (*sourcetest.Place, *published) {
	t.Helper()
	p := &published{dir: t.TempDir(), index: withIndex, doc: make(map[string]version), pages: make(map[string]string)}
	require.NoError(t, os.Mkdir(filepath.Join(p.dir, "models"), 0o755))
	if withIndex {
		require.NoError(t, os.WriteFile(filepath.Join(p.dir, "models", "index.json"), []byte(`{"versions": []}`), 0o644))
	}
	tap := &sourcetest.Tap{Place: p, Files: func(r *http.Request) bool {
		return !strings.HasSuffix(r.URL.Path, "/") && path.Base(r.URL.Path) != "index.json"
	}}
	server := httptest.NewServer(tap)
	t.Cleanup(server.Close)
	return &sourcetest.Place{
		URL:      server.URL + "/models",
		Verified: withIndex,
		Open: func(t *testing.T, limits source.Limits) source.Source {
			t.Helper()
			return open(t, server.URL+"/models", limits)
		},
		Publish: func(t *testing.T, name string, files sourcetest.Files) {
			t.Helper()
			p.publish(t, name, files, longAgo)
		},
		Break: func(_ *testing.T, after int64, lost func()) { tap.Break(after, lost) },
		Away:  func(*testing.T) { server.Close() },
	}, p
}

func TestAnIndexFileIsASource(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) *sourcetest.Place {
		t.Helper()
		place, p := newPlace(t, true)
		place.Half = func(t *testing.T, version int64) {
			t.Helper()
			name := strconv.FormatInt(version, 10)
			p.publish(t, name, sourcetest.Files{"saved_model.pb": "graph", "variables/data": "weights"}, longAgo)
			require.NoError(t, os.Remove(filepath.Join(p.dir, "models", name, "variables", "data")))
		}
		place.Corrupt = func(t *testing.T, version int64) {
			t.Helper()
			name := strconv.FormatInt(version, 10)
			p.publish(t, name, sourcetest.Files{"model": "weights"}, longAgo)
			require.NoError(t, os.WriteFile(filepath.Join(p.dir, "models", name, "model"), []byte("WEIGHTS"), 0o644))
		}
		place.Hostile = func(t *testing.T, number int64, name string, files sourcetest.Files) bool {
			t.Helper()
			if strings.Contains(name, "\xff") { // is no JSON
				return false
			}
			p.publish(t, strconv.FormatInt(number, 10), files, longAgo)
			v := version{Version: json.RawMessage(strconv.FormatInt(number, 10)), Files: []file{describe(name, "evil")}}
			for name, content := range files {
				v.Files = append(v.Files, describe(name, content))
			}
			p.list(t, strconv.FormatInt(number, 10), v)
			return true
		}
		return place
	})
}

func TestAServersPagesAreASource(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) *sourcetest.Place {
		t.Helper()
		place, p := newPlace(t, false)
		place.Half = func(t *testing.T, version int64) {
			t.Helper()
			p.publish(t, strconv.FormatInt(version, 10), sourcetest.Files{"saved_model.pb": "graph"}, time.Now())
		}
		place.Hostile = func(t *testing.T, number int64, name string, files sourcetest.Files) bool {
			t.Helper()
			p.publish(t, strconv.FormatInt(number, 10), files, longAgo)
			var page strings.Builder
			for _, href := range []string{strings.TrimSpace(name), percent(name)} {
				if href == "evil" { // is a good name, once the space around it is gone, as it is in any page's links
					continue
				}
				_, _ = fmt.Fprintf(&page, `<a href="%s">evil</a>`, html.EscapeString(href))
			}
			for name := range files {
				_, _ = fmt.Fprintf(&page, `<a href="%s">%s</a>`, name, name)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.pages[fmt.Sprintf("/models/%d/", number)] = page.String()
			for _, elsewhere := range []string{"/evil", "/models/evil", fmt.Sprintf("/models/%d/model/evil", number)} {
				p.pages[elsewhere] = "evil"
			}
			return true
		}
		return place
	})
}

// percent writes each byte of a name as URLs have what they cannot have.
func percent(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		_, _ = fmt.Fprintf(&b, "%%%02x", c)
	}
	return b.String()
}
