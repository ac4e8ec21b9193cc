package walk

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/trace"
)

// routeInput decides where a received packet goes: here, on, or nowhere.
//
// Kernel: net/ipv4/ip_input.c, ip_rcv_finish_core.
func (k *Walk) routeInput() {
	if !k.hasDst {
		k.earlyDemux()
		k.Routes.Input(k.World, k.Trace, k.p, &k.env, &k.dst)
		k.hasDst = true
	}
	d := &k.dst
	k.p.Realm = d.Realm
	if d.Err != 0 && !d.ICMP {
		k.drop(d.Reason, d.Why)
		return
	}
	if !k.receiveOptions() || k.badMulticast() {
		return
	}
	switch {
	case d.Err != 0:
		k.routeError()
	case d.Local || d.Kind == trace.Local:
		k.localDeliver()
	case d.Kind == trace.Unicast, d.Kind == trace.BroadcastRoute: // bc_forwarding
		k.forward()
	default:
		k.drop("NOT_SPECIFIED", "not-for-us")
	}
}

// earlyDemux looks for the packet's socket before its route. All that comes of it here is
// that the transport header of a packet that was put together becomes one stretch.
//
// Kernel: net/ipv4/tcp_ipv4.c, tcp_v4_early_demux; net/ipv4/udp.c, udp_v4_early_demux.
func (k *Walk) earlyDemux() {
	if len(k.p.Pieces) == 0 || k.p.IsFragment() ||
		k.Sysctl.Int("net.ipv4.ip_early_demux", 1) == 0 {
		return
	}
	n := k.p.Len() - len(k.p.L4())
	switch {
	case k.p.Protocol() == packet.UDP && k.Sysctl.Int("net.ipv4.udp_early_demux", 1) != 0:
		k.p.Pull(n + 8)
	case k.p.Protocol() == packet.TCP && k.Sysctl.Int("net.ipv4.tcp_early_demux", 1) != 0 &&
		k.p.Type == packet.Host:
		k.p.Pull(n + 20)
	}
}

// badMulticast drops unicast packets in multicast frames, where that is asked for.
func (k *Walk) badMulticast() bool {
	kind := k.dst.Kind
	if kind == trace.BroadcastRoute || kind == trace.MulticastRoute {
		return false
	}
	l := k.Links.ByIndex(k.p.In)
	if k.p.Type != packet.Broadcast && k.p.Type != packet.Multicast || l == nil ||
		!l.Conf.DropUnicastInL2Multicast {
		return false
	}
	k.drop("UNICAST_IN_L2_MULTICAST", "unicast-in-multicast-frame")
	return true
}

// routeError answers a packet that has no route.
//
// Kernel: net/ipv4/route.c, ip_error.
func (k *Walk) routeError() {
	d := k.dst
	o := &trace.Outcome{Result: trace.Dropped, Reason: d.Reason, Why: d.Why}
	if d.Kind == trace.Unreachable || d.Kind == trace.Prohibit {
		o.Result = trace.Rejected
	}
	if d.ICMP && k.mayError(peerKey{k.p.Src(), k.Links.L3Master(k.p.In)}) {
		k.nested(func() { k.sendICMP(d.ICMPType, d.ICMPCode, 0) })
	}
	k.end(o)
}

// nested runs what the kernel does on top of the present packet, and comes back to
// it.
func (k *Walk) nested(f func()) {
	if !k.step() {
		return
	}
	s := k.save()
	f()
	k.restore(s)
}

// reroute looks the route of what socket sk sends, zero for none, up again, after its
// addresses, mark or TOS changed. It is false when there is none: the packet is then dropped.
//
// Kernel: net/ipv4/netfilter.c, ip_route_me_harder.
func (k *Walk) reroute(sk uint32) bool {
	return k.rerouteAs(k.Routes.AddrType(k.p.Src(), 0, field.Src, k.Trace.Notes()), sk)
}

// rerouteAs is reroute for a source of a known type.
func (k *Walk) rerouteAs(kind trace.RouteKind, sk uint32) bool {
	f := k.outFlow(sk)
	if kind == trace.Local || kind == trace.Unicast {
		f.Flags |= anySource
	} else {
		f.Src = packet.Addr{}
	}
	d := k.Routes.Output(k.World, k.Trace, f)
	if d.Err != 0 {
		return false
	}
	k.dst, k.hasDst = d, true
	k.p.Realm = d.Realm
	return true
}

// mtu is the largest packet that the present route carries.
func (k *Walk) mtu() int { return k.mtuOf(&k.dst) }

// roomAhead is mtu for the present packet, which is forwarded or not: what ICMP errors told
// is not for what others send, unless that is set or the size was below the least.
//
// Kernel: include/net/ip.h, ip_dst_mtu_maybe_forward.
func (k *Walk) roomAhead() int {
	own := k.p.Flags&packet.Forwarded == 0 || k.dst.MTULocked
	if own || k.dst.PMTU == 0 || k.Sysctl.Int("net.ipv4.ip_forward_use_pmtu", 0) != 0 {
		return k.mtu()
	}
	d := k.dst
	d.PMTU = 0
	return k.mtuOf(&d)
}

func (k *Walk) mtuOf(d *route.Decision) int {
	if mtu := d.PathMTU(); mtu != 0 {
		return mtu
	}
	if l := k.Links.ByIndex(d.Out); l != nil {
		return l.MTU
	}
	return link.MinMTU
}
