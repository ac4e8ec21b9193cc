package target_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/nat"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/socket"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/match"
	"github.com/hookpath/hookpath/xtables/target"
)

// rig is a router between 10.0.0.0/24 (eth0, MTU 1500) and 10.0.1.0/24 (eth1, MTU
// 1400) with one rule.
type rig struct {
	t      testing.TB
	rooms  xtables.Rooms
	schema world.Schema
	world  *world.World
	target xtables.Target
	// program is the table with the rule.
	program *xtables.Program
	moved   moved
}

// moved is what a target asked the walk to do.
type moved struct {
	unreachable, resets int
	typ, code           uint8
	gateway             packet.Addr
	out                 packet.Dev
}

func (m *moved) SendUnreachable(_ *xtables.Env, typ, code uint8) {
	m.unreachable++
	m.typ, m.code = typ, code
}

func (m *moved) SendReset(*xtables.Env) { m.resets++ }

func (m *moved) Tee(_ *xtables.Env, gateway packet.Addr, out packet.Dev) {
	m.gateway, m.out = gateway, out
}

const (
	eth0 packet.Dev = 7
	eth1 packet.Dev = 9
)

// newRig builds the host with the rule, written as "TABLE CHAIN rule".
func newRig(t testing.TB, table, chain, rule string) *rig {
	t.Helper()
	r := &rig{t: t}
	if err := r.rest(table, chain, rule); err != nil {
		t.Fatalf("%s: %v", rule, err)
	}
	r.world = &world.World{State: r.schema.NewState(), Dice: &world.Dice{}, HZ: 250}
	return r
}

func (r *rig) rest(table, chain, rule string) error {
	if err := r.build(); err != nil {
		return err
	}
	rs, err := xtables.Parse("*"+table+"\n-A "+chain+" "+rule+"\nCOMMIT\n",
		xtables.ParseOptions{File: "t", Force: true, Version: xtables.V1811,
			Catalog: xtables.NewCatalog(trace.IPv4, match.All(), target.All())})
	if err != nil {
		return err
	}
	c := xtables.Compiler{Build: xtables.Build{Rooms: &r.rooms, Schema: &r.schema, HZ: 250}}
	c.Counters = world.Add(&r.schema, func() *world.Array[xtables.Counters] {
		return world.NewArray[xtables.Counters](c.Next)
	})
	r.target = rs.Tables[0].Chains[0].Rules[0].Target
	r.program, err = c.Compile(rs, rs.Tables[0], 0)
	return err
}

func (r *rig) build() (err error) {
	up := link.Up | link.LowerUp
	addr := func(dev packet.Dev, s string, n int) link.Addr {
		a := packet.MustParseAddr(s)
		return link.Addr{Dev: dev, Local: a, Peer: a, PrefixLen: n}
	}
	r.rooms.Kernel = xtables.Kernel{Major: 6, Minor: 18}
	if r.rooms.Links, err = link.New(link.Config{Schema: &r.schema, Links: []link.Link{
		{Index: 1, Name: "lo", Flags: up | link.LoopbackFlag, MTU: 65536},
		{Index: eth0, Name: "eth0", Flags: up | link.Broadcast, MTU: 1500},
		{Index: eth1, Name: "eth1", Flags: up | link.Broadcast, MTU: 1400}},
		Addrs: []link.Addr{addr(1, "127.0.0.1", 8), addr(eth0, "10.0.0.1", 24),
			addr(eth1, "10.0.1.1", 24)}}); err != nil {
		return err
	}
	onLink := func(dev, p string) route.Route {
		return route.Route{Table: route.TableMain, Kind: trace.Unicast, Dst: netip.MustParsePrefix(p),
			Scope: link.ScopeLink, Protocol: route.ProtoKernel, Hops: []route.Hop{{Dev: dev}}}
	}
	if r.rooms.Routes, err = route.New(route.Config{Links: r.rooms.Links, Routes: []route.Route{
		onLink("eth0", "10.0.0.0/24"), onLink("eth1", "10.0.1.0/24")}}); err != nil {
		return err
	}
	if r.rooms.Sockets, err = socket.New(&r.schema, rigSockets()); err != nil {
		return err
	}
	r.rooms.Conntrack = conntrack.New(&r.schema, conntrack.Config{})
	r.rooms.NAT = nat.New(r.rooms.Conntrack, r.rooms.Links)
	return nil
}

func rigSockets() []socket.Socket {
	a := packet.MustParseAddr
	return []socket.Socket{
		{Proto: packet.TCP, State: socket.Listen, LPort: 8080, Transparent: true},
		{Proto: packet.TCP, State: socket.Listen, LPort: 8081},
		{Proto: packet.UDP, LPort: 5353, Transparent: true},
		{Proto: packet.TCP, State: socket.Connected, Local: a("10.0.1.9"), LPort: 80,
			Peer: a("10.0.0.9"), PPort: 4000, Transparent: true},
		{Proto: packet.TCP, State: socket.Gone, Local: a("10.0.1.9"), LPort: 80,
			Peer: a("10.0.0.9"), PPort: 4001, Transparent: true},
	}
}

// do acts on a packet at a hook.
func (r *rig) do(hook trace.Hook, p *packet.Packet) trace.Verdict {
	e := r.env(hook, p)
	return r.target.Do(e)
}

func (r *rig) env(hook trace.Hook, p *packet.Packet) *xtables.Env {
	r.moved = moved{}
	return &xtables.Env{Rooms: &r.rooms, World: r.world, Packet: p, Mover: &r.moved,
		Family: trace.IPv4, Hook: hook, MTU: 1400}
}

// draw makes packets, many of them odd.
type draw struct{ *rand.Rand }

func (d draw) one(n int) bool { return d.IntN(n) == 0 }

func (d draw) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(d.Uint32())
	}
	return b
}

// packet draws an IPv4 packet from 10.0.0.9 to dst.
func (d draw) packet(dst string) []byte {
	var l4 []byte
	proto := packet.TCP
	switch d.IntN(8) {
	case 0:
		proto, l4 = packet.UDP, d.udp()
	case 1:
		proto, l4 = packet.ICMP, d.icmp()
	case 2:
		proto = []uint8{packet.SCTP, packet.ESP, packet.AH, packet.UDPLite, packet.DCCP, 99}[d.IntN(6)]
		l4 = d.bytes(d.IntN(40))
	default:
		l4 = d.tcp()
	}
	ip := d.header(proto, dst, len(l4))
	p := append(ip, l4...)
	if proto == packet.TCP && len(l4) >= 20 || proto == packet.UDP && len(l4) >= 8 {
		d.sum(p, len(ip), proto)
	}
	return p
}

func (d draw) header(proto uint8, dst string, n int) []byte {
	h := make([]byte, 20)
	h[0], h[1], h[8], h[9] = 0x45, byte(d.Uint32()), byte(2+d.IntN(254)), proto
	if d.one(10) {
		h[0] = 0x46
		h = append(h, 1, 1, 1, 0)
	}
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+n))
	binary.BigEndian.PutUint16(h[4:], uint16(d.Uint32()))
	switch d.IntN(12) {
	case 0:
		binary.BigEndian.PutUint16(h[6:], uint16(1+d.IntN(100)))
	case 1:
		h[6] = 0x20
	case 2:
		h[6] = 0x40
	}
	a, b := packet.MustParseAddr("10.0.0.9"), packet.MustParseAddr(dst)
	copy(h[12:], a.Bytes())
	copy(h[16:], b.Bytes())
	packet.FixIP4(h)
	return h
}

// sum writes the transport checksum, or leaves what is there.
func (d draw) sum(p []byte, at int, proto uint8) {
	if d.one(10) {
		return
	}
	l4, off := p[at:], 16
	if proto == packet.UDP {
		off = 6
	}
	l4[off], l4[off+1] = 0, 0
	s := packet.PseudoSum(packet.AddrFrom4(p[12:]), packet.AddrFrom4(p[16:]), proto, len(l4))
	binary.BigEndian.PutUint16(l4[off:], packet.Fold(packet.Sum16(l4, s)))
}

func (d draw) udp() []byte {
	b := append(d.bytes(8), d.bytes(d.IntN(30))...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	if d.one(6) {
		b[6], b[7] = 0, 0
	}
	return b[:len(b)-d.cut(len(b))]
}

func (d draw) cut(n int) int {
	if d.one(8) {
		return d.IntN(n)
	}
	return 0
}

// icmp is an echo, or an error that quotes a TCP packet.
func (d draw) icmp() []byte {
	b := append([]byte{8, 0, 0, 0}, d.bytes(4)...)
	if d.one(2) {
		b[0] = []byte{3, 4, 5, 11, 12, 13, 19}[d.IntN(7)]
		l4 := d.tcp()
		b = append(append(b, d.header(packet.TCP, "10.9.9.9", len(l4))...), l4...)
	}
	binary.BigEndian.PutUint16(b[2:], packet.Fold(packet.Sum16(b, 0)))
	return b[:len(b)-d.cut(len(b))]
}

func (d draw) tcp() []byte {
	opts := d.options()
	b := append(d.bytes(20), opts...)
	b[12] = byte(len(b)/4) << 4
	if d.one(20) {
		b[12] = byte(d.Uint32())
	}
	b[13] = []byte{2, 2, 2, 0x12, 0x10, 0xc2, 0x52, byte(d.Uint32())}[d.IntN(8)]
	if d.one(3) {
		b = append(b, d.bytes(d.IntN(20))...)
	}
	return b[:len(b)-d.cut(len(b))]
}

// options are a multiple of four bytes of TCP options, sometimes nonsense.
func (d draw) options() (o []byte) {
	stop := 3 + d.IntN(30)
	for len(o) < 40 && !d.one(stop) {
		switch d.IntN(7) {
		case 0, 1, 2:
			o = append(o, 2, 4, byte(d.IntN(7)), byte(d.Uint32()))
		case 3:
			o = append(o, 1, 3, 3, byte(d.IntN(15)))
		case 4:
			o = append(o, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 4, 2)
		case 5:
			o = append(o, d.bytes(4)...)
		case 6:
			o = append(o, byte(d.IntN(6)), byte(d.IntN(6)), 0, 0)
		}
	}
	return o[:min(len(o), 40)]
}

func endpoint(a packet.Addr, port uint16) string {
	return netip.AddrPortFrom(a.Netip(), port).String()
}
