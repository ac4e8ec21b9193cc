package walk

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/packet/frag"
	"github.com/hookpath/hookpath/packet/icmp"
	"github.com/hookpath/hookpath/trace"
)

// localDeliver takes the packet through INPUT to its protocol.
//
// Kernel: net/ipv4/ip_input.c, ip_local_deliver.
func (k *Walk) localDeliver() {
	k.needs(field.FragOff, field.FragMF)
	if k.p.IsFragment() && !k.wholeForUs() {
		return
	}
	k.p.Out = 0
	if k.runHook(trace.Input) != trace.Accept {
		return
	}
	k.protocol()
}

// wholeForUs collects fragments for the host itself.
func (k *Walk) wholeForUs() bool {
	switch k.reassemble(frag.LocalDeliver) {
	case trace.Accept:
		return true
	case trace.Stolen:
		k.end(&trace.Outcome{Result: trace.Absorbed, Why: "waiting-for-fragments"})
	default:
		k.drop("DUP_FRAG", "bad-fragment")
	}
	return false
}

// protocol hands the packet to its transport protocol.
//
// Kernel: net/ipv4/ip_input.c, ip_protocol_deliver_rcu.
func (k *Walk) protocol() {
	proto := k.p.Protocol()
	sock := k.receiver()
	if k.Trace != nil {
		k.Trace.Add(k.p, &trace.Deliver{Dev: k.p.In, Frame: clone(k.p.IP()), Socket: sock})
	}
	switch {
	case proto == packet.ICMP:
		k.icmpReceive()
	case proto == packet.IPIP && k.decapsulate():
	case sock != 0:
		k.delivered(sock)
	case proto == packet.UDP || proto == packet.UDPLite:
		k.noUDP()
	case proto == packet.TCP:
		k.noTCP()
	case proto == packet.IGMP || k.speaks(proto):
		k.drop("NO_SOCKET", "no-listener")
	default:
		k.noProtocol(proto)
	}
}

// receiver is the socket that takes the packet: what TPROXY gave it, of several that get
// what was sent to many the first; zero for none.
//
// Kernel: net/ipv4/udp.c, __udp4_lib_rcv; net/ipv4/tcp_ipv4.c, tcp_v4_rcv.
func (k *Walk) receiver() uint32 {
	src, dst, proto := k.p.Src(), k.p.Dst(), k.p.Protocol()
	if k.p.Socket != 0 && (proto == packet.UDP || proto == packet.TCP) {
		return k.p.Socket // inet_steal_sock
	}
	sport, dport, _ := k.p.Ports()
	k.needsSocket(proto, dport)
	if k.toMany() && (proto == packet.UDP || proto == packet.UDPLite) {
		all := k.Sockets.Multicast(k.World, proto, src, sport, dst, dport, k.inDevice())
		if len(all) == 0 {
			return 0
		}
		return all[0].ID
	}
	s, ok := k.Sockets.Lookup(k.World, proto, src, sport, dst, dport, k.inDevice())
	if !ok {
		return 0
	}
	return s.ID
}

// inDevice is the device that sockets are bound to where they take the packet.
//
// Kernel: include/net/route.h, inet_iif.
func (k *Walk) inDevice() packet.Dev {
	if k.hasDst && k.dst.In != 0 {
		return k.dst.In
	}
	return k.p.In
}

// noProtocol ends a packet of a protocol that only raw sockets may know.
//
// Kernel: net/ipv4/ip_input.c, ip_protocol_deliver_rcu.
func (k *Walk) noProtocol(proto uint8) {
	raw := k.Sockets.Raw(k.World, proto, k.p.Src(), k.p.Dst(), k.inDevice())
	if len(raw) > 0 {
		k.delivered(raw[0].ID)
		return
	}
	k.nested(func() { k.sendICMP(3, 2, 0) })
	k.drop("IP_NOPROTO", "no-protocol")
}

// speaks tells whether the host has a protocol that the kernel loads for its first
// socket.
//
// Kernel: net/sctp/protocol.c, net/dccp/ipv4.c: modules.
func (k *Walk) speaks(proto uint8) bool {
	if proto != packet.SCTP && proto != packet.DCCP {
		return false
	}
	for _, s := range k.Sockets.All() {
		if s.Proto == proto && !s.Raw {
			return true
		}
	}
	return false
}

func (k *Walk) delivered(sock uint32) {
	k.end(&trace.Outcome{Result: trace.Delivered, Dev: k.p.In, Frame: clone(k.p.IP()),
		Socket: sock})
}

// noUDP answers a datagram that nobody waits for.
//
// Kernel: net/ipv4/udp.c, __udp4_lib_rcv.
func (k *Walk) noUDP() {
	l4 := k.p.L4()
	if len(l4) < 8 || int(binary.BigEndian.Uint16(l4[4:])) > len(l4) ||
		int(binary.BigEndian.Uint16(l4[4:])) < 8 {
		k.cutShort("header-truncated")
		return
	}
	if k.dst.Kind == trace.BroadcastRoute || k.dst.Kind == trace.MulticastRoute {
		k.drop("NO_SOCKET", "no-listener")
		return
	}
	n := int(binary.BigEndian.Uint16(l4[4:]))
	if binary.BigEndian.Uint16(l4[6:]) != 0 && !k.sumOK(l4[:n]) {
		k.drop("UDP_CSUM", "bad-checksum")
		return
	}
	k.p.CT = packet.CT{} // nf_reset_ct: the error is tracked by what it quotes
	k.nested(func() { k.sendICMP(3, 3, 0) })
	k.drop("NO_SOCKET", "no-listener")
}

// noTCP answers a segment that no socket takes with a reset.
//
// Kernel: net/ipv4/tcp_ipv4.c, tcp_v4_rcv.
func (k *Walk) noTCP() {
	l4 := k.p.L4()
	switch {
	case k.p.Type != packet.Host:
		k.drop("NOT_SPECIFIED", "other-host")
		return
	case len(l4) < 20:
		k.cutShort("header-truncated")
		return
	case int(l4[12]>>4)*4 < 20 || int(l4[12]>>4)*4 > len(l4):
		k.cutShort("bad-header")
		return
	case !k.sumOK(l4):
		k.drop("TCP_CSUM", "bad-checksum")
		return
	}
	k.needs(field.TCPFlags)
	if l4[13]&tcpRST == 0 && k.dst.Kind == trace.Local {
		k.nested(k.sendTCPReset)
	}
	k.drop("NO_SOCKET", "no-listener")
}

// cutShort drops a packet whose header is longer than itself.
func (k *Walk) cutShort(why trace.Why) {
	k.needs(field.Len)
	k.drop("PKT_TOO_SMALL", why)
}

const tcpRST = 0x04

// sumOK checks a transport checksum with its pseudo header.
func (k *Walk) sumOK(l4 []byte) bool {
	sum := packet.PseudoSum(k.p.Src(), k.p.Dst(), k.p.Protocol(), len(l4))
	return packet.Fold(packet.Sum16(l4, sum)) == 0
}

// icmpReceive is the kernel's own use of ICMP.
//
// Kernel: net/ipv4/icmp.c, icmp_rcv.
func (k *Walk) icmpReceive() {
	l4 := k.p.L4()
	k.needs(field.ICMPType)
	switch {
	case len(l4) < 8:
		k.cutShort("header-truncated")
		return
	case packet.Fold(packet.Sum16(l4, 0)) != 0:
		k.drop("ICMP_CSUM", "bad-checksum")
		return
	case l4[0] > 18:
		k.drop("UNHANDLED_PROTO", "icmp-type")
		return
	}
	switch l4[0] {
	case icmp.EchoRequest:
		if k.answersMany() && k.Sysctl.Int("net.ipv4.icmp_echo_ignore_all", 0) == 0 {
			k.nested(func() { k.reply(icmp.EchoReplyType, (*icmp.Answer).EchoReply) })
		}
	case icmp.Timestamp:
		k.needs(field.Len)
		if len(l4) >= 12 && k.answersMany() {
			k.nested(func() { k.reply(icmp.TimestampReplyType, (*icmp.Answer).TimestampReply) })
		}
	case icmp.DestUnreachable, icmp.RedirectType:
		k.learnOfWay(l4)
	}
	k.delivered(0)
}

// answersMany tells whether a request that may have been sent to many gets a reply.
func (k *Walk) answersMany() bool {
	return !k.toMany() || k.Sysctl.Int("net.ipv4.icmp_echo_ignore_broadcasts", 1) == 0
}
