package source

import (
	"net"
	"net/http"
	"time"
)

const (
	dialTimeout = 10 * time.Second
	// maxHeader bounds what comes before an answer's body.
	maxHeader = 64 << 10
)

// Transport returns one for sources that are asked by HTTP: it bounds what servers can make it wait for, and takes files as they
// are stored, since checksums and offsets are of that.
func Transport(p Patience) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  p.WithDefaults().Idle,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
}
