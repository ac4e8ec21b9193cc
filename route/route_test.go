package route

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

var addr = packet.MustParseAddr

// r makes a route in the main table: "10.0.0.0/8", a gateway or "", a device.
func r(dst, via, dev string, more ...func(*Route)) Route {
	out := Route{Dst: netip.MustParsePrefix(dst), Kind: trace.Unicast, Table: TableMain,
		Protocol: 3}
	if via != "" || dev != "" {
		h := Hop{Dev: dev}
		if via != "" {
			h.Via = addr(via)
		}
		out.Hops = []Hop{h}
	}
	for _, f := range more {
		f(&out)
	}
	return out
}

func kind(k trace.RouteKind) func(*Route) { return func(r *Route) { r.Kind, r.Hops = k, nil } }
func in(table uint32) func(*Route)        { return func(r *Route) { r.Table = table } }

// host is a router with eth0 10.0.0.1/24 (index 2) and eth1 10.1.0.1/24 (3).
type host struct {
	rules  []Rule
	routes []Route
	nhs    []Nexthop
	sysctl link.Sysctl
	kernel string
	open   bool
}

func (h host) build(t testing.TB) *FIB {
	t.Helper()
	if h.sysctl == nil {
		h.sysctl = link.Sysctl{"net.ipv4.ip_forward": "1"}
	}
	c := link.Config{Links: link.Invent([]string{"eth0", "eth1", "eth2"}), Sysctl: h.sysctl,
		OpenGroups: true, OpenNeighs: true, OpenAddrs: h.open}
	if !h.open {
		c.Addrs = []link.Addr{
			{Dev: 1, Local: addr("127.0.0.1"), PrefixLen: 8, Scope: link.ScopeHost},
			{Dev: 2, Local: addr("10.0.0.1"), PrefixLen: 24}, {Dev: 3, Local: addr("10.1.0.1"),
				PrefixLen: 24}}
	}
	links, err := link.New(c)
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(Config{Rules: h.rules, Links: links, Sysctl: h.sysctl, Nexthops: h.nhs,
		Kernel: h.kernel, Open: h.open, Routes: h.withConnected(links)})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// withConnected adds the routes of the addresses.
func (h host) withConnected(links *link.Table) []Route {
	if h.open {
		return nil
	}
	f := &FIB{links: links}
	return append(f.addressRoutes(), h.routes...)
}

func testWorld() *world.World {
	return &world.World{State: (&world.Schema{}).NewState(), Dice: &world.Dice{}, HZ: 250}
}

// TestInput walks packets into a router; rows say where they go.
func TestInput(t *testing.T) {
	def := r("0.0.0.0/0", "10.1.0.254", "eth1")
	on := func(keys ...string) link.Sysctl {
		s := link.Sysctl{"net.ipv4.ip_forward": "1"}
		for _, k := range keys {
			s["net.ipv4.conf."+k] = "1"
		}
		return s
	}
	for _, c := range []struct {
		what     string
		h        host
		src, dst string
		kind     trace.RouteKind
		out      packet.Dev
		why      trace.Why
		reason   trace.Reason
		icmp     int // the code, -1 for none
	}{
		{"on", host{routes: []Route{def}}, "10.0.0.9", "8.8.8.8", trace.Unicast, 3, "", "", -1},
		{"to us", host{}, "10.0.0.9", "10.0.0.1", trace.Local, 1, "", "", -1},
		{"to another of our addresses", host{}, "10.0.0.9", "10.1.0.1", trace.Local, 1, "", "", -1},
		{"broadcast", host{}, "10.0.0.9", "10.0.0.255", trace.BroadcastRoute, 1, "", "", -1},
		{"limited broadcast", host{}, "0.0.0.0", "255.255.255.255", trace.BroadcastRoute, 1, "",
			"", -1},
		{"another's broadcast", host{}, "10.0.0.9", "10.1.0.255", trace.BroadcastRoute, 1, "",
			"", -1},
		{"joined group", host{}, "10.0.0.9", "224.0.0.1", trace.MulticastRoute, 1, "", "", -1},
		{"other group", host{}, "10.0.0.9", "239.1.1.1", trace.MulticastRoute, 0, WhyNotJoined,
			ReasonNone, -1},
		{"no route", host{}, "10.0.0.9", "8.8.8.8", trace.Unreachable, 0, WhyNoRoute,
			ReasonNoRoutes, 0},
		{"no forwarding", host{routes: []Route{def}, sysctl: link.Sysctl{}}, "10.0.0.9", "8.8.8.8",
			trace.Unreachable, 0, WhyForwardingOff, ReasonAddrErrors, -1},
		{"martian source", host{}, "127.0.0.1", "10.0.0.1", trace.Unspec, 0, WhyMartianSource,
			ReasonLocalnet, -1},
		{"martian destination", host{}, "10.0.0.9", "127.0.0.1", trace.Unspec, 0,
			WhyMartianDestination,
			ReasonLocalnet, -1},
		{"multicast source", host{}, "224.0.0.1", "10.0.0.1", trace.Unspec, 0, WhyMartianSource,
			ReasonInvalidSource, -1},
		{"our own source", host{}, "10.1.0.1", "10.0.0.1", trace.Local, 0, WhyMartianSource,
			ReasonLocalSource, -1},
		{"accept_local", host{sysctl: on("eth0.accept_local")}, "10.1.0.1", "10.0.0.1",
			trace.Local, 1, "", "", -1},
		{"strict filter", host{sysctl: on("all.rp_filter")}, "10.1.0.9", "10.0.0.1", trace.Local, 0,
			WhyRPFilter, ReasonRPFilter, -1},
		{"unreachable", host{routes: []Route{r("8.0.0.0/8", "", "", kind(trace.Unreachable))}},
			"10.0.0.9",
			"8.8.8.8", trace.Unreachable, 0, WhyUnreachable, ReasonNone, 1},
		{"prohibit", host{routes: []Route{r("8.0.0.0/8", "", "", kind(trace.Prohibit))}},
			"10.0.0.9", "8.8.8.8",
			trace.Unreachable, 0, WhyProhibit, ReasonNone, 13},
		{"blackhole", host{routes: []Route{r("8.0.0.0/8", "", "", kind(trace.Blackhole))}},
			"10.0.0.9", "8.8.8.8",
			trace.Unreachable, 0, WhyBlackhole, ReasonNone, -1},
		{"rule unreachable", host{rules: []Rule{{Action: UnreachableAction}}}, "10.0.0.9",
			"8.8.8.8",
			trace.Unreachable, 0, WhyUnreachable, ReasonNoRoutes, 0},
		{"bc_forwarding", host{sysctl: on("all.bc_forwarding", "eth0.bc_forwarding")},
			"10.0.0.9", "10.1.0.255",
			trace.BroadcastRoute, 3, "", "", -1},
	} {
		f := c.h.build(t)
		d := f.Arrive(testWorld(), nil, &Arrival{Src: addr(c.src), Dst: addr(c.dst), In: 2})
		icmp := -1
		if d.ICMP {
			icmp = int(d.ICMPCode)
		}
		if d.Kind != c.kind || d.Out != c.out || d.Why != c.why || d.Reason != c.reason || icmp != c.icmp {
			t.Errorf("%s: %s > %s: got %v out %d %q %q icmp %d,\n\twant %v out %d %q %q icmp %d",
				c.what, c.src,
				c.dst, d.Kind, d.Out, d.Why, d.Reason, icmp, c.kind, c.out, c.why, c.reason, c.icmp)
		}
	}
}

// TestAddrType tries the types that addrtype knows: only the local table counts.
func TestAddrType(t *testing.T) {
	f := host{routes: []Route{r("8.0.0.0/8", "", "", kind(trace.Blackhole)),
		r("9.0.0.0/8", "", "", kind(trace.Unreachable)), r("7.0.0.0/8", "", "",
			kind(trace.ThrowRoute))}}.build(t)
	for _, c := range []struct {
		a       string
		any, in trace.RouteKind // asked without a device, and limited to eth0
	}{
		{"10.0.0.1", trace.Local, trace.Local}, {"10.1.0.1", trace.Local, trace.Unicast},
		{"127.0.0.1", trace.Local, trace.Unicast}, {"10.0.0.255", trace.BroadcastRoute,
			trace.BroadcastRoute},
		{"10.1.0.255", trace.BroadcastRoute, trace.Unicast}, {"8.8.8.8", trace.Unicast,
			trace.Unicast},
		{"9.9.9.9", trace.Unicast, trace.Unicast}, {"7.7.7.7", trace.Unicast, trace.Unicast},
		{"255.255.255.255", trace.BroadcastRoute, trace.BroadcastRoute},
		{"0.0.0.0", trace.BroadcastRoute, trace.BroadcastRoute},
		{"224.1.1.1", trace.MulticastRoute, trace.MulticastRoute}, {"1.2.3.4", trace.Unicast,
			trace.Unicast},
	} {
		if got := f.AddrType(addr(c.a), 0, field.Src, nil); got != c.any {
			t.Errorf("%s: got %v, want %v", c.a, got, c.any)
		}
		if got := f.AddrType(addr(c.a), 2, field.Src, nil); got != c.in {
			t.Errorf("%s on eth0: got %v, want %v", c.a, got, c.in)
		}
	}
}

// TestRules tries what a rule can do, and why each one before was passed.
func TestRules(t *testing.T) {
	routes := []Route{r("0.0.0.0/0", "", "eth0", in(100)), r("8.0.0.0/8", "", "eth1", in(101)),
		r("0.0.0.0/0", "", "", kind(trace.ThrowRoute), in(102)), r("0.0.0.0/0", "10.1.0.254",
			"eth1")}
	local := Rule{Table: TableLocal}
	main := Rule{Priority: 32766, Table: TableMain}
	for _, c := range []struct {
		what  string
		rules []Rule
		fl    Flow
		out   packet.Dev
		rule  int
		tried string
	}{
		{"fwmark", []Rule{local, {Priority: 10, Mark: 1, MarkMask: 0xff, Table: 100}, main},
			Flow{Mark: 0x101},
			2, 1, "0:no route in the table"},
		{"no match", []Rule{local, {Priority: 10, Mark: 1, MarkMask: 0xff, Table: 100}, main},
			Flow{Mark: 2},
			3, 2, "0:no route in the table 1:selector does not match"},
		{"not", []Rule{local, {Priority: 10, Not: true, Mark: 1, MarkMask: 0xff, Table: 100}, main},
			Flow{Mark: 2}, 2, 1, "0:no route in the table"},
		{"throw", []Rule{local, {Priority: 10, Table: 102}, main}, Flow{}, 3, 2,
			"0:no route in the table 1:throw"},
		{"no such table", []Rule{local, {Priority: 10, Table: 7}, main}, Flow{}, 3, 2,
			"0:no route in the table 1:no route in the table"},
		{"suppress_prefixlength 0", []Rule{local, {Priority: 10, Table: 100,
			SuppressPrefix: Some(0)}, main},
			Flow{}, 3, 2, "0:no route in the table 1:suppressed"},
		{"suppress_prefixlength 0 lets longer ones pass",
			[]Rule{local, {Priority: 10, Table: 101, SuppressPrefix: Some(0)}, main}, Flow{}, 3, 1,
			"0:no route in the table"},
		{"suppress_ifgroup", []Rule{local, {Priority: 10, Table: 100, SuppressGroup: Some(0)},
			main}, Flow{},
			3, 2, "0:no route in the table 1:suppressed"},
		{"goto", []Rule{local, {Priority: 10, Action: Goto, Goto: 30}, {Priority: 20, Table: 100},
			{Priority: 30, Table: 101}, main}, Flow{}, 3, 3, "0:no route in the table 1:goto"},
		{"goto nowhere", []Rule{local, {Priority: 10, Action: Goto, Goto: 31}, {Priority: 20,
			Table: 100}},
			Flow{}, 2, 2, "0:no route in the table 1:goto"},
		{"nop", []Rule{local, {Priority: 10, Action: Nop}, {Priority: 20, Table: 100}}, Flow{},
			2, 2,
			"0:no route in the table 1:nop"},
		{"equal priorities in order", []Rule{{Priority: 5, Table: 101}, {Priority: 5,
			Table: 100}, local}, Flow{},
			3, 1, "0:no route in the table"},
		{"uid", []Rule{local, {Priority: 10, UID: UIDs{5, 9, true}, Table: 100}, main},
			Flow{UID: 7}, 2, 1,
			"0:no route in the table"},
		{"ports", []Rule{local, {Priority: 10, Proto: 6, DPort: Ports{Lo: 80, Hi: 90},
			Table: 100}, main},
			Flow{Proto: 6, DPort: 85}, 2, 1, "0:no route in the table"},
		{"iif lo is what is sent here", []Rule{local, {Priority: 10, In: "lo", Table: 100},
			main}, Flow{}, 2, 1,
			"0:no route in the table"},
		{"a device that is not there", []Rule{local, {Priority: 10, In: "gone", Table: 100},
			main}, Flow{}, 3, 2,
			"0:no route in the table 1:selector does not match"},
		{"the first three, untouched", nil, Flow{}, 3, 1, "0:no route in the table"},
	} {
		f := host{rules: c.rules, routes: routes}.build(t)
		fl := c.fl
		fl.Dst = addr("8.8.8.8")
		tr := &trace.Trace{}
		if c.what == "equal priorities in order" {
			fl.Dst = addr("9.9.9.9")
			c.out, c.rule = 2, 2
			c.tried = "0:no route in the table 1:no route in the table"
		}
		d := f.Output(testWorld(), tr, &fl)
		got := ""
		for _, x := range tr.Events[0].(*trace.Route).Tried {
			got += fmt.Sprintf(" %d:%v", x.Rule, x.Why)
		}
		if d.Out != c.out || d.Rule != c.rule || got != " "+c.tried {
			t.Errorf("%s: got out %d rule %d tried%s, want out %d rule %d tried %s", c.what,
				d.Out, d.Rule, got,
				c.out, c.rule, c.tried)
		}
	}
}

// TestMerged holds that local and main share a trie until a rule is added.
func TestMerged(t *testing.T) {
	routes := []Route{r("127.1.0.0/16", "10.1.0.254", "eth1")}
	custom := append(DefaultRules(), Rule{Priority: 100, Table: 77})
	for _, c := range []struct {
		rules []Rule
		kind  trace.RouteKind
	}{{nil, trace.Unicast}, {custom, trace.Local}} {
		f := host{rules: c.rules, routes: routes}.build(t)
		d := f.Output(testWorld(), nil, &Flow{Dst: addr("127.1.2.3"), Src: addr("10.1.0.1")})
		if d.Kind != c.kind {
			t.Errorf("%d rules: got %v, want %v", len(c.rules), d.Kind, c.kind)
		}
	}
}

// TestOutput tries the choice of device and source.
func TestOutput(t *testing.T) {
	f := host{routes: []Route{r("0.0.0.0/0", "10.1.0.254", "eth1"),
		r("9.0.0.0/8", "10.0.0.254", "eth0", func(r *Route) {
			r.Src, r.MTU,
				r.MTULock = addr("10.1.0.1"), 1300, true
		})}}.build(t)
	for _, c := range []struct {
		fl       Flow
		out      packet.Dev
		gw, src  string
		mtu      int
		err      Errno
		delivers bool
	}{
		{Flow{Dst: addr("8.8.8.8")}, 3, "10.1.0.254", "10.1.0.1", 1500, 0, false},
		{Flow{Dst: addr("9.9.9.9")}, 2, "10.0.0.254", "10.1.0.1", 1300, 0, false},
		{Flow{Dst: addr("10.0.0.9")}, 2, "", "10.0.0.1", 1500, 0, false},
		{Flow{Dst: addr("10.0.0.1")}, 1, "", "10.0.0.1", 65535, 0, true},
		{Flow{}, 1, "", "127.0.0.1", 65535, 0, true},
		{Flow{Dst: addr("8.8.8.8"), Src: addr("4.4.4.4")}, 0, "", "", 0, ENETUNREACH, false},
		{Flow{Dst: addr("8.8.8.8"), Src: addr("4.4.4.4"), Flags: AnySource}, 3, "10.1.0.254",
			"4.4.4.4", 1500, 0,
			false},
		{Flow{Dst: addr("8.8.8.8"), Out: 2}, 2, "", "10.0.0.1", 1500, 0, false},
		{Flow{Dst: addr("255.255.255.255"), Src: addr("10.0.0.1")}, 2, "", "10.0.0.1", 1500, 0,
			true},
		{Flow{Dst: addr("8.8.8.8"), Out: 77}, 0, "", "", 0, ENODEV, false},
	} {
		d := f.Output(testWorld(), nil, &c.fl)
		if d.Out != c.out || d.Gateway.String() != c.gw || d.Source.String() != c.src || d.Err != c.err ||
			d.MTU != c.mtu || d.Local != c.delivers {
			t.Errorf("%+v: got %+v", c.fl, d)
		}
	}
}

// TestMultipath tries weights, the flow's key, dead ways and known sources.
func TestMultipath(t *testing.T) {
	multi := r("8.0.0.0/8", "", "eth0", func(r *Route) {
		r.Multipath = true
		r.Hops = []Hop{{Via: addr("10.0.0.2"), Dev: "eth0", Weight: 3}, {Via: addr("10.1.0.2"),
			Dev: "eth1"},
			{Via: addr("10.1.0.3"), Dev: "eth1", Dead: true, Weight: 9}}
	})
	f := host{routes: []Route{multi}, rules: []Rule{{Table: TableMain}}}.build(t)
	roll := func(k string, fl Flow) map[packet.Dev]int {
		got := map[packet.Dev]int{}
		h := host{routes: []Route{multi}, rules: []Rule{{Table: TableLocal}, {Priority: 1,
			Table: TableMain}}, kernel: k}
		f := h.build(t)
		w := testWorld()
		w.Dice.Rand = rand.New(rand.NewPCG(1, 2))
		for range 4000 {
			got[f.Output(w, nil, &fl).Out]++
		}
		return got
	}
	if got := roll("",
		Flow{Dst: addr("8.8.8.8")}); got[2] < 2850 || got[2] > 3150 || got[2]+got[3] != 4000 {
		t.Errorf("3 to 1: got %v of 4000", got)
	}
	if got := roll("", Flow{Dst: addr("8.8.8.8"), Src: addr("10.1.0.1")}); got[3] != 4000 {
		t.Errorf("from 10.1.0.1: got %v, want all by eth1", got)
	}
	if got := roll("6.1.0", Flow{Dst: addr("8.8.8.8"), Src: addr("10.1.0.1")}); got[2] < 2850 {
		t.Errorf("from 10.1.0.1 on 6.1: got %v, want 3 to 1", got)
	}
	w := testWorld()
	w.Dice.Forced = []int{1, 0}
	there := f.Arrive(w, nil, &Arrival{Src: addr("10.0.0.9"), Dst: addr("8.8.8.8"), In: 2})
	back := f.Arrive(w, nil, &Arrival{Src: addr("10.0.0.9"), Dst: addr("8.8.8.8"), In: 2,
		Proto: 6, SPort: 9})
	if there.Out != back.Out || len(w.Dice.Taken) != 1 {
		t.Errorf("one flow, two ways: %d and %d", there.Out, back.Out)
	}
	if got := w.Dice.Taken[0].Values(1); got != "via 10.1.0.2 dev eth1" {
		t.Errorf("alternative 1: got %q", got)
	}
}

// TestReversePath tries the rpfilter match.
func TestReversePath(t *testing.T) {
	f := host{routes: []Route{r("0.0.0.0/0", "10.1.0.254", "eth1")}}.build(t)
	for _, c := range []struct {
		src  string
		in   packet.Dev
		o    ReverseOptions
		want bool
	}{
		{"10.0.0.9", 2, ReverseOptions{}, true}, {"10.0.0.9", 3, ReverseOptions{}, false},
		{"10.0.0.9", 3, ReverseOptions{Loose: true}, true}, {"8.8.8.8", 3, ReverseOptions{}, true},
		{"10.1.0.1", 3, ReverseOptions{}, false}, {"10.1.0.1", 3,
			ReverseOptions{AcceptLocal: true}, true},
		{"10.9.0.1", 1, ReverseOptions{}, true},
	} {
		p := packetFrom(t, c.src, "10.0.0.1")
		p.In = c.in
		var deps field.Deps
		if got := f.ReversePath(p, c.o, &deps); got != c.want {
			t.Errorf("%s on %d %+v: got %v, want %v", c.src, c.in, c.o, got, c.want)
		}
	}
}

func packetFrom(t testing.TB, src, dst string) *packet.Packet {
	t.Helper()
	b := make([]byte, 28)
	b[0], b[3], b[8], b[9] = 0x45, 28, 64, 17
	s, d := addr(src), addr(dst)
	copy(b[12:], s[12:])
	copy(b[16:], d[12:])
	p, ok := packet.FromIP(b)
	if !ok {
		t.Fatal("no packet")
	}
	return p
}

// TestOpen tries a host of which no route is known.
func TestOpen(t *testing.T) {
	f := host{open: true}.build(t)
	a := &Arrival{Src: addr("10.0.0.9"), Dst: addr("8.8.8.8"), In: 2}
	if d := f.WithHint(Hint{Out: 4}).Arrive(testWorld(), nil,
		a); d.Kind != trace.Unicast || d.Out != 4 {
		t.Errorf("out eth2: got %v out %d", d.Kind, d.Out)
	}
	if d := f.WithHint(Hint{Local: true}).Arrive(testWorld(), nil,
		a); d.Kind != trace.Local || !d.Local {
		t.Errorf("local: got %v", d.Kind)
	}
	w := testWorld()
	if d := f.Arrive(w, nil, a); d.Kind != trace.Unicast || d.Out == 2 || len(w.Dice.Taken) != 1 {
		t.Errorf("no word: got %v out %d, %d choices", d.Kind, d.Out, len(w.Dice.Taken))
	}
}

// TestRefuses tries routes that cannot be.
func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		r    Route
		want string
	}{
		{r("8.0.0.0/8", "", "gone"), `route 8.0.0.0/8 dev gone proto boot: device "gone" does not exist`},
		{Route{Dst: netip.MustParsePrefix("8.0.0.0/8"), NHID: 9, Protocol: 3},
			"route 8.0.0.0/8 nhid 9: nexthop 9 does not exist"},
	} {
		lt, _ := link.New(link.Config{Links: link.Invent([]string{"eth0"})})
		c.r.Protocol = 3
		_, err := New(Config{Links: lt, Routes: []Route{c.r}})
		if err == nil || (err.Error() != c.want && c.want[:20] != err.Error()[:20]) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

// slowLookup is the plain walk over all routes, the twin of table.lookup.
func slowLookup(t *table, fl *Flow) (*alias, Errno) {
	var best *alias
	bits := -1
	for i := range t.nodes {
		nd := &t.nodes[i]
		if !nd.prefix.netip().Contains(fl.Dst.Netip()) || nd.prefix.bits <= bits {
			continue
		}
		for j := nd.first; j < nd.first+nd.n; j++ {
			a := &t.aliases[j]
			if a.fits(fl) && (a.err != 0 || a.goodHop(fl) >= 0) {
				best, bits = a, nd.prefix.bits
				break
			}
		}
	}
	if best == nil {
		return nil, EAGAIN
	}
	return best, best.err
}

// TestLookupTwin compares the lookup with the plain walk, and the noted bits with
// what they promise: an address that agrees in them finds the same route.
func TestLookupTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var es []entry
		for i := range rapid.IntRange(0, 30).Draw(t, "n") {
			n := rapid.SampledFrom([]int{0, 1, 8, 15, 16, 23, 24, 25, 31, 32}).Draw(t, "bits")
			ip := packet.V4(rapid.Uint32Range(0x0a000000, 0x0a00ffff).Draw(t, "ip"))
			p := netip.PrefixFrom(ip.Netip(), n).Masked()
			a := alias{route: int32(i), table: TableMain, kind: trace.Unicast, bits: uint8(n),
				tos:  rapid.SampledFrom([]uint8{0, 0, 0, 0x10}).Draw(t, "tos"),
				err:  rapid.SampledFrom([]Errno{0, 0, 0, EINVAL}).Draw(t, "err"),
				hops: []hop{{dev: packet.Dev(rapid.IntRange(1, 3).Draw(t, "dev"))}}}
			es = append(es, entry{prefixOf(p), a})
		}
		tb := newTable(TableMain, es)
		fl := Flow{Dst: packet.V4(rapid.Uint32Range(0x09ff0000, 0x0a01ffff).Draw(t, "dst")),
			TOS: rapid.SampledFrom([]uint8{0, 0x10}).Draw(t, "ftos"),
			Out: packet.Dev(rapid.IntRange(0, 3).Draw(t, "oif")), deps: &field.Deps{}}
		got, err := tb.lookup(&fl)
		want, wantErr := slowLookup(tb, &fl)
		if got.a != want || err != wantErr {
			t.Fatalf("%v: got %+v %v, want %+v %v", fl.Dst, got.a, err, want, wantErr)
		}
		noise := field.AddrValue(packet.V4(rapid.Uint32().Draw(t, "noise")))
		mask := fl.deps[field.Dst]
		other := fl
		other.Dst = field.AddrValue(fl.Dst).And(mask).Or(noise.AndNot(mask)).Addr()
		if again, err2 := tb.lookup(&other); again.a != got.a || err2 != err {
			t.Fatalf("%v and %v agree in the noted bits: %+v, %+v", fl.Dst, other.Dst, got.a,
				again.a)
		}
	})
}

// TestNoAllocation guards the way of a packet without an observer.
func TestNoAllocation(t *testing.T) {
	f := host{routes: []Route{r("0.0.0.0/0", "10.1.0.254", "eth1")},
		rules: []Rule{{Table: TableLocal}, {Priority: 9, Mark: 1, MarkMask: 1, Table: 9},
			{Priority: 10, Table: TableMain}}}.build(t)
	w, p := testWorld(), packetFrom(t, "10.0.0.9", "8.8.8.8")
	p.In = 2
	fl := &Flow{Dst: addr("8.8.8.8")}
	var d Decision
	if n := testing.AllocsPerRun(100, func() { f.Input(w, nil, p, nil, &d) }); n != 0 {
		t.Errorf("Input allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { f.Output(w, nil, fl) }); n != 0 {
		t.Errorf("Output allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { f.AddrType(p.Src(), 0, field.Src, nil) }); n != 0 {
		t.Errorf("AddrType allocates %v times", n)
	}
}

// BenchmarkInput forwards through a table of many routes.
func BenchmarkInput(b *testing.B) {
	for _, n := range []int{10, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			routes := make([]Route, 0, n)
			rnd := rand.New(rand.NewPCG(1, 1))
			for range n {
				ip := packet.V4(0x0b000000 + rnd.Uint32N(0xd0000000-0x0b000000))
				p, _ := ip.Netip().Prefix(16 + rnd.IntN(9))
				routes = append(routes, Route{Dst: p, Kind: trace.Unicast, Table: TableMain,
					Hops: []Hop{{Via: addr("10.1.0.254"), Dev: "eth1"}}})
			}
			f := host{routes: append(routes, r("0.0.0.0/0", "10.1.0.254", "eth1"))}.build(b)
			w, p := testWorld(), packetFrom(b, "10.0.0.9", "99.1.2.3")
			p.In = 2
			var d Decision
			b.ReportAllocs()
			for b.Loop() {
				f.Input(w, nil, p, nil, &d)
			}
		})
	}
}

// TestRuleTwin compares the flow's own evaluator with the one of field, for every
// selector.
func TestRuleTwin(t *testing.T) {
	links, err := link.New(link.Config{Links: link.Invent([]string{"eth0", "eth1"})})
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		small := rapid.Uint32Range(0, 3)
		p := func() netip.Prefix {
			n := rapid.SampledFrom([]int{0, 8, 31, 32}).Draw(t, "len")
			return netip.PrefixFrom(packet.V4(0x0a000000+small.Draw(t, "ip")).Netip(), n).Masked()
		}
		ru := Rule{Src: p(), Dst: p(), Mark: small.Draw(t, "mark"), MarkMask: small.Draw(t, "mask"),
			TOS: uint8(small.Draw(t, "tos")) << 2, Proto: uint8(small.Draw(t, "proto")),
			In:  rapid.SampledFrom([]string{"", "eth0", "gone"}).Draw(t, "in"),
			UID: UIDs{1, 2, rapid.Bool().Draw(t, "uids")}, SPort: Ports{Lo: uint16(small.Draw(t,
				"sport"))},
			DPort: Ports{Lo: 1, Hi: uint16(small.Draw(t, "dport")), Mask: uint16(small.Draw(t,
				"pmask"))}}
		pred := rulePred(&ru, links)
		fl := &Flow{Src: packet.V4(0x0a000000 + small.Draw(t, "src")), TOS: uint8(small.Draw(t,
			"ft")) << 2,
			Dst: packet.V4(0x0a000000 + small.Draw(t, "dst")), Mark: small.Draw(t, "fm"),
			Proto: uint8(small.Draw(t, "fp")), In: packet.Dev(small.Draw(t,
				"fi")), UID: small.Draw(t, "fu"),
			SPort: uint16(small.Draw(t, "fs")), DPort: uint16(small.Draw(t,
				"fd")), deps: &field.Deps{}}
		got, first := fl.answers(&pred), *fl.deps
		fl.deps = &field.Deps{}
		if want := pred.Eval(fl) == field.Yes; got != want || first != *fl.deps {
			t.Fatalf("%+v on %+v: got %v, want %v", ru, fl, got, want)
		}
	})
}
