package conntrack

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// TestTableHolds: whatever happens, each connection of the table is found by both its
// tuples, nothing else is found, and the counts fit.
func TestTableHolds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var s world.Schema
		tr := New(&s, Config{Sysctl: settings{"net.netfilter.nf_conntrack_max": 6}})
		w := &world.World{State: s.NewState(), HZ: 250, Now: world.Second}
		zones := []uint32{0, tr.Template(Template{Zone: Zone{1, ZoneBoth}}),
			tr.Template(Template{Zone: Zone{1, ZoneOrig}}), tr.Template(Template{Zone: Zone{1, ZoneReply}})}
		ends := []string{"10.0.0.1 10.0.0.2 1 2", "10.0.0.2 10.0.0.1 2 1", "10.0.0.1 10.0.0.2 3 2",
			"10.0.0.3 10.0.0.2 1 2"}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0:
				w.Now += world.Instant(rapid.IntRange(0, 40).Draw(rt, "seconds")) * world.Second
			case 1:
				w.State = w.State.Fork()
			case 2:
				tr.Kill(w, packet.FlowID(rapid.IntRange(0, 20).Draw(rt, "id")))
			default:
				p := udp(t, rapid.SampledFrom(ends).Draw(rt, "ends"))
				if z := rapid.SampledFrom(zones).Draw(rt, "zone"); z != 0 {
					tr.Attach(p, z)
				}
				v := tr.In(w, nil, p, trace.Output)
				if v == trace.Accept && rapid.Bool().Draw(rt, "leaves") {
					if f := tr.Get(w, p.CT.Flow); !f.Is(Confirmed) {
						tr.AddSource(w, p.CT.Flow)
					}
					tr.Confirm(w, nil, p)
				}
				tr.Release(w, p)
			}
			check(rt, tr, w)
		}
	})
}

// check looks whether table, lists and counts agree.
func check(rt *rapid.T, tr *Tracker, w *world.World) {
	rt.Helper()
	flows, n, inSources := tr.flows.In(w.State), 0, 0
	for i := 1; i < flows.Len(); i++ {
		id := packet.FlowID(i)
		f := tr.Ref(w, id)
		if f.Is(Dying) || !f.Is(Confirmed) {
			if f.bySource {
				rt.Fatalf("connection %d is gone and still listed by its source", id)
			}
			continue
		}
		n++
		for _, d := range []Dir{Original, Reply} {
			r, _ := tr.tuples.In(w.State).Get(key{f.Tuples[d], f.Zone.In(d)})
			if r.id[d] != id && !(d == Original && f.Is(NATClash)) {
				rt.Fatalf("connection %d is not found in direction %d: %+v", id, d, r)
			}
		}
		for s := tr.SameSource(w, f.source()); s != 0; s = tr.NextSource(w, s) {
			if s == id {
				inSources++
			}
		}
	}
	if got := tr.Count(w); got != n {
		rt.Fatalf("got a count of %d, want %d", got, n)
	}
	total := 0
	for _, head := range tr.sources.In(w.State).All {
		for s := head; s != 0; s = tr.NextSource(w, s) {
			total++
		}
	}
	if total != inSources {
		rt.Fatalf("%d connections are listed by source, %d of them are there", total, inSources)
	}
}

func TestInvert(t *testing.T) {
	a, b := packet.MustParseAddr("10.0.0.1"), packet.MustParseAddr("10.0.0.2")
	for _, c := range []struct {
		in, want Tuple
		ok       bool
	}{
		{Tuple{a, b, 1, 2, packet.TCP}, Tuple{b, a, 2, 1, packet.TCP}, true},
		{Tuple{a, b, 7, 8 << 8, packet.ICMP}, Tuple{b, a, 7, 0, packet.ICMP}, true},
		{Tuple{a, b, 7, 0, packet.ICMP}, Tuple{b, a, 7, 8 << 8, packet.ICMP}, true},
		{Tuple{a, b, 7, 13<<8 | 1, packet.ICMP}, Tuple{b, a, 7, 14<<8 | 1, packet.ICMP}, true},
		{Tuple{a, b, 7, 18 << 8, packet.ICMP}, Tuple{b, a, 7, 17 << 8, packet.ICMP}, true},
		{Tuple{a, b, 7, 3 << 8, packet.ICMP}, Tuple{}, false},
		{Tuple{a, b, 7, 128 << 8, packet.ICMPv6}, Tuple{b, a, 7, 129 << 8, packet.ICMPv6}, true},
		{Tuple{a, b, 7, 135 << 8, packet.ICMPv6}, Tuple{}, false},
		{Tuple{a, b, 0, 0, 99}, Tuple{b, a, 0, 0, 99}, true},
	} {
		got, ok := c.in.Invert()
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%+v: got %+v %v want %+v %v", c.in, got, ok, c.want, c.ok)
		}
	}
}

func TestFields(t *testing.T) {
	h := newHost(t, Config{})
	p := udp(t, there)
	h.pass(t, p)
	f := h.t.Get(h.w, p.CT.Flow)
	f.Mark, f.Labels[0], f.Labels[15], f.Zone.ID, f.Helper = 9, 1, 0x80, 0, TFTP
	for _, c := range []struct {
		id   field.ID
		want field.Value
	}{
		{field.CtState, field.U(field.CtNew)},
		{field.CtMark, field.U(9)},
		{field.CtLabel, field.Value{Hi: 1 << 63, Lo: 1}},
		{field.CtZone, field.U(0)},
		{field.CtDir, field.U(0)},
		{field.CtProto, field.U(17)},
		{field.CtOrigSrc, field.AddrValue(packet.MustParseAddr("10.0.0.1"))},
		{field.CtOrigDst, field.AddrValue(packet.MustParseAddr("10.0.0.2"))},
		{field.CtReplSrc, field.AddrValue(packet.MustParseAddr("10.0.0.2"))},
		{field.CtReplDst, field.AddrValue(packet.MustParseAddr("10.0.0.1"))},
		{field.CtOrigSPort, field.U(1000)}, {field.CtOrigDPort, field.U(80)},
		{field.CtReplSPort, field.U(80)}, {field.CtReplDPort, field.U(1000)},
		{field.CtExpire, field.U(30)},
		{field.CtStatus, field.U(uint64(Confirmed))},
		{field.CtHelper, field.U(uint64(TFTP))},
	} {
		if got, st := h.t.Field(h.w, p, c.id); got != c.want || st != field.Known {
			t.Errorf("%v: got %v %v want %v", c.id, got, st, c.want)
		}
	}
	f.Free = packet.FreeSrcPort
	if _, st := h.t.Field(h.w, p, field.CtReplDPort); st != field.Unknown {
		t.Errorf("a port that was drawn: got %v want unknown", st)
	}
	if _, st := h.t.Field(h.w, p, field.Src); st != field.Absent {
		t.Errorf("a field of somebody else: got %v", st)
	}
}
