package route

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Drop reasons of routing, the kernel's names.
//
// Kernel: include/net/dropreason-core.h.
const (
	ReasonNone           trace.Reason = "NOT_SPECIFIED"
	ReasonInvalidSource  trace.Reason = "IP_INVALID_SOURCE"
	ReasonInvalidDest    trace.Reason = "IP_INVALID_DEST"
	ReasonLocalnet       trace.Reason = "IP_LOCALNET"
	ReasonLocalSource    trace.Reason = "IP_LOCAL_SOURCE"
	ReasonRPFilter       trace.Reason = "IP_RPFILTER"
	ReasonAddrErrors     trace.Reason = "IP_INADDRERRORS"
	ReasonNoRoutes       trace.Reason = "IP_INNOROUTES"
	ReasonOutNoRoutes    trace.Reason = "IP_OUTNOROUTES"
	ReasonInvalidProto   trace.Reason = "INVALID_PROTO"
	reasonNotMulticasted              = ReasonNone
)

// Why a packet was not routed.
const (
	WhyMartianSource      trace.Why = "martian-source"
	WhyMartianDestination trace.Why = "martian-destination"
	WhyRPFilter           trace.Why = "rp-filter"
	WhyNoRoute            trace.Why = "no-route"
	WhyForwardingOff      trace.Why = "forwarding-off"
	WhyBlackhole          trace.Why = "blackhole"
	WhyProhibit           trace.Why = "prohibit"
	WhyUnreachable        trace.Why = "unreachable"
	WhyNotJoined          trace.Why = "group-not-joined"
	WhyNoIP               trace.Why = "ip-disabled"
	WhyNoSource           trace.Why = "source-not-local"
	WhyDeviceDown         trace.Why = "device-down"
)

// Decision is where a packet goes. Err zero means that it goes on; else Reason
// and Why say why not, and ICMP whether the sender is told.
type Decision struct {
	// Kind is the type of the route: Local, BroadcastRoute and MulticastRoute
	// are delivered here on input, Unicast is forwarded.
	Kind trace.RouteKind
	// Local tells that this host gets the packet, on output besides sending it
	// where Kind is MulticastRoute or BroadcastRoute.
	Local bool
	Out   packet.Dev
	// In is the device that sockets see a packet come in by that goes over lo (rt_iif):
	// the one that its destination belongs to. Zero is the device itself.
	In        packet.Dev
	Gateway   packet.Addr // zero: on link
	Source    packet.Addr
	MTU       int // of the route, else of the device
	MTULocked bool
	PMTU      int // what an ICMP error told, zero for nothing
	Realm     uint32
	Table     uint32
	Index     int // of the route, -1 for none
	Rule      int // of the ip rule, -1 for none

	Err                Errno
	Reason             trace.Reason
	Why                trace.Why
	ICMP               bool
	ICMPType, ICMPCode uint8
	DoRedirect         bool
	Check              trace.SourceCheck // on input

	expires int64 // of PMTU
}

// PathMTU is the largest packet that goes the whole way, as far as that is known.
//
// Kernel: net/ipv4/route.c, ipv4_mtu.
func (d *Decision) PathMTU() int {
	if d.PMTU != 0 {
		return d.PMTU
	}
	return d.MTU
}

// Nexthop is the address whose MAC address the frame gets.
func (d *Decision) Nexthop(dst packet.Addr) packet.Addr {
	if d.Gateway.IsZero() {
		return dst
	}
	return d.Gateway
}

// newDecision is one that knows no route.
func newDecision(kind trace.RouteKind) Decision {
	return Decision{Kind: kind, Rule: -1, Index: -1, Check: trace.SourceCheck{OK: true, Index: -1}}
}

// found notes what a lookup found.
func (d *Decision) found(r *result) {
	d.Rule = r.rule
	if r.a != nil {
		d.Table, d.Index = r.a.table, max(int(r.a.route), -1)
	}
}

// via sends the packet by a way on, through its device unless another is chosen
// already (lo for what is local).
//
// Kernel: net/ipv4/route.c, rt_set_nexthop.
func (f *FIB) via(d *Decision, r *result, itag uint32) {
	if d.Out == 0 {
		d.Out = r.hop.dev
	}
	if r.hop.gateway() {
		d.Gateway = r.hop.via
	}
	f.mtu(d, r.a)
	if f.classes {
		d.Realm = classTag(classTag(r.hop.realms, r.realm), itag)
	}
}

// mtu is the route's MTU, else the device's.
//
// Kernel: net/ipv4/route.c, ipv4_mtu; include/net/ip.h, ip_dst_mtu_maybe_forward.
func (f *FIB) mtu(d *Decision, a *alias) {
	if l := f.links.ByIndex(d.Out); l != nil {
		d.MTU = min(l.MTU, maxMTU)
	}
	if a == nil || a.route < 0 {
		return
	}
	r := &f.cfg.Routes[a.route]
	d.MTULocked = r.MTULock
	switch {
	case r.MTU != 0:
		d.MTU = min(int(r.MTU), maxMTU)
	case r.MTULock && !d.Gateway.IsZero():
		d.MTU = min(d.MTU, 576)
	}
}

// maxMTU is the largest IPv4 packet that is sent.
//
// Kernel: include/net/ip.h, IP_MAX_MTU.
const maxMTU = 0xffff

// classTag fills the halves of a class that are still empty.
//
// Kernel: net/ipv4/route.c, set_class_tag.
func classTag(class, tag uint32) uint32 {
	if class&0xffff == 0 {
		class |= tag & 0xffff
	}
	if class&0xffff0000 == 0 {
		class |= tag & 0xffff0000
	}
	return class
}

// combineTag is the class of the way back, its halves swapped.
//
// Kernel: include/net/ip_fib.h, fib_combine_itag.
func combineTag(r *result) uint32 {
	tag := r.hop.realms << 16
	if tag == 0 {
		tag = r.realm << 16
	}
	return tag | r.realm>>16
}

// whyError is the word for a lookup's error.
func (f *FIB) whyError(r *result, err Errno) trace.Why {
	switch {
	case r.a != nil && r.a.err == EACCES, r.a == nil && err == EACCES:
		return WhyProhibit
	case r.a != nil && r.a.err == EINVAL, r.a == nil && err == EINVAL:
		return WhyBlackhole
	case r.a != nil && r.a.err == EHOSTUNREACH, r.a == nil && r.rule >= 0:
		return WhyUnreachable
	}
	return WhyNoRoute
}

// isLoopback and friends sort addresses as include/linux/in.h does.
func isLoopback(a packet.Addr) bool       { return a.Is4() && a[12] == 127 }
func isMulticast(a packet.Addr) bool      { return a.Is4() && a[12]&0xf0 == 0xe0 }
func isLocalMulticast(a packet.Addr) bool { return a.Is4() && a[12] == 224 && a[13]|a[14] == 0 }
func isAllOnes(a packet.Addr) bool        { return a == packet.V4(0xffffffff) }

// record is what one decision changes and who observes it; with a nil trace
// nobody does.
type record struct {
	w     *world.World
	tries *tries
	tr    *trace.Trace
}

func newRecord(w *world.World, tr *trace.Trace) record {
	if !tr.On() {
		return record{w: w}
	}
	return record{w, &tries{}, tr}
}

// event records a decision.
func (r record) event(p *packet.Packet, d *Decision, input bool) {
	if r.tr == nil {
		return
	}
	e := &trace.Route{Tried: r.tries.list, Rule: d.Rule, Table: d.Table, Index: d.Index,
		Kind: d.Kind, Nexthop: d.Gateway, Out: d.Out, Source: d.Source}
	if input && d.Check.Why != "" || input && d.Check.Dev != 0 {
		c := d.Check
		e.Check = &c
	}
	if p == nil {
		r.tr.Events = append(r.tr.Events, e)
		return
	}
	r.tr.Add(p, e)
}
