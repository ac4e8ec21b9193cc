// Package icmp builds what the kernel itself answers: ICMP errors, echo replies and
// TCP resets. It stands beside the packet's way: whoever refuses a packet builds the
// answer here, and the walk sends it through OUTPUT.
package icmp

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/packet"
)

// Types of ICMP that this package asks about.
const (
	EchoReplyType   = 0
	DestUnreachable = 3
	SourceQuench    = 4
	RedirectType    = 5
	EchoRequest     = 8
	TimeExceeded    = 11
	ParamProblem    = 12
	maxType         = 18
)

// maxError is the largest ICMP error: what every host must be able to receive.
const maxError = 576

// internetControl is IPTOS_PREC_INTERNETCONTROL.
const internetControl = 0xc0

// IsError tells whether an ICMP type reports an error.
//
// Kernel: net/ipv4/icmp.c, icmp_pointers.
func IsError(typ uint8) bool {
	switch typ {
	case DestUnreachable, SourceQuench, RedirectType, TimeExceeded, ParamProblem:
		return true
	}
	return false
}

// MayAnswer tells whether an error about a packet may be sent at all: not about
// later fragments, other hosts' frames, or ICMP errors.
//
// Kernel: net/ipv4/icmp.c, __icmp_send.
func MayAnswer(p *packet.Packet, typ uint8) bool {
	if p.Type != packet.Host && p.Type != packet.Outgoing && p.Type != packet.Loopback ||
		p.FragOff() != 0 {
		return false
	}
	if !IsError(typ) || p.Protocol() != packet.ICMP {
		return true
	}
	l4 := p.L4()
	return len(l4) > 0 && l4[0] <= maxType && !IsError(l4[0])
}

// TOS is the type of service of an error about a packet with the given one.
func TOS(tos uint8) uint8 { return tos&0x1e | internetControl }

// Error returns the IPv4 packet of an error about in. info is the second word of
// the ICMP header (the MTU of "fragmentation needed").
//
// Kernel: net/ipv4/icmp.c, __icmp_send.
func Error(in []byte, src packet.Addr, typ, code uint8, info uint32, mtu int, ttl uint8) []byte {
	room := min(mtu, maxError) - 20 - 8
	quoted := in[:min(len(in), max(room, 0))]
	b := make([]byte, 28+len(quoted))
	copy(b[28:], quoted)
	b[20], b[21] = typ, code
	binary.BigEndian.PutUint32(b[24:], info)
	binary.BigEndian.PutUint16(b[22:], packet.Fold(packet.Sum16(b[20:], 0)))
	dst := packet.AddrFrom4(in[12:])
	return finish(b, header{src, dst, packet.ICMP, TOS(in[1]), ttl, false})
}

// EchoReply returns the answer to an echo request.
//
// Kernel: net/ipv4/icmp.c, icmp_echo, icmp_reply.
func EchoReply(in []byte, src packet.Addr, ttl uint8) []byte {
	n := int(in[0]&0xf) * 4
	b := make([]byte, 20+len(in)-n)
	copy(b[20:], in[n:])
	b[20], b[22], b[23] = EchoReplyType, 0, 0
	binary.BigEndian.PutUint16(b[22:], packet.Fold(packet.Sum16(b[20:], 0)))
	return finish(b, header{src, packet.AddrFrom4(in[12:]), packet.ICMP, in[1], ttl, false})
}

// Reset returns the TCP reset that answers a segment, false where none is sent
// because the segment is one itself. tos is zero for REJECT's, and the segment's own
// for that of the TCP stack.
//
// Kernel: net/ipv4/netfilter/nf_reject_ipv4.c, nf_reject_ip_tcphdr_put;
// net/ipv4/tcp_ipv4.c, tcp_v4_send_reset.
func Reset(in []byte, tos, ttl uint8) ([]byte, bool) {
	n := int(in[0]&0xf) * 4
	th := in[n:]
	const rst, ack = 0x04, 0x10
	if len(th) < 20 || th[13]&rst != 0 {
		return nil, false
	}
	b := make([]byte, 40)
	t := b[20:]
	copy(t[0:2], th[2:4])
	copy(t[2:4], th[0:2])
	t[12], t[13] = 5<<4, rst
	if th[13]&ack != 0 {
		copy(t[4:8], th[8:12])
	} else {
		t[13] |= ack
		binary.BigEndian.PutUint32(t[8:], binary.BigEndian.Uint32(th[4:])+segmentLen(th))
	}
	src, dst := packet.AddrFrom4(in[16:]), packet.AddrFrom4(in[12:])
	sum := packet.PseudoSum(src, dst, packet.TCP, 20)
	binary.BigEndian.PutUint16(t[16:], packet.Fold(packet.Sum16(t, sum)))
	return finish(b, header{src, dst, packet.TCP, tos, ttl, true}), true
}

// segmentLen is what a segment takes of the sequence space.
func segmentLen(th []byte) uint32 {
	n := uint32(len(th)) - uint32(th[12]>>4)*4
	return n + uint32(th[13]&1) + uint32(th[13]>>1&1)
}

type header struct {
	src, dst packet.Addr
	proto    uint8
	tos, ttl uint8
	df       bool
}

// finish writes an IPv4 header of 20 bytes before what b holds.
func finish(b []byte, h header) []byte {
	b[0], b[1] = 0x45, h.tos
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	if h.df {
		b[6] = 0x40
	}
	b[8], b[9] = h.ttl, h.proto
	copy(b[12:], h.src.Bytes())
	copy(b[16:], h.dst.Bytes())
	packet.FixIP4(b)
	return b
}
