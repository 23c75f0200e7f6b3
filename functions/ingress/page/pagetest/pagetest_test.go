package pagetest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/functions/ingress/page/pagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAMachineWithoutABrowserIsToldWhatToDo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := pagetest.Start()
	require.ErrorIs(t, err, pagetest.ErrNoBrowser)
	require.ErrorContains(t, err, "`make test` installs it")
}

// witness is a test that remembers what it was told instead of failing.
type witness struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (w *witness) Errorf(format string, args ...any) {
	w.errors = append(w.errors, fmt.Sprintf(format, args...))
}
func (w *witness) Cleanup(f func()) { w.cleanups = append(w.cleanups, f) }
func (w *witness) Failed() bool     { return false }

func TestAPageThatComplainsFailsItsTest(t *testing.T) {
	t.Setenv("EBB_SCREENSHOTS", filepath.Join(t.TempDir(), "shots"))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; img-src data:")
		switch r.URL.Path {
		case "/script.js":
			w.Header().Set("Content-Type", "text/javascript")
			_, _ = w.Write([]byte(`console.error('oops'); throw new Error('thrown');`))
		case "/good":
			_, _ = w.Write([]byte(`<link rel="icon" href="data:,"><h1>fine</h1>`))
		default:
			_, _ = w.Write([]byte(`<h1>bad</h1><script>alert(1)</script><script src="/script.js"></script>`))
		}
	}))
	defer server.Close()
	b, err := pagetest.Start()
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Stop()) }()

	bad := &witness{TB: t}
	tab := b.Tab(bad, pagetest.Allow("favicon"))
	tab.Open(server.URL)
	tab.Wait("h1")
	complaints := tab.Complaints()
	require.Len(t, complaints, 3, "%q", complaints)
	require.Contains(t, complaints[0], "Content Security Policy")
	require.Contains(t, complaints[1], "oops")
	require.Contains(t, complaints[2], "thrown")
	tab.Screenshot("bad")
	for _, cleanup := range bad.cleanups {
		cleanup()
	}
	require.Len(t, bad.errors, 3)

	folder, err := pagetest.Screenshots()
	require.NoError(t, err)
	png, err := os.ReadFile(filepath.Join(folder, "bad.png"))
	require.NoError(t, err)
	require.Equal(t, "image/png", http.DetectContentType(png))

	good := b.Tab(t, pagetest.NoScript(), pagetest.Dark(), pagetest.Still(), pagetest.Phone(320))
	good.Open(server.URL + "/good")
	require.Equal(t, "fine", good.Text("h1"))
	heading, ok := pagetest.Find(good.Tree(), "heading", "fine")
	require.True(t, ok)
	require.NotZero(t, heading.Backend)
}
