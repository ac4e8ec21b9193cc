package walk

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/packet/icmp"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/socket"
	"github.com/hookpath/hookpath/trace"
)

// lesson is an ICMP error that tells of the way of a packet that this host has sent.
type lesson struct {
	redirect bool
	mtu      int         // where it was too large
	to       packet.Addr // the router that a redirect names
	quoted   []byte      // the packet, with at least eight bytes behind its header
}

const fragmentationNeeded = 4

// learnOfWay has the host remember what an ICMP error tells of a way, if the packet that is
// quoted is one of a socket, or the kernel's own echo reply.
//
// Kernel: net/ipv4/icmp.c, icmp_unreach, icmp_redirect, icmp_socket_deliver.
func (k *Walk) learnOfWay(l4 []byte) {
	const header, ip, ports = 8, 20, 8
	e := lesson{redirect: l4[0] == icmp.RedirectType, quoted: l4[header:]}
	if k.toMany() || len(e.quoted) < ip || !e.redirect && l4[1] != fragmentationNeeded {
		return
	}
	n := int(e.quoted[0]&0xf) * 4
	if n < ip || len(e.quoted) < n+ports || e.redirect && l4[1]&7 > 3 {
		return
	}
	if e.redirect {
		e.to = packet.AddrFrom4(l4[4:])
	} else if !k.readMTU(&e, int(binary.BigEndian.Uint16(l4[6:]))) {
		return
	}
	k.tellSockets(&e, e.quoted[n:])
}

// readMTU takes the size that an error names, as far as it is believed.
func (k *Walk) readMTU(e *lesson, mtu int) bool {
	const unknown, never, strict = 1, 2, 3
	ignored := k.Sysctl.Int("net.ipv4.icmp_ignore_bogus_error_responses", 1) != 0
	if !ignored &&
		k.Routes.AddrTypeTable(packet.AddrFrom4(e.quoted[16:]), k.p.In) == trace.BroadcastRoute {
		return false
	}
	switch k.Sysctl.Int("net.ipv4.ip_no_pmtu_disc", 0) {
	case never:
		return false
	case strict: // icmp_tag_validation: UDP and ICMP can't tell forged errors
		return false
	case unknown:
		mtu = 0
	}
	e.mtu = mtu
	return true
}

// tellSockets finds whose packet an error is about. A TCP connection believes errors about
// what is on its way only; which bytes those are no snapshot tells, so it learns nothing.
//
// Kernel: net/ipv4/raw.c, raw_icmp_error; net/ipv4/udp.c, __udp4_lib_err; net/ipv4/icmp.c,
// icmp_err.
func (k *Walk) tellSockets(e *lesson, l4 []byte) {
	proto, src, dst := e.quoted[9], packet.AddrFrom4(e.quoted[12:]), packet.AddrFrom4(e.quoted[16:])
	if proto == 255 {
		return
	}
	for _, s := range k.Sockets.Raw(k.World, proto, dst, src, k.p.In) {
		k.learn(e, k.flowOf(e, &s))
	}
	switch {
	case proto == packet.UDP, proto == packet.UDPLite:
		sport, dport := binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
		s, ok := k.Sockets.Lookup(k.World, proto, dst, dport, src, sport, k.p.In)
		if ok {
			k.learn(e, k.flowOf(e, &s))
		}
	case proto == packet.ICMP && l4[0] == icmp.EchoReplyType:
		f := &route.Flow{Src: src, Dst: dst, TOS: e.quoted[1], Proto: proto}
		if !e.redirect {
			f.Mark = k.replyMark()
		}
		k.learn(e, f)
	}
}

// flowOf is the way of a socket's packet.
//
// Kernel: net/ipv4/route.c, __build_flow_key.
func (k *Walk) flowOf(e *lesson, s *socket.Socket) *route.Flow {
	f := &route.Flow{Src: packet.AddrFrom4(e.quoted[12:]), Dst: packet.AddrFrom4(e.quoted[16:]),
		Proto: s.Proto, Mark: s.Mark, UID: s.UID, Out: s.Dev}
	if f.Mark == 0 && !e.redirect {
		f.Mark = k.replyMark()
	}
	return f
}

// replyMark is the mark of what answers the present packet.
//
// Kernel: include/net/ip.h, IP4_REPLY_MARK.
func (k *Walk) replyMark() uint32 {
	if k.Sysctl.Int("net.ipv4.fwmark_reflect", 0) == 0 {
		return 0
	}
	return k.p.Mark
}

func (k *Walk) learn(e *lesson, f *route.Flow) {
	if !e.redirect {
		k.Routes.LearnMTU(k.World, f, e.mtu)
		return
	}
	k.needs(field.Src, field.Bytes)
	dev, ask := k.Routes.LearnRedirect(k.World, f, route.Redirect{From: k.p.Src(), To: e.to,
		In: k.Links.ByIndex(k.p.In)})
	if !ask || k.Links.Asked(k.World, dev, e.to) {
		return
	}
	k.solicit(k.Links.ByIndex(dev), e.to)
}
