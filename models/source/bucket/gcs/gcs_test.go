package gcs_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/fsouza/fake-gcs-server/fakestorage"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/models/source"
	"github.com/ebb-inference/ebb/models/source/bucket"
	"github.com/ebb-inference/ebb/models/source/bucket/gcs"
	"github.com/ebb-inference/ebb/models/source/sourcetest"
)

func TestMain(m *testing.M) {
	// The stand-in's libraries start one that nobody can stop.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"))
}

const at = "gs://our-models/vision/inception_v3"

func TestABucketInGoogleCloudStorageIsASource(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, newPlace)
}

func newPlace(t *testing.T) *sourcetest.Place {
	t.Helper()
	google, err := fakestorage.NewServerWithOptions(fakestorage.Options{NoListener: true, Writer: io.Discard})
	require.NoError(t, err)
	t.Cleanup(google.Stop)
	google.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: "our-models"})
	tap := &sourcetest.Tap{
		Place: google.HTTPHandler(),
		Files: func(r *http.Request) bool { return r.URL.Query().Get("alt") == "media" },
	}
	server := httptest.NewServer(tap)
	t.Cleanup(server.Close)

	put := func(name string, files sourcetest.Files, updated time.Time) {
		prefix := "vision/inception_v3/" + name + "/"
		old, err := google.ListObjectsWithOptionsPaginated("our-models", fakestorage.ListOptions{Prefix: prefix})
		require.NoError(t, err)
		for _, o := range old.Objects {
			require.NoError(t, google.Backend().DeleteObject("our-models", o.Name))
		}
		for name, content := range files {
			google.CreateObject(fakestorage.Object{
				ObjectAttrs: fakestorage.ObjectAttrs{BucketName: "our-models", Name: prefix + name, Updated: updated},
				Content:     []byte(content),
			})
		}
	}
	longAgo := time.Now().Add(-time.Hour)
	return &sourcetest.Place{
		URL:      at,
		Verified: true,
		Open: func(t *testing.T, limits source.Limits) source.Source {
			t.Helper()
			return open(t, server.URL, limits)
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
			if name == "" || !utf8.ValidString(name) || strings.Contains(name, "\n") { // the store has no such names
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

func open(t *testing.T, emulator string, limits source.Limits) source.Source {
	t.Helper()
	opener := gcs.Opener(gcs.Options{
		Options:  bucket.Options{Patience: source.Patience{Pause: time.Nanosecond}},
		Emulator: emulator,
	})
	s, err := source.Openers{gcs.Scheme: opener}.Open(t.Context(), at, limits)
	require.NoError(t, err)
	return s
}

func TestURLsOfBuckets(t *testing.T) {
	t.Parallel()
	openers := source.Openers{gcs.Scheme: gcs.Opener(gcs.Options{})}
	for _, at := range []string{"gs:///models", "gs://bucket:80/models", "gs://bucket/models?token=secret", "gs://user:secret@bucket/models", "gs://bucket/models?;secret"} {
		_, err := openers.Open(t.Context(), at, source.Limits{})
		require.ErrorIs(t, err, source.ErrURL, at)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestABucketThatIsNotThereIsAnError(t *testing.T) {
	t.Parallel()
	google, err := fakestorage.NewServerWithOptions(fakestorage.Options{NoListener: true, Writer: io.Discard})
	require.NoError(t, err)
	t.Cleanup(google.Stop)
	server := httptest.NewServer(google.HTTPHandler())
	t.Cleanup(server.Close)
	s := open(t, server.URL, source.Limits{})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	_, err = s.Versions(t.Context())
	require.ErrorContains(t, err, "404")
	_, err = s.Fetch(t.Context(), 1, t.TempDir())
	require.ErrorContains(t, err, "404")
	require.NotErrorIs(t, err, source.ErrGone, "the bucket may be there again")
}

func TestAnObjectThatIsStoredCompressedIsRefused(t *testing.T) {
	t.Parallel()
	google, err := fakestorage.NewServerWithOptions(fakestorage.Options{
		NoListener: true, Writer: io.Discard,
		InitialObjects: []fakestorage.Object{{
			ObjectAttrs: fakestorage.ObjectAttrs{
				BucketName: "our-models", Name: "vision/inception_v3/1/model", ContentEncoding: "gzip", Updated: time.Now().Add(-time.Hour),
			},
			Content: []byte("weights"),
		}},
	})
	require.NoError(t, err)
	t.Cleanup(google.Stop)
	server := httptest.NewServer(google.HTTPHandler())
	t.Cleanup(server.Close)
	s := open(t, server.URL, source.Limits{})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	_, err = s.Fetch(t.Context(), 1, t.TempDir())
	require.ErrorIs(t, err, source.ErrCorrupt)
	require.ErrorContains(t, err, "Content-Encoding")
}
