package field

// ID names a field that a question can be about. Values are numbers of at most
// 128 bits in host order; addresses are IPv4-mapped, so one field serves both
// families.
type ID uint8

// The fields. The comment gives the meaning of the value.
const (
	None ID = iota

	// The link.
	In        // index of the device that the packet came in by, 0 for none
	Out       // index of the device that the packet leaves by, 0 for none
	PhysIn    // bridge port in, 0 for none
	PhysOut   // bridge port out, 0 for none
	MACSrc    // 48 bits
	MACDst    // 48 bits
	EtherType // Ethernet type
	PktType   // packet.Type: 0 host, 1 broadcast, 2 multicast, 3 other host
	InGroup   // device group of In
	OutGroup  // device group of Out

	// The network header.
	Src      // 128 bits, IPv4-mapped
	Dst      // 128 bits, IPv4-mapped
	Proto    // transport protocol
	TOS      // the octet, DSCP and ECN together
	TTL      // hop limit in IPv6
	Len      // bytes from the network header on, as skb->len
	FragOff  // fragment offset in bytes: 0 for whole packets and first fragments
	FragMF   // 1 when more fragments follow
	DontFrag // 1 when the packet must not be cut (IPv4)
	IPOpts   // bit n: IP option number n is there (IPv4)

	// The transport header. On later fragments these are Absent; cut headers
	// are HotDrop.
	L4       // 1 when the fixed part of the transport header is there
	SrcPort  // tcp, udp, sctp, dccp, udplite
	DstPort  //
	TCPFlags // the octet CWR ECE URG ACK PSH RST SYN FIN
	TCPMSS   // value of the MSS option; Absent without it
	ICMPType // of ICMP and ICMPv6
	ICMPCode //
	ICMPID   // of ICMP's queries
	SPI      // of AH and ESP
	DCCPType //

	// What the kernel keeps beside the bytes.
	Mark     //
	Priority // skb->priority
	Realm    // realms of the route
	CPU      //
	UID      // of the socket's owner; Absent without a socket
	GID      //
	HasSock  // 1 when the packet has a local socket
	CGroup   // class id

	// The connection. Without one these are Absent, CtState is never.
	CtState   // one bit: 1<<CTInfo as the conntrack match numbers them, see CtState*
	CtStatus  // IPS_* bits
	CtMark    //
	CtZone    //
	CtDir     // 0 original, 1 reply
	CtProto   // protocol of the original tuple
	CtOrigSrc //
	CtOrigDst //
	CtReplSrc //
	CtReplDst //
	CtOrigSPort
	CtOrigDPort
	CtReplSPort
	CtReplDPort
	CtExpire // seconds left
	CtLabel  // 128 label bits
	CtHelper // number of the helper, 0 for none

	// What the host makes of the packet: derived, but asked about like fields.
	SrcType // addrtype: one bit, 1<<RTN_*
	DstType //

	Now // seconds since the epoch, UTC

	Bytes // 1: bytes as such were read, which no other field names

	NumIDs
)

// Bits of CtState, as xt_conntrack prints them.
const (
	CtInvalid     = 1 << 0
	CtEstablished = 1 << 1
	CtRelated     = 1 << 2
	CtNew         = 1 << 3
	CtSNAT        = 1 << 6
	CtDNAT        = 1 << 7
	CtUntracked   = 1 << 8
)

type info struct {
	name string
	bits uint8
}

var infos = [NumIDs]info{
	None: {"none", 0},
	In:   {"in", 32}, Out: {"out", 32}, PhysIn: {"physin", 32}, PhysOut: {"physout", 32},
	MACSrc: {"mac-src", 48}, MACDst: {"mac-dst", 48}, EtherType: {"ethertype", 16},
	PktType: {"pkttype", 3}, InGroup: {"in-group", 32}, OutGroup: {"out-group", 32},
	Src: {"src", 128}, Dst: {"dst", 128}, Proto: {"proto", 8}, TOS: {"tos", 8}, TTL: {"ttl", 8},
	Len: {"len", 32}, FragOff: {"fragment-offset", 16}, FragMF: {"more-fragments", 1},
	DontFrag: {"dont-fragment", 1},
	IPOpts:   {"ip-options", 32},
	L4:       {"transport-header", 1}, SrcPort: {"sport", 16}, DstPort: {"dport", 16},
	TCPFlags: {"tcp-flags", 8}, TCPMSS: {"mss", 16}, ICMPType: {"icmp-type", 8},
	ICMPCode: {"icmp-code", 8}, ICMPID: {"icmp-id", 16}, SPI: {"spi", 32}, DCCPType: {"dccp-type", 4},
	Mark: {"mark", 32}, Priority: {"priority", 32}, Realm: {"realm", 32}, CPU: {"cpu", 32},
	UID: {"uid", 32}, GID: {"gid", 32}, HasSock: {"socket", 1}, CGroup: {"cgroup", 32},
	CtState: {"ct", 9}, CtStatus: {"ct-status", 32}, CtMark: {"ct-mark", 32},
	CtZone: {"ct-zone", 16}, CtDir: {"ct-dir", 1}, CtProto: {"ct-proto", 8},
	CtOrigSrc: {"ct-orig-src", 128}, CtOrigDst: {"ct-orig-dst", 128},
	CtReplSrc: {"ct-reply-src", 128}, CtReplDst: {"ct-reply-dst", 128},
	CtOrigSPort: {"ct-orig-sport", 16}, CtOrigDPort: {"ct-orig-dport", 16},
	CtReplSPort: {"ct-reply-sport", 16}, CtReplDPort: {"ct-reply-dport", 16},
	CtExpire: {"ct-expire", 32}, CtLabel: {"ct-label", 128}, CtHelper: {"ct-helper", 16},
	SrcType: {"src-type", 16}, DstType: {"dst-type", 16}, Now: {"time", 64},
	Bytes: {"bytes", 1},
}

// String returns the name that depends-on lines and JSON use.
func (id ID) String() string { return infos[id].name }

// Opposite is what a field is called on the way back: a source is a destination there. Other
// fields are themselves.
func (id ID) Opposite() ID {
	switch id {
	case Src:
		return Dst
	case Dst:
		return Src
	case SrcPort:
		return DstPort
	case DstPort:
		return SrcPort
	case SrcType:
		return DstType
	case DstType:
		return SrcType
	}
	return id
}

// Bits is the width of the field's values.
func (id ID) Bits() int { return int(infos[id].bits) }
