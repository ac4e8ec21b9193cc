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
	EchoReplyType      = 0
	DestUnreachable    = 3
	SourceQuench       = 4
	RedirectType       = 5
	EchoRequest        = 8
	TimeExceeded       = 11
	ParamProblem       = 12
	Timestamp          = 13
	TimestampReplyType = 14
	maxType            = 18
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

// Answer is what a host puts into the header of an answer.
type Answer struct {
	Src     packet.Addr
	TTL     uint8
	MTU     int         // of the way that the answer takes
	Options packet.Echo // those of the packet that is answered
	Clock   uint32      // milliseconds since midnight UT, for timestamp options
}

// Message is an ICMP error. Info is the second word of its header: the MTU of
// "fragmentation needed", the gateway of a redirect, the pointer of "parameter problem".
type Message struct {
	Type, Code uint8
	Info       uint32
}

// Error returns the IPv4 packet of an error about in, nil where the MTU has no room
// for one.
//
// Kernel: net/ipv4/icmp.c, __icmp_send.
func (a *Answer) Error(in []byte, e Message) []byte {
	room := min(a.MTU, maxError) - 20 - len(a.Options.Data) - 8
	if room <= 20 {
		return nil
	}
	quoted := in[:min(len(in), room)]
	m := make([]byte, 8+len(quoted))
	copy(m[8:], quoted)
	m[0], m[1] = e.Type, e.Code
	binary.BigEndian.PutUint32(m[4:], e.Info)
	binary.BigEndian.PutUint16(m[2:], packet.Fold(packet.Sum16(m, 0)))
	return a.before(m, header{packet.AddrFrom4(in[12:]), packet.ICMP, TOS(in[1]), false})
}

// EchoReply returns the answer to an echo request.
//
// Kernel: net/ipv4/icmp.c, icmp_echo, icmp_reply.
func (a *Answer) EchoReply(in []byte) []byte {
	m := append([]byte(nil), in[int(in[0]&0xf)*4:]...)
	m[0], m[2], m[3] = EchoReplyType, 0, 0
	binary.BigEndian.PutUint16(m[2:], packet.Fold(packet.Sum16(m, 0)))
	return a.before(m, header{packet.AddrFrom4(in[12:]), packet.ICMP, in[1], false})
}

// TimestampReply returns the answer to a timestamp request of at least 12 bytes: when that
// came in and when this leaves are one, a.Clock. What follows the request's own time is cut.
//
// Kernel: net/ipv4/icmp.c, icmp_timestamp, icmp_reply.
func (a *Answer) TimestampReply(in []byte) []byte {
	const size, receive, transmit = 20, 12, 16
	m := make([]byte, size)
	copy(m[:receive], in[int(in[0]&0xf)*4:])
	m[0], m[1], m[2], m[3] = TimestampReplyType, 0, 0, 0
	binary.BigEndian.PutUint32(m[receive:], a.Clock)
	binary.BigEndian.PutUint32(m[transmit:], a.Clock)
	binary.BigEndian.PutUint16(m[2:], packet.Fold(packet.Sum16(m, 0)))
	return a.before(m, header{packet.AddrFrom4(in[12:]), packet.ICMP, in[1], false})
}

// Reset returns the TCP reset by which REJECT answers a segment, false where none is
// sent because the segment is one itself.
//
// Kernel: net/ipv4/netfilter/nf_reject_ipv4.c, nf_reject_ip_tcphdr_put.
func Reset(in []byte, ttl uint8) ([]byte, bool) {
	a := Answer{Src: packet.AddrFrom4(in[16:]), TTL: ttl}
	return a.reset(in, 0)
}

// SocketReset returns the TCP reset by which the stack answers a segment that no
// socket takes, false where none is sent. It has the segment's DSCP. A segment with a signature gets none; strict says that one with broken
// TCP options gets none either, as in kernels since 6.7.
//
// Kernel: net/ipv4/tcp_ipv4.c, tcp_v4_send_reset; include/net/tcp.h,
// tcp_parse_auth_options.
func (a *Answer) SocketReset(in []byte, strict bool) ([]byte, bool) {
	const ecn = 3
	if th := in[int(in[0]&0xf)*4:]; len(th) >= 20 && !unsigned(th, strict) {
		return nil, false
	}
	return a.reset(in, in[1]&^ecn)
}

func (a *Answer) reset(in []byte, tos uint8) ([]byte, bool) {
	const rst, ack = 0x04, 0x10
	th := in[int(in[0]&0xf)*4:]
	if len(th) < 20 || th[13]&rst != 0 {
		return nil, false
	}
	t := make([]byte, 20)
	copy(t[0:2], th[2:4])
	copy(t[2:4], th[0:2])
	t[12], t[13] = 5<<4, rst
	if th[13]&ack != 0 {
		copy(t[4:8], th[8:12])
	} else {
		t[13] |= ack
		binary.BigEndian.PutUint32(t[8:], binary.BigEndian.Uint32(th[4:])+segmentLen(th))
	}
	dst := packet.AddrFrom4(in[12:])
	sum := packet.PseudoSum(a.Src, dst, packet.TCP, 20)
	binary.BigEndian.PutUint16(t[16:], packet.Fold(packet.Sum16(t, sum)))
	return a.before(t, header{dst, packet.TCP, tos, true}), true
}

// unsigned tells whether the TCP options are whole and without an MD5 signature, as
// far as the kernel looks for one: it is built with CONFIG_TCP_MD5SIG, without
// CONFIG_TCP_AO (with which it would look at the last bytes, too).
func unsigned(th []byte, strict bool) bool {
	const optEnd, optNop, md5, size = 0, 1, 19, 18
	o := th[20:min(max(int(th[12]>>4)*4, 20), len(th))]
	for len(o) >= size && o[0] != optEnd {
		if o[0] == optNop {
			o = o[1:]
			continue
		}
		n := int(o[1])
		switch {
		case n < 2 || n > len(o):
			return !strict
		case o[0] == md5 && (strict || n == size):
			return false
		}
		o = o[n:]
	}
	return true
}

// segmentLen is what a segment takes of the sequence space.
func segmentLen(th []byte) uint32 {
	n := uint32(len(th)) - uint32(th[12]>>4)*4
	return n + uint32(th[13]&1) + uint32(th[13]>>1&1)
}

// header is what an answer's header has beside what the host says. dst is where the
// answer goes in the end.
type header struct {
	dst   packet.Addr
	proto uint8
	tos   uint8
	df    bool
}

// before writes the IPv4 header, with options, before a message.
func (a *Answer) before(m []byte, h header) []byte {
	n := 20 + len(a.Options.Data)
	b := make([]byte, n+len(m))
	copy(b[n:], m)
	b[0], b[1] = 0x40|byte(n/4), h.tos
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	if h.df {
		b[6] = 0x40
	}
	b[8], b[9] = a.TTL, h.proto
	first := h.dst
	if !a.Options.FirstHop.IsZero() {
		first = a.Options.FirstHop
	}
	copy(b[12:], a.Src.Bytes())
	copy(b[16:], first.Bytes())
	a.Options.Build(b, h.dst, a.Clock)
	packet.FixIP4(b)
	return b
}

// RejectSumOK tells whether the checksum of a packet lets REJECT answer it. Of every
// protocol that is not known to have another kind of checksum the kernel sums up the
// whole payload, and answers nothing that does not come to zero. The IP header is in
// the sum, so one whose own checksum is not yet mended is not answered either.
// sumDCCP says that DCCP is not known, as in 6.18 and not yet in 6.1.
//
// Kernel: include/net/netfilter/nf_reject.h, nf_reject_verify_csum;
// net/netfilter/utils.c, nf_ip_checksum.
func RejectSumOK(p *packet.Packet, sumDCCP bool) bool {
	l4 := p.L4()
	proto := p.Protocol()
	var sum uint32
	switch proto {
	case packet.GRE, packet.AH, packet.ESP, packet.SCTP, packet.UDPLite:
		return true
	case packet.DCCP:
		if !sumDCCP {
			return true
		}
	case packet.UDP:
		if len(l4) >= 8 && l4[6]|l4[7] == 0 {
			return true
		}
		fallthrough
	case packet.TCP:
		sum = packet.PseudoSum(p.Src(), p.Dst(), proto, len(l4))
	}
	return packet.Fold(packet.Sum16(p.IP(), sum)) == 0
}
