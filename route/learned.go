package route

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// exceptions are what ICMP errors told of the ways to single addresses.
type exceptions = world.Slot[*world.Table[exceptionKey, exception]]

// exceptionKey is an address by one way on. Routes that share a fib_info, or a nexthop
// object, share what is known of it.
type exceptionKey struct {
	dst, via, src packet.Addr
	object        uint32
	table, metric uint32
	mtu           uint32
	dev           packet.Dev
	sel           int32
	protocol      uint8
	scope         link.Scope
	kind          trace.RouteKind
}

// exception changes a route for one destination. Zero fields change nothing; expires is in
// jiffies.
//
// Kernel: include/net/ip_fib.h, struct fib_nh_exception.
type exception struct {
	gateway packet.Addr
	pmtu    int
	locked  bool
	expires int64
}

// exceptionKey is where what is known of an address by a way on stands.
func (f *FIB) exceptionKey(r *result, sel int, dst packet.Addr) exceptionKey {
	a, c := r.a, &f.cfg.Routes[r.a.route]
	switch {
	case a.group != nil:
		return exceptionKey{dst: dst, object: a.group.Group[sel].ID}
	case a.object:
		return exceptionKey{dst: dst, object: c.NHID}
	}
	return exceptionKey{dst: dst, via: a.hops[sel].via, src: a.src, table: a.table,
		metric: a.metric, mtu: c.MTU, dev: a.hops[sel].dev, sel: int32(sel), protocol: c.Protocol,
		scope: a.scope, kind: a.kind}
}

// learned tells whether ICMP errors told anything, so that a way hangs on the whole
// destination.
func (f *FIB) learned(w *world.World) bool {
	return f.remembers && w != nil && w.State != nil && f.exceptions.Look(w.State).Len() > 0
}

// except changes a decision by what is known of its destination.
//
// Kernel: net/ipv4/route.c, find_exception, fill_route_from_fnhe.
func (f *FIB) except(w *world.World, d *Decision, r *result, dst packet.Addr) {
	if !f.learned(w) || r.a.route < 0 {
		return
	}
	t, key := f.exceptions.In(w.State), f.exceptionKey(r, r.sel, dst)
	e, ok := t.Get(key)
	now := w.Now.Jiffies(w.HZ)
	switch {
	case !ok:
		return
	case now > e.expires:
		t.Delete(key)
		return
	}
	if !e.gateway.IsZero() {
		d.Gateway = e.gateway
	}
	d.MTULocked = d.MTULocked || e.locked
	if now < e.expires {
		d.PMTU, d.expires = e.pmtu, e.expires
	}
}

// learn writes what is known of an address by a way on; zero fields of e leave what was
// known before.
//
// Kernel: net/ipv4/route.c, update_or_create_fnhe.
func (f *FIB) learn(w *world.World, key exceptionKey, e exception) {
	t := f.exceptions.In(w.State)
	old, _ := t.Get(key)
	if e.gateway.IsZero() {
		e.gateway = old.gateway
	}
	if e.pmtu == 0 {
		e.pmtu, e.locked = old.pmtu, old.locked
	}
	t.Put(key, e)
}

// told is the way that an ICMP error is about, false where there is none to remember
// anything of.
func (f *FIB) told(w *world.World, fl *Flow) (*output, bool) {
	o := &output{f: f, w: w, rec: newRecord(w, nil), fl: *fl, d: newDecision(trace.Unspec)}
	o.fl.In = link.Loopback
	if !f.remembers {
		return o, false
	}
	o.run()
	return o, o.d.Err == 0 && o.r.a != nil && o.r.a.route >= 0
}

// LearnMTU remembers that packets as the flow are too large for their way if they are larger
// than mtu bytes; zero stands for an unknown size.
//
// Kernel: net/ipv4/route.c, __ip_rt_update_pmtu.
func (f *FIB) LearnMTU(w *world.World, fl *Flow, mtu int) {
	const minute = 60
	o, ok := f.told(w, fl)
	old := o.d.PathMTU()
	if !ok || o.d.MTULocked || old < mtu {
		return
	}
	least := f.cfg.Sysctl.Int("net.ipv4.route.min_pmtu", 552)
	locked := mtu < least
	if locked {
		mtu = min(old, least)
	}
	lasts := int64(f.cfg.Sysctl.Int("net.ipv4.route.mtu_expires", 10*minute)) * int64(w.HZ)
	now := w.Now.Jiffies(w.HZ)
	if o.d.PMTU == mtu && !locked && now < o.d.expires-lasts/2 {
		return
	}
	e := exception{pmtu: mtu, locked: locked, expires: now + lasts}
	if len(o.r.a.hops) == 1 {
		f.learn(w, f.exceptionKey(&o.r, o.r.sel, o.fl.Dst), e)
		return
	}
	for sel := range o.r.a.hops {
		f.learn(w, f.exceptionKey(&o.r, sel, o.fl.Dst), e)
	}
}

// Redirect is a router's advice to take another one, and by whom it was given.
type Redirect struct {
	From, To packet.Addr
	In       *link.Link
}

// LearnRedirect takes a router's advice for packets as the flow, if it comes from the one
// that they are sent to and is to be trusted. With ask the advised router's MAC address has
// to be asked for on dev, and nothing is learnt.
//
// Kernel: net/ipv4/route.c, __ip_do_redirect.
func (f *FIB) LearnRedirect(w *world.World, fl *Flow, a Redirect) (dev packet.Dev, ask bool) {
	const minutes = 5 * 60
	o, ok := f.told(w, fl)
	if !ok || o.d.Gateway != a.From || !f.trusts(a) {
		return 0, false
	}
	if _, known := f.Resolve(w, o.d.Out, a.To); !known {
		return o.d.Out, true
	}
	lasts := int64(f.cfg.Sysctl.Int("net.ipv4.route.gc_timeout", minutes)) * int64(w.HZ)
	f.learn(w, f.exceptionKey(&o.r, o.r.sel, o.fl.Dst),
		exception{gateway: a.To, expires: w.Now.Jiffies(w.HZ) + lasts})
	return 0, false
}

// trusts tells whether the interface's settings let the advice pass.
func (f *FIB) trusts(a Redirect) bool {
	c := &a.In.Conf
	first := a.To.Bytes()[0]
	switch {
	case a.To == a.From, !c.AcceptRedirects, isMulticast(a.To), isAllOnes(a.To), first == 0:
		return false
	case c.SharedMedia:
		return f.AddrType(a.To, 0, field.Dst, nil) == trace.Unicast
	}
	return f.links.OnLink(a.In.Index, a.To, a.From) &&
		(!c.SecureRedirects || f.isGateway(a.To, a.In.Index))
}

// isGateway tells whether some route names a gateway on a device.
//
// Kernel: net/ipv4/fib_semantics.c, ip_fib_check_default.
func (f *FIB) isGateway(gw packet.Addr, dev packet.Dev) bool {
	for _, t := range f.tables {
		for i := range t.aliases {
			for j := range t.aliases[i].hops {
				h := &t.aliases[i].hops[j]
				if h.dev == dev && h.via == gw && !h.dead {
					return true
				}
			}
		}
	}
	return false
}
