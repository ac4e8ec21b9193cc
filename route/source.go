package route

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// sourceQuestion is what the check of a source goes by: the destination as the
// way back's source, the device in, and out when the packet is forwarded.
type sourceQuestion struct {
	dst packet.Addr
	in  *link.Link
	out packet.Dev
}

// sourceAnswer is the check's result.
type sourceAnswer struct {
	err    Errno
	reason trace.Reason
	why    trace.Why
	onLink bool // the source is on this link: a redirect may be sent
	itag   uint32
	check  trace.SourceCheck
}

// into hands the check to a decision; a why means that the packet is dropped.
func (v *sourceAnswer) into(d *Decision) (trace.Reason, trace.Why) {
	v.check.OK, v.check.Why = v.err == 0, v.why
	d.Check = v.check
	return v.reason, v.why
}

// validate checks that a packet's source is not this host's own and, with
// rp_filter, that the way back leaves by the device it came in by.
//
// Kernel: net/ipv4/fib_frontend.c, fib_validate_source.
func (f *FIB) validate(rec record, a *Arrival, q sourceQuestion) sourceAnswer {
	c := &q.in.Conf
	v := sourceAnswer{check: trace.SourceCheck{Filter: c.RPFilter, Index: -1}}
	if c.RPFilter != 0 || f.classes || q.in.Index == q.out && c.SendRedirects {
		return f.validateFully(rec, a, q, v)
	}
	if c.AcceptLocal {
		return v
	}
	if f.customLocal || !f.merged {
		return f.validateFully(rec, a, q, v)
	}
	rec.note(field.Src, field.Ones(128))
	if _, own := f.links.Owner(a.Src); own {
		v.fail(EINVAL, ReasonLocalSource, WhyMartianSource)
	}
	return v
}

func (v *sourceAnswer) fail(err Errno, reason trace.Reason, why trace.Why) {
	v.err, v.reason, v.why = err, reason, why
}

// reverse is the flow of the way back.
func (f *FIB) reverse(a *Arrival, q sourceQuestion) (Flow, role) {
	fl := Flow{Dst: a.Src, Src: q.dst, TOS: a.TOS, In: q.out,
		L3mdev: f.links.L3Master(q.in.Index)}
	if fl.In == 0 {
		fl.In = link.Loopback
	}
	if f.dissect {
		fl.Proto, fl.SPort, fl.DPort = a.Proto, a.DPort, a.SPort
		if a.open != field.None {
			fl.Ask, fl.Unknown = farSide{a.ask}, a.open.Opposite()
		}
	}
	if !q.in.Conf.SrcValidMark {
		return fl, asReverse
	}
	fl.Mark = a.Mark
	return fl, asReverseMark
}

// farSide answers for a port by what is known of the port at the other end.
type farSide struct{ field.Source }

// Field implements field.Source.
func (s farSide) Field(id field.ID) (field.Value, field.Status) {
	return s.Source.Field(id.Opposite())
}

// Decide implements field.Source.
func (s farSide) Decide(id field.ID, set *field.Set) bool {
	return s.Source.Decide(id.Opposite(), set)
}

// validateFully looks up the way back.
//
// Kernel: net/ipv4/fib_frontend.c, __fib_validate_source.
func (f *FIB) validateFully(rec record, a *Arrival, q sourceQuestion,
	v sourceAnswer) sourceAnswer {
	fl, role := f.reverse(a, q)
	if rec.tr != nil {
		fl.deps = &field.Deps{}
		defer fl.fold(rec.tr.Notes(), role)
	}
	r, err := f.lookup(&fl, nil)
	if err != 0 || f.openMiss(&r) {
		return f.lastResort(v, err)
	}
	v.check.Dev, v.check.Table, v.check.Index = r.hop.dev, r.a.table, max(int(r.a.route), -1)
	if r.a.kind != trace.Unicast && (r.a.kind != trace.Local || !q.in.Conf.AcceptLocal) {
		v.fail(EINVAL, ReasonLocalSource, WhyMartianSource)
		return v
	}
	v.itag = combineTag(&r)
	if f.usesDevice(r.a, q.in.Index) ||
		r.a.kind == trace.Local && q.in.Index == link.Loopback {
		v.onLink = r.hop.scope >= link.ScopeHost
		return v
	}
	if !f.hasAddr(q.in.Index) && !f.openAddrs() {
		return f.lastResort(v, err)
	}
	if q.in.Conf.RPFilter == 1 {
		v.fail(EXDEV, ReasonRPFilter, WhyRPFilter)
		return v
	}
	fl.Out = q.in.Index
	fl.Flags |= IgnoreLinkState
	if r, err := f.lookup(&fl, nil); err == 0 && r.a.kind == trace.Unicast {
		v.onLink = r.hop.scope >= link.ScopeHost
	}
	return v
}

// hasAddr tells whether a device has an IPv4 address.
func (f *FIB) hasAddr(dev packet.Dev) bool {
	for i := range f.links.Addrs(dev) {
		if f.links.Addrs(dev)[i].Local.Is4() {
			return true
		}
	}
	return false
}

// lastResort believes a source that no route leads to where nothing filters.
func (f *FIB) lastResort(v sourceAnswer, err Errno) sourceAnswer {
	if v.check.Filter != 0 && !(err == 0 && f.cfg.Open) {
		v.fail(EXDEV, ReasonRPFilter, WhyRPFilter)
		return v
	}
	v.itag = 0
	return v
}

// ReverseOptions are the options of the rpfilter match.
type ReverseOptions struct{ Loose, ValidMark, AcceptLocal bool }

// ReversePath tells whether a packet's source is reachable through the device
// that it came in by, as the rpfilter match asks.
//
// Kernel: net/ipv4/netfilter/ipt_rpfilter.c, rpfilter_mt.
func (f *FIB) ReversePath(p *packet.Packet, o ReverseOptions, deps *field.Deps) bool {
	in := f.links.ByIndex(p.In)
	if p.Type == packet.Loopback || in != nil && in.Is(link.LoopbackFlag) {
		return true
	}
	src, dst := p.Src(), p.Dst()
	if src.IsAny() && (isAllOnes(dst) || isLocalMulticast(dst)) {
		return true
	}
	fl := Flow{In: link.Loopback, Dst: src, Src: dst, TOS: p.TOS(), Flags: IgnoreLinkState,
		L3mdev: f.links.L3Master(p.In)}
	if isMulticast(dst) || isAllOnes(dst) || dst.IsAny() {
		fl.Src = packet.Addr{}
	}
	role := asReverse
	if o.ValidMark {
		fl.Mark, role = p.Mark, asReverseMark
	}
	if deps != nil {
		fl.deps = &field.Deps{}
		defer fl.fold(deps, role)
	}
	r, err := f.lookup(&fl, nil)
	if err != 0 {
		return false
	}
	if f.openMiss(&r) {
		return true
	}
	if r.a.kind != trace.Unicast && (r.a.kind != trace.Local || !o.AcceptLocal) {
		return false
	}
	return o.Loose || f.usesDevice(r.a, p.In)
}

// AddrType is the type of an address: what the local table makes of it. A dev
// other than zero asks as if only this device were there. The bits that were
// looked at are noted under id, the field that the address is.
//
// Kernel: net/ipv4/fib_frontend.c, inet_addr_type, inet_dev_addr_type.
func (f *FIB) AddrType(a packet.Addr, dev packet.Dev, id field.ID,
	to *field.Deps) trace.RouteKind {
	if to == nil {
		return f.addrType(a, dev, f.links.VRFTable(dev), nil)
	}
	var d field.Deps
	k := f.addrType(a, dev, f.links.VRFTable(dev), &d)
	to.Note(id, d[field.Dst])
	return k
}

// Resolve returns the MAC address that a frame to a next hop carries, false when
// an ARP request has to be answered first.
//
// Kernel: net/ipv4/arp.c, arp_constructor.
func (f *FIB) Resolve(w *world.World, dev packet.Dev, hop packet.Addr) (packet.MAC, bool) {
	if mac, ok := f.links.Resolved(w, dev, hop); ok {
		return mac, true
	}
	mac, how := f.links.Resolve(w, dev, hop, f.AddrTypeTable(hop, dev))
	return mac, how != link.Unresolved
}

// AddrTypeTable is the type of an address in the table of a device's VRF, with
// all devices counting.
//
// Kernel: net/ipv4/fib_frontend.c, inet_addr_type_dev_table.
func (f *FIB) AddrTypeTable(a packet.Addr, dev packet.Dev) trace.RouteKind {
	return f.addrType(a, 0, f.links.VRFTable(dev), nil)
}

// addrType is __inet_dev_addr_type.
func (f *FIB) addrType(a packet.Addr, dev packet.Dev, table uint32,
	d *field.Deps) trace.RouteKind {
	d.Note(field.Dst, field.PrefixMask(128, 100))
	switch {
	case a.IsAny(), isAllOnes(a):
		d.Note(field.Dst, field.Ones(128))
		return trace.BroadcastRoute
	case isMulticast(a):
		return trace.MulticastRoute
	}
	t := f.tables[tableOr(table, TableLocal)]
	if t == nil {
		return trace.BroadcastRoute
	}
	r, ok := t.kindOf(a, d)
	if ok && !f.openMiss(&r) && (dev == 0 || dev == r.a.hops[0].dev) {
		return r.a.kind
	}
	return trace.Unicast
}
