package route

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Arrival is what routing looks at in a packet that came in.
type Arrival struct {
	Src, Dst     packet.Addr
	TOS, Proto   uint8
	SPort, DPort uint16
	Mark         uint32
	In           packet.Dev
	// IPProto is the protocol in the header, Proto what the flow dissector saw.
	IPProto uint8
	// ARP is a lookup for an ARP packet.
	ARP bool
	// inner are the ends that the multipath hash of an ICMP error goes by.
	inner      bool
	inSrc, inD packet.Addr
	// ask answers for the open port, nil where none is.
	ask  field.Source
	open field.ID
}

// ArrivalOf reads a packet.
func ArrivalOf(p *packet.Packet) Arrival {
	a := Arrival{Src: p.Src(), Dst: p.Dst(), TOS: p.TOS(), Proto: p.Protocol(),
		IPProto: p.Protocol(), Mark: p.Mark, In: p.In}
	if !p.IsFragment() {
		a.SPort, a.DPort = dissectPorts(a.Proto, p.L4())
	}
	a.inner = a.quoted(p)
	return a
}

// dissectPorts reads the words that the flow dissector takes for ports.
//
// Kernel: net/core/flow_dissector.c, skb_flow_get_ports; include/net/ip.h, proto_ports_offset.
func dissectPorts(proto uint8, l4 []byte) (src, dst uint16) {
	off := 0
	switch proto {
	case packet.TCP, packet.UDP, packet.DCCP, packet.ESP, packet.SCTP, packet.UDPLite:
	case packet.AH:
		off = 4
	default:
		return 0, 0
	}
	if len(l4) < off+4 {
		return 0, 0
	}
	return binary.BigEndian.Uint16(l4[off:]), binary.BigEndian.Uint16(l4[off+2:])
}

// quoted reads the ends of the packet that an ICMP error quotes, so that errors
// follow their flow.
//
// Kernel: net/ipv4/route.c, ip_multipath_l3_keys.
func (a *Arrival) quoted(p *packet.Packet) bool {
	l4 := p.L4()
	if a.IPProto != packet.ICMP || p.FragOff() != 0 || len(l4) < 8+20 {
		return false
	}
	switch l4[0] {
	case 3, 4, 5, 11, 12:
		a.inSrc, a.inD = packet.AddrFrom4(l4[20:]), packet.AddrFrom4(l4[24:])
		return true
	}
	return false
}

// key is what the multipath hash of an arriving packet is made of.
func (f *FIB) arrivalKey(a *Arrival) pathKey {
	if (f.hashPolicy == 0 || f.hashPolicy == 2) && a.inner {
		return pathKey{src: a.inSrc, dst: a.inD}
	}
	return f.policy(pathKey{a.Src, a.Dst, a.SPort, a.DPort, a.Proto})
}

// Input decides about a packet that came in. ask answers for a port that NAT left open;
// it may be nil where none is.
//
// Kernel: net/ipv4/route.c, ip_route_input_noref.
func (f *FIB) Input(w *world.World, tr *trace.Trace, p *packet.Packet,
	ask field.Source, d *Decision) {
	f.InputTo(w, tr, p, p.Dst(), ask, d)
}

// InputTo is Input for the next address of the packet's source route.
func (f *FIB) InputTo(w *world.World, tr *trace.Trace, p *packet.Packet,
	next packet.Addr, ask field.Source, d *Decision) {
	a := ArrivalOf(p)
	a.Dst = next
	if a.open = openPort(p); a.open != field.None {
		a.ask = ask
	}
	rec := newRecord(w, tr)
	f.arrive(rec, &a, d)
	rec.event(p, d, true)
}

// Arrive is Input without a packet at hand.
func (f *FIB) Arrive(w *world.World, tr *trace.Trace, a *Arrival) (d Decision) {
	f.arrive(newRecord(w, tr), a, &d)
	return d
}

func (f *FIB) arrive(rec record, a *Arrival, d *Decision) {
	*d = newDecision(trace.Unspec)
	in := f.links.ByIndex(a.In)
	if in == nil || !in.HasIP() {
		d.drop(EINVAL, ReasonNone, WhyNoIP)
		return
	}
	rec.noteMartian(field.Dst, a.Dst)
	if isMulticast(a.Dst) {
		f.arriveMulticast(rec, a, in, d)
		return
	}
	f.arriveSlow(rec, a, in, d)
}

// noteMartian notes the bits of an address that its kind was read from.
func (r record) noteMartian(id field.ID, a packet.Addr) {
	if r.tr != nil {
		r.tr.Notes().Note(id, martianBits(a))
	}
}

// martianBits are the bits of an address by which it is multicast, loopback, zero or all
// ones, or none of these.
func martianBits(a packet.Addr) field.Value {
	const classE = 0xf0
	a = or4(a)
	if first := a.Bytes()[0]; first == 0 || first >= classE {
		return field.Ones(128)
	}
	return field.PrefixMask(128, 104)
}

func (r record) note(id field.ID, bits field.Value) {
	if r.tr != nil {
		r.tr.Notes().Note(id, bits)
	}
}

// drop ends a decision.
func (d *Decision) drop(err Errno, reason trace.Reason, why trace.Why) {
	d.Err, d.Reason, d.Why = err, reason, why
}

// arriveMulticast takes a multicast packet where its group was joined.
//
// Kernel: net/ipv4/route.c, ip_route_input_rcu, ip_route_input_mc.
func (f *FIB) arriveMulticast(rec record, a *Arrival, in *link.Link, d *Decision) {
	d.Kind = trace.MulticastRoute
	rec.note(field.Dst, field.Ones(128))
	our := f.links.Joined(in.Index, a.Dst)
	routed := !isLocalMulticast(a.Dst) && in.Conf.MCForwarding
	if !our && !routed {
		d.drop(EINVAL, reasonNotMulticasted, WhyNotJoined)
		return
	}
	if reason, why := f.multicastSource(rec, a, in, d); why != "" {
		d.drop(EINVAL, reason, why)
		return
	}
	d.Local, d.Out = our, link.Loopback
}

// multicastSource checks the source of a multicast packet.
//
// Kernel: net/ipv4/route.c, ip_mc_validate_source.
func (f *FIB) multicastSource(rec record, a *Arrival, in *link.Link,
	d *Decision) (trace.Reason, trace.Why) {
	rec.note(field.Src, field.Ones(128))
	switch {
	case isMulticast(a.Src), isAllOnes(a.Src):
		return ReasonInvalidSource, WhyMartianSource
	case a.ARP:
		return ReasonInvalidProto, WhyMartianDestination
	case isLoopback(a.Src) && !in.Conf.RouteLocalnet:
		return ReasonLocalnet, WhyMartianSource
	case a.Src.IsAny():
		if !isLocalMulticast(a.Dst) && a.IPProto != packet.IGMP {
			return ReasonInvalidSource, WhyMartianSource
		}
		return "", ""
	}
	v := f.validate(rec, a, sourceQuestion{dst: packet.V4(0), in: in})
	d.Realm = v.itag
	return v.into(d)
}

// arriveSlow follows ip_route_input_slow from top to bottom.
//
// Kernel: net/ipv4/route.c, ip_route_input_slow.
func (f *FIB) arriveSlow(rec record, a *Arrival, in *link.Link, d *Decision) {
	rec.noteMartian(field.Src, a.Src)
	if isMulticast(a.Src) || isAllOnes(a.Src) {
		d.drop(EINVAL, ReasonInvalidSource, WhyMartianSource)
		return
	}
	if isAllOnes(a.Dst) || a.Src.IsAny() && a.Dst.IsAny() {
		f.broadcastIn(rec, a, in, d)
		return
	}
	if reason, why := martian(a, in); why != "" {
		d.drop(EINVAL, reason, why)
		return
	}
	fl := f.arrivalFlow(a)
	if rec.tr != nil {
		fl.deps = &field.Deps{}
	}
	r, err := f.lookup(&fl, rec.tries)
	fl.fold(rec.tr.Notes(), asInput)
	d.found(&r)
	switch {
	case err == 0 && f.openMiss(&r):
		f.openArrival(rec.w, in, d)
	case err != 0:
		f.noRoute(d, &r, err, in)
	default:
		f.arriveFound(rec, a, in, d, &r)
	}
}

// martian are the addresses that no lookup could find out.
func martian(a *Arrival, in *link.Link) (trace.Reason, trace.Why) {
	switch {
	case a.Src.IsAny():
		return ReasonInvalidSource, WhyMartianSource
	case a.Dst.IsAny():
		return ReasonInvalidDest, WhyMartianDestination
	case isLoopback(a.Dst) && !in.Conf.RouteLocalnet:
		return ReasonLocalnet, WhyMartianDestination
	case !isLoopback(a.Dst) && isLoopback(a.Src) && !in.Conf.RouteLocalnet:
		return ReasonLocalnet, WhyMartianSource
	}
	return "", ""
}

func (f *FIB) arrivalFlow(a *Arrival) Flow {
	fl := Flow{Src: a.Src, Dst: a.Dst, TOS: a.TOS, Mark: a.Mark, In: a.In}
	if f.dissect {
		fl.Proto, fl.SPort, fl.DPort = a.Proto, a.SPort, a.DPort
		fl.Ask, fl.Unknown = a.ask, a.open
	}
	return fl
}

// openPort is the port that NAT drew and nobody knows; field.None for none.
func openPort(p *packet.Packet) field.ID {
	switch {
	case p.Free&packet.FreeDstPort != 0:
		return field.DstPort
	case p.Free&packet.FreeSrcPort != 0:
		return field.SrcPort
	}
	return field.None
}

// Dissect adds a packet's protocol and ports to a flow where some ip rule looks at
// them. ask answers for a port that NAT left open.
//
// Kernel: include/net/ip_fib.h, fib4_rules_early_flow_dissect.
func (f *FIB) Dissect(fl *Flow, p *packet.Packet, ask field.Source) {
	if !f.dissect {
		return
	}
	a := ArrivalOf(p)
	fl.Proto, fl.SPort, fl.DPort = a.Proto, a.SPort, a.DPort
	if open := openPort(p); open != field.None {
		fl.Ask, fl.Unknown = ask, open
	}
}

// noRoute tells the sender, where this host is a router.
//
// Kernel: net/ipv4/route.c, ip_error.
func (f *FIB) noRoute(d *Decision, r *result, err Errno, in *link.Link) {
	d.Kind = trace.Unreachable
	if !in.Conf.Forwarding {
		d.drop(EHOSTUNREACH, ReasonAddrErrors, WhyForwardingOff)
		return
	}
	d.drop(err, ReasonNone, f.whyError(r, err))
	d.ICMPType = 3 // destination unreachable
	switch err {
	case EHOSTUNREACH:
		d.ICMP, d.ICMPCode = true, 1
	case ENETUNREACH:
		d.ICMP, d.ICMPCode, d.Reason = true, 0, ReasonNoRoutes
	case EACCES:
		d.ICMP, d.ICMPCode = true, 13
	}
}

// arriveFound goes on with the route that was found.
func (f *FIB) arriveFound(rec record, a *Arrival, in *link.Link, d *Decision, r *result) {
	d.Kind = r.a.kind
	switch {
	case r.a.kind == trace.BroadcastRoute && in.Conf.BCForwarding:
		f.forward(rec, a, in, d, r)
	case r.a.kind == trace.BroadcastRoute:
		f.broadcastIn(rec, a, in, d)
	case r.a.kind == trace.Local:
		f.localIn(rec, a, in, d, r)
	case !in.Conf.Forwarding:
		f.noRoute(d, r, EHOSTUNREACH, in)
	case r.a.kind != trace.Unicast:
		d.drop(EINVAL, ReasonInvalidDest, WhyMartianDestination)
	default:
		f.forward(rec, a, in, d, r)
	}
}

// broadcastIn delivers a broadcast.
func (f *FIB) broadcastIn(rec record, a *Arrival, in *link.Link, d *Decision) {
	d.Kind = trace.BroadcastRoute
	if a.ARP {
		d.drop(EINVAL, ReasonInvalidProto, WhyMartianDestination)
		return
	}
	if !a.Src.IsAny() {
		v := f.validate(rec, a, sourceQuestion{dst: packet.V4(0), in: in})
		if reason, why := v.into(d); why != "" {
			d.drop(v.err, reason, why)
			return
		}
		d.Realm = v.itag
	}
	d.Local, d.Out = true, link.Loopback
}

// localIn delivers to an address of this host.
func (f *FIB) localIn(rec record, a *Arrival, in *link.Link, d *Decision, r *result) {
	v := f.validate(rec, a, sourceQuestion{dst: a.Dst, in: in})
	if reason, why := v.into(d); why != "" {
		d.drop(v.err, reason, why)
		return
	}
	d.Realm = v.itag
	d.Local, d.Out = true, link.Loopback
	if m := f.links.L3Master(r.hop.dev); m != 0 {
		d.Out = m
	}
}

// forward sends a packet on.
//
// Kernel: net/ipv4/route.c, ip_mkroute_input, __mkroute_input.
func (f *FIB) forward(rec record, a *Arrival, in *link.Link, d *Decision, r *result) {
	if len(r.a.hops) > 1 {
		f.selectPath(rec.w, r, f.arrivalKey(a), packet.Addr{})
	}
	v := f.validate(rec, a, sourceQuestion{dst: a.Dst, in: in, out: r.hop.dev})
	if reason, why := v.into(d); why != "" {
		d.drop(v.err, reason, why)
		return
	}
	f.via(d, r, v.itag)
	if f.learned(rec.w) {
		rec.note(field.Dst, field.Ones(128))
		f.except(rec.w, d, r, a.Dst)
	}
	same := d.Out == in.Index
	if a.ARP && same && !in.Conf.ProxyARPPVLAN {
		d.drop(EINVAL, ReasonNone, WhyMartianDestination)
		return
	}
	if same && v.onLink && in.Conf.SendRedirects && !a.ARP {
		gw := r.hop.via
		d.DoRedirect = in.Conf.SharedMedia || f.links.OnLink(d.Out, a.Src, gw)
	}
}
