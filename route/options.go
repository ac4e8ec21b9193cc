package route

import (
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// SpecDst is the address of this host by which the sender of a packet that came in
// knows it: its destination, else the source of what would be sent to the sender. kind
// is that of the packet's route.
//
// Kernel: net/ipv4/fib_frontend.c, fib_compute_spec_dst.
func (f *FIB) SpecDst(p *packet.Packet, kind trace.RouteKind) packet.Addr {
	if kind == trace.Local {
		return p.Dst()
	}
	src, scope := p.Src(), link.ScopeLink
	if src[12] != 0 {
		fl := Flow{In: link.Loopback, L3mdev: f.links.L3Master(p.In), Dst: src, TOS: p.TOS()}
		if l := f.links.ByIndex(p.In); l != nil && l.Conf.SrcValidMark {
			fl.Mark = p.Mark
		}
		if r, err := f.lookup(&fl, nil); err == 0 && !f.openMiss(&r) {
			return or4(r.preferredSource())
		}
		scope = link.ScopeUniverse
	}
	return or4(f.links.Select(p.In, src, scope))
}

// ForwardSource is the address that this host writes into the options of a packet that
// it forwards by a decision.
//
// Kernel: net/ipv4/route.c, ip_rt_get_source.
func (f *FIB) ForwardSource(p *packet.Packet, d *Decision) packet.Addr {
	fl := Flow{Dst: p.Dst(), Src: p.Src(), TOS: p.TOS(), Out: d.Out, In: p.In, Mark: p.Mark}
	if r, err := f.lookup(&fl, nil); err == 0 && !f.openMiss(&r) {
		return or4(r.preferredSource())
	}
	return or4(f.links.Select(d.Out, d.Nexthop(p.Dst()), link.ScopeUniverse))
}
