package conntrack

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// loopback is the index that lo has in every namespace. What came over lo was adjusted
// on its way out.
const loopback packet.Dev = 1

// Confirm lets a connection's first packet take it into the table, as the last
// thing before the packet leaves or is delivered. Helpers read the payload here.
//
// Kernel: net/netfilter/nf_conntrack_proto.c, nf_confirm and ipv4_confirm.
func (t *Tracker) Confirm(w *world.World, tr *trace.Trace, p *packet.Packet) trace.Verdict {
	f := t.Get(w, p.CT.Flow)
	if f == nil {
		return trace.Accept
	}
	if p.CT.Info != packet.RelatedReply {
		if v := t.help(w, p, f); v != trace.Accept {
			return v
		}
		if f.Is(SeqAdjust) && p.In != loopback && !seqAdjust(p, f) {
			return trace.DropIt
		}
	}
	if f = t.Ref(w, p.CT.Flow); f.Is(Confirmed) {
		return trace.Accept
	}
	if tr.On() && (t.clash(w, f, Original) != 0 || t.clash(w, f, Reply) != 0) {
		NoteEnds(tr.Notes(), p)
	}
	v := t.confirm(w, p, f)
	if v == trace.Accept && tr.On() {
		if f = t.Get(w, p.CT.Flow); f.Is(Confirmed) && DirOf(p.CT.Info) == Original {
			t.note(w, tr, p, true)
		}
	}
	return v
}

// Kernel: net/netfilter/nf_conntrack_core.c, __nf_conntrack_confirm.
func (t *Tracker) confirm(w *world.World, p *packet.Packet, f *Flow) trace.Verdict {
	if DirOf(p.CT.Info) != Original {
		return trace.Accept // an answer that the host attached
	}
	if f.Is(Dying) {
		return trace.DropIt
	}
	id := p.CT.Flow
	if other := t.clash(w, f, Original); other != 0 {
		return t.resolveClash(w, p, f, other)
	}
	if other := t.clash(w, f, Reply); other != 0 {
		return t.resolveClash(w, p, f, other)
	}
	f.Timeout += w.Now
	t.insert(w, id, f, Original)
	t.insert(w, id, f, Reply)
	f.Status |= Confirmed
	return trace.Accept
}

// clash returns a connection in the table that has one of f's tuples already.
// Expired ones count as long as nobody looked them up; nobody can tell when the
// kernel's collector passed by, so here they are gone.
func (t *Tracker) clash(w *world.World, f *Flow, d Dir) packet.FlowID {
	r, ok := t.tuples.In(w.State).Get(key{f.Tuples[d], f.Zone.In(d)})
	if !ok {
		return 0
	}
	for _, other := range [...]Dir{Original, Reply} {
		id := t.live(w, r.id[other])
		if id != 0 && t.Ref(w, id).Zone.In(other) == f.Zone.In(other) {
			return id
		}
	}
	return 0
}

// resolveClash lets a packet join the connection that was faster, or makes an entry
// for replies alone.
//
// Kernel: net/netfilter/nf_conntrack_core.c, nf_ct_resolve_clash.
func (t *Tracker) resolveClash(w *world.World, p *packet.Packet, f *Flow,
	other packet.FlowID) trace.Verdict {
	if !t.AllowsClash(f.Proto()) {
		return trace.DropIt
	}
	if t.join(w, p, f, other) {
		return trace.Accept
	}
	if r := t.clash(w, f, Reply); r != 0 {
		if t.join(w, p, f, r) {
			return trace.Accept
		}
		return trace.DropIt
	}
	f.Timeout = w.Now + world.Second
	f.Status |= FixedTimeout | NATClash | Confirmed
	t.insert(w, p.CT.Flow, f, Reply)
	return trace.Accept
}

// join attaches the packet to the connection that is in the table.
//
// Kernel: net/netfilter/nf_conntrack_core.c, __nf_ct_resolve_clash.
func (t *Tracker) join(w *world.World, p *packet.Packet, loser *Flow, id packet.FlowID) bool {
	f, since := t.Ref(w, id), t.cfg.Since(kernel6_12)
	info := p.CT.Info
	switch {
	case f.Is(Dying):
		return false
	case f.same(loser):
	case !since && !f.Any(NATDoneMask):
	case since && f.mirrors(loser):
		info = packet.EstablishedReply
		f.Status |= SeenReply
	default:
		return false
	}
	d := DirOf(info)
	if t.acct {
		f.Packets[d]++
		f.Bytes[d] += loser.Bytes[Original]
	}
	t.Release(w, p)
	p.CT = packet.CT{Flow: id, Info: info}
	return true
}

// same tells whether two connections have the same tuples and zones.
//
// Kernel: nf_ct_match.
func (f *Flow) same(g *Flow) bool {
	return f.Tuples == g.Tuples && f.Zone.In(Original) == g.Zone.In(Original) &&
		f.Zone.In(Reply) == g.Zone.In(Reply)
}

// mirrors tells whether one connection is the other seen from behind: both ends sent
// their first packets at once.
//
// Kernel: nf_ct_match_reverse (since 6.12).
func (f *Flow) mirrors(g *Flow) bool {
	return f.Tuples[Original] == g.Tuples[Reply] && f.Tuples[Reply] == g.Tuples[Original] &&
		f.Zone.In(Original) == g.Zone.In(Reply) && f.Zone.In(Reply) == g.Zone.In(Original)
}

// AllowsClash tells whether two first packets of one connection may be on their way
// at once.
//
// Kernel: nf_conntrack_l4proto.allow_clash.
func (t *Tracker) AllowsClash(proto uint8) bool {
	switch proto {
	case packet.TCP, packet.SCTP, packet.GRE, packet.ICMP, packet.ICMPv6:
		return false
	case packet.DCCP:
		return !t.dccp
	}
	return true
}

// Answer attaches a packet that the host sends in answer to another (an ICMP error,
// a reset) to the other's connection.
//
// Kernel: net/netfilter/nf_conntrack_core.c, nf_conntrack_attach.
func (t *Tracker) Answer(w *world.World, answer, to *packet.Packet) {
	if to.CT == (packet.CT{}) {
		return
	}
	answer.CT = packet.CT{Flow: to.CT.Flow, Info: packet.RelatedReply}
	if to.CT.Info >= packet.EstablishedReply { // also of what is not tracked
		answer.CT.Info = packet.Related
	}
	t.Hold(w, answer)
}

// SetClosing notes that the host resets the packet's TCP connection.
//
// Kernel: net/netfilter/nf_conntrack_proto_tcp.c, nf_conntrack_tcp_set_closing.
func (t *Tracker) SetClosing(w *world.World, p *packet.Packet) {
	f := t.Get(w, p.CT.Flow)
	if f == nil || f.Proto() != packet.TCP || !f.Is(Confirmed) {
		return
	}
	old := f.TCP.State
	f.TCP.State = TCPClose
	if old != TCPClose && !f.Is(FixedTimeout) {
		f.Timeout = w.Now + t.tcp[TCPClose]
	}
}

// AlterReply sets the tuple that answers will have. Only NAT does, and only before
// the connection is confirmed.
//
// Kernel: net/netfilter/nf_conntrack_core.c, nf_conntrack_alter_reply.
func (t *Tracker) AlterReply(w *world.World, id packet.FlowID, reply Tuple) {
	if f := t.Ref(w, id); !f.Is(Confirmed) {
		f.Tuples[Reply] = reply
	}
}
