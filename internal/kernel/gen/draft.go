package gen

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/hookpath/hookpath/internal/kernel"
)

// draft draws a packet and bends it to a rule, so that rules hit.
func (g *Gen) draft() *draft {
	d := &draft{ttl: one[uint8](g, 64, 64, 64, 63, 128), sport: uint16(g.between(1024, 1030)),
		dport: pick(g, ports()), seq: 1000, id: uint16(g.between(1, 3)), icmpType: 8,
		flags: one[uint8](g, 2, 2, 2, 2, 0x10, 0x18, 0x04, 0x11),
		spi:   one[uint32](g, 300, 900)}
	d.proto = draw(g, protocols()[:3]).number
	f := pick(g, g.host.ifaces)
	d.in, d.from = f.name, pick(g, f.neighs[:3])
	r := g.bendingRule()
	g.direct(d, r)
	if r != nil {
		g.bend(d, r)
		g.bendMore(d, r)
	}
	g.last.bent = r
	if d.proto == 0 {
		d.proto = 17
	}
	g.vary(d)
	return d
}

// bendingRule draws a rule to fit, sometimes none.
func (g *Gen) bendingRule() *rule {
	if f := g.host.features; len(f) > 0 && g.chance(70) {
		return pick(g, f)
	}
	c := pick(g, g.host.chains())
	if len(c.rules) == 0 || g.chance(10) {
		return nil
	}
	return pick(g, c.rules)
}

// direct draws where the packet comes from and goes to, such that it passes the
// rule's hook.
func (g *Gen) direct(d *draft, r *rule) {
	hook := one(g, "PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
	if r != nil {
		hook = r.hook
	}
	d.out = hook == "OUTPUT" || hook == "POSTROUTING" && g.chance(35)
	switch {
	case d.out:
		d.src = one(g, pick(g, g.host.own()), pick(g, g.host.own()), netip.IPv4Unspecified())
		d.dst = g.far(d)
	case hook == "INPUT" || hook == "PREROUTING" && g.chance(40):
		d.src, d.dst = g.near(d), pick(g, g.host.own())
		if g.chance(25) {
			g.toService(d)
		}
	default:
		d.src, d.dst = g.near(d), g.far(d)
	}
	if g.chance(8) {
		d.dst = g.anyAddr()
	}
	if g.chance(6) {
		d.src = g.anyAddr()
	}
}

// near is a plausible source of a frame that arrives on the draft's device.
func (g *Gen) near(d *draft) netip.Addr {
	if g.chance(25) {
		return g.within(pick(g, remotes()))
	}
	return one(g, d.from, d.from, pick(g, g.host.iface(d.in).neighs))
}

// far is a destination beyond this host.
func (g *Gen) far(d *draft) netip.Addr {
	if len(g.host.remotes) > 0 && g.chance(55) {
		return g.within(pick(g, g.host.remotes))
	}
	f := pick(g, g.host.ifaces)
	if f.name == d.in && !d.out {
		f = pick(g, g.host.ifaces)
	}
	return pick(g, f.neighs)
}

// bend applies what the rule asks, and what the rules that lead to it ask.
func (g *Gen) bend(d *draft, r *rule) {
	for depth := 0; r != nil && depth < 5; depth++ {
		for _, wish := range r.bend {
			if !g.chance(10) { // else it misses closely
				wish(d)
			}
		}
		r = r.chain.parent
	}
	if d.mss != 0 && d.flags&2 == 0 {
		d.flags = 2
	}
	if f := g.host.iface(d.in); f != nil && !d.from.IsValid() {
		d.from = f.neighs[0]
	}
}

// bendMore has a packet fit more of what the scenario is about, where that does not take
// it to another hook or protocol.
func (g *Gen) bendMore(d *draft, r *rule) {
	proto := d.proto
	for _, f := range g.host.features {
		if f == r || f.hook != r.hook || f.proto != 0 && f.proto != proto || g.chance(50) {
			continue
		}
		out := d.out
		g.bend(d, f)
		d.out = out
		if r.proto != 0 {
			d.proto = proto
		}
	}
}

// vary draws what the rule left open.
func (g *Gen) vary(d *draft) {
	if d.tos == 0 && g.chance(12) {
		d.tos = pick(g, g.host.tos)
	}
	if d.payload == "" && g.chance(40) {
		d.payload = one(g, "x", "data data data", "GET / HTTP/1.0\r\n")
	}
	if d.total == 0 && g.chance(5) {
		d.total = one(g, 1300, 1450, 1500)
	}
	d.dontFrag = g.chance(50)
	if g.chance(4) {
		d.ttl = one[uint8](g, 1, 0, 2)
	}
	if g.chance(3) && !d.out {
		d.options = one(g, []byte{1, 1, 1, 1}, []byte{7, 7, 4, 0, 0, 0, 0, 0},
			[]byte{0x83, 7, 4, 10, 1, 0, 9, 0}, []byte{0x94, 4, 0, 0})
	}
	if d.out && d.mark == 0 && g.chance(25) {
		d.mark = pick(g, g.host.marks)
	}
	if d.out && d.uid == 0 && g.chance(15) {
		d.uid = one[uint32](g, 33, 1000)
	}
	if d.out && g.chance(8) {
		d.dev = g.dev()
	}
}

// question makes the draft a question.
func (g *Gen) question(d *draft) kernel.Question {
	b := d.packet()
	if d.out {
		return g.outQuestion(d, b)
	}
	if d.fragment || g.chance(2) {
		b = g.cutFragment(b)
	}
	if g.chance(2) {
		b = g.spoil(b)
	}
	in := d.in
	if f := g.host.iface(in); f != nil {
		in = f.port(d.from)
	}
	return kernel.Question{In: in, Frame: append(g.ether(d), b...)}
}

func (g *Gen) outQuestion(d *draft, b []byte) kernel.Question {
	q := kernel.Question{Out: true, Packet: b, Mark: d.mark, UID: d.uid, GID: d.gid, Dev: d.dev}
	q.Socket = "raw"
	switch {
	case d.proto == 17 && g.chance(60):
		q.Socket = "udp"
	case d.proto == 1 && g.chance(40) && d.icmpType == 8:
		q.Socket = "icmp"
	case d.proto == 6 && d.flags == 2 && g.chance(25):
		q.Socket = "tcp"
	}
	if q.Socket != "raw" && !d.src.IsUnspecified() && !slices.Contains(g.host.own(), d.src) {
		q.Socket = "raw" // no program could bind to that source
	}
	q.Transparent = q.Socket == "raw" && g.chance(10)
	return q
}

// ether draws the Ethernet header: to the device, rarely to somebody else, and
// to everybody where the destination asks for it.
func (g *Gen) ether(d *draft) []byte {
	f := g.host.iface(d.in)
	if f == nil {
		f = g.host.ifaces[0]
	}
	to, from := f.mac(), f.neighMAC(d.from)
	dst := d.dst.As4()
	switch {
	case d.dst.IsMulticast():
		to = [6]byte{1, 0, 0x5e, dst[1] & 0x7f, dst[2], dst[3]}
	case d.dst == addr(255, 255, 255, 255) || dst[3] == 255 && g.chance(80):
		to = [6]byte{255, 255, 255, 255, 255, 255}
	case len(f.ports) > 0 && slices.Contains(f.neighs, d.dst) && d.dst != d.from:
		to = f.neighMAC(d.dst) // bridged
	case g.chance(1):
		to = [6]byte{2, 9, 9, 9, 9, 9}
	}
	b := append(to[:len(to):len(to)], from[:]...)
	return append(b, 8, 0)
}

// cutFragment makes the packet a first fragment, or a later one.
func (g *Gen) cutFragment(b []byte) []byte {
	n := int(b[0]&15) * 4
	if len(b) < n+16 {
		return b
	}
	b[6] &^= 0x40
	field := uint16(0x2000) // more to come
	if g.chance(50) {
		field = uint16(g.between(1, 100))
	}
	cut := n + 8*max(1, (len(b)-n)/8)
	b = b[:cut]
	binary.BigEndian.PutUint16(b[6:], field)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return finish(b)
}

// spoil makes a packet that no program would send.
func (g *Gen) spoil(b []byte) []byte {
	n := int(b[0]&15) * 4
	switch g.IntN(7) {
	case 0: // truncated below its transport header
		b = b[:min(len(b), n+g.between(0, 12))]
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		return finish(b)
	case 1: // a wrong IP checksum
		b[10] ^= 0x55
	case 2: // a wrong transport checksum
		b[len(b)-1] ^= 0x55
	case 3: // a length beyond the frame
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)+8))
		return finish(b)
	case 4: // padding behind the packet
		b = append(b, 0, 0, 0, 0, 0, 0)
	case 5: // a transport header that says it is longer
		if b[9] == 6 && len(b) > n+12 {
			b[n+12] = 15 << 4
		}
		return finish(b)
	case 6: // a version of its own
		b[0] = b[0]&15 | 5<<4
	}
	return b
}
