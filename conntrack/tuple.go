package conntrack

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// Tuple is one direction of a connection. Of protocols with ports SPort and DPort
// are these; of ICMP SPort is the id and DPort type<<8|code; of GRE they are the
// keys of PPTP; of others zero. The zero Tuple is of no packet.
//
// Kernel: include/net/netfilter/nf_conntrack_tuple.h.
type Tuple struct {
	Src, Dst     packet.Addr
	SPort, DPort uint16
	Proto        uint8
}

// Dir is a direction of a connection.
type Dir uint8

// The directions.
const (
	Original Dir = iota
	Reply
)

// Not returns the other direction.
func (d Dir) Not() Dir { return d ^ 1 }

// DirOf returns the direction that a packet's relation implies.
//
// Kernel: CTINFO2DIR.
func DirOf(i packet.CTInfo) Dir {
	if i.IsReply() {
		return Reply
	}
	return Original
}

// ICMP types that tracking tells apart.
const (
	icmpEchoReply     = 0
	icmpUnreach       = 3
	icmpSourceQuench  = 4
	icmpRedirect      = 5
	icmpEcho          = 8
	icmpTimeExceeded  = 11
	icmpParameterProb = 12
	icmpTimestamp     = 13
	icmpTimestampRep  = 14
	icmpInfo          = 15
	icmpInfoRep       = 16
	icmpAddress       = 17
	icmpAddressRep    = 18
)

// Invert returns the tuple of the answer; it is false for ICMP types that have
// none.
//
// Kernel: net/netfilter/nf_conntrack_core.c, nf_ct_invert_tuple.
func (t Tuple) Invert() (Tuple, bool) {
	inv := Tuple{Src: t.Dst, Dst: t.Src, SPort: t.DPort, DPort: t.SPort, Proto: t.Proto}
	switch t.Proto {
	case packet.ICMP:
		answer, ok := icmpAnswer(uint8(t.DPort >> 8))
		inv.SPort, inv.DPort = t.SPort, uint16(answer)<<8|t.DPort&0xff
		return inv, ok
	case packet.ICMPv6:
		answer, ok := icmp6Answer(uint8(t.DPort >> 8))
		inv.SPort, inv.DPort = t.SPort, uint16(answer)<<8|t.DPort&0xff
		return inv, ok
	}
	return inv, true
}

// icmpAnswer pairs questions and answers.
//
// Kernel: net/netfilter/nf_conntrack_proto_icmp.c, invmap.
func icmpAnswer(typ uint8) (uint8, bool) {
	switch typ {
	case icmpEcho:
		return icmpEchoReply, true
	case icmpEchoReply:
		return icmpEcho, true
	case icmpTimestamp, icmpInfo, icmpAddress:
		return typ + 1, true
	case icmpTimestampRep, icmpInfoRep, icmpAddressRep:
		return typ - 1, true
	}
	return 0, false
}

// icmp6Answer pairs echo and node information.
//
// Kernel: net/netfilter/nf_conntrack_proto_icmpv6.c, invmap.
func icmp6Answer(typ uint8) (uint8, bool) {
	switch typ {
	case 128, 139:
		return typ + 1, true
	case 129, 140:
		return typ - 1, true
	}
	return 0, false
}

// Trace returns the form that trace events hold.
func (t Tuple) Trace() trace.Tuple {
	return trace.Tuple{Src: t.Src, Dst: t.Dst, SPort: t.SPort, DPort: t.DPort, Proto: t.Proto}
}

// l4proto finds the transport header of an IPv4 packet that may be quoted: later
// fragments and headers that reach past the end have none.
//
// Kernel: net/netfilter/nf_conntrack_core.c, ipv4_get_l4proto.
func l4proto(ip []byte) (l4 []byte, proto uint8, ok bool) {
	if len(ip) < 20 || binary.BigEndian.Uint16(ip[6:])&0x1fff != 0 {
		return nil, 0, false
	}
	n := int(ip[0]&0xf) * 4
	if n > len(ip) {
		return nil, 0, false
	}
	return ip[n:], ip[9], true
}

// tupleOf reads the tuple of an IPv4 packet whose transport header is l4.
//
// Kernel: net/netfilter/nf_conntrack_core.c, nf_ct_get_tuple.
func (t *Tracker) tupleOf(ip, l4 []byte, proto uint8) (Tuple, bool) {
	tu := Tuple{Src: packet.AddrFrom4(ip[12:16]), Dst: packet.AddrFrom4(ip[16:20]), Proto: proto}
	switch {
	case proto == packet.ICMP:
		if len(l4) < 8 {
			return tu, false
		}
		tu.SPort = binary.BigEndian.Uint16(l4[4:])
		tu.DPort = binary.BigEndian.Uint16(l4)
		return tu, true
	case proto == packet.GRE:
		return greTuple(tu, l4)
	case t.TracksPorts(proto):
		if len(l4) < 4 {
			return tu, false
		}
		tu.SPort = binary.BigEndian.Uint16(l4)
		tu.DPort = binary.BigEndian.Uint16(l4[2:])
	}
	return tu, true
}

// TracksPorts tells whether tuples of a protocol hold ports. DCCP lost its
// tracker when Linux dropped DCCP; since then it is tracked by addresses alone.
func (t *Tracker) TracksPorts(proto uint8) bool {
	return packet.HasPorts(proto) && (proto != packet.DCCP || t.dccp)
}

// greTuple reads the call id of PPTP's GRE; other GRE has no keys. The source key
// comes from the PPTP helper, which is not run here, so it is zero.
//
// Kernel: net/netfilter/nf_conntrack_proto_gre.c, gre_pkt_to_tuple.
func greTuple(tu Tuple, l4 []byte) (Tuple, bool) {
	const version, ppp = 0x7, 0x880b
	if len(l4) < 4 || l4[1]&version != 1 || len(l4) < 8 {
		return tu, true
	}
	if binary.BigEndian.Uint16(l4[2:]) != ppp {
		return tu, false
	}
	tu.DPort = binary.BigEndian.Uint16(l4[6:])
	return tu, true
}
