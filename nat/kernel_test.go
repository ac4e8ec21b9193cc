package nat_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// talk is a conversation: what each side last saw and said.
type talk struct {
	proto  uint8
	side   [2]int         // the wire that each peer stands on
	src    [2]packet.Addr // of what each peer sends
	dst    [2]packet.Addr
	sport  [2]uint16
	dport  [2]uint16
	known  bool // the second peer has seen something
	seq    [2]uint32
	ack    [2]uint32
	vtag   [2]uint32
	stage  int
	script []line
	last   [2][]byte // what each peer sent last
	seen   [2][]byte // what came out at each peer last
}

// peers draws the ends of a conversation.
func newTalk(rng *rand.Rand) *talk {
	t := &talk{proto: pick[uint8](rng, packet.TCP, packet.TCP, packet.TCP, packet.TCP,
		packet.TCP, packet.TCP, packet.TCP, packet.TCP, packet.UDP,
		packet.UDP, packet.ICMP, packet.ICMP, packet.SCTP, packet.GRE, 99, packet.UDPLite,
		packet.DCCP)}
	client := packet.V4(0x0a00010a + uint32(rng.IntN(4)))
	server := pick(rng, packet.V4(0x0a000214+uint32(rng.IntN(4))),
		packet.V4(0xc0000200+uint32(rng.IntN(8))),
		packet.MustParseAddr("10.0.1.1"), packet.MustParseAddr("10.0.2.9"))
	t.side = [2]int{0, 1}
	if rng.IntN(4) == 0 {
		client, server = packet.V4(0x0a000214+uint32(rng.IntN(4))), pick(rng, client,
			packet.MustParseAddr("10.0.2.9"), packet.MustParseAddr("198.51.100.1"))
		t.side = [2]int{1, 0}
	}
	t.src[0], t.dst[0] = client, server
	t.sport[0] = uint16(pick(rng, 80, 600, 1024, 40000) + rng.IntN(3))
	t.dport[0] = uint16(pick(rng, 80, 443, 1000, 53) + rng.IntN(2))
	t.seq = [2]uint32{rng.Uint32(), rng.Uint32()}
	t.vtag = [2]uint32{rng.Uint32() | 1, rng.Uint32() | 1}
	return t
}

// saw tells the peer on a wire what came out there.
func (t *talk) saw(who int, ip []byte) {
	t.seen[who] = ip
	if who == 0 || len(ip) < 24 || ip[9] != t.proto {
		return
	}
	n := int(ip[0]&15) * 4
	t.known = true
	t.src[1], t.dst[1] = packet.AddrFrom4(ip[16:]), packet.AddrFrom4(ip[12:])
	if packet.HasPorts(t.proto) {
		t.sport[1] = binary.BigEndian.Uint16(ip[n+2:])
		t.dport[1] = binary.BigEndian.Uint16(ip[n:])
	} else if t.proto == packet.ICMP && len(ip) >= n+8 {
		t.sport[1] = binary.BigEndian.Uint16(ip[n+4:])
	}
}

// next builds the next packet of a conversation, and says who sends it.
func (t *talk) next(rng *rand.Rand) (who int, ip []byte) {
	if t.known && rng.IntN(2) == 0 {
		who = 1
	}
	if t.proto == packet.TCP && t.script != nil && rng.IntN(8) != 0 {
		who = t.script[t.stage%len(t.script)].who
		if !t.known {
			who = 0
		}
	}
	switch {
	case t.last[who] != nil && rng.IntN(12) == 0:
		return who, t.last[who]
	case t.seen[who] != nil && rng.IntN(8) == 0:
		return who, t.icmpError(rng, who)
	}
	l4 := t.payload(rng, who)
	src, dst := t.src[who], t.dst[who]
	if off := sumOffset(t.proto); off > 0 && off+2 <= len(l4) {
		sum(src, dst, sumProto(rng, t.proto), l4, off)
		if t.proto == packet.UDP && rng.IntN(6) == 0 {
			l4[6], l4[7] = 0, 0
		}
		if rng.IntN(40) == 0 {
			l4[off] ^= 0x55
		}
	}
	ip = header(src, dst, t.proto, l4)
	if rng.IntN(60) == 0 { // cut short
		ip = header(src, dst, t.proto, l4[:rng.IntN(len(l4)+1)])
	}
	t.last[who] = ip
	return who, ip
}

func sumOffset(proto uint8) int {
	switch proto {
	case packet.TCP:
		return 16
	case packet.UDP, packet.UDPLite:
		return 6
	case packet.ICMP:
		return 2
	}
	return 0
}

// sumProto is the protocol in a checksum's pseudo header. Tracking checks UDP-Lite as if
// it were UDP, so that a right checksum is a wrong one there.
func sumProto(rng *rand.Rand, proto uint8) uint8 {
	if proto == packet.UDPLite {
		return pick(rng, packet.UDP, packet.UDP, packet.UDPLite)
	}
	return proto
}

func (t *talk) payload(rng *rand.Rand, who int) []byte {
	switch t.proto {
	case packet.TCP:
		return t.tcp(rng, who)
	case packet.ICMP:
		return t.icmp(rng, who)
	case packet.SCTP:
		return t.sctp(rng, who)
	case packet.GRE:
		return pick(rng, []byte{0, 0, 8, 0, 1, 2, 3, 4}, []byte{0, 0, 8, 0},
			[]byte{0x30, 1, 0x88, 0x0b, 0, 1, 0, byte(rng.IntN(3)), 9, 9, 9, 9},
			[]byte{0x30, 1, 0x88, 0x0c, 0, 1, 0, 1}, []byte{0x20, 2, 8, 0, 0, 0, 0, 0})
	case 99:
		return []byte("anything")
	}
	b := make([]byte, 12+rng.IntN(9))
	binary.BigEndian.PutUint16(b, t.sport[who])
	binary.BigEndian.PutUint16(b[2:], t.dport[who])
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	if rng.IntN(30) == 0 {
		b[5] = byte(rng.IntN(40))
	}
	return b
}

// line is a segment of a script; afresh begins at another sequence number.
type line struct {
	who    int
	flags  uint8
	data   int
	afresh bool
}

// scripts are TCP conversations: a whole one, and such in which one side knows of no
// connection or another one than the router does.
var scripts = [][]line{
	{{0, 2, 0, false}, {1, 18, 0, false}, {0, 16, 0, false}, {0, 24, 30, false}, {1, 16, 0, false},
		{1, 24, 90, false}, {0, 16, 0, false}, {0, 17, 0, false}, {1, 16, 0, false},
		{1, 17, 0, false}, {0, 16, 0, false}, {0, 2, 0, true}},
	{{0, 2, 0, false}, {1, 16, 0, true}, {0, 4, 0, false}, {0, 2, 0, true}, {1, 18, 0, false}},
	{{0, 2, 0, false}, {1, 18, 0, false}, {0, 16, 0, false}, {0, 2, 0, true}, {1, 18, 0, true},
		{0, 16, 0, false}, {0, 24, 20, false}, {1, 16, 0, false}},
	{{0, 2, 0, false}, {1, 18, 0, false}, {0, 16, 0, false}, {0, 2, 0, true}, {1, 20, 0, false},
		{0, 2, 0, true}},
	{{0, 2, 0, false}, {1, 18, 0, false}, {0, 16, 0, false}, {0, 17, 0, false}, {1, 17, 0, false},
		{0, 2, 0, true}, {1, 16, 0, false}, {0, 4, 0, false}, {0, 16, 0, false}},
	{{0, 2, 0, false}, {1, 2, 0, false}, {0, 18, 0, false}, {1, 16, 0, false}, {1, 24, 9, false},
		{0, 4, 0, false}, {0, 2, 0, true}},
	{{0, 24, 40, false}, {1, 16, 0, false}, {1, 24, 40, false}, {0, 16, 0, false}, {1, 4, 0, false}},
	{{0, 2, 0, false}, {1, 20, 0, false}, {0, 2, 0, false}, {1, 18, 0, false}, {1, 20, 0, false}},
}

// tcp builds a segment: mostly the script's, sometimes anything.
func (t *talk) tcp(rng *rand.Rand, who int) []byte {
	flags, data := pick[uint8](rng, 2, 18, 16, 24, 17, 4, 20, 0, 3, 41), rng.IntN(40)
	follow := rng.IntN(7) != 0
	if follow {
		if t.script == nil {
			t.script = pick(rng, scripts...)
		}
		s := t.script[t.stage%len(t.script)]
		flags, data = s.flags, s.data
		if s.afresh && rng.IntN(8) != 0 {
			t.seq[who] += uint32(rng.IntN(3)) * 100000
		}
		t.stage++
	}
	var opts []byte
	if flags&2 != 0 {
		opts = pick(rng, nil, []byte{2, 4, 5, 0xb4, 1, 3, 3, byte(rng.IntN(16))},
			[]byte{4, 2, 1, 3, 3, 7, 0, 0}, []byte{4, 2, 2, 4, 5, 0xb4, 1, 1})
	} else if rng.IntN(5) == 0 {
		opts = make([]byte, 12)
		opts[0], opts[1], opts[2], opts[3] = 1, 1, 5, 10
		binary.BigEndian.PutUint32(opts[4:], t.ack[who]+100)
		binary.BigEndian.PutUint32(opts[8:], t.ack[who]+uint32(rng.IntN(300)))
	}
	b := make([]byte, 20+len(opts)+data)
	copy(b[20:], opts)
	seq, ack := t.seq[who], t.ack[who]
	if !follow || rng.IntN(10) == 0 {
		seq += uint32(pick(rng, 0, 0, -1, 1, 2, 499, 1000, -1000, 8000, 7999, -8000, 65535, 70000,
			-70000, 1<<30))
		ack += uint32(pick(rng, 0, 0, -1, 1, 500, -500, -7000, -30000, -65990, -66010, -70000, 1<<29))
	}
	if rng.IntN(30) == 0 {
		seq = 0
	}
	if flags&16 == 0 && rng.IntN(3) != 0 {
		ack = 0
	}
	binary.BigEndian.PutUint16(b, t.sport[who])
	binary.BigEndian.PutUint16(b[2:], t.dport[who])
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = byte(20+len(opts))/4<<4, flags
	binary.BigEndian.PutUint16(b[14:], uint16(pick(rng, 0, 1, 500, 8000, 65535, 8000, 8000)))
	end := seq + uint32(data)
	if flags&2 != 0 {
		end++
	}
	if flags&1 != 0 {
		end++
	}
	if follow {
		t.seq[who], t.ack[1-who] = end, end
	}
	return b
}

func (t *talk) icmp(rng *rand.Rand, who int) []byte {
	b := make([]byte, 8+rng.IntN(20))
	b[0] = pick[byte](rng, 8, 8, 8, 13, 17, 15, 0, 3, 9, 40)
	if who == 1 {
		b[0] = pick[byte](rng, 0, 0, 0, 14, 18, 8)
	}
	if rng.IntN(20) == 0 {
		b[1] = 3
	}
	binary.BigEndian.PutUint16(b[4:], t.sport[who])
	return b
}

// sctp builds a packet with a chunk or two.
func (t *talk) sctp(rng *rand.Rand, who int) []byte {
	order := []byte{1, 2, 10, 11, 0, 3, 4, 5, 7, 8, 14, 6, 9}
	typ := pick(rng, order...)
	if rng.IntN(4) != 0 {
		typ = order[t.stage%len(order)]
		t.stage++
	}
	tag := t.vtag[1-who]
	if typ == 1 && rng.IntN(8) != 0 {
		tag = 0
	}
	if rng.IntN(10) == 0 {
		tag = rng.Uint32()
	}
	b := make([]byte, 12, 64)
	binary.BigEndian.PutUint16(b, t.sport[who])
	binary.BigEndian.PutUint16(b[2:], t.dport[who])
	binary.BigEndian.PutUint32(b[4:], tag)
	for n := 1 + rng.IntN(8)/6; n > 0; n-- {
		c := make([]byte, 20)
		c[0], c[1], c[3] = typ, byte(rng.IntN(2)), 20
		binary.BigEndian.PutUint32(c[4:], t.vtag[who])
		b = append(b, c...)
		typ = pick(rng, order...)
	}
	binary.LittleEndian.PutUint32(b[8:], conntrack.SCTPChecksum(b))
	if rng.IntN(30) == 0 {
		b[8] ^= 1
	}
	return b
}

// icmpError answers what was seen last by an error.
func (t *talk) icmpError(rng *rand.Rand, who int) []byte {
	seen := t.seen[who]
	quote := append([]byte(nil), seen[:min(len(seen), 20+rng.IntN(60))]...)
	l4 := append(make([]byte, 8), quote...)
	l4[0] = pick[byte](rng, 3, 3, 3, 11, 4, 5, 12)
	l4[1] = byte(rng.IntN(4))
	src, dst := packet.AddrFrom4(seen[16:]), packet.AddrFrom4(seen[12:])
	if rng.IntN(3) == 0 {
		src = packet.MustParseAddr("10.0.2.200") // a router on the way
	}
	if rng.IntN(20) == 0 {
		dst = packet.MustParseAddr("10.0.1.99")
	}
	sum(src, dst, packet.ICMP, l4, 2)
	if rng.IntN(20) == 0 {
		l4[2] ^= 1
	}
	return header(src, dst, packet.ICMP, l4)
}

// TestKernel holds tracker and translator against the kernel of this machine: random
// conversations through random NAT rules, packet by packet.
func TestKernel(t *testing.T) {
	r := newRig(t)
	scenarios, packets := 16, 200
	if s := os.Getenv("HOOKPATH_SOAK"); s != "" {
		scenarios, _ = strconv.Atoi(s)
	}
	seed := uint64(1)
	if s := os.Getenv("HOOKPATH_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	var c counts
	for i := range scenarios {
		if !r.scenario(t, seed+uint64(i), packets, &c) {
			return
		}
	}
	t.Logf("%d packets, %d came out, %d translated, %d flows at the end of scenarios, %d rule hits",
		c.packets, c.out, c.translated, c.flows, c.hits)
	t.Logf("targets: %v", c.targets)
	t.Logf("states: %v", c.states)
}

// logTail is how many packets before a difference are told.
const logTail = 15

type counts struct {
	packets, out, translated, flows, hits int
	targets                               map[string]int
	states                                map[string]int
}

func (r *rig) scenario(t *testing.T, seed uint64, packets int, c *counts) bool {
	m := newModel(seed)
	r.run("iptables-legacy-restore", m.save())
	r.set(m.sys)
	r.flush()
	rng := rand.New(rand.NewPCG(seed, 2))
	var talks []*talk
	var log []string
	for i := range packets {
		if len(talks) < 12 && rng.IntN(4) == 0 || len(talks) == 0 {
			talks = append(talks, newTalk(rng))
		}
		tk := talks[rng.IntN(len(talks))]
		if rng.IntN(60) == 0 {
			tk = newTalk(rng)
			talks[rng.IntN(len(talks))] = tk
		}
		who, ip := tk.next(rng)
		log = append(log, fmt.Sprintf("%d: wire %d %s", i, tk.side[who], describe(ip)))
		if diff := r.compare(m, tk, who, ip, c); diff != "" {
			t.Errorf("seed %d packet %d:\n%s\n%s", seed, i, diff, m.save())
			for _, l := range log[max(0, len(log)-logTail):] {
				t.Log(l)
			}
			return false
		}
	}
	if c.targets == nil {
		c.targets = map[string]int{}
	}
	for i := range m.rules {
		c.targets[m.rules[i].target] += m.rules[i].hits
		c.hits += m.rules[i].hits
	}
	return true
}

// flush empties the kernel's table.
func (r *rig) flush() {
	r.seq++
	req := make([]byte, 20)
	binary.NativeEndian.PutUint32(req, 20)
	binary.NativeEndian.PutUint16(req[4:], 1<<8|2) // IPCTNL_MSG_CT_DELETE
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	binary.NativeEndian.PutUint32(req[8:], r.seq)
	if err := unix.Sendto(r.nl, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		r.tb.Fatal(err)
	}
	var buf [512]byte
	if _, _, err := unix.Recvfrom(r.nl, buf[:], 0); err != nil {
		r.tb.Fatal(err)
	}
}

// compare sends one packet through both and says what differs.
func (r *rig) compare(m *model, tk *talk, who int, ip []byte, c *counts) string {
	outs := r.send(tk.side[who], ip)
	var drawn []uint16
	for _, o := range outs {
		finish(o.frame[14:])
		if n := 14 + int(o.frame[14]&15)*4; len(o.frame) >= n+6 {
			if proto := o.frame[14+9]; proto == packet.ICMP {
				drawn = append(drawn, binary.BigEndian.Uint16(o.frame[n+4:]))
			} else if packet.HasPorts(proto) {
				drawn = append(drawn, binary.BigEndian.Uint16(o.frame[n:]))
			}
		}
	}
	m.w.Now = world.Instant(now())
	flows := r.flows()
	m.w.Dice = &world.Dice{Drawn: r.draws(m, tk.side[who], ip, drawn, flows)}
	tr := &trace.Trace{}
	wire, mine := m.send(tk.side[who], ip, tr)
	c.packets++
	var diff string
	switch {
	case len(outs) > 1:
		diff = "more than one frame came out"
	case len(outs) == 0 && wire >= 0:
		diff = "model sent: " + describe(mine) + "; kernel dropped"
	case len(outs) == 1 && wire < 0:
		diff = "kernel sent: " + describe(outs[0].frame[14:]) + "; model dropped"
	case len(outs) == 1 && (outs[0].wire != wire || !bytes.Equal(outs[0].frame[14:], mine)):
		diff = fmt.Sprintf("got  wire %d %s\nwant wire %d %s\n%x\n%x", wire, describe(mine), outs[0].wire,
			describe(outs[0].frame[14:]), mine, outs[0].frame[14:])
	}
	if len(outs) == 1 {
		c.out++
		peer := 1 - who
		if outs[0].wire != tk.side[peer] && outs[0].wire == tk.side[who] && peer == 1 {
			tk.side[1] = outs[0].wire
		}
		tk.saw(peer, outs[0].frame[14:])
		if !bytes.Equal(outs[0].frame[14+12:14+20], ip[12:20]) {
			c.translated++
		}
	}
	c.flows = len(flows)
	if d := m.flowDiff(flows, c); d != "" {
		diff += "\n" + d
	}
	if diff != "" {
		diff += "\npacket: " + describe(ip)
	}
	return diff
}

// finish computes a TCP checksum that the kernel left to the wire: a helper rewrote the
// payload, and a wire of this kind computes none.
func finish(ip []byte) {
	n := int(ip[0]&15) * 4
	if ip[9] != packet.TCP || len(ip) < n+20 {
		return
	}
	src, dst, l4 := packet.AddrFrom4(ip[12:]), packet.AddrFrom4(ip[16:]), ip[n:]
	pseudo := ^packet.Fold(packet.PseudoSum(src, dst, packet.TCP, len(l4)))
	if binary.BigEndian.Uint16(l4[16:]) == pseudo {
		sum(src, dst, packet.TCP, l4, 16)
	}
}

// draws are the ports that the kernel drew for a new connection: destination first, as
// the hooks come.
func (r *rig) draws(m *model, side int, ip []byte, _ []uint16,
	flows map[flowKey]entry) []uint16 {
	tu, ok := tupleOf(ip)
	if !ok {
		return nil
	}
	e, ok := flows[flowKey{tu, m.zone(side, ip).In(conntrack.Original)}]
	if !ok {
		return nil
	}
	rep := e.flow.Tuples[1]
	if e.flow.Packets[0]+e.flow.Packets[1] > 1 {
		return nil // not its first packet
	}
	if tu.Proto == packet.ICMP {
		return []uint16{rep.SPort, rep.SPort}
	}
	// Which of the two is asked for hangs on the rules: both are offered by hook.
	return m.needs(ip, side, e.flow.Tuples)
}

// needs tries on a fork which draws the model asks for.
func (m *model) needs(ip []byte, side int, want [2]conntrack.Tuple) []uint16 {
	rep := want[conntrack.Reply]
	// A fork freezes what it is made from, so the model goes on with another one.
	base := m.w.State
	try := func(drawn ...uint16) bool {
		w := m.w
		m.w.State = base.Fork()
		m.w.Dice = &world.Dice{Drawn: drawn}
		m.send(side, ip, nil)
		left := len(m.w.Dice.Drawn)
		ok := false
		if m.has(want) {
			ok = left == 0
		}
		m.w = w
		return ok
	}
	defer func() { m.w.State = base.Fork() }()
	for _, d := range [][]uint16{nil, {rep.DPort}, {rep.SPort}, {rep.SPort, rep.DPort}} {
		if try(d...) {
			return d
		}
	}
	return nil
}

// has tells whether there is such a connection, with ports that are known.
func (m *model) has(want [2]conntrack.Tuple) bool {
	for f := range m.t.All(&m.w) {
		if f.Tuples == want && f.Free == 0 {
			return true
		}
	}
	return false
}

func tupleOf(ip []byte) (conntrack.Tuple, bool) {
	p, ok := packet.FromIP(ip)
	if !ok || !p.Is4() {
		return conntrack.Tuple{}, false
	}
	tu := conntrack.Tuple{Src: p.Src(), Dst: p.Dst(), Proto: p.Protocol()}
	l4 := p.L4()
	switch {
	case tu.Proto == packet.ICMP && len(l4) >= 8:
		tu.SPort, tu.DPort = binary.BigEndian.Uint16(l4[4:]), binary.BigEndian.Uint16(l4)
	case tu.Proto != packet.DCCP && packet.HasPorts(tu.Proto) && len(l4) >= 4:
		tu.SPort, tu.DPort = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	default:
		return tu, false
	}
	return tu, true
}

// flowDiff compares the tables.
func (m *model) flowDiff(want map[flowKey]entry, c *counts) string {
	got := map[flowKey]conntrack.Flow{}
	for f := range m.t.All(&m.w) {
		got[keyOf(f)] = *f
	}
	if c.states == nil {
		c.states = map[string]int{}
	}
	for tu, e := range want {
		f, ok := got[tu]
		if !ok {
			if e.timeout == 0 {
				continue
			}
			return "missing: " + show(&e.flow)
		}
		if f.Proto() == packet.TCP {
			c.states[f.TCP.State.String()]++
		}
		if d := m.entryDiff(&f, &e); d != "" {
			return d
		}
		delete(got, tu)
	}
	for _, f := range got {
		if f.Expires(m.w.Now) > 0 {
			return "too much: " + show(&f)
		}
	}
	return ""
}

func show(f *conntrack.Flow) string {
	return fmt.Sprintf("%s status %#x scale %d %d flags %#x %#x",
		f.Append(nil, 0, conntrack.Format{Counters: true}), uint32(f.Status), f.TCP.Seen[0].Scale,
		f.TCP.Seen[1].Scale, f.TCP.Seen[0].Flags, f.TCP.Seen[1].Flags)
}

func (m *model) entryDiff(got *conntrack.Flow, e *entry) string {
	want := e.flow
	g, w := show(got), show(&want)
	if got.Proto() == packet.SCTP {
		g += fmt.Sprintf(" %x", got.SCTP.VTag)
		w += fmt.Sprintf(" %x", want.SCTP.VTag)
	}
	if g != w {
		return "got  " + g + "\nwant " + w
	}
	if d := int64(got.Expires(m.w.Now)) - int64(e.timeout); d < -1 || d > 1 {
		return fmt.Sprintf("%s\ngot timeout %d want %d", g, got.Expires(m.w.Now), e.timeout)
	}
	return ""
}

// describe says what a packet is.
func describe(ip []byte) string {
	p, ok := packet.FromIP(ip)
	if !ok {
		return "nothing"
	}
	s, d, _ := p.Ports()
	l4 := p.L4()
	more := fmt.Sprintf("len %d", len(l4))
	switch {
	case p.Protocol() == packet.TCP && len(l4) >= 20:
		more += fmt.Sprintf(" flags %#x seq %d ack %d win %d opts %x", l4[13],
			binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:]),
			binary.BigEndian.Uint16(l4[14:]), l4[20:min(len(l4), max(20, int(l4[12]>>4)*4))])
	default:
		more += fmt.Sprintf(" %x", l4[:min(len(l4), 48)])
	}
	return fmt.Sprintf("%d %v:%d > %v:%d %s", p.Protocol(), p.Src(), s, p.Dst(), d, more)
}
