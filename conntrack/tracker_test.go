package conntrack

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// host is a tracker with its memory.
type host struct {
	t *Tracker
	w *world.World
}

func newHost(tb testing.TB, c Config) *host {
	tb.Helper()
	var s world.Schema
	t := New(&s, c)
	return &host{t, &world.World{State: s.NewState(), HZ: 250, Now: 1000 * world.Second,
		Dice: &world.Dice{}}}
}

// ip builds an IPv4 packet from "src dst" and a transport header.
func ip(tb testing.TB, ends string, proto uint8, l4 ...byte) *packet.Packet {
	tb.Helper()
	f := strings.Fields(ends)
	b := make([]byte, 20, 20+len(l4))
	b[0], b[8], b[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(l4)))
	src, dst := packet.MustParseAddr(f[0]), packet.MustParseAddr(f[1])
	copy(b[12:], src.Bytes())
	copy(b[16:], dst.Bytes())
	packet.FixIP4(b)
	p, ok := packet.FromIP(append(b, l4...))
	if !ok {
		tb.Fatal("no packet")
	}
	return p
}

// tcp builds a segment without checksum: "S", "SA", "A", "FA", "R" and the like.
func tcp(tb testing.TB, ends, flags string, seq, ack uint32) *packet.Packet {
	tb.Helper()
	f := strings.Fields(ends)
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h, port(f[2]))
	binary.BigEndian.PutUint16(h[2:], port(f[3]))
	binary.BigEndian.PutUint32(h[4:], seq)
	binary.BigEndian.PutUint32(h[8:], ack)
	h[12], h[14] = 0x50, 0x20
	for _, c := range flags {
		h[13] |= map[rune]byte{'F': 1, 'S': 2, 'R': 4, 'P': 8, 'A': 16, 'U': 32}[c]
	}
	return ip(tb, ends, packet.TCP, h...)
}

func port(s string) uint16 {
	n := 0
	for _, c := range s {
		n = n*10 + int(c-'0')
	}
	return uint16(n)
}

// udp builds a datagram without checksum.
func udp(tb testing.TB, ends string) *packet.Packet {
	tb.Helper()
	f := strings.Fields(ends)
	h := make([]byte, 8)
	binary.BigEndian.PutUint16(h, port(f[2]))
	binary.BigEndian.PutUint16(h[2:], port(f[3]))
	h[5] = 8
	return ip(tb, ends, packet.UDP, h...)
}

// pass takes a packet in and out again, and returns the state it had.
func (h *host) pass(tb testing.TB, p *packet.Packet) trace.CTState {
	tb.Helper()
	if h.t.In(h.w, nil, p, trace.Output) != trace.Accept {
		tb.Fatal("dropped by In")
	}
	st := h.t.State(h.w, p)
	if h.t.Confirm(h.w, nil, p) != trace.Accept {
		tb.Fatal("dropped by Confirm")
	}
	return st
}

const (
	there = "10.0.0.1 10.0.0.2 1000 80"
	back  = "10.0.0.2 10.0.0.1 80 1000"
)

// TestTCPStates walks connections through the states, by segments and what is to be
// seen behind each.
func TestTCPStates(t *testing.T) {
	type seg struct {
		ends, flags string
		seq, ack    uint32
		want        trace.CTState
		state       string // of the connection
	}
	open := []seg{
		{there, "S", 100, 0, trace.StateNew, "SYN_SENT"},
		{back, "SA", 500, 101, trace.StateEstablished, "SYN_RECV"},
		{there, "A", 101, 501, trace.StateEstablished, "ESTABLISHED"},
	}
	for _, c := range []struct {
		name string
		segs []seg
	}{
		{"close", append(open[:3:3],
			seg{there, "FA", 101, 501, trace.StateEstablished, "FIN_WAIT"},
			seg{back, "A", 501, 102, trace.StateEstablished, "CLOSE_WAIT"},
			seg{back, "FA", 501, 102, trace.StateEstablished, "LAST_ACK"},
			seg{there, "A", 102, 502, trace.StateEstablished, "TIME_WAIT"},
			seg{there, "S", 9000, 0, trace.StateNew, "SYN_SENT"})},
		{"reset", append(open[:3:3], seg{back, "R", 501, 0, trace.StateEstablished, "CLOSE"})},
		{"reset that does not fit", append(open[:3:3],
			seg{back, "R", 400, 0, trace.StateInvalid, "ESTABLISHED"})},
		{"beyond the window", append(open[:3:3],
			seg{there, "A", 101 + 100000, 501, trace.StateInvalid, "ESTABLISHED"})},
		{"ack of what was not sent", append(open[:3:3],
			seg{there, "A", 101, 90000, trace.StateInvalid, "ESTABLISHED"})},
		{"refused", []seg{open[0], {back, "RA", 0, 101, trace.StateEstablished, ""}}},
		{"both open", []seg{open[0], {back, "S", 500, 0, trace.StateEstablished, "SYN_SENT2"},
			{there, "SA", 100, 501, trace.StateEstablished, "SYN_RECV"},
			{back, "A", 501, 101, trace.StateEstablished, "ESTABLISHED"}}},
		{"picked up", []seg{{there, "A", 7, 9, trace.StateNew, "ESTABLISHED"}}},
		{"bad flags", []seg{{there, "SF", 7, 9, trace.StateInvalid, ""}}},
		{"fin first", []seg{{there, "FA", 7, 9, trace.StateInvalid, ""}}},
	} {
		h := newHost(t, Config{})
		for i, s := range c.segs {
			got := h.pass(t, tcp(t, s.ends, s.flags, s.seq, s.ack))
			state := ""
			for f := range h.t.All(h.w) {
				state = f.stateName()
			}
			if got != s.want || state != s.state {
				t.Errorf("%s, segment %d: got %v %q, want %v %q", c.name, i+1, got, state, s.want,
					s.state)
			}
		}
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		name string
		sys  settings
		p    *packet.Packet
		hook trace.Hook
		want trace.CTState
	}{
		{"not loose", settings{"net.netfilter.nf_conntrack_tcp_loose": 0},
			tcp(t, there, "A", 1, 1), trace.Output, trace.StateInvalid},
		{"loose", nil, tcp(t, there, "A", 1, 1), trace.Output, trace.StateNew},
		{"bad checksum", nil, tcp(t, there, "S", 1, 1), trace.Prerouting, trace.StateInvalid},
		{"checksum off", settings{"net.netfilter.nf_conntrack_checksum": 0},
			tcp(t, there, "S", 1, 1), trace.Prerouting, trace.StateNew},
		{"checksums are not looked at on the way out", nil, tcp(t, there, "S", 1, 1),
			trace.Output, trace.StateNew},
		{"udp without checksum", nil, udp(t, there), trace.Prerouting, trace.StateNew},
		{"unknown icmp", nil, ip(t, "1.0.0.1 1.0.0.2", packet.ICMP, 3, 1, 0, 0, 0, 0, 0, 0),
			trace.Output, trace.StateInvalid},
		{"any protocol", nil, ip(t, "1.0.0.1 1.0.0.2", 99), trace.Output, trace.StateNew},
		{"cut header", nil, ip(t, "1.0.0.1 1.0.0.2", packet.UDP, 0, 1), trace.Output,
			trace.StateInvalid},
	} {
		h := newHost(t, Config{Sysctl: c.sys})
		if v := h.t.In(h.w, nil, c.p, c.hook); v != trace.Accept {
			t.Errorf("%s: got %v", c.name, v)
		}
		if got := h.t.State(h.w, c.p); got != c.want {
			t.Errorf("%s: got %v want %v", c.name, got, c.want)
		}
	}
}

func TestUDPStream(t *testing.T) {
	h := newHost(t, Config{})
	see := func(want string) {
		t.Helper()
		lines := h.t.Dump(h.w, Format{Expiry: true})
		got := strings.Join(lines, "\n")
		if !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("got %q want %q in it", got, want)
		}
	}
	h.pass(t, udp(t, there))
	see("udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=1000 dport=80 [UNREPLIED] src=10.0.0.2")
	h.pass(t, udp(t, back))
	h.pass(t, udp(t, there))
	see("udp      17 30 ")
	h.w.Now += 2*world.Second + 1
	h.pass(t, udp(t, there))
	see("[ASSURED]")
	see("udp      17 120 ")
	h.w.Now += 120 * world.Second
	see("")
	if got := h.pass(t, udp(t, back)); got != trace.StateNew {
		t.Errorf("after the timeout: got %v want NEW", got)
	}
}

func TestRelated(t *testing.T) {
	h := newHost(t, Config{})
	first := udp(t, there)
	h.pass(t, first)
	e := append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, first.IP()...)
	for _, c := range []struct {
		ends string
		want trace.CTState
	}{
		{"10.0.9.9 10.0.0.1", trace.StateRelated},
		{"10.0.9.9 10.0.0.7", trace.StateInvalid}, // not where the quoted packet came from
	} {
		p := ip(t, c.ends, packet.ICMP, e...)
		if got := h.pass(t, p); got != c.want {
			t.Errorf("%s: got %v want %v", c.ends, got, c.want)
		}
	}
	answer := ip(t, "10.0.0.2 10.0.0.1", packet.ICMP, e...)
	h.t.Answer(h.w, answer, first)
	if answer.CT.Info != packet.RelatedReply || h.t.State(h.w, answer) != trace.StateRelated {
		t.Errorf("answer: got %+v", answer.CT)
	}
}

func TestZones(t *testing.T) {
	h := newHost(t, Config{})
	in := h.t.Template(Template{Zone: Zone{ID: 5}})
	orig := h.t.Template(Template{Zone: Zone{ID: 6, Dir: ZoneOrig}})
	mark := h.t.Template(Template{ZoneMark: true})
	for _, c := range []struct {
		name string
		tmpl uint32
		mark uint32
		ends string
		want trace.CTState
	}{
		{"zone 5", in, 0, there, trace.StateNew},
		{"its answer, no zone", 0, 0, back, trace.StateNew},
		{"its answer", in, 0, back, trace.StateEstablished},
		{"zone 6 there", orig, 0, "10.0.0.8 10.0.0.2 1 2", trace.StateNew},
		{"its answer comes without", 0, 0, "10.0.0.2 10.0.0.8 2 1", trace.StateEstablished},
		{"the same in the zone of the mark", mark, 6, "10.0.0.8 10.0.0.2 1 2", trace.StateEstablished},
	} {
		p := udp(t, c.ends)
		p.Mark = c.mark
		if c.tmpl != 0 {
			h.t.Attach(p, c.tmpl)
			if got := h.t.State(h.w, p); got != trace.StateNew {
				t.Errorf("%s: before tracking: got %v", c.name, got)
			}
		}
		if id, _ := h.t.Hit(h.w, p); (id != 0) != (c.want == trace.StateEstablished) {
			t.Errorf("%s: would hit %d", c.name, id)
		}
		if got := h.pass(t, p); got != c.want {
			t.Errorf("%s: got %v want %v", c.name, got, c.want)
		}
	}
}

func TestNotrack(t *testing.T) {
	h := newHost(t, Config{})
	p := udp(t, there)
	h.t.Attach(p, 0)
	if got := h.pass(t, p); got != trace.StateUntracked || h.t.Count(h.w) != 0 {
		t.Errorf("got %v, %d connections", got, h.t.Count(h.w))
	}
	v, st := h.t.Field(h.w, p, field.CtState)
	if v.Lo != field.CtUntracked || st != field.Known {
		t.Errorf("state field: got %v %v", v, st)
	}
	if _, st := h.t.Field(h.w, p, field.CtMark); st != field.Absent {
		t.Errorf("mark field: got %v want absent", st)
	}
}

// TestVanish: a connection that never left is forgotten with its packet, or with the
// last copy of it.
func TestVanish(t *testing.T) {
	h := newHost(t, Config{})
	p := udp(t, there)
	h.t.In(h.w, nil, p, trace.Output)
	h.t.Hold(h.w, p)
	h.t.Release(h.w, p)
	if h.t.Count(h.w) != 1 {
		t.Errorf("gone while a copy is on its way")
	}
	h.t.Release(h.w, p)
	h.t.Release(h.w, p)
	if h.t.Count(h.w) != 0 {
		t.Errorf("got %d connections, want none", h.t.Count(h.w))
	}
	h.pass(t, udp(t, there))
	h.t.Release(h.w, udp(t, there))
	if h.t.Count(h.w) != 1 {
		t.Errorf("a confirmed connection was forgotten")
	}
}

// TestClash: two first packets of one connection meet when the second is confirmed.
func TestClash(t *testing.T) {
	for _, c := range []struct {
		name  string
		done  Status // of the one that was faster
		reply uint16 // port that NAT gave the slower one, 0 for none
		proto func(testing.TB) *packet.Packet
		want  trace.Verdict
		flows int
	}{
		{"udp", 0, 0, func(tb testing.TB) *packet.Packet { return udp(tb, there) }, trace.Accept, 1},
		{"udp with NAT, the same", NATDoneMask, 0,
			func(tb testing.TB) *packet.Packet { return udp(tb, there) }, trace.Accept, 1},
		{"udp with NAT, another port", NATDoneMask, 4000,
			func(tb testing.TB) *packet.Packet { return udp(tb, there) }, trace.Accept, 2},
		{"tcp", 0, 0, func(tb testing.TB) *packet.Packet { return tcp(tb, there, "S", 1, 0) },
			trace.DropIt, 1},
	} {
		h := newHost(t, Config{})
		p, q := c.proto(t), c.proto(t)
		h.t.In(h.w, nil, p, trace.Output)
		h.t.In(h.w, nil, q, trace.Output)
		h.t.Confirm(h.w, nil, p)
		h.t.Get(h.w, p.CT.Flow).Status |= c.done
		if c.reply != 0 {
			r := h.t.Get(h.w, q.CT.Flow).Tuples[Reply]
			r.DPort = c.reply
			h.t.AlterReply(h.w, q.CT.Flow, r)
		}
		if got := h.t.Confirm(h.w, nil, q); got != c.want {
			t.Errorf("%s: got %v want %v", c.name, got, c.want)
		}
		h.t.Release(h.w, q)
		if h.t.Count(h.w) != c.flows {
			t.Errorf("%s: got %d connections want %d", c.name, h.t.Count(h.w), c.flows)
		}
		if n := len(h.t.Dump(h.w, Format{})); n != 1 {
			t.Errorf("%s: got %d listed, want 1", c.name, n)
		}
	}
}

func TestFullTable(t *testing.T) {
	h := newHost(t, Config{Sysctl: settings{"net.netfilter.nf_conntrack_max": 2}})
	h.pass(t, udp(t, "10.0.0.1 10.0.0.2 1 1"))
	h.pass(t, udp(t, "10.0.0.1 10.0.0.2 2 1"))
	h.pass(t, udp(t, "10.0.0.1 10.0.0.2 3 1")) // takes the place of one that is not assured
	if h.t.Count(h.w) != 2 {
		t.Errorf("got %d connections want 2", h.t.Count(h.w))
	}
	for f := range h.t.All(h.w) {
		h.t.Ref(h.w, h.find(t, f.Tuples[0])).Status |= Assured
	}
	p := udp(t, "10.0.0.1 10.0.0.2 4 1")
	if v := h.t.In(h.w, nil, p, trace.Output); v != trace.DropIt {
		t.Errorf("got %v want DROP", v)
	}
}

func (h *host) find(tb testing.TB, tu Tuple) packet.FlowID {
	tb.Helper()
	id, _ := h.t.Find(h.w, Zone{}, tu)
	if id == 0 {
		tb.Fatal("not there")
	}
	return id
}

// TestForkKeeps: asking a fork changes nothing for the one it was made from.
func TestForkKeeps(t *testing.T) {
	h := newHost(t, Config{})
	h.pass(t, udp(t, there))
	base := h.w.State
	before := h.t.Dump(&world.World{State: base.Fork(), Now: h.w.Now}, Format{Expiry: true})
	h.w.State = base.Fork()
	h.w.Now += world.Second
	h.pass(t, udp(t, back))
	h.pass(t, udp(t, "10.0.0.1 10.0.0.2 77 78"))
	h.t.Kill(h.w, h.find(t, Tuple{Src: packet.MustParseAddr("10.0.0.1"),
		Dst: packet.MustParseAddr("10.0.0.2"), SPort: 1000, DPort: 80, Proto: packet.UDP}))
	after := h.t.Dump(&world.World{State: base.Fork(), Now: 1000 * world.Second},
		Format{Expiry: true})
	if strings.Join(before, "\n") != strings.Join(after, "\n") || len(before) != 1 {
		t.Errorf("got %q want %q", after, before)
	}
}

// TestPlacesAreUsedAgain: places come back, but not while a packet may point at them.
func TestPlacesAreUsedAgain(t *testing.T) {
	h := newHost(t, Config{})
	for i := range 5 * lag {
		p := udpPacket(t, uint32(i))
		h.t.In(h.w, nil, p, trace.Prerouting)
		h.t.Confirm(h.w, nil, p)
		h.t.Kill(h.w, p.CT.Flow)
		if f := h.t.Get(h.w, p.CT.Flow); !f.Is(Dying|Confirmed) || f.Tuples[0].SPort != uint16(i) {
			t.Fatalf("packet %d lost its connection", i)
		}
	}
	if n := h.t.flows.In(h.w.State).Len(); n > 2*lag {
		t.Errorf("got %d places for one connection at a time", n)
	}
	if h.t.Count(h.w) != 0 || h.t.tuples.In(h.w.State).Len() != 0 {
		t.Errorf("got %d connections, %d tuples", h.t.Count(h.w), h.t.tuples.In(h.w.State).Len())
	}
}

func TestLoad(t *testing.T) {
	h := newHost(t, Config{})
	f := Flow{Timeout: h.w.Now + 50*world.Second, Status: SeenReply | Assured}
	f.Tuples[0] = Tuple{packet.MustParseAddr("10.0.0.1"), packet.MustParseAddr("10.0.0.2"), 1000, 80,
		packet.TCP}
	f.Tuples[1] = Tuple{packet.MustParseAddr("10.9.0.2"), packet.MustParseAddr("10.8.0.1"), 8080, 600,
		packet.TCP}
	f.TCP.State = TCPEstablished
	if err := h.t.Load(h.w, f); err != nil {
		t.Fatal(err)
	}
	p := tcp(t, "10.9.0.2 10.8.0.1 8080 600", "A", 12345, 777)
	if got := h.pass(t, p); got != trace.StateEstablished {
		t.Errorf("got %v want ESTABLISHED", got)
	}
	v, _ := h.t.Field(h.w, p, field.CtState)
	if want := uint64(field.CtEstablished | field.CtSNAT | field.CtDNAT); v.Lo != want {
		t.Errorf("got state bits %#x want %#x", v.Lo, want)
	}
	full := newHost(t, Config{Sysctl: settings{"net.netfilter.nf_conntrack_max": 1}})
	if err := full.t.Load(full.w, f, f); err == nil {
		t.Error("two connections in a table for one")
	}
}

func TestTrace(t *testing.T) {
	h := newHost(t, Config{})
	tr := &trace.Trace{}
	p := udp(t, there)
	h.t.In(h.w, tr, p, trace.Output)
	h.t.Confirm(h.w, tr, p)
	if len(tr.Events) != 2 {
		t.Fatalf("got %d events want 2", len(tr.Events))
	}
	in, out := tr.Events[0].(*trace.Conntrack), tr.Events[1].(*trace.Conntrack)
	if in.State != trace.StateNew || in.Confirmed || !out.Confirmed || in.Orig.DPort != 80 {
		t.Errorf("got %+v, %+v", in, out)
	}
}

// FuzzIn throws bytes at the tracker.
func FuzzIn(f *testing.F) {
	for _, p := range []*packet.Packet{tcp(f, there, "S", 1, 0), udp(f, there),
		ip(f, "1.0.0.1 1.0.0.2", packet.ICMP, 8, 0, 0, 0, 0, 1, 0, 1),
		ip(f, "1.0.0.1 1.0.0.2", packet.SCTP, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20, 0, 0, 0, 1,
			0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)} {
		f.Add(append([]byte(nil), p.IP()...), []byte{})
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		h := newHost(t, Config{Kernel: 6<<16 | 1<<8})
		tm := h.t.Template(Template{Helper: Helper(len(a) % 3)})
		for range 2 {
			for _, raw := range [][]byte{a, b} {
				p, ok := packet.FromIP(raw)
				if !ok {
					continue
				}
				h.t.Attach(p, tm)
				if h.t.In(h.w, nil, p, trace.Output) == trace.Accept {
					h.t.Confirm(h.w, nil, p)
				}
				h.t.Release(h.w, p)
			}
		}
		h.t.Dump(h.w, Format{Extended: true})
	})
}
