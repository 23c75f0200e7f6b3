package fetch

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/ebb-inference/ebb/events/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const allowLocal = "127.0.0.1/32"

// fetcher makes a Fetcher that may connect to the prefixes.
func fetcher(c Config, allow ...string) *Fetcher {
	for _, prefix := range allow {
		c.Allow = append(c.Allow, netip.MustParsePrefix(prefix))
	}
	return New(c)
}

// serve starts a web server at address (an IP without a port) and counts its requests.
func serve(t *testing.T, address string, h http.HandlerFunc) (base string, requests *atomic.Int64) {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", net.JoinHostPort(address, "0"))
	require.NoError(t, err)
	requests = new(atomic.Int64)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		h(w, r)
	}))
	require.NoError(t, s.Listener.Close())
	s.Listener = ln
	s.Start()
	t.Cleanup(s.Close)
	return s.URL, requests
}

// resolver answers every question for an address of IPv4 with what lookup says; it asks nobody.
func resolver(lookup func(name string) string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer func() { _ = theirs.Close() }() // the other end notices
			for answerDNS(theirs, lookup) == nil {
			}
		}()
		return ours, nil
	}}
}

// answerDNS answers one query in DNS's form for streams: two bytes of length come before each message.
func answerDNS(conn io.ReadWriter, lookup func(string) string) error {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	query := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, query); err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return err
	}
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
			Body:   &dnsmessage.AResource{A: netip.MustParseAddr(lookup(q.Name.String())).As4()},
		}}
	}
	answer, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
	return err
}

func requireProblem(t *testing.T, err error, code string, status int, detail string) {
	t.Helper()
	var p *problem.Details
	require.ErrorAs(t, err, &p)
	require.Equal(t, "urn:ebb:problem:"+code, p.Type, p.Error())
	require.Equal(t, status, p.Status)
	require.Contains(t, p.Detail, detail)
}

func port(t *testing.T, base string) string {
	t.Helper()
	u, err := url.Parse(base)
	require.NoError(t, err)
	return u.Port()
}

func TestFetchReturnsTheBytesAtTheAddress(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("picture", 1<<18)
	base, requests := serve(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.UserAgent() != "Ebb test" || r.Header.Get("Accept") != "image/*" ||
			r.URL.Path != "/cat.jpg" || r.URL.RawQuery != "size=big" {
			http.Error(w, "not what was expected", http.StatusTeapot)
			return
		}
		_, _ = io.WriteString(w, body)
	})
	got, err := fetcher(Config{UserAgent: "Ebb test"}, allowLocal).Fetch(t.Context(), base+"/cat.jpg?size=big#fragment")
	require.NoError(t, err)
	require.Equal(t, body, string(got))
	require.EqualValues(t, 1, requests.Load())
}

func TestFetchFollowsRedirectsWithoutCookiesAndReferer(t *testing.T) {
	t.Parallel()
	base, _ := serve(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/3" {
			http.SetCookie(w, &http.Cookie{Name: "spy", Value: "1"})
			next := map[string]string{"/0": "/1", "/1": "/2", "/2": "/3"}[r.URL.Path]
			http.Redirect(w, r, next, http.StatusFound)
			return
		}
		if r.Header.Get("Cookie") != "" || r.Header.Get("Referer") != "" {
			http.Error(w, "too talkative", http.StatusTeapot)
			return
		}
		_, _ = io.WriteString(w, "cat")
	})
	got, err := fetcher(Config{MaxRedirects: 3}, allowLocal).Fetch(t.Context(), base+"/0")
	require.NoError(t, err)
	require.Equal(t, "cat", string(got))

	_, err = fetcher(Config{MaxRedirects: 2}, allowLocal).Fetch(t.Context(), base+"/0")
	requireProblem(t, err, CodeStatus, 422, "too many times")
	_, err = fetcher(Config{MaxRedirects: -1}, allowLocal).Fetch(t.Context(), base+"/2")
	requireProblem(t, err, CodeStatus, 422, "too many times")
}

func TestFetchExplainsWhatIsWrongWithTheText(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ address, detail string }{
		"empty":            {"", "begins with http"},
		"no scheme":        {"example.com/cat.jpg", "begins with http"},
		"file":             {"file:///etc/passwd", "begins with http"},
		"gopher":           {"gopher://example.com/1", "begins with http"},
		"data":             {"data:image/png;base64,AAAA", "begins with http"},
		"no host":          {"http:///cat.jpg", "begins with http"},
		"opaque":           {"http:cat.jpg", "begins with http"},
		"only a port":      {"http://:80/", "begins with http"},
		"control bytes":    {"http://example.com/\r\nHost: x", "begins with http"},
		"user":             {"http://me@example.com/", "user name or password"},
		"user and no name": {"http://:@example.com/", "user name or password"},
		"too long":         {"http://example.com/" + strings.Repeat("a", 3000), "longer than 2048"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := fetcher(Config{}).Fetch(t.Context(), tc.address)
			requireProblem(t, err, CodeAddress, 400, tc.detail)
		})
	}
}

func TestFetchDoesNotConnectToAddressesThatAreNotPublic(t *testing.T) {
	t.Parallel()
	base, requests := serve(t, "127.0.0.1", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") })
	p := port(t, base)
	local := resolver(func(string) string { return "127.0.0.1" })
	for name, address := range map[string]string{
		"loopback":                   base,
		"localhost":                  "http://localhost:" + p,
		"a name that means loopback": "http://innocent.example:" + p,
		"IPv4 in IPv6":               "http://[::ffff:127.0.0.1]:" + p,
		"IPv4 in IPv6, hexadecimal":  "http://[::ffff:7f00:1]:" + p,
		"NAT64":                      "http://[64:ff9b::7f00:1]:" + p,
		"unspecified":                "http://0.0.0.0:" + p,
		"unspecified, IPv6":          "http://[::]:" + p,
		"metadata":                   "http://169.254.169.254/latest/meta-data/",
		"metadata, IPv6":             "http://[fd00:ec2::254]/latest/meta-data/",
		"private":                    "http://10.0.0.1/",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := fetcher(Config{Resolver: local}).Fetch(t.Context(), address)
			requireProblem(t, err, CodeForbidden, 422, "private or local network")
		})
	}
	t.Cleanup(func() { require.Zero(t, requests.Load(), "nothing may arrive") })
}

func TestFetchChecksThePortOfPublicAddresses(t *testing.T) {
	t.Parallel()
	_, err := fetcher(Config{}).Fetch(t.Context(), "http://1.1.1.1:25/")
	requireProblem(t, err, CodeForbidden, 422, "unusual port")
}

func TestFetchChecksAddressesAfterRedirects(t *testing.T) {
	t.Parallel()
	secret, requests := serve(t, "127.0.0.2", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") })
	for name, tc := range map[string]struct{ location, detail string }{
		"to an address that is not allowed": {secret, "private or local network"},
		"to metadata":                       {"http://169.254.169.254/", "private or local network"},
		"to a name for it":                  {"http://other.example:" + port(t, secret), "private or local network"},
		"to another scheme":                 {"file:///etc/passwd", "plain http or https"},
		"to credentials":                    {"http://me:you@127.0.0.1/", "plain http or https"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, _ := serve(t, "127.0.0.1", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", tc.location)
				w.WriteHeader(http.StatusFound)
			})
			f := fetcher(Config{Resolver: resolver(func(string) string { return "127.0.0.2" })}, allowLocal)
			_, err := f.Fetch(t.Context(), base)
			requireProblem(t, err, CodeForbidden, 422, tc.detail)
		})
	}
	t.Cleanup(func() { require.Zero(t, requests.Load(), "nothing may arrive") })
}

// The name means an allowed address when it is first looked up and another one the second time.
func TestFetchIsNotFooledByANameThatChangesItsMeaning(t *testing.T) {
	t.Parallel()
	var lookups atomic.Int64
	rebind := resolver(func(string) string {
		if lookups.Add(1) == 1 {
			return "127.0.0.1"
		}
		return "127.0.0.2"
	})
	secret, stolen := serve(t, "127.0.0.2", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") })
	// The same port at the other address, as an attacker's page would have it.
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:"+port(t, secret))
	require.NoError(t, err)
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/again", http.StatusFound)
	}))
	require.NoError(t, front.Listener.Close())
	front.Listener = ln
	front.Start()
	defer front.Close()

	_, err = fetcher(Config{Resolver: rebind}, allowLocal).Fetch(t.Context(), "http://rebind.example:"+port(t, secret))
	requireProblem(t, err, CodeForbidden, 422, "private or local network")
	require.EqualValues(t, 2, lookups.Load(), "the name was looked up for each connection")
	require.Zero(t, stolen.Load())
}

func TestFetchExplainsWhatIsWrongAtTheAddress(t *testing.T) {
	t.Parallel()
	base, _ := serve(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/missing":
			http.NotFound(w, r)
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		case "/partial":
			w.WriteHeader(http.StatusPartialContent)
		case "/empty":
		case "/announced":
			w.Header().Set("Content-Length", "101")
			_, _ = io.WriteString(w, strings.Repeat("x", 101))
		case "/streamed":
			for range 101 {
				_, _ = io.WriteString(w, "x")
				w.(http.Flusher).Flush()
			}
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, "xxxxxxxxxxxxxxxx"); err != nil {
					return
				}
			}
		case "/lying":
			w.Header().Set("Content-Length", "50")
			_, _ = io.WriteString(w, "x")
		case "/exact":
			_, _ = io.WriteString(w, strings.Repeat("x", 100))
		}
	})
	f := fetcher(Config{MaxBytes: 100}, allowLocal)
	for name, tc := range map[string]struct {
		code   string
		status int
		detail string
	}{
		"missing":   {CodeStatus, 422, `"404 Not Found"`},
		"broken":    {CodeStatus, 422, `"500 Internal Server Error"`},
		"partial":   {CodeStatus, 422, `"206 Partial Content"`},
		"empty":     {CodeStatus, 422, "empty"},
		"announced": {CodeTooLarge, 413, "larger than 100 bytes"},
		"streamed":  {CodeTooLarge, 413, "larger than 100 bytes"},
		"endless":   {CodeTooLarge, 413, "larger than 100 bytes"},
		"lying":     {CodeUnreachable, 422, "Check the address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := f.Fetch(t.Context(), base+"/"+name)
			requireProblem(t, err, tc.code, tc.status, tc.detail)
		})
	}
	t.Run("exactly as large as allowed", func(t *testing.T) {
		t.Parallel()
		got, err := f.Fetch(t.Context(), base+"/exact")
		require.NoError(t, err)
		require.Len(t, got, 100)
	})
}

func TestFetchGivesUpOnWhatIsSlow(t *testing.T) {
	t.Parallel()
	over := make(chan struct{})
	base, _ := serve(t, "127.0.0.1", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-over:
		}
	})
	t.Cleanup(func() { close(over) })
	_, err := fetcher(Config{Timeout: 10 * time.Millisecond}, allowLocal).Fetch(t.Context(), base)
	requireProblem(t, err, CodeSlow, 422, "within 10ms")
}

func TestFetchEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	base, _ := serve(t, "127.0.0.1", func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done() // the connection is closed
		close(gone)
	})
	_, err := fetcher(Config{}, allowLocal).Fetch(ctx, base)
	requireProblem(t, err, CodeCallerGone, 499, "cancelled")
	<-gone
}

func TestFetchSaysWhenNothingAnswers(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	_, err = fetcher(Config{}, allowLocal).Fetch(t.Context(), fmt.Sprintf("http://%s/", ln.Addr()))
	requireProblem(t, err, CodeUnreachable, 422, "Check the address")
}

func TestFetchUsesNoProxy(t *testing.T) {
	t.Parallel()
	require.Nil(t, New(Config{}).client.Transport.(*http.Transport).Proxy)
}
