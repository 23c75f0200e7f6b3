package s3_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/source/bucket"
	"github.com/ebb-inference/ebb/models/source/bucket/s3"
	"github.com/ebb-inference/ebb/models/source/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is the store's.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Since(then time.Time) time.Duration { return c.Now().Sub(then) }

func TestABucketInS3IsASource(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, newPlace)
}

func newPlace(t *testing.T) *sourcetest.Place {
	t.Helper()
	var now clock
	store := s3mem.New(s3mem.WithTimeSource(&now))
	require.NoError(t, store.CreateBucket("our-models"))
	tap := &sourcetest.Tap{
		Place: gofakes3.New(store, gofakes3.WithTimeSkewLimit(0)).Server(),
		Files: func(r *http.Request) bool { return r.Method == http.MethodGet && strings.Count(r.URL.Path, "/") > 2 },
	}
	server := httptest.NewServer(tap)
	t.Cleanup(server.Close)
	at := "s3://our-models/vision/inception_v3?region=eu-central-1&endpoint=" + url.QueryEscape(server.URL)

	put := func(name string, files sourcetest.Files, updated time.Time) {
		prefix := "vision/inception_v3/" + name + "/"
		old, err := store.ListBucket("our-models", &gofakes3.Prefix{HasPrefix: true, Prefix: prefix}, gofakes3.ListBucketPage{})
		require.NoError(t, err)
		for _, o := range old.Contents {
			_, err := store.DeleteObject("our-models", o.Key)
			require.NoError(t, err)
		}
		now.set(updated)
		meta := map[string]string{"Last-Modified": updated.UTC().Format(http.TimeFormat)} // as the server adds it to uploads
		for name, content := range files {
			_, err := store.PutObject("our-models", prefix+name, meta, strings.NewReader(content), int64(len(content)), nil)
			require.NoError(t, err)
		}
	}
	longAgo := time.Now().Add(-time.Hour)
	return &sourcetest.Place{
		URL:      at,
		Verified: true,
		Open: func(t *testing.T, limits source.Limits) source.Source {
			t.Helper()
			opener := s3.Opener(s3.Options{
				Options:     bucket.Options{Patience: source.Patience{Pause: time.Nanosecond}},
				Credentials: credentials.NewStaticV4("us", "secret", ""),
			})
			s, err := source.Openers{s3.Scheme: opener}.Open(t.Context(), at, limits)
			require.NoError(t, err)
			return s
		},
		Publish: func(t *testing.T, name string, files sourcetest.Files) {
			t.Helper()
			put(name, files, longAgo)
		},
		Half: func(_ *testing.T, version int64) {
			put(strconv.FormatInt(version, 10), sourcetest.Files{"saved_model.pb": "graph"}, time.Now())
		},
		Corrupt: func(_ *testing.T, version int64) {
			put(strconv.FormatInt(version, 10), sourcetest.Files{"model": "weights"}, longAgo)
			tap.Spoil()
		},
		Hostile: func(_ *testing.T, version int64, name string, files sourcetest.Files) bool {
			if name == "" || !utf8.ValidString(name) || strings.ContainsAny(name, "\x00\x1b") { // are no XML
				return false
			}
			all := sourcetest.Files{name: "evil"}
			for name, content := range files {
				all[name] = content
			}
			put(strconv.FormatInt(version, 10), all, longAgo)
			return true
		},
		Break: func(_ *testing.T, after int64, lost func()) { tap.Break(after, lost) },
		Away:  func(*testing.T) { server.Close() },
	}
}

func TestURLsOfBuckets(t *testing.T) {
	t.Parallel()
	openers := source.Openers{s3.Scheme: s3.Opener(s3.Options{Credentials: credentials.NewStaticV4("us", "secret", "")})}
	for _, at := range []string{
		"s3:///models", "s3://bucket:80/models", "s3://bucket/models?token=secret", "s3://bucket/models?region=a&region=secret",
		"s3://bucket/models?endpoint=minio", "s3://bucket/models?endpoint=ftp://minio", "s3://bucket/models?endpoint=http://us:secret@minio",
		"s3://bucket/models?endpoint=http://minio/secret", "s3://us:secret@bucket/models",
	} {
		_, err := openers.Open(t.Context(), at, source.Limits{})
		require.ErrorIs(t, err, source.ErrURL, at)
		require.NotContains(t, err.Error(), "secret")
	}
}
