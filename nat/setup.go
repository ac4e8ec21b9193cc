package nat

import (
	"encoding/binary"
	"math/bits"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Setup decides how a connection is translated, which its first packet alone may
// ask for.
//
// Kernel: net/netfilter/nf_nat_core.c, nf_nat_setup_info.
func (n *NAT) Setup(w *world.World, id packet.FlowID, r Range, m Manip) trace.Verdict {
	f := n.t.Get(w, id)
	if f == nil || f.Is(conntrack.Confirmed) {
		return trace.Accept
	}
	if f.Is(m.done()) {
		return trace.DropIt
	}
	now, _ := f.Tuples[conntrack.Reply].Invert()
	c := choice{n: n, w: w, id: id, f: f, r: r, m: m, orig: now, to: now}
	c.unique()
	if c.to != now || c.free {
		reply, _ := c.to.Invert()
		n.t.AlterReply(w, id, reply)
		f.Status |= m.bit()
	}
	if m == Src {
		n.t.AddSource(w, id)
	}
	f.Status |= m.done()
	return trace.Accept
}

// NullBinding decides that a connection keeps its address here; its port may have to
// change, where another connection has it already.
//
// Kernel: net/netfilter/nf_nat_core.c, __nf_nat_alloc_null_binding.
func (n *NAT) NullBinding(w *world.World, id packet.FlowID, m Manip) trace.Verdict {
	reply := &n.t.Ref(w, id).Tuples[conntrack.Reply]
	a := reply.Dst
	if m == Dst {
		a = reply.Src
	}
	return n.Setup(w, id, Range{}.At(a), m)
}

// choice is the search for a mapping that nobody else has.
type choice struct {
	n    *NAT
	w    *world.World
	id   packet.FlowID
	f    *conntrack.Flow
	r    Range
	m    Manip
	orig conntrack.Tuple
	to   conntrack.Tuple
	free bool // the port was drawn, and nobody knows which
}

// used tells whether answers to a tuple would be another connection's.
//
// Kernel: net/netfilter/nf_nat_core.c, nf_nat_used_tuple.
func (c *choice) used(tu conntrack.Tuple) bool {
	reply, _ := tu.Invert()
	return c.n.t.Taken(c.w, reply, c.id)
}

// usedNew is used, but not where the other is the same conversation seen from behind
// and neither is translated: that is left to the clash when it is confirmed.
//
// Kernel: net/netfilter/nf_nat_core.c, nf_nat_used_tuple_new (since 6.12).
func (c *choice) usedNew(tu conntrack.Tuple) bool {
	const uses = conntrack.NATMask | conntrack.SeqAdjust
	t, f := c.n.t, c.f
	if !c.used(tu) {
		return false
	}
	if !c.n.reverse || !t.AllowsClash(tu.Proto) || f.Any(uses) {
		return true
	}
	id, _ := t.Find(c.w, f.Zone, tu)
	if id == 0 {
		reply, _ := tu.Invert()
		if id, _ = t.Find(c.w, f.Zone, reply); id == 0 {
			return false
		}
	}
	other := t.Ref(c.w, id)
	return other.Any(uses) || other.Tuples[0] != f.Tuples[1] || other.Tuples[1] != f.Tuples[0]
}

// unique chooses the tuple.
//
// Kernel: net/netfilter/nf_nat_core.c, get_unique_tuple.
func (c *choice) unique() {
	random := c.r.has(protoRandomAll)
	if c.m == Src && !random && c.sameSource() {
		return
	}
	c.to = c.orig
	c.address()
	if !random && c.fits() {
		return
	}
	c.port()
}

// sameSource tries what the packet has, then what the same source is mapped to
// already.
func (c *choice) sameSource() bool {
	if c.holds(&c.orig) {
		if !c.usedNew(c.orig) {
			c.to = c.orig
			return true
		}
		return false
	}
	return c.appropriate() && !c.used(c.to)
}

// appropriate finds a mapping of the same source that lies in the range.
//
// Kernel: net/netfilter/nf_nat_core.c, find_appropriate_src.
func (c *choice) appropriate() bool {
	t, z := c.n.t, c.f.Zone
	id := t.SameSource(c.w, conntrack.SourceOf(&c.orig, z))
	for ; id != 0; id = t.NextSource(c.w, id) {
		f := t.Ref(c.w, id)
		if f.Zone.In(conntrack.Original) != z.In(conntrack.Original) {
			continue
		}
		to, _ := f.Tuples[conntrack.Reply].Invert()
		to.Dst, to.DPort, to.Proto = c.orig.Dst, c.orig.DPort, c.orig.Proto
		if c.holds(&to) {
			c.to = to
			return true
		}
	}
	return false
}

// holds tells whether a mapped source lies in the range.
//
// Kernel: net/netfilter/nf_nat_core.c, nf_in_range.
func (c *choice) holds(tu *conntrack.Tuple) bool {
	if c.r.has(MapIPs) && !c.r.inAddrs(tu.Src) {
		return false
	}
	return !c.r.has(ProtoSpecified) || c.inPorts(tu, Src)
}

// inPorts tells whether the part of a tuple that is translated lies in the range.
//
// Kernel: net/netfilter/nf_nat_core.c, l4proto_in_range.
func (c *choice) inPorts(tu *conntrack.Tuple, m Manip) bool {
	port := tu.SPort
	switch {
	case isICMP(tu.Proto):
	case tu.Proto == packet.GRE || c.n.t.TracksPorts(tu.Proto):
		if m == Dst {
			port = tu.DPort
		}
	default:
		return true
	}
	return port >= c.r.MinPort && port <= c.r.MaxPort
}

func isICMP(proto uint8) bool { return proto == packet.ICMP || proto == packet.ICMPv6 }

// fits tells whether the tuple will do with the port that it has.
func (c *choice) fits() bool {
	if !c.r.has(ProtoSpecified) {
		return !c.used(c.to)
	}
	return !c.r.has(ProtoOffset) && c.inPorts(&c.to, c.m) &&
		(c.r.MinPort == c.r.MaxPort || !c.used(c.to))
}

// address chooses among the range's addresses by a hash of the packet's, without a
// secret: the same client gets the same address, on every machine.
//
// Kernel: net/netfilter/nf_nat_core.c, find_best_ips_proto.
func (c *choice) address() {
	if !c.r.has(MapIPs) {
		return
	}
	to := &c.to.Src
	if c.m == Dst {
		to = &c.to.Dst
	}
	if c.r.MinAddr == c.r.MaxAddr {
		*to = c.r.MinAddr
		return
	}
	src, dst := words(c.to.Src), words(c.to.Dst)
	last := len(c.to.Dst.Bytes())/4 - 1
	var seed uint32
	if !c.r.has(Persistent) {
		seed = dst[last] ^ uint32(c.f.Zone.ID)
	}
	j := jhash2(src, seed)
	low, high, b := c.r.MinAddr.Bytes(), c.r.MaxAddr.Bytes(), to.Bytes()
	full := false
	for i := 0; i <= last; i++ {
		lo, dist := uint32(0), ^uint32(0)
		if !full {
			lo = binary.BigEndian.Uint32(low[4*i:])
			dist = binary.BigEndian.Uint32(high[4*i:]) - lo + 1
		}
		v := lo + uint32(uint64(j)*uint64(dist)>>32)
		binary.BigEndian.PutUint32(b[4*i:], v)
		full = full || v != binary.BigEndian.Uint32(high[4*i:])
		if !c.r.has(Persistent) {
			j ^= words(c.to.Dst)[i]
		}
	}
}

// words are the four words of an address as a little-endian machine reads them from
// the kernel's union; IPv4 takes the first.
func words(a packet.Addr) (k [4]uint32) {
	b := a.Bytes()
	for i := range len(b) / 4 {
		k[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return k
}

// jhash2 hashes four words.
//
// Kernel: include/linux/jhash.h, jhash2.
func jhash2(k [4]uint32, seed uint32) uint32 {
	a := 0xdeadbeef + uint32(len(k)<<2) + seed
	b, c := a, a
	a, b, c = a+k[0], b+k[1], c+k[2]
	mix := [...]int{4, 6, 8, 16, 19, 4}
	for i := 0; i < len(mix); i += 3 {
		a = (a - c) ^ bits.RotateLeft32(c, mix[i])
		c += b
		b = (b - a) ^ bits.RotateLeft32(a, mix[i+1])
		a += c
		c = (c - b) ^ bits.RotateLeft32(b, mix[i+2])
		b += a
	}
	a += k[3]
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	return (c ^ b) - bits.RotateLeft32(b, 24)
}
