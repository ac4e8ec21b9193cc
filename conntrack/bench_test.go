package conntrack

import (
	"testing"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// bench is a tracker with n UDP flows in its table, and a packet of the first.
func bench(tb testing.TB, n int) (*Tracker, *world.World, *packet.Packet) {
	tb.Helper()
	var s world.Schema
	t := New(&s, Config{Sysctl: settings{"net.netfilter.nf_conntrack_max": n + 1}})
	w := &world.World{State: s.NewState(), HZ: 250}
	p := udpPacket(tb, 0)
	for i := range n {
		q := udpPacket(tb, uint32(i))
		if t.In(w, nil, q, trace.Prerouting) != trace.Accept ||
			t.Confirm(w, nil, q) != trace.Accept {
			tb.Fatal("flow refused")
		}
	}
	return t, w, p
}

// settings is a Sysctl for tests.
type settings map[string]int

// Int implements Sysctl.
func (s settings) Int(name string, def int) int {
	if n, ok := s[name]; ok {
		return n
	}
	return def
}

func udpPacket(tb testing.TB, n uint32) *packet.Packet {
	tb.Helper()
	b := make([]byte, 28)
	b[0], b[3], b[8], b[9], b[25] = 0x45, 28, 64, packet.UDP, 8
	b[12], b[13], b[14], b[15] = 10, byte(n>>24), byte(n>>16), 1
	b[16], b[19] = 10, 2
	b[20], b[21], b[23] = byte(n>>8), byte(n), 53
	p, ok := packet.FromIP(b)
	if !ok {
		tb.Fatal("no packet")
	}
	return p
}

func BenchmarkKnownFlow(b *testing.B) {
	t, w, p := bench(b, 1000)
	b.ReportAllocs()
	for b.Loop() {
		p.CT = packet.CT{}
		t.In(w, nil, p, trace.Prerouting)
		t.Confirm(w, nil, p)
	}
}

func BenchmarkMillionFlows(b *testing.B) {
	t, w, _ := bench(b, 1_000_000)
	ps := make([]*packet.Packet, 1024)
	for i := range ps {
		ps[i] = udpPacket(b, uint32(i)*971)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		p := ps[i&1023]
		i++
		p.CT = packet.CT{}
		t.In(w, nil, p, trace.Prerouting)
	}
}

// TestKnownFlowAllocates guards the way of all packets but the first.
func TestKnownFlowAllocates(t *testing.T) {
	tr, w, p := bench(t, 10)
	n := testing.AllocsPerRun(100, func() {
		p.CT = packet.CT{}
		tr.In(w, nil, p, trace.Prerouting)
		tr.Confirm(w, nil, p)
	})
	if n != 0 {
		t.Errorf("got %v allocations a packet, want none", n)
	}
}
