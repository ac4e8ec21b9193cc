package route

import (
	"net/netip"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Hint is what a question says where the routes are open: that the packet is for
// this host, or is forwarded, or which way it leaves. The zero Hint says nothing.
type Hint struct {
	Local, Forward bool
	Out            packet.Dev
}

// WithHint returns the FIB for a question that says where its packet goes. It
// shares everything with f.
func (f *FIB) WithHint(h Hint) *FIB {
	g := *f
	g.hint = h
	return &g
}

// openMark is Route.Protocol's companion: the index of the route that stands for
// what an open snapshot does not say.
const openMark = -2

// openEntry matches what no route of an open snapshot matches.
func openEntry() entry {
	a := alias{route: openMark, table: TableMain, kind: trace.Unicast, metric: 1<<32 - 1,
		hops: []hop{{}}}
	return entry{prefixOf(netip.PrefixFrom(netip.IPv4Unspecified(), 0)), a}
}

func (f *FIB) openMiss(r *result) bool { return r.a != nil && r.a.route == openMark }

func (f *FIB) openAddrs() bool {
	_, addrs, _ := f.links.Open()
	return addrs
}

// completeRoutes adds what a snapshot lacks: the routes of the addresses where
// the local table is missing.
func (f *FIB) completeRoutes() {
	hasLocal, hasMain := false, false
	for i := range f.cfg.Routes {
		hasLocal = hasLocal || f.cfg.Routes[i].Table == TableLocal
		hasMain = hasMain || f.cfg.Routes[i].Table != TableLocal
	}
	if hasLocal {
		return
	}
	made := f.addressRoutes()
	given := f.cfg.Routes
	f.cfg.Routes = nil
	for _, r := range made {
		if r.Table != TableMain || !hasMain {
			f.cfg.Routes = append(f.cfg.Routes, r)
		}
	}
	f.cfg.Routes = append(f.cfg.Routes, given...)
	if len(f.cfg.Routes) > len(given) {
		f.assumed = append(f.assumed, "no local table: made from the addresses")
	}
}

// Assumed lists what was assumed where the snapshot does not say.
func (f *FIB) Assumed() []string { return f.assumed }

// AddressRoutes are the routes that the addresses of a host bring along.
func AddressRoutes(links *link.Table) []Route { return (&FIB{links: links}).addressRoutes() }

// addressRoutes are the routes that addresses bring along.
//
// Kernel: net/ipv4/fib_frontend.c, fib_add_ifaddr.
func (f *FIB) addressRoutes() []Route {
	var out []Route
	known := false
	for i := range f.links.All() {
		l := &f.links.All()[i]
		for j := range f.links.Addrs(l.Index) {
			a := &f.links.Addrs(l.Index)[j]
			known = true
			if a.Local.Is4() {
				out = f.ifaddrRoutes(out, l, a)
			}
		}
	}
	if !known {
		out = f.sourceRoutes()
	}
	return out
}

// sourceRoutes takes the sources of kernel routes for addresses, where there are
// no addresses.
func (f *FIB) sourceRoutes() []Route {
	seen := map[packet.Addr]bool{}
	var out []Route
	for i := range f.cfg.Routes {
		r := &f.cfg.Routes[i]
		if r.Protocol != ProtoKernel || r.Src.IsZero() || len(r.Hops) != 1 || seen[r.Src] {
			continue
		}
		l := f.links.ByName(r.Hops[0].Dev)
		if l == nil {
			continue
		}
		seen[r.Src] = true
		a := link.Addr{Dev: l.Index, Local: r.Src, PrefixLen: r.Dst.Bits()}
		out = f.ifaddrRoutes(out, l, &a)
	}
	if lo := f.links.ByIndex(link.Loopback); lo != nil {
		a := link.Addr{Dev: lo.Index, Local: packet.V4(0x7f000001), PrefixLen: 8,
			Scope: link.ScopeHost}
		out = f.ifaddrRoutes(out, lo, &a)
	}
	return out
}

// ifaddrRoutes appends the routes of one address.
func (f *FIB) ifaddrRoutes(out []Route, l *link.Link, a *link.Addr) []Route {
	prim := a.Local
	if a.Secondary {
		prim = f.primaryOf(a)
	}
	table := tableOr(f.links.VRFTable(l.Index), TableLocal)
	add := func(k trace.RouteKind, p netip.Prefix, metric uint32) {
		r := Route{Dst: p, Kind: k, Table: table, Protocol: ProtoKernel, Scope: link.ScopeLink,
			Src: prim, Metric: metric, Hops: []Hop{{Dev: l.Name}}}
		switch k {
		case trace.Local:
			r.Scope = link.ScopeHost
		case trace.Unicast:
			r.Table = tableOr(f.links.VRFTable(l.Index), TableMain)
		}
		out = append(out, r)
	}
	host := func(x packet.Addr) netip.Prefix { return netip.PrefixFrom(x.Netip(), 32) }
	add(trace.Local, host(a.Local), 0)
	if !l.Is(link.Up) {
		return out
	}
	if !a.Broadcast.IsZero() && !isAllOnes(a.Broadcast) {
		add(trace.BroadcastRoute, host(a.Broadcast), 0)
	}
	base := a.Local
	if !a.Peer.IsZero() {
		base = a.Peer
	}
	p := netip.PrefixFrom(base.Netip(), a.PrefixLen).Masked()
	net := packet.AddrFrom(p.Addr())
	if net.IsAny() || a.Secondary || net == a.Local && a.PrefixLen >= 32 {
		return out
	}
	if !a.NoPrefixRoute {
		k := trace.Unicast
		if l.Is(link.LoopbackFlag) {
			k = trace.Local
		}
		add(k, p, a.Metric)
	}
	if last := lastOf(p); a.PrefixLen < 31 && last != a.Broadcast {
		add(trace.BroadcastRoute, host(last), 0)
	}
	return out
}

// primaryOf is the primary address of a secondary's prefix.
func (f *FIB) primaryOf(a *link.Addr) packet.Addr {
	for i := range f.links.Addrs(a.Dev) {
		b := &f.links.Addrs(a.Dev)[i]
		if !b.Secondary && b.PrefixLen == a.PrefixLen && b.Holds(a.Local) {
			return b.Local
		}
	}
	return a.Local
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) packet.Addr {
	n := p.Addr().As4()
	a := packet.AddrFrom4(n[:])
	return packet.V4(a.Uint32() | uint32(uint64(0xffffffff)>>p.Bits()))
}

// openArrival decides about a packet that the open snapshot has no route for:
// the question says it, else it is forwarded by a device that the dice choose.
func (f *FIB) openArrival(w *world.World, in *link.Link, d *Decision) {
	switch {
	case f.hint.Local:
		d.Kind, d.Local, d.Out = trace.Local, true, link.Loopback
	case !in.Conf.Forwarding:
		f.noRoute(d, &result{rule: -1}, EHOSTUNREACH, in)
	default:
		d.Kind = trace.Unicast
		d.Out = f.openDevice(w, in.Index)
		f.mtu(d, nil)
	}
}

// openOutput sends what the open snapshot has no route for.
func (f *FIB) openOutput(o *output) {
	o.dev = o.fl.Out
	if o.dev == 0 {
		o.dev = f.openDevice(o.w, 0)
	}
	o.d.Kind = trace.Unicast
	if f.hint.Local {
		o.d.Kind, o.d.Local, o.dev = trace.Local, true, link.Loopback
	}
	if o.fl.Src.IsAny() {
		o.fl.Src = or4(f.links.Select(o.dev, o.fl.Dst, link.ScopeUniverse))
	}
	o.make()
}

// openDevice is the device out that the question names, else one of those that
// are there, other than the one in.
func (f *FIB) openDevice(w *world.World, in packet.Dev) packet.Dev {
	if f.hint.Out != 0 {
		return f.hint.Out
	}
	var devs []packet.Dev
	for i := range f.links.All() {
		l := &f.links.All()[i]
		if l.Index != in && !l.Is(link.LoopbackFlag) && l.Is(link.Up) {
			devs = append(devs, l.Index)
		}
	}
	switch {
	case len(devs) == 0:
		return in
	case len(devs) == 1 || w == nil || w.Dice == nil:
		return devs[0]
	}
	return devs[w.Dice.Take(world.Choice{Key: world.Key{What: world.ChoiceQueue, A: 1},
		N: len(devs), Values: func(i int) string { return "out " + f.links.Name(devs[i]) }})]
}
