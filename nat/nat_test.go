package nat_test

import (
	"math/rand/v2"
	"testing"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/nat"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// small is a host with one connection on its way.
type small struct {
	t  *conntrack.Tracker
	n  *nat.NAT
	w  world.World
	tr *trace.Trace
}

func newSmall(tb testing.TB) *small {
	tb.Helper()
	var s world.Schema
	h := &small{tr: &trace.Trace{}}
	h.t = conntrack.New(&s, conntrack.Config{})
	links, err := link.New(link.Config{
		Links: []link.Link{{Index: 1, Name: "lo", MTU: 65536}, {Index: 2, Name: "eth0", MTU: 1500},
			{Index: 3, Name: "eth1", MTU: 1500}},
		Addrs: []link.Addr{{Dev: 2, Local: packet.MustParseAddr("10.0.0.1"), PrefixLen: 24},
			{Dev: 3, Local: packet.MustParseAddr("10.1.0.1"), PrefixLen: 24}}})
	if err != nil {
		tb.Fatal(err)
	}
	h.n = nat.New(h.t, links)
	h.w = world.World{State: s.NewState(), Dice: &world.Dice{}, HZ: 250}
	return h
}

// udp builds a datagram with a checksum.
func udp(tb testing.TB, src string, sport uint16, dst string, dport uint16) *packet.Packet {
	tb.Helper()
	a, b := packet.MustParseAddr(src), packet.MustParseAddr(dst)
	l4 := []byte{byte(sport >> 8), byte(sport), byte(dport >> 8), byte(dport), 0, 10, 0, 0, 'h', 'i'}
	sum(a, b, packet.UDP, l4, 6)
	p, ok := packet.FromIP(header(a, b, packet.UDP, l4))
	if !ok {
		tb.Fatal("no packet")
	}
	return p
}

// forward takes a packet through PREROUTING and POSTROUTING.
func (h *small) forward(p *packet.Packet, dst, src func() trace.Verdict) trace.Verdict {
	p.In, p.Out = 2, 0
	if h.t.In(&h.w, h.tr, p, trace.Prerouting) != trace.Accept ||
		h.n.Hook(&h.w, h.tr, p, trace.Prerouting, dst) != trace.Accept {
		return trace.DropIt
	}
	p.Out = 3
	if h.n.Hook(&h.w, h.tr, p, trace.Postrouting, src) != trace.Accept {
		return trace.DropIt
	}
	return h.t.Confirm(&h.w, h.tr, p)
}

// sound tells whether both checksums are right.
func sound(p *packet.Packet) bool {
	l4 := p.L4()
	s := packet.PseudoSum(p.Src(), p.Dst(), p.Protocol(), len(l4))
	return packet.Fold(packet.Sum16(l4, s)) == 0 && packet.Fold(packet.Sum16(p.IP()[:20], 0)) == 0
}

func masquerade(h *small, p *packet.Packet, r nat.Range) func() trace.Verdict {
	return func() trace.Verdict { return h.n.Masquerade(&h.w, h.tr, p, p.Dst(), r) }
}

// TestRandomPort: a port that is drawn is what the kernel is known to have drawn, what
// the dice roll, or else nobody's to know.
func TestRandomPort(t *testing.T) {
	random := nat.Range{Flags: nat.ProtoRandomFully}
	few := nat.Range{Flags: nat.ProtoRandom | nat.ProtoSpecified, MinPort: 70, MaxPort: 79}
	for _, c := range []struct {
		name     string
		dice     *world.Dice
		r        nat.Range
		lo, hi   uint16 // of the port that the packet leaves with
		free     packet.Free
		min, max uint16 // what is open
	}{
		{"known", &world.Dice{Drawn: []uint16{4321}}, random, 4321, 4321, 0, 0, 0},
		{"rolled", &world.Dice{Rand: rand.New(rand.NewPCG(1, 2))}, random, 1024, 65535, 0, 0, 0},
		{"rolled from few", &world.Dice{Rand: rand.New(rand.NewPCG(1, 2))}, few, 70, 79, 0, 0, 0},
		{"open", &world.Dice{}, random, 5555, 5555, packet.FreeSrcPort, 1024, 65535},
		{"open among few", &world.Dice{}, few, 5555, 5555, packet.FreeSrcPort, 70, 79},
		{"only one", &world.Dice{}, nat.Range{Flags: nat.ProtoRandom | nat.ProtoSpecified,
			MinPort: 70, MaxPort: 70}, 70, 70, 0, 0, 0},
	} {
		h := newSmall(t)
		h.w.Dice = c.dice
		p := udp(t, "10.0.0.9", 5555, "10.1.0.9", 53)
		if v := h.forward(p, nil, masquerade(h, p, c.r)); v != trace.Accept {
			t.Errorf("%s: got %v", c.name, v)
			continue
		}
		sport, _, _ := p.Ports()
		if sport < c.lo || sport > c.hi || p.Free != c.free || !sound(p) {
			t.Errorf("%s: got port %d free %v sound %v, want %d-%d %v", c.name, sport, p.Free, sound(p),
				c.lo, c.hi, c.free)
		}
		open, ok := h.t.FreePorts(&h.w, p, packet.FreeSrcPort)
		if ok != (c.free != 0) || open.Min != c.min || open.Max != c.max {
			t.Errorf("%s: open: got %v %v, want %d-%d", c.name, open, ok, c.min, c.max)
		}
		back := udp(t, "10.1.0.9", 53, "10.1.0.1", sport)
		if v := h.forward(back, nil, nil); v != trace.Accept ||
			back.Dst() != packet.MustParseAddr("10.0.0.9") {
			t.Errorf("%s: the answer: %v, to %v", c.name, v, back.Dst())
		}
		if _, d, _ := back.Ports(); d != 5555 || !sound(back) {
			t.Errorf("%s: the answer goes to port %d, want 5555", c.name, d)
		}
	}
}

// TestRollsDoNotMeet: connections that differ in nothing but their source get ports of
// their own.
func TestRollsDoNotMeet(t *testing.T) {
	h := newSmall(t)
	h.w.Dice = &world.Dice{Rand: rand.New(rand.NewPCG(3, 4))}
	seen := map[uint16]bool{}
	for i := range 40 {
		p := udp(t, packet.V4(0x0a000010+uint32(i)).String(), 5555, "10.1.0.9", 53)
		r := nat.Range{Flags: nat.ProtoSpecified, MinPort: 100, MaxPort: 139}
		if v := h.forward(p, nil, masquerade(h, p, r)); v != trace.Accept {
			t.Fatalf("connection %d: %v", i, v)
		}
		sport, _, _ := p.Ports()
		if seen[sport] || sport < 100 || sport > 139 {
			t.Errorf("connection %d: got port %d again, or out of the range", i, sport)
		}
		seen[sport] = true
	}
	p := udp(t, "10.0.0.200", 5555, "10.1.0.9", 53)
	r := nat.Range{Flags: nat.ProtoSpecified, MinPort: 100, MaxPort: 139}
	if v := h.forward(p, nil, masquerade(h, p, r)); v != trace.DropIt {
		t.Errorf("no port is left: got %v want DROP", v)
	}
}

// TestKeepsSource: one source keeps its mapping towards other destinations.
func TestKeepsSource(t *testing.T) {
	h := newSmall(t)
	h.w.Dice.Drawn = []uint16{7777}
	a := udp(t, "10.0.0.9", 5555, "10.1.0.9", 53)
	h.forward(a, nil, masquerade(h, a, nat.Range{Flags: nat.ProtoRandomFully}))
	b := udp(t, "10.0.0.9", 5555, "10.1.0.10", 53)
	h.forward(b, nil, masquerade(h, b, nat.Range{}))
	if sport, _, _ := b.Ports(); sport != 7777 {
		t.Errorf("got port %d want 7777", sport)
	}
}

// TestMoved: a masqueraded connection does not survive another way out.
func TestMoved(t *testing.T) {
	h := newSmall(t)
	a := udp(t, "10.0.0.9", 5555, "10.1.0.9", 53)
	h.forward(a, nil, masquerade(h, a, nat.Range{}))
	b := udp(t, "10.0.0.9", 5555, "10.1.0.9", 53)
	h.t.In(&h.w, nil, b, trace.Prerouting)
	b.Out = 2
	if v := h.n.Hook(&h.w, nil, b, trace.Postrouting, nil); v != trace.DropIt {
		t.Errorf("got %v want DROP", v)
	}
	if n := h.t.Count(&h.w); n != 0 {
		t.Errorf("got %d connections want none", n)
	}
}

// TestTells: a translation is an event, with the source address that was chosen.
func TestTells(t *testing.T) {
	h := newSmall(t)
	p := udp(t, "10.0.0.9", 5555, "10.0.0.1", 53)
	dnat := func() trace.Verdict {
		r := nat.Range{MinPort: 5353, MaxPort: 5353, Flags: nat.ProtoSpecified}
		return h.n.Setup(&h.w, p.CT.Flow, r.At(packet.MustParseAddr("10.1.0.9")), nat.Dst)
	}
	h.forward(p, dnat, masquerade(h, p, nat.Range{}))
	var got []*trace.NAT
	for _, e := range h.tr.Events {
		if n, ok := e.(*trace.NAT); ok {
			got = append(got, n)
		}
	}
	if len(got) != 2 || !got[0].Dst || got[1].Dst {
		t.Fatalf("got %d events", len(got))
	}
	end := func(a string, port uint16) trace.Endpoint {
		return trace.Endpoint{Addr: packet.MustParseAddr(a), Port: port}
	}
	if got[0].From != end("10.0.0.1", 53) || got[0].To != end("10.1.0.9", 5353) ||
		got[1].From != end("10.0.0.9", 5555) || got[1].To != end("10.1.0.1", 5555) {
		t.Errorf("got %+v, %+v", got[0], got[1])
	}
	if got[1].Source == nil || got[1].Source.Addr != packet.MustParseAddr("10.1.0.1") ||
		got[0].Source != nil {
		t.Errorf("source: got %+v, %+v", got[0].Source, got[1].Source)
	}
	if s := got[1].Base().Packet; s == nil || s.Src != packet.MustParseAddr("10.1.0.1") {
		t.Errorf("snapshot: got %+v", s)
	}
}

// TestTargets: the targets that find their address themselves.
func TestTargets(t *testing.T) {
	net := nat.Range{MinAddr: packet.MustParseAddr("192.0.2.64"),
		MaxAddr: packet.MustParseAddr("192.0.2.127"), Flags: nat.MapIPs}
	for _, c := range []struct {
		name string
		hook trace.Hook
		rule func(h *small, p *packet.Packet) trace.Verdict
		want string // the new destination, or source in POSTROUTING
	}{
		{"redirect on the way in", trace.Prerouting, func(h *small, p *packet.Packet) trace.Verdict {
			return h.n.Redirect(&h.w, p, trace.Prerouting, nat.Range{})
		}, "10.0.0.1"},
		{"redirect of own packets", trace.Output, func(h *small, p *packet.Packet) trace.Verdict {
			return h.n.Redirect(&h.w, p, trace.Output, nat.Range{})
		}, "127.0.0.1"},
		{"netmap of the destination", trace.Prerouting, func(h *small, p *packet.Packet) trace.Verdict {
			return h.n.Netmap(&h.w, p, trace.Prerouting, net)
		}, "192.0.2.73"},
		{"netmap of the source", trace.Postrouting, func(h *small, p *packet.Packet) trace.Verdict {
			return h.n.Netmap(&h.w, p, trace.Postrouting, net)
		}, "192.0.2.72"},
	} {
		h := newSmall(t)
		p := udp(t, "10.0.0.8", 5555, "10.1.0.9", 53)
		p.In = 2
		h.t.In(&h.w, nil, p, trace.Output)
		v := h.n.Hook(&h.w, nil, p, c.hook, func() trace.Verdict { return c.rule(h, p) })
		got := p.Dst()
		if c.hook == trace.Postrouting {
			got = p.Src()
		}
		if v != trace.Accept || got != packet.MustParseAddr(c.want) || !sound(p) {
			t.Errorf("%s: got %v %v want %s", c.name, v, got, c.want)
		}
		if r := h.n.Reroutes(&h.w, p); r != (c.hook != trace.Postrouting) {
			t.Errorf("%s: reroutes: got %v", c.name, r)
		}
	}
}

// TestNoAllocations guards the way of a translated connection's later packets.
func TestNoAllocations(t *testing.T) {
	h := newSmall(t)
	p := udp(t, "10.0.0.9", 5555, "10.1.0.9", 53)
	h.tr = nil
	h.forward(p, nil, masquerade(h, p, nat.Range{}))
	q := udp(t, "10.0.0.9", 5555, "10.1.0.9", 53)
	fresh := append([]byte(nil), q.IP()...)
	if n := testing.AllocsPerRun(100, func() {
		copy(q.IP(), fresh)
		q.CT = packet.CT{}
		h.forward(q, nil, nil)
	}); n != 0 {
		t.Errorf("got %v allocations a packet, want none", n)
	}
	if q.Src() != packet.MustParseAddr("10.1.0.1") {
		t.Errorf("not translated: %v", q.Src())
	}
}

// FuzzHook throws bytes at translation.
func FuzzHook(f *testing.F) {
	f.Add([]byte{}, uint8(0))
	f.Fuzz(func(t *testing.T, l4 []byte, proto uint8) {
		h := newSmall(t)
		a, b := packet.MustParseAddr("10.0.0.9"), packet.MustParseAddr("10.1.0.9")
		p, _ := packet.FromIP(header(a, b, proto, l4))
		h.forward(p, nil, masquerade(h, p, nat.Range{}))
		quoted := append(make([]byte, 8), p.IP()...)
		quoted[0] = 3
		sum(b, p.Src(), packet.ICMP, quoted, 2)
		q, _ := packet.FromIP(header(b, p.Src(), packet.ICMP, quoted))
		h.forward(q, nil, nil)
	})
}
