package outside

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// rule says which addresses may be connected to.
type rule struct {
	allow []netip.Prefix // at any port
	ports []uint16       // of public addresses
}

func (r rule) check(ap netip.AddrPort) error {
	addr := ap.Addr().Unmap().WithZone("")
	for _, p := range r.allow {
		if p.Contains(addr) {
			return nil
		}
	}
	if !public(addr) {
		return ErrForbidden
	}
	if !slices.Contains(r.ports, ap.Port()) {
		return ErrPort
	}
	return nil
}

// public says whether an address is one that anybody on the internet can reach. It follows the registries of special
// purpose addresses, and distrusts what it does not know: of IPv6, only what is being assigned today is public.
func public(a netip.Addr) bool {
	if a.Is6() && nat64.Contains(a) {
		// An address of IPv4 in disguise: a host that has only IPv6 reaches all of IPv4 so.
		b := a.As16()
		return public(netip.AddrFrom4([4]byte(b[12:])))
	}
	if a.Is6() && !globalUnicast.Contains(a) {
		return false // loopback, link-local, unique local (fd00:ec2::254 too), multicast, mapped, compatible, unassigned
	}
	if isatap(a) {
		return false
	}
	return !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}

// isatap finds IPv4 addresses in the lower half of IPv6 addresses, where ISATAP routers would look for them.
func isatap(a netip.Addr) bool {
	if !a.Is6() {
		return false
	}
	b := a.As16()
	return binary.BigEndian.Uint32(b[8:])&^0x02000000 == 0x00005efe
}

var (
	nat64         = netip.MustParsePrefix("64:ff9b::/96")
	globalUnicast = netip.MustParsePrefix("2000::/3")
)

// special are the parts of 0.0.0.0/0 and 2000::/3 that are not public.
var special = prefixes(
	"0.0.0.0/8",         // this network
	"10.0.0.0/8",        // private
	"100.64.0.0/10",     // carriers' NAT; also a cloud's metadata, 100.100.100.200
	"127.0.0.0/8",       // loopback
	"168.63.129.16/32",  // a cloud's agent, public only by its looks
	"169.254.0.0/16",    // link-local; clouds' metadata, 169.254.169.254
	"172.16.0.0/12",     // private
	"192.0.0.0/24",      // protocol assignments; also a cloud's metadata, 192.0.0.192
	"192.0.2.0/24",      // documentation
	"192.31.196.0/24",   // AS112
	"192.52.193.0/24",   // AMT
	"192.88.99.0/24",    // 6to4 relays
	"192.168.0.0/16",    // private
	"192.175.48.0/24",   // AS112
	"198.18.0.0/15",     // benchmarks
	"198.51.100.0/24",   // documentation
	"203.0.113.0/24",    // documentation
	"224.0.0.0/4",       // multicast
	"240.0.0.0/4",       // reserved, broadcast
	"2001::/23",         // protocol assignments, Teredo among them
	"2001:db8::/32",     // documentation
	"2002::/16",         // 6to4: an address of IPv4 in disguise, and out of use
	"2620:4f:8000::/48", // AS112
	"3fff::/20",         // documentation
)

func prefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		all[i] = netip.MustParsePrefix(t)
	}
	return all
}
