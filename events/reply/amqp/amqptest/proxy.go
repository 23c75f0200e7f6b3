package amqptest

import (
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Proxy is a network between a client and a node that a test can break.
type Proxy struct {
	listener net.Listener
	to       string

	mu      sync.Mutex
	links   map[*link]bool
	working sync.WaitGroup
}

// link is one connection through it. Bytes flow while there is something in flow.
type link struct {
	client, server net.Conn
	held           sync.RWMutex // locked: what the server says is held back
}

// NewProxy forwards connections of a listener, which may speak TLS, to an address.
func NewProxy(t *testing.T, listener net.Listener, to string) *Proxy {
	t.Helper()
	p := &Proxy{listener: listener, to: to, links: map[*link]bool{}}
	p.working.Go(p.accept)
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		p.Cut()
		p.working.Wait()
	})
	return p
}

// Listen listens on a free port of loopback, for NewProxy.
func Listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return ln
}

// URL is that of RabbitMQ beyond it.
func (p *Proxy) URL() string { return "amqp://guest:guest@" + p.listener.Addr().String() + "/" }

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.to) //nolint:noctx // loopback answers at once
		if err != nil {
			_ = client.Close()
			continue
		}
		l := &link{client: client, server: server}
		p.mu.Lock()
		p.links[l] = true
		p.mu.Unlock()
		p.working.Go(func() { l.pump(server, client, func() {}) })
		p.working.Go(func() {
			l.pump(client, server, func() {
				l.held.RLock()
				l.held.RUnlock() //nolint:staticcheck // waiting is all that is wanted
			})
			p.mu.Lock()
			delete(p.links, l)
			p.mu.Unlock()
		})
	}
}

func (l *link) pump(to, from net.Conn, wait func()) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		wait()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_ = l.client.Close()
	_ = l.server.Close()
}

// each calls do for each connection.
func (p *Proxy) each(do func(*link)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		do(l)
	}
}

// Cut closes all connections.
func (p *Proxy) Cut() {
	p.each(func(l *link) {
		_ = l.client.Close()
		_ = l.server.Close()
	})
}

// Hold holds back what the server says on all present connections, until release.
func (p *Proxy) Hold() (release func()) {
	var held []*link
	p.each(func(l *link) {
		l.held.Lock()
		held = append(held, l)
	})
	return sync.OnceFunc(func() {
		for _, l := range held {
			l.held.Unlock()
		}
	})
}
