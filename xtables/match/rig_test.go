package match_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/ipset"
	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/socket"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/match"
)

// rigHZ is that of most distributions' kernels.
const rigHZ = 250

// rigNow is Wednesday 2025-01-01 12:00:00 UTC.
const rigNow = world.Instant(1735732800) * world.Second

// rig is a host with two interfaces, a bridge port, a few addresses and sockets, and
// the rules of one table.
type rig struct {
	numbered bool
	t        testing.TB
	rooms    xtables.Rooms
	schema   world.Schema
	world    *world.World
	program  *xtables.Program
	assumed  []string
	now      world.Instant // when the rules are loaded; zero is rigNow
	header   string        // the save file's first line; empty for iptables-legacy 1.8.11
	table    string
	counters world.Slot[*world.Array[xtables.Counters]]
}

// newRig builds the host. The rules stand in a save file's table.
func newRig(t testing.TB, table string, rules ...string) *rig {
	t.Helper()
	return newRigAt(t, rigNow, table, rules...)
}

// newRigAt builds the host at a time.
func newRigAt(t testing.TB, now world.Instant, table string, rules ...string) *rig {
	t.Helper()
	return (&rig{t: t, table: table, now: now}).open(rules)
}

// open builds the host and gives it memory.
func (r *rig) open(rules []string) *rig {
	r.t.Helper()
	if err := r.build(rules); err != nil {
		r.t.Fatalf("%s: %v", strings.Join(rules, "; "), err)
	}
	now := or(r.now, rigNow)
	r.world = &world.World{State: r.schema.NewState(), Now: now, Dice: &world.Dice{}, HZ: rigHZ}
	return r
}

func (r *rig) build(rules []string) (err error) {
	must := func(e error) {
		if err == nil {
			err = e
		}
	}
	var e error
	r.rooms.Kernel = xtables.Kernel{Major: 6, Minor: 18}
	r.rooms.Links, e = link.New(link.Config{Links: rigLinks(), Addrs: rigAddrs(), Schema: &r.schema})
	must(e)
	r.rooms.Routes, e = route.New(route.Config{Links: r.rooms.Links, Open: false, Routes: rigRoutes()})
	must(e)
	r.rooms.Sockets, e = socket.New(&r.schema, rigSockets())
	must(e)
	r.rooms.Conntrack = conntrack.New(&r.schema, conntrack.Config{})
	r.rooms.Sets, e = ipset.New(&r.schema, rigSets(r.t))
	must(e)
	r.rooms.IPVS, e = ipvs.New(ipvs.Config{Schema: &r.schema, Tracker: r.rooms.Conntrack,
		Services: rigServices()})
	must(e)
	if err != nil {
		return err
	}
	return r.compile(rules)
}

func (r *rig) compile(rules []string) error {
	text := "*" + r.table + "\n" + strings.Join(rules, "\n") + "\nCOMMIT\n"
	rs, err := xtables.Parse(r.header+text, xtables.ParseOptions{File: "iptables-save",
		Force: r.header == "", Version: r.version(),
		Catalog: xtables.NewCatalog(trace.IPv4, match.All(), nil)})
	if err != nil {
		return err
	}
	c := xtables.Compiler{Build: xtables.Build{Rooms: &r.rooms, Schema: &r.schema, HZ: rigHZ,
		Now: or(r.now, rigNow), Assume: func(s string) { r.assumed = append(r.assumed, s) }}}
	c.Counters = world.Add(&r.schema, func() *world.Array[xtables.Counters] {
		return world.NewArray[xtables.Counters](c.Next)
	})
	r.counters = c.Counters
	r.program, err = c.Compile(rs, rs.Tables[0], 0)
	return err
}

// version is that of rules without a header.
func (r *rig) version() xtables.Version {
	if r.header == "" {
		return xtables.V1811
	}
	return xtables.V189
}

func parse(text string, f trace.Family) (*xtables.Ruleset, error) {
	return xtables.Parse(text, xtables.ParseOptions{File: "iptables-save", Force: true,
		Version: xtables.V1811, Catalog: xtables.NewCatalog(f, match.All(), nil)})
}

func rigLinks() []link.Link {
	up := link.Up | link.LowerUp
	return []link.Link{
		{Index: 1, Name: "lo", Flags: up | link.LoopbackFlag, MTU: 65536},
		{Index: 2, Name: "eth0", Flags: up | link.Broadcast, MTU: 1500, Group: 7},
		{Index: 3, Name: "eth1", Flags: up | link.Broadcast, MTU: 1500},
		{Index: 4, Name: "br0", Kind: "bridge", Flags: up | link.Broadcast, MTU: 1500},
		{Index: 5, Name: "p1", Kind: "veth", Flags: up, MTU: 1500, Master: 4},
		{Index: 6, Name: "p2", Kind: "veth", Flags: up, MTU: 1500, Master: 4},
	}
}

func rigAddrs() []link.Addr {
	a := func(dev packet.Dev, s string, n int) link.Addr {
		p := packet.MustParseAddr(s)
		return link.Addr{Dev: dev, Local: p, Peer: p, PrefixLen: n}
	}
	return []link.Addr{a(1, "127.0.0.1", 8), a(2, "10.0.0.1", 24), a(3, "10.1.0.1", 24)}
}

// packetOf describes a packet; the zero one is a SYN of 10.0.0.9:1024 to
// 10.0.0.1:80, come in by eth0.
type packetOf struct {
	src, dst     string
	proto        uint8 // zero is TCP
	sport, dport uint16
	flags        uint8
	opts         string // TCP options
	tos, ttl     uint8
	frag         uint16 // the 16 bits of flags and offset
	l4           string // in place of the transport header
	payload      string
	cut          int // bytes that are left
	in, out      packet.Dev
	physIn       packet.Dev
	physOut      packet.Dev
	typ          packet.Type
	mark, realm  uint32
	socket       uint32
	local        bool // without a link header
	ct           packet.CT
	ipvs         bool // the load balancer has seen it
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func (d packetOf) transport() []byte {
	if d.l4 != "" {
		return []byte(d.l4)
	}
	h := binary.BigEndian.AppendUint16(nil, or(d.sport, 1024))
	h = binary.BigEndian.AppendUint16(h, or(d.dport, 80))
	switch d.proto {
	case 0, packet.TCP:
		h = append(h, make([]byte, 16)...)
		h[12], h[13] = byte(5+len(d.opts)/4)<<4, or(d.flags, 2)
		h = append(h, d.opts...)
	case packet.UDP, packet.UDPLite:
		h = append(h, 0, byte(8+len(d.payload)), 0, 0)
	case packet.ICMP:
		h = []byte{8, 0, 0, 0, 0, 1, 0, 1}
	default:
		h = append(h, make([]byte, 12)...)
	}
	return append(h, d.payload...)
}

func (d packetOf) build(t testing.TB) *packet.Packet {
	t.Helper()
	l4 := d.transport()
	ip := make([]byte, 20, 20+len(l4))
	ip[0], ip[1], ip[8], ip[9] = 0x45, d.tos, or(d.ttl, 64), or(d.proto, packet.TCP)
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(l4)))
	binary.BigEndian.PutUint16(ip[6:], d.frag)
	src, dst := packet.MustParseAddr(or(d.src, "10.0.0.9")), packet.MustParseAddr(or(d.dst, "10.0.0.1"))
	copy(ip[12:], src.Bytes())
	copy(ip[16:], dst.Bytes())
	ip = append(ip, l4...)
	if d.cut > 0 {
		ip = ip[:d.cut]
	}
	packet.FixIP4(ip)
	p, ok := packet.FromIP(ip)
	if !d.local {
		frame := append([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x09\x08\x00"), ip...)
		p, ok = packet.FromFrame(frame)
	}
	if !ok {
		t.Fatal("the packet can't be built")
	}
	p.In, p.Out, p.PhysIn, p.PhysOut, p.Type = d.in, d.out, d.physIn, d.physOut, d.typ
	p.Mark, p.Realm, p.Socket, p.CT, p.IPVS = d.mark, d.realm, d.socket, d.ct, d.ipvs
	return p
}

// answer is what a rule made of a packet.
type answer string

const (
	yes  answer = "match"
	no   answer = "no match"
	drop answer = "hotdrop"
)

// ask takes a packet through the table's chain of a hook.
func (r *rig) ask(h trace.Hook, d packetOf) answer {
	r.t.Helper()
	return r.askPacket(h, d.build(r.t))
}

func (r *rig) askPacket(h trace.Hook, p *packet.Packet) answer {
	e := &xtables.Env{Rooms: &r.rooms, World: r.world, Trace: &trace.Trace{}, Packet: p, Hook: h,
		Narrow: func(id field.ID, s *field.Set) bool { return false }}
	switch v := r.program.Run(e); v {
	case trace.Accept:
		return yes
	case trace.Queue:
		return no
	case trace.DropIt:
		return drop
	default:
		return answer(fmt.Sprint(v))
	}
}

// chainRules are the two rules that tell a match from none and from hotdrop.
func chainRules(chain, rule string) []string {
	return []string{"-A " + chain + " " + rule + " -j ACCEPT", "-A " + chain + " -j QUEUE"}
}

// compileSet compiles a ruleset of any family.
func (r *rig) compileSet(rs *xtables.Ruleset) error {
	c := xtables.Compiler{Build: xtables.Build{Rooms: &r.rooms, Schema: &r.schema, HZ: rigHZ, Now: rigNow}}
	_, err := c.Compile(rs, rs.Tables[0], 0)
	return err
}

// rigRoutes are the routes that the kernel makes of the addresses.
func rigRoutes() []route.Route {
	local := func(dev, p string) route.Route {
		return route.Route{Table: route.TableLocal, Kind: trace.Local, Dst: netip.MustParsePrefix(p),
			Scope: link.ScopeHost, Protocol: route.ProtoKernel, Hops: []route.Hop{{Dev: dev}}}
	}
	onLink := func(dev, p string) route.Route {
		return route.Route{Table: route.TableMain, Kind: trace.Unicast, Dst: netip.MustParsePrefix(p),
			Scope: link.ScopeLink, Protocol: route.ProtoKernel, Hops: []route.Hop{{Dev: dev}}}
	}
	broadcast := local("eth0", "10.0.0.255/32")
	broadcast.Kind, broadcast.Scope = trace.BroadcastRoute, link.ScopeLink
	return []route.Route{local("lo", "127.0.0.0/8"), local("eth0", "10.0.0.1/32"),
		local("eth1", "10.1.0.1/32"), broadcast, onLink("eth0", "10.0.0.0/24"),
		onLink("eth1", "10.1.0.0/24")}
}

// rigServices have one real server, which is reached by NAT.
func rigServices() []ipvs.Service {
	return []ipvs.Service{{Family: trace.IPv4, Proto: packet.TCP,
		Addr: packet.MustParseAddr("10.0.0.1"), Port: 80, Scheduler: "rr", Mask: 32,
		Dests: []ipvs.Dest{{Addr: packet.MustParseAddr("10.1.0.9"), Port: 8080, Weight: 1}}}}
}

// rigSockets have the numbers 1 to 3: a user's, root's, and one that nobody owns.
func rigSockets() []socket.Socket {
	s := func(state socket.State, local string, port uint16, uid, gid uint32) socket.Socket {
		return socket.Socket{Proto: packet.TCP, State: state, Local: packet.MustParseAddr(local),
			LPort: port, UID: uid, GID: gid, GIDKnown: true}
	}
	gone := s(socket.Gone, "10.0.0.1", 9999, 0, 0)
	gone.Peer, gone.PPort = packet.MustParseAddr("10.0.0.9"), 7
	return []socket.Socket{s(socket.Listen, "10.0.0.1", 8080, 1000, 5),
		s(socket.Listen, "0.0.0.0", 22, 0, 5), gone}
}

// The connections that fillFlows makes.
var (
	newFlow     = packet.CT{Flow: 1, Info: packet.New}
	established = packet.CT{Flow: 2, Info: packet.Established}
	reply       = packet.CT{Flow: 2, Info: packet.EstablishedReply}
	translated  = packet.CT{Flow: 3, Info: packet.New}
	untracked   = packet.CT{Info: packet.Untracked}
)

// fillFlows puts connections into memory: a new one, an established one with a mark,
// a label and counters, and one that the FTP helper of the second foresaw.
func (r *rig) fillFlows() {
	tuple := func(sport uint16) conntrack.Tuple {
		return conntrack.Tuple{Src: packet.MustParseAddr("10.0.0.9"),
			Dst: packet.MustParseAddr("10.0.0.1"), SPort: sport, DPort: 80, Proto: packet.TCP}
	}
	flow := func(sport uint16) conntrack.Flow {
		t := tuple(sport)
		inv, _ := t.Invert()
		return conntrack.Flow{Tuples: [2]conntrack.Tuple{t, inv}, Status: conntrack.Confirmed,
			Timeout: rigNow + 60*world.Second}
	}
	fresh, old, foreseen := flow(1024), flow(1025), flow(1026)
	old.Status |= conntrack.SeenReply | conntrack.Assured
	old.Timeout = rigNow + 150*world.Second
	old.Mark, old.Labels, old.Helper = 5, [16]byte{1 << 3}, conntrack.FTP
	old.Packets, old.Bytes = [2]uint64{6, 5}, [2]uint64{600, 500}
	foreseen.Status |= conntrack.DstNAT
	foreseen.Master = established.Flow
	if r.numbered { // as a dump with ids has them
		fresh.ID, old.ID, foreseen.ID = 11, 12, 13
	}
	if err := r.rooms.Conntrack.Load(r.world, fresh, old, foreseen); err != nil {
		r.t.Fatal(err)
	}
}

// sctpWith is an SCTP packet to port 80 with chunks.
func sctpWith(chunks string) string {
	return "\x04\x00\x00\x50\x00\x00\x00\x01\x00\x00\x00\x00" + chunks
}

// dccpOf is a DCCP packet of a type whose header says it has words of 32 bits.
func dccpOf(typ, words byte, rest string) string {
	return "\x04\x00\x00\x50" + string([]byte{words, 0, 0, 0, typ << 1}) + "\x00\x00\x00" + rest
}

// quoting is an ICMP error that quotes a TCP packet.
func quoting(src, dst string, sport, dport uint16) string {
	s, d := packet.MustParseAddr(src), packet.MustParseAddr(dst)
	b := []byte("\x03\x01\x00\x00\x00\x00\x00\x00\x45\x00\x00\x28\x00\x00\x00\x00\x40\x06\x00\x00")
	b = append(append(b, s.Bytes()...), d.Bytes()...)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, sport), dport)
	return string(append(b, make([]byte, 16)...))
}
