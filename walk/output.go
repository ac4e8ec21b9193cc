package walk

import (
	"fmt"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/trace"
)

const anySource = route.AnySource

// Local is a packet that a program on the host sends.
type Local struct {
	IP          []byte // DF is what a socket with IP_PMTUDISC_DO sends
	Socket      string // raw, udp, tcp, icmp; empty for one of the packet's protocol
	Mark        uint32
	UID, GID    uint32
	Dev         packet.Dev // SO_BINDTODEVICE
	Transparent bool
	Bound       bool // a raw socket is bound to the packet's source
}

// Send walks a packet that a program sends, and all that comes of it. A source of
// 0.0.0.0 is filled in by the route, with the checksums.
//
// Kernel: net/ipv4/ip_output.c; the lookups of net/ipv4/raw.c, udp.c and tcp_ipv4.c.
func (h *Host) Send(k *Walk, l Local) {
	p, ok := packet.FromIP(l.IP)
	if !ok || !p.Is4() {
		k.Err = fmt.Errorf("a packet of %d bytes has no whole IPv4 header", len(l.IP))
		return
	}
	k.number(p)
	k.p = p
	// PACKET_HOST is what a new skb has; the device alone makes copies outgoing.
	p.Mark, p.Type = l.Mark, packet.Host
	f := h.localFlow(p, l)
	if f.Src.IsAny() && p.Protocol() == packet.TCP && l.Socket != "raw" {
		// ip_route_connect asks once for the source, and once with it.
		if d := k.lookup(f); d.Err == 0 {
			f.Src = d.Source
		}
	}
	p.Socket = k.Sockets.OwnedOn(k.World, p.Protocol(), l.UID, l.GID, l.Dev)
	bound := p.Src()
	d := k.Routes.Output(k.World, k.Trace, f)
	if d.Err != 0 {
		k.leave(&l, bound, false)
		k.noRoute(d)
		return
	}
	if k.tooLong(l, &d) {
		k.leave(&l, bound, false)
		k.unsent("PKT_TOO_BIG", "mtu")
		return
	}
	fillTTL(p, l, h.ttlOf(&d))
	fillSource(p, l, d.Source)
	if p.Protocol() == packet.TCP && l.Socket != "raw" && toMany(&d) {
		k.unsent("IP_OUTNOROUTES", "no-route") // tcp_v4_connect
		return
	}
	k.leave(&l, bound, true)
	p.Partial = l.Socket != "raw" && k.leavesChecksum(&d)
	p.IgnoreDF = l.Socket != "raw" && p.Protocol() != packet.TCP && !demandsDF(p)
	k.process = true
	k.send(d, 0)
	k.process = false
	k.drain()
}

// leavesChecksum tells whether a socket leaves the transport checksum to the device:
// TCP always, UDP what is not cut, on the assumption that the device can compute one
// (ethtool knows, no file of a snapshot does).
//
// Kernel: net/ipv4/tcp_ipv4.c, __tcp_v4_send_check; net/ipv4/ip_output.c,
// __ip_append_data.
func (k *Walk) leavesChecksum(d *route.Decision) bool {
	p := k.p
	return p.Protocol() == packet.TCP || p.Protocol() == packet.UDP && p.Len() <= k.mtuOf(d)
}

// ttlOf is a socket's own time to live: its IP_TTL, or its IP_MULTICAST_TTL.
//
// Kernel: net/ipv4/ip_output.c, __ip_make_skb.
func (h *Host) ttlOf(d *route.Decision) uint8 {
	if d.Kind == trace.MulticastRoute {
		return 1
	}
	return h.defaultTTL()
}

// fillTTL writes the time to live that the program left open.
func fillTTL(p *packet.Packet, l Local, ttl uint8) {
	if l.Socket != "raw" && p.TTL() == 0 { // IP_TTL knows no zero
		p.SetTTL(ttl)
	}
}

// fillSource writes a source that the program left open. What has its own header gets
// no more than that.
//
// Kernel: net/ipv4/raw.c, raw_send_hdrinc.
func fillSource(p *packet.Packet, l Local, src packet.Addr) {
	switch {
	case !p.Src().IsAny():
	case l.Socket == "raw":
		copy(p.IP()[12:16], src.Bytes())
		packet.FixIP4(p.IP())
	default:
		p.FillSource(src)
	}
}

// tooLong tells whether a program gets an error instead of a packet: with its own
// header for what the device can't carry, else for what must not be cut.
//
// Kernel: net/ipv4/raw.c, raw_send_hdrinc; net/ipv4/ip_output.c, __ip_append_data.
func (k *Walk) tooLong(l Local, d *route.Decision) bool {
	if l.Socket == "raw" {
		mtu := k.Links.ByIndex(d.Out).MTU
		k.needsRoom(mtu)
		return k.p.Len() > mtu
	}
	k.needsRoom(k.mtuOf(d))
	return demandsDF(k.p) && k.p.Len() > k.mtuOf(d)
}

// demandsDF tells whether the packet is of a socket that wants nothing cut on its way
// (IP_PMTUDISC_DO): a program that sends DF is taken to ask for it.
//
// Kernel: include/net/ip.h, ip_sk_ignore_df.
func demandsDF(p *packet.Packet) bool {
	const dontFragment = 0x40
	return p.IP()[6]&dontFragment != 0
}

// unsent ends a packet whose program gets an error before it is built.
func (k *Walk) unsent(reason trace.Reason, why trace.Why) {
	if k.Trace != nil {
		k.Trace.Changed(k.p, &trace.LocalOut{Frame: clone(k.p.IP())})
	}
	k.drop(reason, why)
}

// localFlow is what the socket's first lookup asks.
func (h *Host) localFlow(p *packet.Packet, l Local) *route.Flow {
	f := &route.Flow{Dst: p.Dst(), Src: p.Src(), Proto: p.Protocol(), TOS: p.TOS(), Mark: l.Mark,
		UID: l.UID, Out: l.Dev}
	f.SPort, f.DPort, _ = p.Ports()
	if l.Transparent {
		f.Flags |= route.AnySource
	}
	if l.Socket == "raw" {
		// raw_sendmsg with IP_HDRINCL knows no ports, and the source of its socket alone.
		if !l.Bound {
			f.Src = packet.Addr{}
		}
		f.SPort, f.DPort, f.Proto = 0, 0, 255
		f.Flags |= route.AnySource
	}
	return f
}

// noRoute ends a local packet that can't leave: the program gets an error.
func (k *Walk) noRoute(d route.Decision) {
	if k.Trace != nil {
		k.Trace.Changed(k.p, &trace.LocalOut{Frame: clone(k.p.IP())})
	}
	o := &trace.Outcome{Result: trace.Dropped, Reason: d.Reason, Why: d.Why}
	if o.Reason == "" {
		o.Reason = "IP_OUTNOROUTES"
	}
	if d.Kind == trace.Unreachable || d.Kind == trace.Prohibit {
		o.Result = trace.Rejected
	}
	k.end(o)
}

// send takes a local packet with its route through OUTPUT. parent is the packet
// that it answers, zero for none.
//
// Kernel: net/ipv4/ip_output.c, ip_local_out.
func (k *Walk) send(d route.Decision, parent int) {
	k.dst, k.hasDst = d, true
	k.p.Realm = d.Realm
	k.p.In, k.p.Out = 0, d.Out
	if k.Trace != nil {
		k.Trace.Changed(k.p, &trace.LocalOut{Frame: clone(k.p.IP()), Parent: parent})
	}
	if k.runHook(trace.Output) != trace.Accept {
		return
	}
	k.postrouting()
}

// outFlow is the lookup that ip_route_me_harder makes for the present packet, which
// socket sk sends.
func (k *Walk) outFlow(sk uint32) *route.Flow {
	p := k.p
	f := &route.Flow{Src: p.Src(), Dst: p.Dst(), TOS: p.TOS(), Mark: p.Mark,
		Out: k.Sockets.BoundDev(k.World, sk)}
	k.Routes.Dissect(f, p, &k.env)
	return f
}

// mangleOutput asks the mangle table and routes anew when it changed what routing
// goes by.
//
// Kernel: net/ipv4/netfilter/iptable_mangle.c, ipt_mangle_out.
func (k *Walk) mangleOutput(st *stage) trace.Verdict {
	p := k.p
	src, dst, tos, mark := p.Src(), p.Dst(), p.TOS(), p.Mark
	since := k.events()
	v := k.table(st)
	k.needsWritten(since)
	if v == trace.DropIt || v == trace.Stolen {
		return v
	}
	if p.Src() == src && p.Dst() == dst && p.TOS() == tos && p.Mark == mark {
		return v
	}
	if !k.reroute(k.p.Socket) {
		k.env.By = trace.RuleRef{Table: -1}
		return trace.DropIt
	}
	return v
}

// natOutput translates, and routes anew what belongs to a connection whose destination was
// changed, whether this packet's is or not.
//
// Kernel: net/netfilter/nf_nat_proto.c, nf_nat_ipv4_local_fn.
func (k *Walk) natOutput(st *stage) trace.Verdict {
	v := k.nat(st)
	f := k.Conntrack.Get(k.World, k.p.CT.Flow)
	if v != trace.Accept || f == nil {
		return v
	}
	d := conntrack.DirOf(k.p.CT.Info)
	if f.Tuples[d].Dst == f.Tuples[d.Not()].Src {
		return v
	}
	if !k.reroute(k.p.Socket) {
		k.env.By = trace.RuleRef{Table: -1}
		return trace.DropIt
	}
	return v
}
