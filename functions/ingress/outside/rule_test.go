package outside

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPublicFollowsTheRegistriesOfSpecialAddresses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"1.1.1.1":                   true,
		"8.8.8.8":                   true,
		"172.15.255.255":            true,
		"172.32.0.0":                true,
		"100.63.255.255":            true,
		"100.128.0.0":               true,
		"168.63.129.15":             true,
		"2606:4700:4700::1111":      true,
		"2001:4860:4860::8888":      true,
		"64:ff9b::808:808":          true,
		"0.0.0.0":                   false,
		"0.1.2.3":                   false,
		"10.255.255.255":            false,
		"100.64.0.1":                false,
		"100.100.100.200":           false,
		"127.0.0.1":                 false,
		"127.255.255.254":           false,
		"168.63.129.16":             false,
		"169.254.169.254":           false,
		"169.254.170.2":             false,
		"172.16.0.1":                false,
		"172.31.255.255":            false,
		"192.0.0.192":               false,
		"192.0.2.1":                 false,
		"192.88.99.1":               false,
		"192.168.1.1":               false,
		"198.18.0.1":                false,
		"198.19.255.255":            false,
		"198.51.100.7":              false,
		"203.0.113.9":               false,
		"224.0.0.1":                 false,
		"239.255.255.255":           false,
		"240.0.0.1":                 false,
		"255.255.255.255":           false,
		"::":                        false,
		"::1":                       false,
		"::127.0.0.1":               false,
		"64:ff9b::7f00:1":           false,
		"64:ff9b::a9fe:a9fe":        false,
		"64:ff9b:1::1":              false,
		"100::1":                    false,
		"2001::1":                   false,
		"2001:0:7f00:1::1":          false,
		"2001:db8::1":               false,
		"2002:7f00:1::1":            false,
		"2002:808:808::1":           false,
		"2606:4700::5efe:a00:1":     false,
		"2606:4700::200:5efe:a00:1": false,
		"3fff::1":                   false,
		"4000::1":                   false,
		"fc00::1":                   false,
		"fd00:ec2::254":             false,
		"fe80::1":                   false,
		"fec0::1":                   false,
		"ff02::1":                   false,
	} {
		require.Equal(t, want, public(netip.MustParseAddr(text)), text)
	}
}

func TestRuleChecksAddressAndPort(t *testing.T) {
	t.Parallel()
	r := rule{allow: prefixes("10.1.0.0/16", "fd00:1::/32"), ports: []uint16{80, 443}}
	for text, want := range map[string]error{
		"1.1.1.1:80":               nil,
		"1.1.1.1:443":              nil,
		"1.1.1.1:22":               ErrPort,
		"[::ffff:1.1.1.1]:443":     nil,
		"10.1.2.3:5000":            nil,
		"[::ffff:10.1.2.3]:5000":   nil,
		"10.2.0.1:80":              ErrForbidden,
		"[fd00:1::7]:9":            nil,
		"[fd00:2::7]:80":           ErrForbidden,
		"[::ffff:127.0.0.1]:80":    ErrForbidden,
		"[fe80::1%eth0]:80":        ErrForbidden,
		"[64:ff9b::a9fe:a9fe]:80":  ErrForbidden,
		"[2606:4700:4700::64]:443": nil,
	} {
		require.ErrorIs(t, r.check(netip.MustParseAddrPort(text)), want, text)
	}
}
