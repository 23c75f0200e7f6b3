// Package outside is how this server talks to addresses that strangers name. What a server may be talked into asking for
// is the whole difficulty: an address is checked when it is connected to, after names were resolved and after every
// redirect.
//
// It uses no proxy, not even one that the environment names: the check would see the proxy's address and nothing else. It
// knows nothing of what is said.
package outside

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
)

// MaxURLBytes is how long the text of an address may be.
const MaxURLBytes = 2048

const maxHeaderBytes = 64 << 10 // of an answer

// DefaultPorts are the ports of web servers.
var DefaultPorts = []uint16{80, 443, 8080, 8443}

// What can be wrong with an address.
var (
	ErrAddress     = errors.New("not a web address")
	ErrTooLong     = errors.New("address too long")
	ErrScheme      = errors.New("neither http nor https")
	ErrCredentials = errors.New("credentials in the address")
	ErrForbidden   = errors.New("address not allowed") // found when connecting
	ErrPort        = errors.New("port not allowed")    // found when connecting
)

// Config says which addresses may be connected to. The zero value allows public ones at the usual ports.
type Config struct {
	Ports []uint16 // of public addresses, default DefaultPorts
	// Allow are addresses that may be connected to, at any port, although they are not public.
	Allow []netip.Prefix
	// Resolver finds addresses; nil is the system's. What it finds is checked all the same.
	Resolver *net.Resolver
}

// NewTransport makes a transport that connects to what c allows and nothing else; its errors wrap ErrForbidden or ErrPort
// then. It keeps no connections, so that every request dials, and every dial is checked. It needs no closing.
func NewTransport(c Config) *http.Transport {
	if len(c.Ports) == 0 {
		c.Ports = DefaultPorts
	}
	allowed := rule{allow: slices.Clone(c.Allow), ports: slices.Clone(c.Ports)}
	dialer := &net.Dialer{Resolver: c.Resolver, ControlContext: allowed.control}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		DisableKeepAlives:      true,
		DisableCompression:     true, // pictures are compressed, and who bounds an answer counts what arrives
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
}

// control is called for every connection, with the address that it is about to be made to.
func (r rule) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || (network != "tcp4" && network != "tcp6") {
		return ErrForbidden
	}
	return r.check(ap)
}

// Parse reads an address and refuses what nobody needs in one. The error is one of ErrTooLong, ErrAddress, ErrScheme and
// ErrCredentials.
func Parse(address string) (*url.URL, error) {
	if len(address) > MaxURLBytes {
		return nil, ErrTooLong
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, ErrAddress
	}
	return u, Check(u)
}

// Check is Parse for an address that has been read, such as that of a redirect.
func Check(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return ErrScheme
	case u.Hostname() == "":
		return ErrAddress
	case u.User != nil:
		return ErrCredentials
	}
	return nil
}
