package nat

import (
	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// NAT translates the packets of one host. It is immutable.
type NAT struct {
	t     *conntrack.Tracker
	links *link.Table

	firstFirst bool // a range of destination ports is tried from its first on
	harder     bool // connections that are over may be evicted
	reverse    bool // clashes with the same conversation from behind are resolved later
}

// New makes a translator. The links answer which address MASQUERADE and REDIRECT
// take.
func New(t *conntrack.Tracker, links *link.Table) *NAT {
	n := &NAT{t: t, links: links}
	c := t.Config()
	n.harder = c.Since(6<<16 | 7<<8)
	n.reverse = c.Since(6<<16 | 12<<8)
	n.firstFirst = c.Since(6<<16 | 8<<8)
	t.NAT = n
	return n
}

// Hook is a hook's NAT: it asks rules how to translate a new connection, and rewrites
// the packet as its connection says. A packet whose connection was masqueraded to
// another device than it leaves by now takes the connection down with it.
//
// Where a VRF's master is the way out the kernel does not come here in POSTROUTING:
// the caller sees to that.
//
// Kernel: net/netfilter/nf_nat_core.c, nf_nat_inet_fn; nf_nat_proto.c, nf_nat_ipv4_fn.
func (n *NAT) Hook(w *world.World, tr *trace.Trace, p *packet.Packet, hook trace.Hook,
	rules func() trace.Verdict) trace.Verdict {
	f := n.t.Get(w, p.CT.Flow)
	if f == nil {
		return trace.Accept
	}
	h := pass{n: n, w: w, tr: tr, p: p, hook: hook, m: ManipOf(hook)}
	related := p.CT.Info == packet.Related || p.CT.Info == packet.RelatedReply
	if related && p.Protocol() == packet.ICMP {
		return h.icmpError(f)
	}
	if (related || p.CT.Info == packet.New) && !f.Is(h.m.done()) {
		if v := h.ask(rules); v != trace.Accept {
			return v
		}
		h.noteOthers()
	} else if h.moved(f) {
		n.t.Kill(w, p.CT.Flow)
		return trace.DropIt
	}
	return h.translate(n.t.Ref(w, p.CT.Flow))
}

// Reroutes tells whether a packet that the host sent has another destination than it
// was routed by, so that OUTPUT routes it anew.
//
// Kernel: net/netfilter/nf_nat_proto.c, nf_nat_ipv4_local_fn.
func (n *NAT) Reroutes(w *world.World, p *packet.Packet) bool {
	f := n.t.Get(w, p.CT.Flow)
	if f == nil {
		return false
	}
	d := conntrack.DirOf(p.CT.Info)
	return f.Tuples[d].Dst != f.Tuples[d.Not()].Src
}

// pass is one packet's pass through a NAT hook.
type pass struct {
	n    *NAT
	w    *world.World
	tr   *trace.Trace
	p    *packet.Packet
	hook trace.Hook
	m    Manip
}

// ask lets the rules decide; where none does, the connection keeps its address.
func (h *pass) ask(rules func() trace.Verdict) trace.Verdict {
	if rules != nil {
		if v := rules(); v != trace.Accept {
			return v
		}
		if h.n.t.Ref(h.w, h.p.CT.Flow).Is(h.m.done()) {
			h.noteMapped()
			return trace.Accept
		}
	}
	return h.n.NullBinding(h.w, h.p.CT.Flow, h.m)
}

// noteMapped notes that what a connection is mapped to is not what it had, or that it is:
// then it does not count as translated.
func (h *pass) noteMapped() {
	if !h.tr.On() {
		return
	}
	to, _ := h.n.t.Ref(h.w, h.p.CT.Flow).Tuples[conntrack.Reply].Invert()
	id, port, was, now := field.Src, field.SrcPort, h.p.Src(), to.Src
	if h.m == Dst {
		id, port, was, now = field.Dst, field.DstPort, h.p.Dst(), to.Dst
	}
	v := field.AddrValue(now)
	same := field.Ranges(field.Range{Lo: v, Hi: v})
	h.tr.Notes().Note(id, same.Looked(field.AddrValue(was), id.Bits()))
	if was == now {
		h.tr.Notes().Note(port, field.Ones(port.Bits()))
		h.tr.Notes().Note(field.ICMPID, field.Ones(field.ICMPID.Bits()))
	}
}

// noteOthers notes that the mapping hung on who else there is: where the port that the
// packet has is taken, or its source is mapped already.
func (h *pass) noteOthers() {
	if !h.tr.On() {
		return
	}
	t, id := h.n.t, h.p.CT.Flow
	f := t.Ref(h.w, id)
	orig := &f.Tuples[conntrack.Original]
	kept, _ := f.Tuples[conntrack.Reply].Invert()
	if h.m == Src {
		kept.SPort = orig.SPort
	} else {
		kept.DPort = orig.DPort
	}
	reply, _ := kept.Invert()
	first := t.SameSource(h.w, conntrack.SourceOf(orig, f.Zone))
	mapped := h.m == Src && first != 0 && (first != id || t.NextSource(h.w, id) != 0)
	if mapped || t.Taken(h.w, reply, id) {
		conntrack.NoteEnds(h.tr.Notes(), h.p)
	}
}

// moved tells whether the packet leaves by another device than its connection was
// masqueraded for.
//
// Kernel: include/net/netfilter/nf_nat.h, nf_nat_oif_changed.
func (h *pass) moved(f *conntrack.Flow) bool {
	return f.Masq != 0 && h.hook == trace.Postrouting && !h.p.CT.Info.IsReply() &&
		f.Masq != h.p.Out
}

// applies tells whether the connection is translated in this hook, seen from the
// packet's direction.
func (h *pass) applies(f *conntrack.Flow) bool {
	m := h.m
	if h.p.CT.Info.IsReply() {
		m = m.Not()
	}
	return f.Is(m.bit())
}

// translate rewrites the packet.
//
// Kernel: net/netfilter/nf_nat_core.c, nf_nat_packet; nf_nat_proto.c, nf_nat_manip_pkt.
func (h *pass) translate(f *conntrack.Flow) trace.Verdict {
	if !h.applies(f) {
		return trace.Accept
	}
	r := rewrite{ip: h.p.IP(), m: h.m, dccp: h.n.t.TracksPorts(packet.DCCP)}
	d := conntrack.DirOf(h.p.CT.Info)
	r.target, _ = f.Tuples[d.Not()].Invert()
	open := h.open(f, d)
	r.keep = open != 0
	before := h.endpoint()
	r.pull(h.p, 0)
	h.tr.Notes().Note(field.Proto, field.Ones(field.Proto.Bits()))
	if !r.run() { // its header is cut
		h.tr.Notes().Note(field.Len, field.Ones(field.Len.Bits()))
		return trace.DropIt
	}
	h.p.Free |= open
	h.tell(before)
	return trace.Accept
}

// open is the port of the packet that NAT drew without anybody knowing which.
func (h *pass) open(f *conntrack.Flow, d conntrack.Dir) packet.Free {
	if d == conntrack.Reply {
		return 0
	}
	if h.m == Src || isICMP(f.Proto()) {
		return f.Free & packet.FreeSrcPort
	}
	return f.Free & packet.FreeDstPort
}

// endpoint is the side of the packet that this hook translates.
func (h *pass) endpoint() trace.Endpoint {
	if !h.tr.On() {
		return trace.Endpoint{}
	}
	src, dst, _ := h.p.Ports()
	if h.m == Src {
		return trace.Endpoint{Addr: h.p.Src(), Port: src, Free: h.p.Free&packet.FreeSrcPort != 0}
	}
	return trace.Endpoint{Addr: h.p.Dst(), Port: dst, Free: h.p.Free&packet.FreeDstPort != 0}
}

// tell records a translation.
func (h *pass) tell(before trace.Endpoint) {
	if !h.tr.On() {
		return
	}
	e := &trace.NAT{Dst: h.m == Dst, From: before, To: h.endpoint()}
	if h.m == Src {
		e.Source, h.tr.Masq = h.tr.Masq, nil
	}
	h.tr.Changed(h.p, e)
}

// icmpError translates an ICMP error together with the packet that it quotes.
//
// Kernel: net/netfilter/nf_nat_proto.c, nf_nat_icmp_reply_translation.
func (h *pass) icmpError(f *conntrack.Flow) trace.Verdict {
	const redirect, header, quoted = 5, 8, 20
	l4 := h.p.L4()
	at := h.p.Len() - len(l4) + header // of what is quoted
	h.p.Pull(at + quoted)
	if len(l4) < header+quoted || packet.Fold(packet.Sum16(l4, 0)) != 0 {
		return trace.DropIt
	}
	if l4[0] == redirect && (!f.Is(conntrack.NATDoneMask) || f.Any(conntrack.NATMask)) {
		return trace.DropIt
	}
	if !h.applies(f) {
		return trace.Accept
	}
	d := conntrack.DirOf(h.p.CT.Info)
	dccp := h.n.t.TracksPorts(packet.DCCP)
	before := h.endpoint()
	inner := rewrite{ip: l4[header:], target: f.Tuples[d.Not()], m: h.m.Not(), dccp: dccp}
	inner.pull(h.p, at)
	if !inner.run() {
		return trace.DropIt
	}
	l4[2], l4[3] = 0, 0
	sum := packet.Fold(packet.Sum16(l4, 0))
	l4[2], l4[3] = byte(sum>>8), byte(sum)
	outer := rewrite{ip: h.p.IP(), m: h.m}
	outer.target, _ = f.Tuples[d.Not()].Invert()
	outer.target.Proto = packet.ICMP
	outer.pull(h.p, 0)
	if !outer.run() {
		return trace.DropIt
	}
	h.tell(before)
	return trace.Accept
}
