package nat

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/packet"
)

// rewrite is the translation of one IPv4 packet, which may be a quoted one.
type rewrite struct {
	ip     []byte // from the header to the end of the whole packet
	target conntrack.Tuple
	m      Manip
	dccp   bool // DCCP's ports are translated
	keep   bool // the port is not known: it stays
}

// run rewrites address and port; false where the headers are cut.
//
// Kernel: net/netfilter/nf_nat_proto.c, nf_nat_ipv4_manip_pkt.
func (r *rewrite) run() bool {
	if len(r.ip) < 20 {
		return false
	}
	n := int(r.ip[0]&0xf) * 4
	if n > len(r.ip) {
		n = len(r.ip)
	}
	if !r.transport(r.ip[n:]) {
		return false
	}
	packet.Replace(r.ip[10:12], r.old(), r.addr())
	copy(r.old(), r.addr())
	return true
}

// pull makes what is rewritten one stretch of the packet, in which its header stands at
// at. It counts for packets that were put together from short fragments.
//
// Kernel: net/netfilter/nf_nat_proto.c, skb_ensure_writable in each *_manip_pkt.
func (r *rewrite) pull(p *packet.Packet, at int) {
	if len(p.Pieces) == 0 || len(r.ip) < 20 {
		return
	}
	n := int(r.ip[0]&0xf) * 4
	p.Pull(at + n + r.needs(len(r.ip)-n))
}

// needs is how much of a transport header is made writable where size bytes are there.
func (r *rewrite) needs(size int) int {
	const least = 8
	whole := least
	switch r.target.Proto {
	case packet.TCP:
		whole = 20
	case packet.SCTP:
		whole = 12
	case packet.DCCP:
		whole = 12
		if !r.dccp {
			return 0
		}
	case packet.UDP, packet.UDPLite, packet.ICMP, packet.GRE:
	default:
		return 0
	}
	if size < whole {
		return least
	}
	return whole
}

// old is the address in the header that is to change.
func (r *rewrite) old() []byte {
	if r.m == Src {
		return r.ip[12:16]
	}
	return r.ip[16:20]
}

// addr is the new address.
func (r *rewrite) addr() []byte {
	if r.m == Src {
		return r.target.Src.Bytes()
	}
	return r.target.Dst.Bytes()
}

// Kernel: net/netfilter/nf_nat_proto.c, l4proto_manip_pkt.
func (r *rewrite) transport(l4 []byte) bool {
	switch r.target.Proto {
	case packet.TCP:
		return r.ports(l4, 20, 16)
	case packet.UDP:
		return r.udp(l4, false)
	case packet.UDPLite:
		return r.udp(l4, true)
	case packet.SCTP:
		return r.sctp(l4)
	case packet.DCCP:
		return !r.dccp || r.ports(l4, 12, 6)
	case packet.ICMP:
		return r.icmp(l4)
	case packet.GRE:
		return r.gre(l4)
	}
	return true
}

// port is where the port stands, and the new one.
func (r *rewrite) port(l4 []byte) (field []byte, v uint16) {
	if r.m == Src {
		return l4[0:2], r.target.SPort
	}
	return l4[2:4], r.target.DPort
}

// setPort writes the port, and mends a checksum that covers addresses too when sum
// is not nil.
func (r *rewrite) setPort(l4, sum []byte) {
	field, v := r.port(l4)
	old := [2]byte(field)
	if !r.keep {
		binary.BigEndian.PutUint16(field, v)
	}
	if sum != nil {
		packet.Replace(sum, r.old(), r.addr())
		packet.Replace(sum, old[:], field)
	}
}

// ports rewrites TCP and DCCP. Of a quoted header only eight bytes need be there;
// then its checksum is out of reach.
//
// Kernel: net/netfilter/nf_nat_proto.c, tcp_manip_pkt and dccp_manip_pkt.
func (r *rewrite) ports(l4 []byte, header, sum int) bool {
	if len(l4) < 8 {
		return false
	}
	if len(l4) < header {
		r.setPort(l4, nil)
		return true
	}
	r.setPort(l4, l4[sum:sum+2])
	return true
}

// Kernel: net/netfilter/nf_nat_proto.c, udp_manip_pkt and udplite_manip_pkt.
func (r *rewrite) udp(l4 []byte, always bool) bool {
	if len(l4) < 8 {
		return false
	}
	sum := l4[6:8]
	if !always && sum[0]|sum[1] == 0 {
		r.setPort(l4, nil)
		return true
	}
	r.setPort(l4, sum)
	if sum[0]|sum[1] == 0 {
		sum[0], sum[1] = 0xff, 0xff
	}
	return true
}

// Kernel: net/netfilter/nf_nat_proto.c, sctp_manip_pkt.
func (r *rewrite) sctp(l4 []byte) bool {
	if len(l4) < 8 {
		return false
	}
	r.setPort(l4, nil)
	if len(l4) >= 12 {
		binary.LittleEndian.PutUint32(l4[8:], conntrack.SCTPChecksum(l4))
	}
	return true
}

// icmp rewrites the id of questions and answers.
//
// Kernel: net/netfilter/nf_nat_proto.c, icmp_manip_pkt.
func (r *rewrite) icmp(l4 []byte) bool {
	if len(l4) < 8 {
		return false
	}
	switch l4[0] {
	case 0, 8, 13, 14, 15, 16, 17, 18:
	default:
		return true
	}
	old := [2]byte(l4[4:6])
	if !r.keep {
		binary.BigEndian.PutUint16(l4[4:], r.target.SPort)
	}
	packet.Replace(l4[2:4], old[:], l4[4:6])
	return true
}

// gre rewrites the call id of PPTP. There is no source key in a packet.
//
// Kernel: net/netfilter/nf_nat_proto.c, gre_manip_pkt.
func (r *rewrite) gre(l4 []byte) bool {
	if len(l4) < 8 {
		return false
	}
	if r.m == Src {
		return true
	}
	switch l4[1] & 7 {
	case 0:
		return true
	case 1:
		binary.BigEndian.PutUint16(l4[6:], r.target.DPort)
		return true
	}
	return false
}
