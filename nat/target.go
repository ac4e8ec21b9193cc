package nat

import (
	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Masquerade maps a new connection's source to an address of the device that the
// packet leaves by, as that is seen from the next hop (the destination where there is
// none), and remembers the device.
//
// Kernel: net/netfilter/nf_nat_masquerade.c, nf_nat_masquerade_ipv4.
func (n *NAT) Masquerade(w *world.World, tr *trace.Trace, p *packet.Packet, hop packet.Addr,
	r Range) trace.Verdict {
	f := n.t.Get(w, p.CT.Flow)
	if f == nil || f.Tuples[conntrack.Original].Src.IsAny() {
		return trace.Accept
	}
	src := n.source(tr, p.Out, hop)
	if src.IsZero() {
		return trace.DropIt
	}
	if !f.Is(conntrack.Confirmed) {
		f.Masq = p.Out
	}
	return n.Setup(w, p.CT.Flow, r.At(src), Src)
}

// source picks the address, and notes who was passed over where somebody listens.
func (n *NAT) source(tr *trace.Trace, out packet.Dev, hop packet.Addr) packet.Addr {
	if !tr.On() {
		if a := n.links.Select(out, hop, link.ScopeUniverse); !a.IsZero() {
			return a
		}
		return n.openAddr(out)
	}
	c := n.links.SelectAddr(out, hop, link.ScopeUniverse)
	if a := n.openAddr(out); c.Addr.IsZero() && !a.IsZero() {
		c = trace.SourceChoice{Addr: a, Dev: out, Step: trace.StepOpen}
	}
	tr.Masq = &c
	return c.Addr
}

// openAddr stands for a device's address where no addresses are known: one of
// TEST-NET-1 by the device's number. It is zero where addresses are known.
func (n *NAT) openAddr(dev packet.Dev) packet.Addr {
	if _, open, _ := n.links.Open(); !open {
		return packet.Addr{}
	}
	const testNet = 192<<24 | 2<<8
	return packet.V4(testNet | uint32(dev)&0xff)
}

// Redirect maps a new connection's destination to this host: to 127.0.0.1 for packets
// that it sends itself, else to the first address of the device that the packet came
// in by.
//
// Kernel: net/netfilter/nf_nat_redirect.c, nf_nat_redirect_ipv4.
func (n *NAT) Redirect(w *world.World, p *packet.Packet, hook trace.Hook, r Range) trace.Verdict {
	dst := packet.V4(0x7f000001)
	if hook != trace.Output {
		dst = n.openAddr(p.In)
		if addrs := n.links.Addrs(p.In); len(addrs) > 0 {
			dst = addrs[0].Local
		}
		if dst.IsZero() {
			return trace.DropIt
		}
	}
	return n.Setup(w, p.CT.Flow, r.At(dst), Dst)
}

// Netmap maps an address to the one with the same host part in another network.
//
// Kernel: net/netfilter/xt_NETMAP.c, netmap_tg4.
func (n *NAT) Netmap(w *world.World, p *packet.Packet, hook trace.Hook, r Range) trace.Verdict {
	m := ManipOf(hook)
	a := p.Src()
	if m == Dst {
		a = p.Dst()
	}
	b, lo, hi := a.Bytes(), r.MinAddr.Bytes(), r.MaxAddr.Bytes()
	for i := range b {
		mask := ^(lo[i] ^ hi[i])
		b[i] = b[i]&^mask | lo[i]&mask
	}
	return n.Setup(w, p.CT.Flow, r.At(a), m)
}

// Follow translates an expected connection like its master: from where the master is
// answered, to where it was expected.
//
// Kernel: net/netfilter/nf_nat_helper.c, nf_nat_follow_master.
func (n *NAT) Follow(w *world.World, id packet.FlowID, e *conntrack.Expect) {
	to := n.t.Ref(w, e.Master).Tuples[e.Dir.Not()]
	n.Setup(w, id, Range{}.At(to.Dst), Src)
	r := Range{Flags: ProtoSpecified, MinPort: e.SavedPort, MaxPort: e.SavedPort}
	n.Setup(w, id, r.At(to.Src), Dst)
}
