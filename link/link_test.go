package link

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

var a = packet.MustParseAddr

// table makes a host of lo, eth0 (2) and eth1 (3) with the given addresses.
func table(t testing.TB, c Config) *Table {
	t.Helper()
	if c.Links == nil {
		c.Links = Invent([]string{"eth0", "eth1"})
	}
	c.Schema = &world.Schema{}
	tb, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return tb
}

func addr(dev packet.Dev, local string, n int) Addr {
	return Addr{Dev: dev, Local: a(local), PrefixLen: n}
}

func (ad Addr) scope(s Scope) Addr        { ad.Scope = s; return ad }
func (ad Addr) secondary() Addr           { ad.Secondary = true; return ad }
func (ad Addr) peer(p string, n int) Addr { ad.Peer, ad.PrefixLen = a(p), n; return ad }

// TestSelectAddr is the table of measured choices for MASQUERADE.
func TestSelectAddr(t *testing.T) {
	lo := addr(1, "127.0.0.1", 8).scope(ScopeHost)
	three := []Addr{addr(2, "10.0.0.1", 24), addr(2, "10.0.0.2", 24).secondary(), addr(2,
		"10.0.5.1", 24)}
	overlap := []Addr{addr(2, "172.16.3.1", 30), addr(2, "10.3.0.1", 24), addr(2, "10.3.0.2", 25)}
	peers := []Addr{addr(2, "10.4.0.1", 32), addr(2, "10.4.1.1", 32).peer("10.4.1.2", 32)}
	linkFirst := []Addr{addr(2, "169.254.1.1", 16).scope(ScopeLink), addr(2, "10.1.0.1", 24)}
	onLo := []Addr{lo, addr(1, "203.0.113.1", 32), addr(2, "169.254.1.1", 16).scope(ScopeLink)}
	other := []Addr{lo, addr(3, "10.7.0.1", 24)}
	for _, c := range []struct {
		addrs []Addr
		hop   string
		want  string
		step  trace.SourceStep
	}{
		{three, "10.0.0.9", "10.0.0.1", trace.StepPrefix},
		{three, "10.0.5.9", "10.0.5.1", trace.StepPrefix},
		{three, "192.0.2.1", "10.0.0.1", trace.StepFirst},
		{linkFirst, "10.1.0.9", "10.1.0.1", trace.StepPrefix},
		{linkFirst, "8.8.8.8", "10.1.0.1", trace.StepFirst},
		{overlap, "10.3.0.9", "10.3.0.1", trace.StepPrefix},
		{overlap, "10.3.0.200", "10.3.0.1", trace.StepPrefix},
		{overlap, "172.16.3.2", "172.16.3.1", trace.StepPrefix},
		{peers, "10.4.1.2", "10.4.1.1", trace.StepPrefix},
		{peers, "10.4.9.9", "10.4.0.1", trace.StepFirst},
		{onLo, "8.8.8.8", "203.0.113.1", trace.StepMaster},
		{other, "8.8.8.8", "10.7.0.1", trace.StepAny},
		{[]Addr{lo, linkFirst[0]}, "8.8.8.8", "", trace.StepNone},
	} {
		tb := table(t, Config{Addrs: c.addrs})
		got := tb.SelectAddr(2, a(c.hop), ScopeUniverse)
		if got.Addr.String() != c.want || got.Step != c.step {
			t.Errorf("to %s from %v: got %v step %d, want %s step %d", c.hop, c.addrs, got.Addr,
				got.Step, c.want, c.step)
		}
		if fast := tb.Select(2, a(c.hop), ScopeUniverse); fast != got.Addr {
			t.Errorf("to %s: Select %v, SelectAddr %v", c.hop, fast, got.Addr)
		}
	}
}

// TestPassedOver says why an address was not taken.
func TestPassedOver(t *testing.T) {
	tb := table(t, Config{Addrs: []Addr{addr(2, "169.254.1.1", 16).scope(ScopeLink),
		addr(2, "10.9.0.1", 24), addr(2, "10.0.0.1", 24), addr(2, "10.0.0.2", 24).secondary(),
		addr(2, "10.0.0.3", 25)}})
	want := map[string]string{"169.254.1.1": "scope link",
		"10.9.0.1": "its prefix does not hold the next hop", "10.0.0.3": "later in the list"}
	got := tb.SelectAddr(2, a("10.0.0.9"), ScopeUniverse)
	for _, p := range got.Passed {
		if want[p.Addr.String()] != p.Why {
			t.Errorf("%v was passed over: got %q, want %q", p.Addr, p.Why, want[p.Addr.String()])
		}
		delete(want, p.Addr.String())
	}
	if len(want) > 0 || got.Addr != a("10.0.0.1") {
		t.Errorf("got %v, not told: %v", got.Addr, want)
	}
}

// TestVRFSource takes an address of the VRF, which stands for lo.
func TestVRFSource(t *testing.T) {
	links := Invent([]string{"eth0", "red", "eth1"})
	links[2].Kind, links[2].Table = "vrf", 10
	links[1].Master = links[2].Index
	tb := table(t, Config{Links: links, Addrs: []Addr{addr(3, "198.51.100.7", 32),
		addr(1, "203.0.113.1", 32), addr(4, "10.1.0.1", 24)}})
	if got := tb.SelectAddr(2, a("8.8.8.8"), ScopeUniverse); got.Addr != a("198.51.100.7") ||
		got.Step != trace.StepMaster {
		t.Errorf("got %v step %d", got.Addr, got.Step)
	}
	if got := tb.VRFTable(2); got != 10 {
		t.Errorf("table of eth0: got %d, want 10", got)
	}
}

// TestConf tries the rule by which "all" and the interface are taken together.
func TestConf(t *testing.T) {
	for _, c := range []struct {
		sysctl Sysctl
		get    func(*Conf) any
		want   any
	}{
		{nil, func(c *Conf) any { return c.Forwarding }, true},
		{Sysctl{}, func(c *Conf) any { return c.Forwarding }, false},
		{Sysctl{"net.ipv4.ip_forward": "1"}, func(c *Conf) any { return c.Forwarding }, true},
		{Sysctl{"net.ipv4.conf.all.forwarding": "1", "net.ipv4.conf.eth0/1.forwarding": "0"},
			func(c *Conf) any { return c.Forwarding }, false},
		{Sysctl{"net.ipv4.conf.all.rp_filter": "1", "net.ipv4.conf.eth0/1.rp_filter": "2"},
			func(c *Conf) any { return c.RPFilter }, 2},
		{Sysctl{"net.ipv4.conf.default.rp_filter": "1"}, func(c *Conf) any { return c.RPFilter },
			1},
		{Sysctl{"net.ipv4.conf.all.accept_local": "1"},
			func(c *Conf) any { return c.AcceptLocal }, true},
		{Sysctl{"net.ipv4.conf.all.bc_forwarding": "1"},
			func(c *Conf) any { return c.BCForwarding }, false},
		{Sysctl{"net.ipv4.conf.all.bc_forwarding": "1", "net.ipv4.conf.eth0/1.bc_forwarding": "1"},
			func(c *Conf) any { return c.BCForwarding }, true},
		{Sysctl{}, func(c *Conf) any { return c.SendRedirects }, true},
		{Sysctl{}, func(c *Conf) any { return c.AcceptSourceRoute }, false},
		{Sysctl{"net.ipv4.conf.all.accept_source_route": "1"},
			func(c *Conf) any { return c.AcceptSourceRoute }, true},
		{Sysctl{"net.ipv4.conf.eth0/1.accept_redirects": "0"},
			func(c *Conf) any { return c.AcceptRedirects }, true},
		{Sysctl{"net.ipv4.ip_forward": "1", "net.ipv4.conf.eth0/1.accept_redirects": "0"},
			func(c *Conf) any { return c.AcceptRedirects }, false},
		{Sysctl{"net.ipv4.conf.eth0/1.medium_id": "-1"}, func(c *Conf) any { return c.MediumID },
			-1},
		{Sysctl{"net.ipv4.conf.all.arp_ignore": "junk"},
			func(c *Conf) any { return c.ARPIgnore }, 0},
	} {
		tb := table(t, Config{Links: Invent([]string{"eth0.1"}), Sysctl: c.sysctl})
		if got := c.get(&tb.ByName("eth0.1").Conf); got != c.want {
			t.Errorf("%v: got %v, want %v", c.sysctl, got, c.want)
		}
	}
	if tb := table(t, Config{Sysctl: Sysctl{}}); !tb.ByName("lo").Conf.DisablePolicy {
		t.Error("lo: disable_policy is off")
	}
}

// TestNewRefuses tries what cannot be a host.
func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Links: []Link{{Index: 1, Name: "a"}, {Index: 1, Name: "b"}}}, `link "b": index 1 is taken`},
		{Config{Links: []Link{{Index: 1, Name: "a"}, {Index: 2, Name: "a"}}}, `link "a": the name "a" is taken`},
		{Config{Links: []Link{{Name: "a"}}}, `link "a": index 0`},
		{Config{Addrs: []Addr{addr(7, "10.0.0.1", 24)}}, "address 10.0.0.1: no link has index 7"},
		{Config{Links: Invent(nil), Addrs: []Addr{addr(1, "10.0.0.1", 33)}},
			"address 10.0.0.1: prefix length 33"},
	} {
		if _, err := New(c.cfg); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	tb := table(t, Config{Links: []Link{{Index: 1 << 30, Name: "far"}, {Index: 3, Name: "near"}}})
	for _, name := range []string{"far", "near"} {
		if l := tb.ByName(name); l == nil || tb.ByIndex(l.Index) != l {
			t.Errorf("%s is not found by its index", name)
		}
	}
	if tb.ByIndex(2) != nil || tb.ByIndex(1<<20) != nil || tb.Name(5) != "if5" || tb.Name(0) != "" {
		t.Error("a link is found that is not there")
	}
}

// TestHolds compares the prefix test with netip.
func TestHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 32).Draw(t, "n")
		ad := Addr{Local: packet.V4(rapid.Uint32().Draw(t, "local")), PrefixLen: n}
		x := packet.V4(rapid.Uint32().Draw(t, "x"))
		p, err := ad.Local.Netip().Prefix(n)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := ad.Holds(x), p.Contains(x.Netip()); got != want {
			t.Fatalf("%v holds %v: got %v, want %v", p, x, got, want)
		}
	})
}

// TestResolve finds MAC addresses.
func TestResolve(t *testing.T) {
	mac := packet.MAC{2, 0, 0, 0, 0, 9}
	links := Invent([]string{"eth0", "tun0", "ppp0"})
	links[1].MAC = packet.MAC{2, 0, 0, 0, 0, 1}
	links[2].NoHeader = true
	links[3].Flags |= PointToPoint
	c := Config{Links: links, Neighs: []Neigh{{2, a("10.0.0.9"), mac, Reachable},
		{2, a("10.0.0.8"), mac, Failed}, {2, a("10.0.0.7"), mac, Stale}}}
	all := packet.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for _, x := range []struct {
		dev  packet.Dev
		hop  string
		kind trace.RouteKind
		open bool
		want packet.MAC
		how  Resolution
	}{
		{2, "10.0.0.9", trace.Unicast, false, mac, Resolved},
		{2, "10.0.0.7", trace.Unicast, false, mac, Resolved},
		{2, "10.0.0.8", trace.Unicast, false, packet.MAC{}, Unresolved},
		{2, "10.0.0.1", trace.Unicast, false, packet.MAC{}, Unresolved},
		{2, "10.0.0.1", trace.Unicast, true, packet.MAC{}, Resolved},
		{2, "10.0.0.255", trace.BroadcastRoute, false, all, Resolved},
		{2, "239.129.2.3", trace.MulticastRoute, false, packet.MAC{1, 0, 0x5e, 1, 2, 3}, Resolved},
		{1, "127.0.0.1", trace.Local, false, packet.MAC{}, Resolved},
		{3, "10.0.0.1", trace.Unicast, false, packet.MAC{}, NoHeaders},
		{4, "10.0.0.1", trace.Unicast, false, all, Resolved},
		{9, "10.0.0.1", trace.Unicast, false, packet.MAC{}, Unresolved},
	} {
		c.OpenNeighs = x.open
		tb := table(t, c)
		got, how := tb.Resolve(nil, x.dev, a(x.hop), x.kind)
		if got != x.want || how != x.how {
			t.Errorf("%d %s: got %v %d, want %v %d", x.dev, x.hop, got, how, x.want, x.how)
		}
	}
}

// router answers ARP's questions from two lists.
type router struct {
	local map[string]bool
	out   packet.Dev
	back  packet.Dev
}

func (r *router) ARPRoute(_ *world.World, _, target packet.Addr, _ packet.Dev) (trace.RouteKind,
	packet.Dev, bool) {
	if r.local[target.String()] {
		return trace.Local, Loopback, true
	}
	return trace.Unicast, r.out, r.out != 0
}

func (r *router) DeviceTo(*world.World, packet.Addr, packet.Addr, packet.Dev) (packet.Dev, bool) {
	return r.back, r.back != 0
}

func (r *router) AddrTypeTable(x packet.Addr, _ packet.Dev) trace.RouteKind {
	if r.local[x.String()] {
		return trace.Local
	}
	return trace.Unicast
}

// TestARP tries who answers for what.
func TestARP(t *testing.T) {
	addrs := []Addr{addr(2, "10.0.0.1", 24), addr(1, "10.99.0.1", 32), addr(3, "10.1.0.1", 24),
		addr(2, "10.0.0.66", 24).scope(ScopeHost)}
	r := &router{local: map[string]bool{"10.0.0.1": true, "10.99.0.1": true, "10.1.0.1": true,
		"10.0.0.66": true}, out: 3, back: 2}
	fwd := "net.ipv4.ip_forward"
	for _, c := range []struct {
		sysctl         Sysctl
		sender, target string
		reply          bool
		why            trace.Why
	}{
		{Sysctl{}, "10.0.0.9", "10.0.0.1", true, ""},
		{Sysctl{}, "10.0.0.9", "10.99.0.1", true, ""},
		{Sysctl{}, "0.0.0.0", "10.0.0.1", true, ""},
		{Sysctl{}, "0.0.0.0", "10.0.0.5", false, WhyARPNotOurs},
		{Sysctl{}, "10.0.0.9", "10.5.0.1", false, WhyARPNotOurs},
		{Sysctl{}, "10.0.0.9", "127.0.0.1", false, WhyARPInvalid},
		{Sysctl{"net.ipv4.conf.all.arp_ignore": "1"}, "10.0.0.9", "10.0.0.1", true, ""},
		{Sysctl{"net.ipv4.conf.all.arp_ignore": "1"}, "10.0.0.9", "10.99.0.1", false, WhyARPIgnore},
		{Sysctl{"net.ipv4.conf.all.arp_ignore": "2"}, "10.7.0.9", "10.0.0.1", false, WhyARPIgnore},
		{Sysctl{"net.ipv4.conf.all.arp_ignore": "2"}, "10.0.0.9", "10.0.0.1", true, ""},
		{Sysctl{"net.ipv4.conf.all.arp_ignore": "3"}, "10.0.0.9", "10.0.0.66", false, WhyARPIgnore},
		{Sysctl{"net.ipv4.conf.all.arp_ignore": "3"}, "10.0.0.9", "10.1.0.1", true, ""},
		{Sysctl{"net.ipv4.conf.eth0.arp_ignore": "8"}, "10.0.0.9", "10.0.0.1", false, WhyARPIgnore},
		{Sysctl{"net.ipv4.conf.eth0.arp_filter": "1"}, "10.0.0.9", "10.0.0.1", true, ""},
		{Sysctl{fwd: "1"}, "10.0.0.9", "10.5.0.1", false, WhyARPNotOurs},
		{Sysctl{fwd: "1"}, "10.0.0.9", "10.5.0.77", true, ""}, // neigh add proxy
		{Sysctl{fwd: "1", "net.ipv4.conf.eth0.proxy_arp": "1"}, "10.0.0.9", "10.5.0.1", true, ""},
		{Sysctl{fwd: "1", "net.ipv4.conf.eth0.proxy_arp": "1",
			"net.ipv4.conf.eth0.medium_id": "-1"},
			"10.0.0.9", "10.5.0.1", false, WhyARPNotOurs},
		{Sysctl{"net.ipv4.conf.eth0.proxy_arp": "1"}, "10.0.0.9", "10.5.0.1", false, WhyARPNotOurs},
	} {
		tb := table(t, Config{Addrs: addrs, Sysctl: c.sysctl, Proxies: []Proxy{{2,
			a("10.5.0.77")}}})
		w := newWorld(tb)
		got := tb.ARP(w, r, 2, packet.Broadcast, ARP{Op: ARPRequest, SenderMAC: packet.MAC{2, 1},
			Sender: a(c.sender), Target: a(c.target)})
		if got.Replies != c.reply || got.Why != c.why {
			t.Errorf("%v: who has %s tell %s: got %v %q, want %v %q", c.sysctl, c.target, c.sender,
				got.Replies, got.Why, c.reply, c.why)
		}
		if got.Replies && (got.Reply.Sender != a(c.target) || got.Reply.TargetMAC != packet.MAC{2, 1}) {
			t.Errorf("reply %+v", got.Reply)
		}
	}
}

func newWorld(tb *Table) *world.World {
	return &world.World{State: tb.cfg.Schema.NewState(), Dice: &world.Dice{}, HZ: 250}
}

// TestLearn holds what is learnt from ARP.
func TestLearn(t *testing.T) {
	r := &router{local: map[string]bool{"10.0.0.1": true}, out: 3, back: 2}
	tb := table(t, Config{Addrs: []Addr{addr(2, "10.0.0.1", 24)}, Sysctl: Sysctl{},
		Neighs: []Neigh{{2, a("10.0.0.5"), packet.MAC{9}, Permanent}}})
	w := newWorld(tb)
	arp := func(op uint16, to packet.Type, mac byte, sender, target string) Neigh {
		tb.ARP(w, r, 2, to, ARP{Op: op, SenderMAC: packet.MAC{mac}, Sender: a(sender),
			Target: a(target)})
		n, _ := tb.Neighbour(w, 2, a(sender))
		return n
	}
	for _, c := range []struct {
		what  string
		got   Neigh
		mac   byte
		state NeighState
	}{
		{"an unasked reply", arp(ARPReply, packet.Host, 1, "10.0.0.7", "10.0.0.1"), 0, NoState},
		{"a request to us", arp(ARPRequest, packet.Broadcast, 2, "10.0.0.9", "10.0.0.1"), 2, Stale},
		{"a reply of one we know", arp(ARPReply, packet.Host, 2, "10.0.0.9", "10.0.0.1"), 2,
			Reachable},
		{"another's reply at once", arp(ARPReply, packet.Host, 3, "10.0.0.9", "10.0.0.1"), 2,
			Reachable},
		{"a static entry", arp(ARPReply, packet.Host, 3, "10.0.0.5", "10.0.0.1"), 9, Permanent},
	} {
		if c.got.MAC[0] != c.mac || c.got.State != c.state {
			t.Errorf("%s: got %v %d, want %d %d", c.what, c.got.MAC, c.got.State, c.mac, c.state)
		}
	}
	w.Now += 2 * world.Second
	if n := arp(ARPReply, packet.Host, 3, "10.0.0.9", "10.0.0.1"); n.MAC[0] != 3 {
		t.Errorf("another's reply after locktime: got %v", n.MAC)
	}
	q, ok := tb.Solicit(w, r, 2, a("10.0.0.44"), a("10.0.0.1"))
	if !ok || q.Sender != a("10.0.0.1") || q.Target != a("10.0.0.44") {
		t.Errorf("solicit: got %+v", q)
	}
	if n := arp(ARPReply, packet.Host, 4, "10.0.0.44", "10.0.0.1"); n.State != Reachable {
		t.Errorf("the answer to a question: got %v", n)
	}
	if got, ok := ParseARP(q.Bytes()); !ok || got != q {
		t.Errorf("ParseARP(Bytes): got %+v, want %+v", got, q)
	}
}

// TestSolicitAnnounce tries arp_announce.
func TestSolicitAnnounce(t *testing.T) {
	r := &router{local: map[string]bool{"10.0.0.1": true, "10.99.0.1": true}}
	for _, c := range []struct{ announce, src, want string }{
		{"0", "10.99.0.1", "10.99.0.1"}, {"1", "10.99.0.1", "10.0.0.1"}, {"2", "10.99.0.1",
			"10.0.0.1"},
		{"0", "8.8.8.8", "10.0.0.1"}, {"1", "10.0.0.1", "10.0.0.1"},
	} {
		tb := table(t, Config{Addrs: []Addr{addr(2, "10.0.0.1", 24), addr(1, "10.99.0.1", 32)},
			Sysctl: Sysctl{"net.ipv4.conf.all.arp_announce": c.announce}})
		got, _ := tb.Solicit(newWorld(tb), r, 2, a("10.0.0.9"), a(c.src))
		if got.Sender.String() != c.want {
			t.Errorf("arp_announce=%s from %s: got %v, want %s", c.announce, c.src, got.Sender,
				c.want)
		}
	}
}

// FuzzARP holds that no ARP packet makes it panic.
func FuzzARP(f *testing.F) {
	f.Add([]byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 9, 0, 0, 0, 0, 0, 0, 10, 0,
		0, 1})
	tb := table(f, Config{Addrs: []Addr{addr(2, "10.0.0.1", 24)}})
	r := &router{local: map[string]bool{"10.0.0.1": true}}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := ParseARP(b)
		if !ok {
			return
		}
		tb.ARP(newWorld(tb), r, 2, packet.Broadcast, p)
		if got, ok := ParseARP(p.Bytes()); !ok || got != p {
			t.Fatalf("got %+v, want %+v", got, p)
		}
	})
}
