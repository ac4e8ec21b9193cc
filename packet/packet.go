// Package packet is a frame on its way: its bytes in one buffer with headroom,
// the offsets of its layers, and what the kernel keeps beside the bytes. It is
// the first room of the house: everything else reads or rewrites a Packet.
//
// Kernel: include/linux/skbuff.h, struct sk_buff.
package packet

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Headroom is the room before a new packet's first byte: enough for a link
// header and two levels of encapsulation.
const Headroom = 128

// EthernetLen is the length of an Ethernet header without VLAN tags.
const EthernetLen = 14

// Ethernet types.
const (
	EtherIPv4 uint16 = 0x0800
	EtherARP  uint16 = 0x0806
	EtherVLAN uint16 = 0x8100
	EtherIPv6 uint16 = 0x86dd
)

// IP protocol numbers.
const (
	ICMP    uint8 = 1
	IGMP    uint8 = 2
	IPIP    uint8 = 4
	TCP     uint8 = 6
	UDP     uint8 = 17
	DCCP    uint8 = 33
	GRE     uint8 = 47
	ESP     uint8 = 50
	AH      uint8 = 51
	ICMPv6  uint8 = 58
	SCTP    uint8 = 132
	UDPLite uint8 = 136
)

// Type says to whom a frame was addressed, as eth_type_trans sees it.
//
// Kernel: include/uapi/linux/if_packet.h, PACKET_HOST and friends.
type Type uint8

// Packet types, with the kernel's numbers.
const (
	Host Type = iota
	Broadcast
	Multicast
	OtherHost
	Outgoing
	Loopback
)

// Free says which fields of the bytes are not decided: a port that NAT drew at
// random and nobody has asked about yet. The bytes then keep the value from
// before the mapping.
type Free uint8

// Fields that can be free.
const (
	FreeSrcPort Free = 1 << iota
	FreeDstPort
)

// FlowID names a tracked connection in the host's memory. Zero is none.
type FlowID uint32

// CTInfo is the relation of a packet to its connection.
//
// Kernel: include/uapi/linux/netfilter/nf_conntrack_common.h, ip_conntrack_info.
type CTInfo uint8

// Relations, with the kernel's numbers; Untracked is its IP_CT_UNTRACKED.
const (
	Established CTInfo = iota
	Related
	New
	EstablishedReply
	RelatedReply
	Untracked CTInfo = 7
)

// IsReply tells whether the packet goes against the connection's first packet.
func (i CTInfo) IsReply() bool { return i == EstablishedReply || i == RelatedReply }

// CT is a packet's attachment to a connection. Untracked without a flow is
// NOTRACK; the zero CT (no flow, Established) means that nobody tracked it, which
// the state match calls INVALID. So it calls Related without a flow: the host's answer
// to an untracked packet, which NOTRACK and CT leave alone (nf_conntrack_attach).
type CT struct {
	Flow FlowID
	Info CTInfo
}

// Meta is what the kernel keeps beside the bytes.
type Meta struct {
	Mark     uint32
	Priority uint32 // skb->priority, in host order; CLASSIFY sets it
	In, Out  Dev    // the devices that the present hook sees
	PhysIn   Dev    // bridge port in, zero when not bridged
	PhysOut  Dev
	Type     Type
	CT       CT
	// Template is the zone and helper that a CT target chose before tracking,
	// an index that package conntrack gives a meaning. Zero is none.
	Template uint32
	// Socket is the local owner: a number in the host's socket memory, zero when
	// the packet has none.
	Socket uint32
	// SKB is the number of the packet in a trace; 1 is the question's packet.
	SKB int
	// Realm is the routing realm of the chosen route (dst->tclassid).
	Realm uint32
	// NFTrace is set by the TRACE target.
	NFTrace bool
	// Rerouted, Forwarded and friends of IPCB(skb)->flags.
	Flags CBFlags
	// FragMax is IPCB(skb)->frag_max_size: the largest fragment of a reassembled
	// packet, zero when it was whole.
	FragMax uint16
	// SumValid tells that the host found the transport checksum right (csum_valid): it
	// does not look again.
	SumValid bool
	// Options are the IPv4 options as this host understood them.
	Options IPOptions
	// Partial tells that a socket left the transport checksum to the device
	// (CHECKSUM_PARTIAL). The bytes here always hold the whole one.
	Partial bool
	// IPVS tells that the load balancer saw the packet (ipvs_property): it looks no more.
	IPVS bool
	// IgnoreDF tells that the packet may be cut although it says DF (skb->ignore_df): its
	// socket left that to the kernel.
	IgnoreDF bool
	// Pieces are the payload sizes of the fragments that the packet was put together
	// from (the frag_list), nil when it was whole. They are not written in place.
	Pieces []uint16
	Free   Free
}

// CBFlags are IPCB(skb)->flags.
type CBFlags uint8

// Flags, named as in include/net/ip.h.
const (
	Forwarded CBFlags = 1 << iota
	Rerouted
	FragComplete
	DoRedirect
	FragPMTU // the largest of the fragments that the packet came in had DF
)

// Packet is one packet. Offsets count from the start of the buffer. It is not
// safe for concurrent use.
type Packet struct {
	buf        []byte
	start      int // first byte of the frame: link header, or IP header when sent locally
	net, trans int // zero when unknown
	end        int
	proto      uint16 // Ethernet type of what stands at net
	Meta
}

// FromFrame returns a packet that holds a copy of an Ethernet frame. The network
// header is found behind the Ethernet header; a frame that is shorter than that
// gives false.
func FromFrame(frame []byte) (*Packet, bool) {
	p := new(Packet)
	if !p.Load(frame) {
		return nil, false
	}
	return p, true
}

// Load makes p the packet that FromFrame returns, in p's own buffer where that is large
// enough. It does nothing but say false to a frame that is too short.
func (p *Packet) Load(frame []byte) bool {
	if len(frame) < EthernetLen {
		return false
	}
	p.fill(frame, Headroom)
	p.proto = binary.BigEndian.Uint16(frame[12:14])
	p.net = p.start + EthernetLen
	p.FindTransport()
	return true
}

// FromIP returns a packet without link header that holds a copy of an IP packet.
func FromIP(b []byte) (*Packet, bool) {
	if len(b) < 1 {
		return nil, false
	}
	p := new(Packet)
	p.fill(b, Headroom+EthernetLen)
	p.net = p.start
	switch b[0] >> 4 {
	case 4:
		p.proto = EtherIPv4
	case 6:
		p.proto = EtherIPv6
	}
	p.FindTransport()
	return p, true
}

// fill begins the packet anew with bytes behind headroom.
func (p *Packet) fill(b []byte, headroom int) {
	n := headroom + len(b)
	buf := p.buf
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	*p = Packet{buf: buf[:n], start: headroom, end: n}
	copy(p.buf[headroom:], b)
}

// Clone returns a deep copy.
func (p *Packet) Clone() *Packet {
	q := *p
	q.buf = append([]byte(nil), p.buf...)
	return &q
}

// FindTransport sets the transport offset from the network header. Where the
// header is cut short, there is none.
func (p *Packet) FindTransport() {
	p.trans = 0
	ip := p.IP()
	if p.proto != EtherIPv4 || len(ip) < header.IPv4MinimumSize {
		return
	}
	if n := int(ip[0]&0xf) * 4; n >= header.IPv4MinimumSize && n <= len(ip) {
		p.trans = p.net + n
	}
}

// EtherType is the Ethernet type of the network header.
func (p *Packet) EtherType() uint16 { return p.proto }

// Frame is the whole frame; without link header it is the IP packet.
func (p *Packet) Frame() []byte { return p.buf[p.start:p.end] }

// HasLink tells whether a link header stands before the network header.
func (p *Packet) HasLink() bool { return p.net > p.start }

// IP is the network header and all behind it, empty when there is none.
func (p *Packet) IP() []byte {
	if p.net == 0 {
		return nil
	}
	return p.buf[p.net:p.end]
}

// IP4 views the network header as IPv4. Call it only where Is4 holds.
func (p *Packet) IP4() header.IPv4 { return header.IPv4(p.IP()) }

// Is4 tells whether a whole IPv4 header is there.
func (p *Packet) Is4() bool { return p.proto == EtherIPv4 && p.trans != 0 }

// L4 is the transport header and all behind it; empty when the header is cut.
func (p *Packet) L4() []byte {
	if p.trans == 0 {
		return nil
	}
	return p.buf[p.trans:p.end]
}

// Protocol is the transport protocol number.
func (p *Packet) Protocol() uint8 {
	if !p.Is4() {
		return 0
	}
	return p.buf[p.net+9]
}

// FragOff is the fragment offset in bytes; zero for a whole packet and for the
// first fragment.
func (p *Packet) FragOff() int {
	if !p.Is4() {
		return 0
	}
	return int(binary.BigEndian.Uint16(p.buf[p.net+6:])&0x1fff) * 8
}

// IsFragment tells whether the packet is a piece of a larger one.
//
// Kernel: include/net/ip.h, ip_is_fragment.
func (p *Packet) IsFragment() bool {
	return p.Is4() && binary.BigEndian.Uint16(p.buf[p.net+6:])&0x3fff != 0
}

// Src is the network source address.
func (p *Packet) Src() Addr {
	if !p.Is4() {
		return Addr{}
	}
	return AddrFrom4(p.buf[p.net+12:])
}

// Dst is the network destination address.
func (p *Packet) Dst() Addr {
	if !p.Is4() {
		return Addr{}
	}
	return AddrFrom4(p.buf[p.net+16:])
}

// TOS is the type of service octet (DSCP and ECN).
func (p *Packet) TOS() uint8 {
	if !p.Is4() {
		return 0
	}
	return p.buf[p.net+1]
}

// TTL is the time to live.
func (p *Packet) TTL() uint8 {
	if !p.Is4() {
		return 0
	}
	return p.buf[p.net+8]
}

// Len is the length of the network packet in bytes (skb->len in the IP layer).
func (p *Packet) Len() int { return p.end - p.net }

// Ports are the first two 16-bit words of the transport header: the ports of
// TCP, UDP, SCTP, DCCP and UDPLite. It is false for other protocols, on later
// fragments and where the header is cut.
func (p *Packet) Ports() (src, dst uint16, ok bool) {
	l4 := p.L4()
	if !HasPorts(p.Protocol()) || p.FragOff() != 0 || len(l4) < 4 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:]), true
}

// HasPorts tells whether the protocol's header begins with two ports.
func HasPorts(proto uint8) bool {
	switch proto {
	case TCP, UDP, SCTP, DCCP, UDPLite:
		return true
	}
	return false
}

// Trim cuts the frame so that n bytes are left from the network header on
// (Ethernet padding). It does nothing when the packet is not longer.
func (p *Packet) Trim(n int) {
	if n >= 0 && p.net+n < p.end {
		p.end = p.net + n
	}
}

// LinkSrc is the source MAC address of the link header.
func (p *Packet) LinkSrc() (MAC, bool) {
	if p.net-p.start < EthernetLen {
		return MAC{}, false
	}
	return MAC(p.buf[p.start+6:]), true
}

// LinkDst is the destination MAC address of the link header.
func (p *Packet) LinkDst() (MAC, bool) {
	if p.net-p.start < EthernetLen {
		return MAC{}, false
	}
	return MAC(p.buf[p.start:]), true
}

// PushLink replaces the link header by a new Ethernet header.
func (p *Packet) PushLink(dst, src MAC) {
	p.start = p.net - EthernetLen
	h := p.buf[p.start:p.net]
	copy(h, dst[:])
	copy(h[6:], src[:])
	binary.BigEndian.PutUint16(h[12:], p.proto)
}

// DropLink removes the link header, as a packet that leaves an interface for
// another stack loses it.
func (p *Packet) DropLink() { p.start = p.net }

// SetIP replaces everything from the network header on by b.
func (p *Packet) SetIP(b []byte) {
	p.buf = append(p.buf[:p.net], b...)
	p.end = p.net + len(b)
	p.FindTransport()
}
