// Package link is what a host owns on the wire: interfaces, addresses,
// neighbours and their sysctls, and who answers ARP. It stands where a packet
// enters and leaves the host; routing asks it about addresses, and what leaves
// asks it for the next hop's MAC address.
package link

import (
	"strconv"

	"github.com/hookpath/hookpath/packet"
)

// Loopback is the index of lo in every namespace.
//
// Kernel: include/net/flow.h, LOOPBACK_IFINDEX.
const Loopback packet.Dev = 1

// MinMTU is the smallest MTU with which an interface speaks IPv4.
//
// Kernel: net/ipv4/devinet.c, inetdev_valid_mtu.
const MinMTU = 68

// Flags are an interface's IFF_ flags, with the kernel's numbers.
//
// Kernel: include/uapi/linux/if.h, net_device_flags.
type Flags uint32

// The flags.
const (
	Up           Flags = 1 << 0
	Broadcast    Flags = 1 << 1
	LoopbackFlag Flags = 1 << 3
	PointToPoint Flags = 1 << 4
	NoARP        Flags = 1 << 7
	Promisc      Flags = 1 << 8
	AllMulti     Flags = 1 << 9
	Master       Flags = 1 << 10
	Slave        Flags = 1 << 11
	Multicast    Flags = 1 << 12
	LowerUp      Flags = 1 << 16
)

// Link is an interface. The zero Master, Peer and Lower are none. A nil
// Unsupported says that the packet's way through it is known.
type Link struct {
	Index  packet.Dev
	Name   string
	Kind   string // of `ip -d link`: veth, bridge, vlan, vrf ...; empty for lo and hardware
	MAC    packet.MAC
	Bcast  packet.MAC
	MTU    int
	Flags  Flags
	Master packet.Dev
	Peer   packet.Dev // of a veth, when it is in the same namespace
	Lower  packet.Dev // the device under a VLAN or macvlan
	Group  uint32
	// Table is the routing table of a VRF.
	Table uint32
	VLAN  uint16 // the VLAN id of a vlan device
	// TunnelLocal and TunnelRemote are the ends of an ipip tunnel; zero is any.
	TunnelLocal, TunnelRemote packet.Addr
	// NoHeader tells that frames have no link header, as of a tun device.
	NoHeader bool
	// AltNames are other names that rules may use.
	AltNames []string
	// Conf is filled in by New.
	Conf Conf
}

// Is tells whether all the given flags are set.
func (l *Link) Is(f Flags) bool { return l.Flags&f == f }

// HasIP tells whether the interface speaks IPv4 (has an in_device).
func (l *Link) HasIP() bool { return l.MTU >= MinMTU }

// IsVRF tells whether the interface is an L3 master.
//
// Kernel: include/linux/netdevice.h, netif_is_l3_master.
func (l *Link) IsVRF() bool { return l.Kind == "vrf" }

// Scope is how far an address or a route reaches: the lower, the wider.
//
// Kernel: include/uapi/linux/rtnetlink.h, rt_scope_t.
type Scope uint8

// The scopes, with the kernel's numbers.
const (
	ScopeUniverse Scope = 0
	ScopeSite     Scope = 200
	ScopeLink     Scope = 253
	ScopeHost     Scope = 254
	ScopeNowhere  Scope = 255
)

// String returns iproute2's word.
func (s Scope) String() string {
	switch s {
	case ScopeUniverse:
		return "global"
	case ScopeSite:
		return "site"
	case ScopeLink:
		return "link"
	case ScopeHost:
		return "host"
	case ScopeNowhere:
		return "nowhere"
	}
	return strconv.Itoa(int(s))
}

// ParseScope reads a word or a number as iproute2 writes it.
func ParseScope(s string) (Scope, bool) {
	for _, c := range []Scope{ScopeUniverse, ScopeSite, ScopeLink, ScopeHost, ScopeNowhere} {
		if s == c.String() {
			return c, true
		}
	}
	n, err := strconv.ParseUint(s, 0, 8)
	return Scope(n), err == nil
}

// Addr is an address of an interface.
//
// Kernel: include/linux/inetdevice.h, struct in_ifaddr.
type Addr struct {
	Dev           packet.Dev
	Local         packet.Addr
	Peer          packet.Addr // zero: the same as Local
	PrefixLen     int
	Broadcast     packet.Addr // zero for none
	Scope         Scope
	Secondary     bool
	NoPrefixRoute bool
	Label         string
	Metric        uint32
}

// Holds tells whether the address's prefix, that of the peer where there is one,
// holds a.
//
// Kernel: include/linux/inetdevice.h, inet_ifa_match.
func (ad *Addr) Holds(a packet.Addr) bool {
	base := ad.Peer
	if base.IsZero() {
		base = ad.Local
	}
	n := ad.PrefixLen
	if base.Is4() {
		n += 96
	}
	return samePrefix(base, a, n)
}

// samePrefix tells whether two addresses agree in their first n of 128 bits.
func samePrefix(a, b packet.Addr, n int) bool {
	for i := 0; i < 16 && n > 0; i, n = i+1, n-8 {
		if mask := byte(uint(0xff00) >> min(n, 8)); (a[i]^b[i])&mask != 0 {
			return false
		}
	}
	return true
}

// NeighState is the state of a neighbour entry, one bit.
//
// Kernel: include/uapi/linux/neighbour.h, NUD_*.
type NeighState uint8

// The states, with the kernel's numbers.
const (
	Incomplete NeighState = 1 << iota
	Reachable
	Stale
	Delay
	Probe
	Failed
	NoARPState
	Permanent
	NoState NeighState = 0
)

// valid is NUD_VALID: the states in which a packet is sent at once.
const valid = Permanent | NoARPState | Reachable | Probe | Stale | Delay

// IsValid tells whether packets are sent to a neighbour in this state at once.
func (s NeighState) IsValid() bool { return s&valid != 0 }

// Neigh is an entry of the neighbour table.
type Neigh struct {
	Dev   packet.Dev
	Addr  packet.Addr
	MAC   packet.MAC
	State NeighState
}

// Proxy is an address for which a device answers ARP, `ip neigh add proxy`. The
// zero Dev is every device.
type Proxy struct {
	Dev  packet.Dev
	Addr packet.Addr
}

// Membership is a multicast group that an interface has joined.
type Membership struct {
	Dev   packet.Dev
	Group packet.Addr
}
