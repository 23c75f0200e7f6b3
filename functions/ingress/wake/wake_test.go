package wake

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// counted is a target that gets up after a while, and how often it was asked.
func counted(name string, after time.Duration, err error) (Target, *atomic.Int64) {
	asked := new(atomic.Int64)
	return Target{Name: name, Ask: func(ctx context.Context) error {
		asked.Add(1)
		select {
		case <-time.After(after):
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}}, asked
}

func newWaker(t *testing.T, needs map[string][]Target) *Waker {
	t.Helper()
	w := New(needs, quiet)
	t.Cleanup(w.Stop)
	return w
}

func TestABurstAsksOnceAndSteadyTrafficSeldom(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		err  error
	}{{"that gets up", nil}, {"that does not", errors.New("no such route")}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const getsUp = 2 * time.Second
				target, asked := counted("cat", getsUp, tt.err)
				w := newWaker(t, map[string][]Target{"cat": {target}})
				for _, step := range []struct {
					after time.Duration
					asked int64
				}{
					{0, 1},
					{getsUp - 1, 1}, // it is being asked
					{1, 1},
					{interval - 1, 1}, // it was asked a moment ago
					{1, 2},
				} {
					time.Sleep(step.after)
					synctest.Wait()
					for range 1000 {
						w.Wake("cat")
					}
					synctest.Wait()
					require.Equal(t, step.asked, asked.Load(), "%v", time.Now())
				}
			})
		})
	}
}

func TestWhatSeveralModelsNeedIsAskedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cat, catAsked := counted("cat", 0, nil)
		dog, dogAsked := counted("dog", 0, nil)
		shared, sharedAsked := counted("shared", 0, nil)
		w := newWaker(t, map[string][]Target{"cat": {cat, shared}, "dog": {dog, shared}})
		w.Wake("cat")
		w.Wake("dog")
		w.Wake("cow")
		synctest.Wait()
		require.Equal(t, []int64{1, 1, 1}, []int64{catAsked.Load(), dogAsked.Load(), sharedAsked.Load()})
	})
}

func TestWhatDoesNotGetUpDelaysNobodyAndIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hanging, asked := counted("cat", time.Hour, nil)
		w := newWaker(t, map[string][]Target{"cat": {hanging}})
		began := time.Now()
		w.Wake("cat")
		require.Zero(t, time.Since(began), "the clock stands still as long as anything runs")
		synctest.Wait()
		time.Sleep(patience + interval)
		synctest.Wait()
		w.Wake("cat")
		synctest.Wait()
		require.EqualValues(t, 2, asked.Load())
	})
}

func TestStopEndsWhatIsUnderWayAndWakesNothingAnyMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hanging, asked := counted("cat", time.Hour, nil)
		other, otherAsked := counted("dog", 0, nil)
		w := newWaker(t, map[string][]Target{"cat": {hanging}, "dog": {other}})
		w.Wake("cat")
		synctest.Wait()
		began := time.Now()
		w.Stop()
		require.Zero(t, time.Since(began))
		w.Wake("dog")
		w.Stop()
		synctest.Wait()
		require.EqualValues(t, 1, asked.Load())
		require.Zero(t, otherAsked.Load())
	})
}

func TestARouteIsAskedAtTheModelsAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, model, path string
		status            int
		want              string
	}{
		{"answers", "cat", "/wake/cat/health", http.StatusOK, ""},
		{"a name that would be another path", "../a b?c#d@e", "/wake/..%2Fa%20b%3Fc%23d%40e/health", http.StatusOK, ""},
		{"refuses", "cat", "/wake/cat/health", http.StatusNotFound, "404 Not Found"},
		{"redirects", "cat", "/wake/cat/health", http.StatusFound, "302 Found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			asked := make(chan *http.Request, 1)
			server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				asked <- r
				rw.Header().Set("Location", "/")
				rw.WriteHeader(tt.status)
			}))
			defer server.Close()
			target, err := Route(server.URL+"/wake/{model}/health", tt.model)
			require.NoError(t, err)
			if err := target.Ask(t.Context()); tt.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tt.want)
			}
			r := <-asked
			require.Equal(t, http.MethodGet, r.Method)
			require.Equal(t, tt.path, r.RequestURI)
			require.Empty(t, asked)
		})
	}
}

func TestARouteThatHangsIsLeftWhenTimeIsUp(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	}))
	defer server.Close()
	target, err := Route(server.URL, "cat")
	require.NoError(t, err)
	w := New(map[string][]Target{"cat": {target}}, quiet)
	w.Wake("cat")
	<-asked
	w.Stop() // and the server, which waits for its requests, closes
}

func TestAnAddressThatNobodyHasIsRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ address, model, want string }{
		"no scheme":               {"dispatch-{model}/health", "cat", "want http://host/path"},
		"another scheme":          {"amqp://dispatch-{model}/", "cat", "want http://host/path"},
		"no host":                 {"http:///{model}", "cat", "want http://host/path"},
		"a name that is no host":  {"http://dispatch-{model}.ebb/", "cat@elsewhere", "it cannot be parsed"},
		"a name with another end": {"http://dispatch-{model}.ebb/", "cat/..", "it cannot be parsed"},
		"a password":              {"http://user:secret@dispatch {model}/", "cat", "it cannot be parsed"},
	} {
		_, err := Route(tt.address, tt.model)
		require.ErrorContains(t, err, tt.want, name)
		require.NotContains(t, err.Error(), "secret")
	}
}
