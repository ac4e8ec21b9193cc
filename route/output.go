package route

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Output decides about what this host sends. The flow's In is lo. It does not
// change the flow.
//
// Kernel: net/ipv4/route.c, ip_route_output_key_hash_rcu.
func (f *FIB) Output(w *world.World, tr *trace.Trace, fl *Flow) Decision {
	o := output{f: f, w: w, rec: newRecord(w, tr), fl: *fl, d: newDecision(trace.Unspec)}
	o.fl.In = link.Loopback
	if tr.On() {
		o.fl.deps = &field.Deps{}
	}
	o.run()
	o.fl.fold(tr.Notes(), asOutput)
	o.rec.event(nil, &o.d, false)
	return o.d
}

// output is one run of ip_route_output_key_hash_rcu.
type output struct {
	f   *FIB
	w   *world.World
	rec record
	fl  Flow
	d   Decision
	r   result // r.a is nil where no route was found
	dev packet.Dev
	// realm is that of the rule that decided, even against a route.
	realm uint32
}

func (o *output) fail(err Errno, why trace.Why) {
	o.d.Err, o.d.Why, o.d.Reason = err, why, ReasonOutNoRoutes
}

func (o *output) run() {
	o.fl.Src, o.fl.Dst = or4(o.fl.Src), or4(o.fl.Dst)
	o.fl.deps.Note(field.Dst, martianBits(o.fl.Dst))
	if isMulticast(o.fl.Dst) { // joined or not
		o.fl.deps.Note(field.Dst, field.Ones(128))
	}
	if !o.fl.Src.IsAny() && o.checkSource() {
		return
	}
	if o.fl.Out != 0 && o.boundDevice() {
		return
	}
	if o.fl.Dst.IsAny() {
		o.toSelf()
		return
	}
	o.lookup()
}

// checkSource refuses a source that is not this host's. It tells whether the
// decision is made.
func (o *output) checkSource() bool {
	src := o.fl.Src
	o.fl.deps.Note(field.Src, o.sourceBits())
	if isMulticast(src) || isAllOnes(src) {
		o.fail(EINVAL, WhyMartianSource)
		return true
	}
	if o.fl.Out == 0 && (isMulticast(o.fl.Dst) || isAllOnes(o.fl.Dst)) {
		dev := o.f.deviceOf(src)
		if dev == 0 {
			o.fail(ENETUNREACH, WhyNoSource)
			return true
		}
		o.fl.Out, o.dev = dev, dev
		o.make()
		return true
	}
	if o.fl.Flags&AnySource == 0 && o.f.deviceOf(src) == 0 {
		o.fail(ENETUNREACH, WhyNoSource)
		return true
	}
	return false
}

// sourceBits are the bits of the source that checkSource looks at: whether it is
// multicast or all ones, and else, where it has to be this host's, the whole.
func (o *output) sourceBits() field.Value {
	wide := isMulticast(o.fl.Dst) || isAllOnes(o.fl.Dst)
	if o.fl.Flags&AnySource == 0 || o.fl.Out == 0 && wide {
		return field.Ones(128)
	}
	return martianBits(o.fl.Src)
}

// deviceOf is the device that has an address, zero for none. What the local
// table delivers belongs to this host too.
//
// Kernel: net/ipv4/devinet.c, __ip_dev_find.
func (f *FIB) deviceOf(a packet.Addr) packet.Dev {
	if dev, ok := f.links.Owner(a); ok {
		return dev
	}
	r, ok := f.local.kindOf(a, nil)
	if ok && r.a.kind == trace.Local {
		return r.hop.dev
	}
	if ok && f.openMiss(&r) || f.openAddrs() {
		return link.Loopback
	}
	return 0
}

// boundDevice takes the device that the socket is bound to. It tells whether the
// decision is made.
func (o *output) boundDevice() bool {
	l := o.f.links.ByIndex(o.fl.Out)
	switch {
	case l == nil:
		o.fail(ENODEV, WhyNoRoute)
		return true
	case !l.Is(link.Up), !l.HasIP():
		o.fail(ENETUNREACH, WhyDeviceDown)
		return true
	}
	o.dev = l.Index
	if isLocalMulticast(o.fl.Dst) || isAllOnes(o.fl.Dst) || o.fl.Proto == packet.IGMP {
		o.pickSource(link.ScopeLink)
		o.make()
		return true
	}
	switch {
	case isMulticast(o.fl.Dst):
		o.pickSource(o.fl.Scope)
	case o.fl.Dst.IsAny():
		o.pickSource(link.ScopeHost)
	}
	return false
}

// pickSource chooses a source where there is none yet.
func (o *output) pickSource(scope link.Scope) {
	if o.fl.Src.IsAny() {
		o.fl.Src = or4(o.f.links.Select(o.dev, packet.Addr{}, scope))
	}
}

// toSelf sends to 0.0.0.0, which is this host.
func (o *output) toSelf() {
	o.fl.Dst = o.fl.Src
	if o.fl.Dst.IsAny() {
		o.fl.Src = packet.V4(0x7f000001)
		o.fl.Dst = o.fl.Src
	}
	o.dev, o.fl.Out = link.Loopback, link.Loopback
	o.d.Kind, o.d.Local = trace.Local, true
	o.make()
}

func (o *output) lookup() {
	bound := o.fl.Out != 0
	r, err := o.f.lookup(&o.fl, o.rec.tries)
	o.d.found(&r)
	o.realm = r.realm
	switch {
	case err == 0 && o.f.openMiss(&r):
		o.f.openOutput(o)
	case err != 0 && bound && (isMulticast(o.fl.Dst) || o.fl.L3mdev == 0):
		// The tables were asked for a gateway only: the destination is on link.
		o.d.Rule, o.d.Table, o.d.Index = -1, 0, -1
		o.pickSource(link.ScopeLink)
		o.d.Kind = trace.Unicast
		o.make()
	case err != 0:
		o.fail(err, o.f.whyError(&r, err))
		o.d.Kind = trace.Unreachable
	case r.a.kind == trace.Local:
		o.r = r
		o.deliver()
	default:
		o.r = r
		o.selectPath()
	}
}

// deliver sends to an address of this host, through lo or the VRF.
func (o *output) deliver() {
	if o.fl.Src.IsAny() {
		o.fl.Src = o.fl.Dst
		if !o.r.a.src.IsZero() {
			o.fl.Src = o.r.a.src
		}
	}
	o.dev, o.d.In = link.Loopback, o.r.hop.dev
	if m := o.f.links.L3Master(o.r.hop.dev); m != 0 {
		o.dev = m
	}
	o.d.Kind, o.d.Local = trace.Local, true
	o.make()
}

// selectPath chooses the way on and the source.
//
// Kernel: net/ipv4/fib_semantics.c, fib_select_path.
func (o *output) selectPath() {
	f, r := o.f, &o.r
	if o.fl.Out == 0 {
		if len(r.a.hops) > 1 {
			k := pathKey{o.fl.Src, o.fl.Dst, o.fl.SPort, o.fl.DPort, o.fl.Proto}
			f.selectPath(o.w, r, f.policy(k), o.fl.Src)
		} else if r.a.bits == 0 && r.t.defaults > 1 && r.a.kind == trace.Unicast {
			f.selectDefault(o.w, &o.fl, r)
			o.d.found(r)
		}
	}
	if o.fl.Src.IsAny() {
		o.fl.Src = o.routeSource()
	}
	o.dev = r.hop.dev
	o.d.Kind = r.a.kind
	o.make()
}

func (o *output) routeSource() packet.Addr {
	m := o.fl.L3mdev
	if o.f.links.ByIndex(m) == nil || o.f.vrfOver(o.r.hop.dev) == m {
		return or4(o.r.preferredSource())
	}
	return or4(o.f.links.Select(m, packet.Addr{}, link.ScopeLink))
}

// vrfOver is the VRF that a device is enslaved to.
//
// Kernel: include/net/l3mdev.h, l3mdev_master_dev_rcu.
func (f *FIB) vrfOver(dev packet.Dev) packet.Dev { return f.links.L3Master(dev) }

// make finishes a decision.
//
// Kernel: net/ipv4/route.c, __mkroute_output.
func (o *output) make() {
	l := o.f.links.ByIndex(o.dev)
	if l == nil || !l.HasIP() {
		o.fail(EINVAL, WhyNoIP)
		return
	}
	lo := l.Is(link.LoopbackFlag)
	if !l.Conf.RouteLocalnet && isLoopback(o.fl.Src) && !lo && !l.IsVRF() {
		o.fail(EINVAL, WhyMartianSource)
		return
	}
	o.d.Out, o.d.Source = o.dev, o.fl.Src
	useRoute := o.r.a != nil
	switch {
	case isAllOnes(o.fl.Dst):
		o.d.Kind, useRoute = trace.BroadcastRoute, false
	case isMulticast(o.fl.Dst):
		o.d.Kind = trace.MulticastRoute
		useRoute = useRoute && o.r.a.bits >= 4
	case o.d.Kind == trace.Unspec:
		o.d.Kind = trace.Unicast
	}
	o.d.Local = o.d.Local || lo || o.d.Kind == trace.BroadcastRoute
	if o.d.Kind == trace.MulticastRoute {
		o.d.Local = o.f.links.Joined(o.dev, o.fl.Dst)
	}
	if useRoute {
		o.f.via(&o.d, &o.r, 0)
		if o.f.learned(o.w) {
			o.fl.deps.Note(field.Dst, field.Ones(128))
			o.f.except(o.w, &o.d, &o.r, o.fl.Dst)
		}
		if o.d.Kind == trace.Local {
			o.d.Gateway = packet.Addr{}
		}
	}
	if !useRoute {
		o.d.Realm = o.realm
		o.f.mtu(&o.d, nil)
	}
}
