package walk

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/packet/frag"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/trace"
)

func ipvsInUse(h *Host) bool { return h.IPVS.InUse() }

// gone is the verdict of a stage that took the packet on its way itself, to its end.
const gone = trace.Verdict(0xff)

// ipvsHeader is what the load balancer sees of the present packet.
func (k *Walk) ipvsHeader() ipvs.Header {
	p := k.p
	f := k.Conntrack.Get(k.World, p.CT.Flow)
	return ipvs.Header{Family: trace.IPv4, Proto: p.Protocol(), Src: p.Src(), Dst: p.Dst(),
		L4: p.L4(), Mark: p.Mark, Tracked: f != nil && f.Is(conntrack.Confirmed),
		Loopback: p.In == 0 || p.In == loopback,
		Unicast: func() bool {
			return k.Routes.AddrType(p.Dst(), 0, field.Dst, k.Trace.Notes()) == trace.Unicast
		}}
}

// ipvsNeeds notes what the answer hangs on: each connection has its own.
func (k *Walk) ipvsNeeds() {
	k.needs(field.Src, field.Dst, field.Proto, field.SrcPort, field.DstPort, field.TCPFlags,
		field.Mark, field.FragOff)
}

// ipvsIn looks whether the packet is for a virtual service, and sends it to a real server.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, ip_vs_in_hook.
func (k *Walk) ipvsIn(*stage) trace.Verdict {
	p := k.p
	if p.IPVS || p.Type != packet.Host && k.hook != trace.Output || !k.hasDst ||
		k.IPVS.BackupOnly() {
		return trace.Accept
	}
	k.ipvsNeeds()
	if p.Protocol() == packet.ICMP {
		if v, related := k.ipvsInICMP(); related {
			return v
		}
	}
	if !k.IPVS.Speaks(p.Protocol()) {
		p.IPVS = p.IPVS || k.IPVS.IgnoresTunnels()
		return trace.Accept
	}
	h := k.ipvsHeader()
	return k.ipvsDo(k.IPVS.In(k.World, &h), p.L4())
}

// ipvsDo does what was decided. l4 is the transport header that the connection's state goes
// by.
func (k *Walk) ipvsDo(d ipvs.Decision, l4 []byte) trace.Verdict {
	switch d.Action {
	case ipvs.Pass:
		return trace.Accept
	case ipvs.Unservable:
		k.ipvsEvent(d, false)
		k.nested(func() { k.sendICMP(3, 3, 0) })
		k.why = d.Why
		return trace.DropIt
	case ipvs.Drop:
		k.ipvsEvent(d, false)
		k.why = d.Why
		return trace.DropIt
	}
	k.IPVS.Enter(k.World, d.Conn, l4)
	k.ipvsEvent(d, false)
	v := k.ipvsSend(d.Conn)
	k.IPVS.Leave(k.World, d.Conn)
	return v
}

// ipvsEvent tells what was decided; back is for a server's answer.
func (k *Walk) ipvsEvent(d ipvs.Decision, back bool) {
	if k.Trace == nil {
		return
	}
	e := &trace.IPVS{Service: d.Service, New: d.New, Back: back, Index: -1}
	if d.Conn != 0 {
		v := k.IPVS.View(k.World, d.Conn)
		e.Service, e.Index, e.Method, e.State = v.Service, v.Index, uint8(v.Method), v.State
		e.Client = trace.Endpoint{Addr: v.Client, Port: v.CPort}
		e.Virtual = trace.Endpoint{Addr: v.Virtual, Port: v.VPort}
		e.Real = trace.Endpoint{Addr: v.Real, Port: v.RPort}
	}
	k.Trace.Add(k.p, e)
}

// Route modes. Kernel: net/netfilter/ipvs/ip_vs_xmit.c, IP_VS_RT_MODE_*.
const (
	modeLocal = 1 << iota
	modeRemote
	modeRedirect // a remote packet may become a local one
	modeConnect  // ask again with the source
	modeKnownHop // the packet's destination is not the one that is routed to
	modeTunnel
)

// ipvsSend sends the present packet by its connection. Accept is for a server on this
// host.
func (k *Walk) ipvsSend(id ipvs.ConnID) trace.Verdict {
	v := k.IPVS.View(k.World, id)
	switch v.Method {
	case ipvs.Masq:
		return k.ipvsNAT(id, &v)
	case ipvs.Direct:
		return k.ipvsDirect(&v)
	case ipvs.Tunnel:
		return k.ipvsTunnel(&v)
	case ipvs.Bypass:
		return k.ipvsBypass()
	}
	k.ipvsMark(&v)
	return trace.Accept
}

// ipvsMark takes the packet as one that the load balancer has seen, and from conntrack,
// unless that is to know the connection too.
//
// Kernel: net/netfilter/ipvs/ip_vs_xmit.c, ip_vs_send_or_cont; ip_vs_notrack.
func (k *Walk) ipvsMark(v *ipvs.View) {
	k.p.IPVS = true
	if !v.Tracked && k.p.CT.Flow != 0 {
		k.Conntrack.Release(k.World, k.p)
		k.p.CT = packet.CT{Info: packet.Untracked}
	}
}

// ipvsNAT rewrites the destination and sends the packet.
//
// Kernel: net/netfilter/ipvs/ip_vs_xmit.c, ip_vs_nat_xmit.
func (k *Walk) ipvsNAT(id ipvs.ConnID, v *ipvs.View) trace.Verdict {
	local, ok := k.ipvsRoute(v, v.Real, modeLocal|modeRemote|modeRedirect)
	if !ok {
		return gone
	}
	if local && k.ipvsFromWorld() && isLoopback(v.Real) {
		k.drop("NOT_SPECIFIED", "dnat-to-loopback")
		return gone
	}
	ipvs.Rewrite(k.p, false, v.Real, v.RPort)
	k.ipvsTranslated(true, trace.Endpoint{Addr: v.Virtual, Port: v.VPort},
		trace.Endpoint{Addr: v.Real, Port: v.RPort})
	k.ipvsTrack(id, v, true)
	if local {
		return trace.Accept
	}
	k.ipvsTransmit()
	return gone
}

// ipvsFromWorld tells that the packet has a route of the way in.
func (k *Walk) ipvsFromWorld() bool { return k.hook != trace.Output && k.p.In != loopback }

func isLoopback(a packet.Addr) bool { return a.Is4() && a[12] == 127 }

// ipvsTrack takes a translated packet from conntrack, or tells conntrack of the server.
func (k *Walk) ipvsTrack(id ipvs.ConnID, v *ipvs.View, request bool) {
	k.ipvsMark(v)
	if v.Tracked {
		k.IPVS.Track(k.World, k.p, id, request)
	}
}

// ipvsDirect sends the packet to the real server as it is.
//
// Kernel: net/netfilter/ipvs/ip_vs_xmit.c, ip_vs_dr_xmit.
func (k *Walk) ipvsDirect(v *ipvs.View) trace.Verdict {
	local, ok := k.ipvsRoute(v, v.Real, modeLocal|modeRemote|modeKnownHop)
	if !ok {
		return gone
	}
	k.ipvsMark(v)
	if local {
		return trace.Accept
	}
	k.ipvsTransmit()
	return gone
}

// ipvsBypass sends the packet on to its own destination.
//
// Kernel: net/netfilter/ipvs/ip_vs_xmit.c, ip_vs_bypass_xmit.
func (k *Walk) ipvsBypass() trace.Verdict {
	v := &ipvs.View{Index: -1}
	if _, ok := k.ipvsRoute(v, k.p.Dst(), modeRemote); !ok {
		return gone
	}
	k.ipvsMark(v)
	k.ipvsTransmit()
	return gone
}

// ipvsRoute finds the way to a real server, takes one from the time to live, and makes it
// the packet's route where it leaves the host. It ends the packet where there is no way.
//
// Kernel: net/netfilter/ipvs/ip_vs_xmit.c, __ip_vs_get_out_rt.
func (k *Walk) ipvsRoute(v *ipvs.View, dst packet.Addr, mode int) (local, ok bool) {
	d := k.ipvsLookup(dst, mode)
	if d.Err != 0 {
		k.nested(func() { k.sendICMP(3, 1, 0) }) // dst_link_failure
		k.drop("NOT_SPECIFIED", "no-route")
		return false, false
	}
	switch {
	case d.Local && (mode&modeLocal == 0 || mode&modeRedirect == 0 && !k.dst.Local),
		!d.Local && (mode&modeRemote == 0 || isLoopback(k.p.Src())):
		k.drop("NOT_SPECIFIED", "local-boundary")
		return false, false
	case d.Local:
		return true, true
	}
	k.needs(field.TTL)
	if k.p.TTL() <= 1 {
		k.nested(func() { k.sendICMP(11, 0, 0) })
		k.drop("NOT_SPECIFIED", "ttl")
		return false, false
	}
	k.p.SetTTL(k.p.TTL() - 1)
	mtu := k.mtuOf(&d) - k.tunnelRoom(v, mode)
	if mtu < 68 && mode&modeTunnel != 0 {
		k.drop("NOT_SPECIFIED", "mtu")
		return false, false
	}
	if !k.ipvsFits(mtu, mode) {
		return false, false
	}
	k.dst, k.hasDst = d, true
	return false, true
}

// ipvsLookup asks for a route as nobody's packet: without mark, source or TOS.
//
// Kernel: net/netfilter/ipvs/ip_vs_xmit.c, do_output_route4.
func (k *Walk) ipvsLookup(dst packet.Addr, mode int) route.Decision {
	f := &route.Flow{Dst: dst}
	d := k.lookup(f)
	if d.Err == 0 && mode&modeConnect != 0 && !d.Source.IsAny() {
		f = &route.Flow{Dst: dst, Src: d.Source}
		d = k.lookup(f)
	}
	if d.Err == 0 && mode&modeKnownHop != 0 && d.Gateway.IsZero() {
		d.Gateway = dst
	}
	return d
}

// ipvsFits tells a sender that its packet is too long for the way to the server.
//
// Kernel: net/netfilter/ipvs/ip_vs_xmit.c, ensure_mtu_is_adequate.
func (k *Walk) ipvsFits(mtu, mode int) bool {
	if mode&modeTunnel != 0 && !k.IPVS.DiscoversPMTU() {
		return true
	}
	const dontFragment = 0x40
	k.needsRoom(mtu)
	if k.p.IP()[6]&dontFragment == 0 || k.p.Len() <= mtu || k.p.Protocol() == packet.ICMP {
		return true
	}
	k.nested(func() { k.sendICMP(3, 4, uint32(mtu)) })
	k.drop("NOT_SPECIFIED", "mtu")
	return false
}

// ipvsTransmit takes the packet through OUTPUT and out.
//
// Kernel: net/netfilter/ipvs/ip_vs_xmit.c, ip_vs_nat_send_or_cont and ip_vs_send_or_cont.
func (k *Walk) ipvsTransmit() {
	p := k.p
	if p.In != 0 {
		p.Socket = 0 // ip_vs_drop_early_demux_sk
	}
	p.IgnoreDF = true
	in := p.In
	p.In, p.Out = 0, k.dst.Out
	if k.runHook(trace.Output) != trace.Accept {
		return
	}
	k.p.In = in
	k.postrouting()
}

// ipvsOut looks whether the packet is an answer of a real server, and gives it the virtual
// service's address.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, ip_vs_out_hook.
func (k *Walk) ipvsOut(*stage) trace.Verdict {
	p := k.p
	if p.IPVS || !k.hasDst {
		return trace.Accept
	}
	k.ipvsNeeds()
	if p.Protocol() == packet.ICMP {
		if v, related := k.ipvsOutICMP(); related {
			return v
		}
	}
	if !k.IPVS.Speaks(p.Protocol()) {
		return trace.Accept
	}
	if v := k.ipvsWhole(); v != trace.Accept {
		return v
	}
	h := k.ipvsHeader()
	if id := k.IPVS.Out(k.World, &h); id != 0 {
		return k.ipvsAnswer(id)
	}
	return k.ipvsStray(&h)
}

// ipvsWhole puts fragments together.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, ip_vs_gather_frags.
func (k *Walk) ipvsWhole() trace.Verdict {
	if !k.p.IsFragment() {
		return trace.Accept
	}
	user := frag.VSOut
	switch k.hook {
	case trace.Input:
		user = frag.VSIn
	case trace.Forward:
		user = frag.VSForward
	}
	return k.reassemble(user)
}

// ipvsAnswer rewrites the source of a real server's answer.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, handle_response.
func (k *Walk) ipvsAnswer(id ipvs.ConnID) trace.Verdict {
	v := k.IPVS.View(k.World, id)
	if v.Method == ipvs.Masq {
		ipvs.Rewrite(k.p, true, v.Virtual, v.VPort)
		k.ipvsTranslated(false, trace.Endpoint{Addr: v.Real, Port: v.RPort},
			trace.Endpoint{Addr: v.Virtual, Port: v.VPort})
		if !k.ipvsReroute() {
			k.drop("NOT_SPECIFIED", "no-route")
			return gone
		}
	}
	k.IPVS.Answered(k.World, id, k.p.L4())
	k.ipvsEvent(ipvs.Decision{Conn: id}, true)
	k.ipvsTrack(id, &v, false)
	return trace.Accept
}

// ipvsReroute looks the route of a rewritten answer up again, as if the host had sent it.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, ip_vs_route_me_harder.
func (k *Walk) ipvsReroute() bool {
	if !k.IPVS.Reroutes() || k.hook == trace.Input || k.dst.Local {
		return true
	}
	return k.rerouteAs(trace.Local, k.p.Socket)
}

// ipvsStray answers a real server that sends what no connection asked for.
func (k *Walk) ipvsStray(h *ipvs.Header) trace.Verdict {
	if !k.IPVS.TellsServers() || len(h.L4) < 4 ||
		!k.IPVS.HasServer(h.Proto, h.Src, binary.BigEndian.Uint16(h.L4)) || h.Closes() {
		return trace.Accept
	}
	k.nested(func() { k.sendICMP(3, 3, 0) })
	k.why = "no-connection"
	return trace.DropIt
}

// ipvsTranslated tells of a translation.
func (k *Walk) ipvsTranslated(dst bool, from, to trace.Endpoint) {
	if k.Trace != nil {
		k.Trace.Changed(k.p, &trace.NAT{Dst: dst, From: from, To: to})
	}
}
