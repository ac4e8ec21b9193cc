// Package ipvs is the load balancer: virtual services, their real servers, the scheduler
// that chooses one, and the table of connections. It stands in INPUT and OUTPUT, where
// clients come in, and in FORWARD, where real servers answer; it decides, and walk moves
// the packet.
//
// Kernel: net/netfilter/ipvs.
package ipvs

import (
	"net/netip"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Method is how packets reach a real server.
//
// Kernel: include/uapi/linux/ip_vs.h, IP_VS_CONN_F_FWD_MASK.
type Method uint8

// The methods, with the kernel's numbers. LocalNode and Bypass are a connection's alone:
// of a server on this host, and of a packet that goes on as if there were no service.
const (
	Masq Method = iota
	LocalNode
	Tunnel
	Direct
	Bypass
)

// String returns ipvsadm's word for the method.
func (m Method) String() string {
	return [...]string{"Masq", "Local", "Tunnel", "Route", "Bypass"}[m]
}

// Encap is how a tunnel wraps packets (ipvsadm --tun-type).
type Encap uint8

// The encapsulations, with the kernel's numbers.
const (
	IPIP Encap = iota
	GUE
	GRE
)

// EncapFlags are the checksums of a tunnel (ipvsadm --tun-csum, --tun-remcsum).
type EncapFlags uint8

// The flags, with the kernel's numbers; none is ipvsadm's --tun-nocsum.
const (
	EncapCsum EncapFlags = 1 << iota
	EncapRemCsum
)

// Flags are what ipvsadm -b sets of a scheduler, and -o.
type Flags uint8

// The flags. For sh the first is sh-fallback and the second sh-port; mh has the same.
const (
	Sched1 Flags = 1 << iota
	Sched2
	Sched3
	OnePacket
)

// Service is a virtual service: by protocol, address and port, or by a mark.
type Service struct {
	Family trace.Family
	Proto  uint8       // TCP, UDP, SCTP; of a mark's service zero
	Addr   packet.Addr // zero where the service goes by a mark
	Port   uint16      // zero: every port
	Mark   uint32      // zero: by address
	// Scheduler is its name, wlc for example; "none" has none.
	Scheduler string
	Flags     Flags
	// Timeout is how long a client stays with its server, in seconds; zero: not persistent.
	Timeout uint32
	// Mask is how many bits of a client's address count for persistence, 32 (128) for all.
	Mask int
	PE   string // persistence engine: sip, or empty
	// Dests are the real servers in the kernel's own order, the one that was added last
	// first (ipvsadm --nosort).
	Dests []Dest
	// Used tells that it has chosen servers before, so that where its scheduler stands is not
	// known: rr's and wrr's turn, and what lblc and lblcr remember, are choices then.
	Used bool
}

// Dest is a real server of a service.
type Dest struct {
	Addr   packet.Addr
	Port   uint16
	Method Method // Masq, Tunnel or Direct
	Encap  Encap
	// EncapPort is the destination port of GUE.
	EncapPort  uint16
	EncapFlags EncapFlags
	Weight     int
	// Upper and Lower are the numbers of connections at which the server becomes
	// overloaded, and is no longer; zero for none, and for three quarters of Upper.
	Upper, Lower uint32
	// Counts are what the server had when the snapshot was taken.
	Counts Counts
}

// Counts are the connections of a real server.
type Counts struct {
	Active, Inactive int32
	Persistent       int32 // templates
	Overload         bool  // had too many, and has not become few enough yet
}

// Total is the number of connections, templates not counted.
func (c Counts) Total() int32 { return c.Active + c.Inactive }

// Conn is a connection, or a template of persistence, as a snapshot has it.
type Conn struct {
	Proto               uint8 // zero in the template of a mark's service
	Client, Virtual     netip.AddrPort
	Real                netip.AddrPort
	State               string // ESTABLISHED, SYN_RECV, UDP, ASSURED ...
	Expires             world.Instant
	Mark                uint32 // of a mark's template, which has it in place of Virtual
	Template, OnePacket bool
}
