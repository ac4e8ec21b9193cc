package walk

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/packet/icmp"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/socket"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// SendUnreachable implements xtables.Mover.
//
// Kernel: net/ipv4/netfilter/nf_reject_ipv4.c, nf_send_unreach.
func (k *Walk) SendUnreachable(_ *xtables.Env, typ, code uint8) {
	k.needs(field.FragOff, field.Proto)
	if k.p.FragOff() != 0 || !k.p.SumValid && !k.transportSumOK() {
		return
	}
	k.nested(func() { k.sendICMP(typ, code, 0) })
}

// transportSumOK checks the checksum of what REJECT answers. DCCP counts as known as
// long as Linux tracked it.
func (k *Walk) transportSumOK() bool { return icmp.RejectSumOK(k.p, !k.Kernel.Before(6, 17)) }

// SendReset implements xtables.Mover.
//
// Kernel: net/ipv4/netfilter/nf_reject_ipv4.c, nf_send_reset.
func (k *Walk) SendReset(*xtables.Env) {
	l4 := k.p.L4()
	k.needs(field.FragOff, field.Proto, field.TCPFlags)
	// A packet that is forwarded is looked at again (skb_forward_csum).
	seen := k.p.SumValid && k.hook == trace.Input
	if k.p.FragOff() != 0 || len(l4) < 20 || !seen && !k.transportSumOK() || k.toMany() {
		return
	}
	b, ok := icmp.Reset(k.p.IP(), k.defaultTTL())
	if !ok {
		return
	}
	sk := k.sender()
	k.nested(func() {
		to := k.p
		k.begin(b, to, &packet.Echo{})
		k.p.Partial = true // nf_reject_ip_tcphdr_put
		rerouted := false
		k.seen(view{}.answering(), func() { rerouted = k.reroute(sk) })
		if !rerouted {
			return
		}
		k.Conntrack.Answer(k.World, k.p, to)
		k.Conntrack.SetClosing(k.World, to)
		k.answer(k.dst, to)
	})
}

// sender is the socket that the present hook is called for, zero for none
// (nf_hook_state.sk).
func (k *Walk) sender() uint32 {
	if k.hook == trace.Output || k.hook == trace.Postrouting {
		return k.p.Socket
	}
	return 0
}

// toMany tells whether the packet went to a broadcast or multicast address.
func (k *Walk) toMany() bool {
	return k.hasDst && toMany(&k.dst)
}

func toMany(d *route.Decision) bool {
	return d.Kind == trace.BroadcastRoute || d.Kind == trace.MulticastRoute
}

// begin makes an answer to a packet, with the options o, the present one.
func (k *Walk) begin(ip []byte, to *packet.Packet, o *packet.Echo) {
	p, _ := packet.FromIP(ip)
	p.Options = o.Own()
	k.number(p)
	p.Type = packet.Host
	if k.Sysctl.Int("net.ipv4.fwmark_reflect", 0) != 0 {
		p.Mark = to.Mark
	}
	k.p, k.hasDst = p, false
}

func (h *Host) defaultTTL() uint8 { return uint8(h.Sysctl.Int("net.ipv4.ip_default_ttl", 64)) }

// sendICMP answers the present packet with an ICMP error. It replaces the present
// packet: call it nested.
//
// Kernel: net/ipv4/icmp.c, __icmp_send.
func (k *Walk) sendICMP(typ, code uint8, info uint32) {
	if !k.lockICMP() {
		return
	}
	defer k.unlockICMP()
	to := k.p
	k.needs(field.FragOff, field.Proto)
	if to.Protocol() == packet.ICMP {
		k.needs(field.ICMPType)
	}
	if !icmp.MayAnswer(to, typ) || k.toMany() || len(to.IP()) < 20 {
		return
	}
	echo, ok := to.Echo(optionHost{k}.IsUnicast)
	if !ok {
		return
	}
	f := &route.Flow{Dst: firstHop(&echo, to.Src()), TOS: icmp.TOS(to.TOS()), Proto: packet.ICMP,
		SPort: uint16(typ), DPort: uint16(code)}
	switch {
	case k.hasDst && k.dst.Kind == trace.Local && k.dst.Err == 0:
		f.Src = to.Dst()
	case k.Sysctl.Int("net.ipv4.icmp_errors_use_inbound_ifaddr", 0) != 0 && to.In != 0:
		k.needs(field.In, field.Src)
		f.Src = k.Links.Select(to.In, to.Src(), 253)
	}
	if k.Sysctl.Int("net.ipv4.fwmark_reflect", 0) != 0 {
		f.Mark = to.Mark
	}
	d := k.lookupBack(f)
	if d.Err != 0 {
		return
	}
	if !k.mayLimited(typ, code, to.In, d.Out, f.Dst) {
		return
	}
	src := f.Src
	if src.IsAny() {
		src = d.Source
	}
	if src.IsAny() {
		src = packet.V4(dummy)
	}
	ans := icmp.Answer{Src: src, TTL: k.ttlOf(&d), MTU: k.mtuOf(&d), Options: echo,
		Clock: optionHost{k}.Milliseconds()}
	b := ans.Error(to.Unfinished(), icmp.Message{Type: typ, Code: code, Info: info})
	if b == nil {
		return
	}
	k.begin(b, to, &echo)
	k.p.Socket, k.p.IgnoreDF = socket.Kernel, true
	// icmp_glue_bits attaches an error, and no other answer, to what it is about.
	k.Conntrack.Answer(k.World, k.p, to)
	k.answer(d, to)
}

// dummy is 192.0.0.8, the source of an error by a host without addresses.
//
// Kernel: include/uapi/linux/in.h, INADDR_DUMMY.
const dummy = 0xc0000008

// firstHop is where an answer to a sender is routed to.
func firstHop(e *packet.Echo, sender packet.Addr) packet.Addr {
	if e.FirstHop.IsZero() {
		return sender
	}
	return e.FirstHop
}

// lockICMP takes the processor's ICMP socket. It is false when that is sending already:
// what an ICMP packet meets on its way out is not answered by ICMP.
//
// Kernel: net/ipv4/icmp.c, icmp_xmit_lock.
func (k *Walk) lockICMP() bool {
	if k.inICMP && !k.Kernel.OneProcessor {
		return false
	}
	k.inICMP = true
	return true
}

func (k *Walk) unlockICMP() {
	k.inICMP = false
	k.softirq()
}

// reply answers an ICMP request by the message of a type that build makes. It replaces
// the present packet: call it nested.
//
// Kernel: net/ipv4/icmp.c, icmp_reply.
func (k *Walk) reply(typ uint8, build func(a *icmp.Answer, request []byte) []byte) {
	if !k.lockICMP() {
		return
	}
	defer k.unlockICMP()
	to := k.p
	echo, ok := to.Echo(optionHost{k}.IsUnicast)
	if !ok {
		return
	}
	f := &route.Flow{Dst: firstHop(&echo, to.Src()), Src: k.Routes.SpecDst(to, k.dst.Kind),
		TOS: to.TOS(), Proto: packet.ICMP}
	if k.Sysctl.Int("net.ipv4.fwmark_reflect", 0) != 0 {
		f.Mark = to.Mark
	}
	d := k.lookupBack(f)
	if d.Err != 0 || !k.mayLimited(typ, 0, to.In, d.Out, f.Dst) {
		return
	}
	ans := icmp.Answer{Src: d.Source, TTL: k.ttlOf(&d), Options: echo,
		Clock: optionHost{k}.Milliseconds()}
	k.begin(build(&ans, to.IP()), to, &echo)
	k.p.Socket, k.p.IgnoreDF = socket.Kernel, true
	k.answer(d, to)
}

// sendTCPReset is the TCP stack's answer to a segment that no socket takes.
//
// Kernel: net/ipv4/tcp_ipv4.c, tcp_v4_send_reset.
func (k *Walk) sendTCPReset() {
	to := k.p
	echo, ok := to.Echo(optionHost{k}.IsUnicast)
	if !ok {
		return
	}
	sport, dport, _ := to.Ports()
	f := &route.Flow{Dst: firstHop(&echo, to.Src()), Src: to.Dst(), TOS: to.TOS(), Proto: packet.TCP,
		SPort: dport, DPort: sport}
	if k.Sysctl.Int("net.ipv4.fwmark_reflect", 0) != 0 {
		f.Mark = to.Mark
	}
	d := k.lookupBack(f)
	if d.Err != 0 {
		return
	}
	ans := icmp.Answer{Src: to.Dst(), TTL: k.ttlOf(&d), Options: echo,
		Clock: optionHost{k}.Milliseconds()}
	b, sent := ans.SocketReset(to.IP(), !k.Kernel.Before(6, 7))
	if !sent {
		return
	}
	k.begin(b, to, &echo)
	k.p.Socket = socket.Kernel
	k.answer(d, to)
}
