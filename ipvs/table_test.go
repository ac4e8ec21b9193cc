package ipvs

import (
	"encoding/binary"
	"testing"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// balancer is a table with memory and a clock.
type balancer struct {
	*Table
	w *world.World
}

func newBalancer(t *testing.T, sysctl link.Sysctl, services ...Service) *balancer {
	t.Helper()
	var schema world.Schema
	table, err := New(Config{Schema: &schema, Sysctl: sysctl, Services: services,
		Tracker: conntrack.New(&schema, conntrack.Config{})})
	if err != nil {
		t.Fatal(err)
	}
	return &balancer{table, &world.World{State: schema.NewState(), Now: 1000 * world.Second,
		Dice: &world.Dice{}, HZ: 250}}
}

var (
	vip = packet.MustParseAddr("10.0.0.1")
	cip = packet.MustParseAddr("192.0.2.9")
	rs1 = packet.MustParseAddr("10.1.0.1")
	rs2 = packet.MustParseAddr("10.1.0.2")
)

// web is a TCP service of two servers, reached by NAT at another port.
func web(change ...func(*Service)) Service {
	s := Service{Family: trace.IPv4, Proto: packet.TCP, Addr: vip, Port: 80, Scheduler: "rr",
		Mask: 32, Dests: []Dest{{Addr: rs1, Port: 8080, Weight: 1}, {Addr: rs2, Port: 8080, Weight: 1}}}
	for _, f := range change {
		f(&s)
	}
	return s
}

func segment(src packet.Addr, sport uint16, flags byte) *Header {
	l4 := make([]byte, 20)
	binary.BigEndian.PutUint16(l4, sport)
	binary.BigEndian.PutUint16(l4[2:], 80)
	l4[12], l4[13] = 5<<4, flags
	return &Header{Family: trace.IPv4, Proto: packet.TCP, Src: src, Dst: vip, L4: l4,
		Unicast: func() bool { return false }}
}

func datagram(src packet.Addr, sport uint16) *Header {
	h := segment(src, sport, 0)
	h.Proto, h.L4 = packet.UDP, h.L4[:8]
	return h
}

// send takes a packet of a client through the table, to its server.
func (b *balancer) send(h *Header) (Decision, View) {
	d := b.In(b.w, h)
	if d.Action != Forward {
		return d, View{}
	}
	b.Enter(b.w, d.Conn, h.L4)
	v := b.View(b.w, d.Conn)
	b.Leave(b.w, d.Conn)
	return d, v
}

func (b *balancer) count(i int) Counts { return *b.countsOf(b.w, b.services[0].first+i) }

// TestConversation follows a connection from its SYN to its end.
func TestConversation(t *testing.T) {
	b := newBalancer(t, nil, web())
	steps := []struct {
		flags  byte
		back   bool
		state  string
		counts Counts
	}{
		{tcpSYN, false, "SYN_RECV", Counts{Active: 1}},
		{tcpSYN | tcpACK, true, "SYN_RECV", Counts{Active: 1}},
		{tcpACK, false, "ESTABLISHED", Counts{Active: 1}},
		{tcpFIN | tcpACK, false, "CLOSE_WAIT", Counts{Inactive: 1}},
		{tcpFIN | tcpACK, true, "TIME_WAIT", Counts{Inactive: 1}},
	}
	for i, s := range steps {
		h := segment(cip, 1000, s.flags)
		var id ConnID
		if s.back {
			h = &Header{Family: trace.IPv4, Proto: packet.TCP, Src: rs1, Dst: cip, L4: h.L4}
			binary.BigEndian.PutUint16(h.L4, 8080)
			binary.BigEndian.PutUint16(h.L4[2:], 1000)
			if id = b.Out(b.w, h); id == 0 {
				t.Fatalf("step %d: the answer has no connection", i)
			}
			b.Answered(b.w, id, h.L4)
		} else {
			d, _ := b.send(h)
			id = d.Conn
			if d.New != (i == 0) {
				t.Errorf("step %d: new is %v", i, d.New)
			}
		}
		v := b.View(b.w, id)
		if v.State != s.state || v.Real != rs1 || v.RPort != 8080 || b.count(0) != s.counts {
			t.Errorf("step %d: %+v %+v, want %s %+v", i, v, b.count(0), s.state, s.counts)
		}
	}
	b.w.Now += 121 * world.Second
	if d, v := b.send(segment(cip, 1000, tcpSYN)); !d.New || v.Real != rs2 {
		t.Errorf("behind TIME_WAIT's end: %+v %+v, want a new connection to the other server", d, v)
	}
	if got := b.count(0); got != (Counts{}) {
		t.Errorf("the first server still counts %+v", got)
	}
}

// TestStrangers are packets that no connection and no service knows.
func TestStrangers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		sysctl link.Sysctl
		change func(*Service)
		h      *Header
		want   Action
	}{
		{"an ACK without a connection", nil, nil, segment(cip, 1, tcpACK), Pass},
		{"the same with sloppy_tcp", link.Sysctl{"net.ipv4.vs.sloppy_tcp": "1"}, nil,
			segment(cip, 1, tcpACK), Forward},
		{"a reset with sloppy_tcp", link.Sysctl{"net.ipv4.vs.sloppy_tcp": "1"}, nil,
			segment(cip, 1, tcpRST), Pass},
		{"another protocol", nil, nil, datagram(cip, 1), Pass},
		{"active FTP's data", nil, nil, segment(cip, 20, tcpSYN), Pass},
		{"no server has a weight", nil, func(s *Service) {
			s.Dests[0].Weight, s.Dests[1].Weight = 0, 0
		}, segment(cip, 1, tcpSYN), Unservable},
		{"nobody schedules", nil, func(s *Service) { s.Scheduler = "none" },
			segment(cip, 1, tcpSYN), Unservable},
		{"a service of every port that does not persist", nil, func(s *Service) { s.Port = 0 },
			segment(cip, 1, tcpSYN), Unservable},
		{"one of ten is dropped", link.Sysctl{"net.ipv4.vs.drop_packet": "3"}, nil,
			segment(cip, 1, tcpSYN), Drop},
		{"a header that is cut", nil, nil, &Header{Family: trace.IPv4, Proto: packet.TCP, Src: cip,
			Dst: vip, L4: make([]byte, 10)}, Drop},
	} {
		s := web()
		if tt.change != nil {
			tt.change(&s)
		}
		if d, _ := newBalancer(t, tt.sysctl, s).send(tt.h); d.Action != tt.want {
			t.Errorf("%s: action %d, want %d", tt.name, d.Action, tt.want)
		}
	}
}

// TestPersistence keeps the clients of a network with one server, as long as its template
// lives and its server may be used.
func TestPersistence(t *testing.T) {
	b := newBalancer(t, nil, web(func(s *Service) { s.Timeout, s.Mask = 300, 24 }))
	neighbour, stranger := packet.MustParseAddr("192.0.2.77"), packet.MustParseAddr("198.51.100.1")
	real := func(src packet.Addr, sport uint16) packet.Addr {
		_, v := b.send(segment(src, sport, tcpSYN))
		return v.Real
	}
	if a, c := real(cip, 1), real(neighbour, 2); a != rs1 || c != rs1 {
		t.Errorf("one network went to %s and %s", a, c)
	}
	if a := real(stranger, 3); a != rs2 {
		t.Errorf("another network went to %s", a)
	}
	if got := b.count(0); got.Persistent != 1 || got.Total() != 2 {
		t.Errorf("counts %+v, want one template and two connections", got)
	}
	b.w.Now += 301 * world.Second // the connections' minute is over, and the template's time
	if a := real(cip, 4); a != rs1 {
		t.Errorf("a new template after its time leads to %s", a)
	}
}

// TestOnePacket makes a connection for each datagram.
func TestOnePacket(t *testing.T) {
	b := newBalancer(t, nil, web(func(s *Service) { s.Proto, s.Flags = packet.UDP, OnePacket }))
	for i, want := range []packet.Addr{rs1, rs2, rs1} {
		if d, v := b.send(datagram(cip, 7)); !d.New || v.Real != want {
			t.Errorf("datagram %d: %+v goes to %s, want %s", i, d, v.Real, want)
		}
	}
	if a, c := b.count(0), b.count(1); a != (Counts{}) || c != (Counts{}) {
		t.Errorf("counts %+v %+v, want none", a, c)
	}
}

// TestThreshold leaves an overloaded server alone until it has few enough.
func TestThreshold(t *testing.T) {
	b := newBalancer(t, nil, web(func(s *Service) { s.Dests[0].Upper, s.Dests[0].Lower = 2, 1 }))
	var got []packet.Addr
	for port := range uint16(6) {
		_, v := b.send(segment(cip, 1000+port, tcpSYN))
		got = append(got, v.Real)
	}
	want := []packet.Addr{rs1, rs2, rs1, rs2, rs2, rs2}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("servers %v, want %v", got, want)
		}
	}
	b.w.Now += 61 * world.Second
	if _, v := b.send(segment(cip, 1100, tcpSYN)); v.Real != rs1 || b.count(0).Overload {
		t.Errorf("behind the overload: %s, %+v", v.Real, b.count(0))
	}
}

// TestReuse lets a client use the port of a connection that is over again.
func TestReuse(t *testing.T) {
	for _, tt := range []struct {
		mode string
		want packet.Addr
	}{{"0", rs1}, {"1", rs2}} {
		b := newBalancer(t, link.Sysctl{"net.ipv4.vs.conn_reuse_mode": tt.mode}, web())
		b.send(segment(cip, 5, tcpSYN))
		b.send(segment(cip, 5, tcpRST)) // SYN_RECV stays
		b.send(segment(cip, 5, tcpACK))
		b.send(segment(cip, 5, tcpRST)) // CLOSE
		if _, v := b.send(segment(cip, 5, tcpSYN)); v.Real != tt.want {
			t.Errorf("conn_reuse_mode %s: %s, want %s", tt.mode, v.Real, tt.want)
		}
	}
}

// TestReuseInFlight ends the old connection while the first packet of the new one is on its
// way: the new one stays.
func TestReuseInFlight(t *testing.T) {
	b := newBalancer(t, nil, web())
	b.send(segment(cip, 5, tcpSYN))
	b.send(segment(cip, 5, tcpACK))
	b.send(segment(cip, 5, tcpRST))
	h := segment(cip, 5, tcpSYN)
	d := b.In(b.w, h)
	b.Enter(b.w, d.Conn, h.L4)
	b.Out(b.w, h) // OUTPUT asks whether the packet is an answer
	b.Leave(b.w, d.Conn)
	if next := b.In(b.w, segment(cip, 5, tcpACK)); !d.New || next.New || next.Conn != d.Conn {
		t.Errorf("new %+v, then %+v", d, next)
	}
}

// TestRewrite holds the checksums of a rewritten packet against those of one that was
// written so.
func TestRewrite(t *testing.T) {
	for _, text := range []string{"tcp 192.0.2.9:1000 > 10.0.0.1:80", "udp 192.0.2.9:1000 > 10.0.0.1:80"} {
		s, err := packet.ParseSentence(text)
		if err != nil {
			t.Fatal(err)
		}
		s.Complete()
		b, err := s.Packet()
		if err != nil {
			t.Fatal(err)
		}
		p, _ := packet.FromIP(b)
		Rewrite(p, false, rs1, 8080)
		s.Dst, s.DPort = rs1, 8080
		want, err := s.Packet()
		if err != nil {
			t.Fatal(err)
		}
		if string(p.IP()) != string(want) {
			t.Errorf("%s:\n%x, want\n%x", text, p.IP(), want)
		}
	}
}
