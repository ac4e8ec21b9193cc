package nat

import (
	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/packet"
)

// The kernel looks at so many ports before it draws anew, and towards the end of a
// search evicts connections that are over.
//
// Kernel: net/netfilter/nf_nat_core.c, NF_NAT_MAX_ATTEMPTS, NF_NAT_HARDER_THRESH.
const (
	maxAttempts  = 128
	minAttempts  = 16
	harderThresh = maxAttempts / 4
)

// span are the ports to choose from.
type span struct{ min, size uint32 }

// port chooses the port, or the id of ICMP, or the key of PPTP's GRE.
//
// Kernel: net/netfilter/nf_nat_core.c, nf_nat_l4proto_unique_tuple.
func (c *choice) port() {
	key := c.key()
	if key == nil {
		return
	}
	s, ok := c.span(*key)
	if !ok {
		return
	}
	off, drawn := uint32(0), false
	switch {
	case c.r.has(ProtoOffset):
		off = uint32(*key - c.r.BasePort)
	case c.m == Src || c.r.has(protoRandomAll) || !c.n.firstFirst:
		drawn = true
	}
	attempts := min(s.size, maxAttempts)
	for {
		if drawn && !c.draw(key, s, &off) {
			return
		}
		if c.search(key, s, off, attempts) || attempts >= s.size || attempts < minAttempts {
			return
		}
		attempts /= 2
		drawn = true
	}
}

// key is the part of the tuple that is chosen, nil where there is none to choose.
func (c *choice) key() *uint16 {
	switch proto := c.to.Proto; {
	case isICMP(proto):
		return &c.to.SPort
	case proto == packet.GRE && c.f.Master == 0: // not PPTP
		return nil
	case proto == packet.GRE || c.n.t.TracksPorts(proto):
		if c.m == Dst {
			return &c.to.DPort
		}
		return &c.to.SPort
	}
	return nil
}

// span are the ports that may be chosen. Without a range a source port stays in its
// class: below 512, below 1024, or above; a destination port stays as it is.
func (c *choice) span(port uint16) (span, bool) {
	proto := c.to.Proto
	if c.r.has(ProtoSpecified) {
		lo, hi := uint32(c.r.MinPort), uint32(c.r.MaxPort)
		if lo > hi && !isICMP(proto) && proto != packet.GRE {
			lo, hi = hi, lo
		}
		return span{lo, hi - lo + 1}, hi >= lo
	}
	switch {
	case isICMP(proto):
		return span{0, 65536}, true
	case proto == packet.GRE:
		return span{1, 65535}, true
	case c.m == Dst:
		return span{}, false
	case port < 512:
		return span{1, 511}, true
	case port < 1024:
		return span{600, 1023 - 600 + 1}, true
	}
	return span{1024, 65535 - 1024 + 1}, true
}

// draw gives the place where the search begins: what the kernel is known to have
// drawn, or a roll of the dice. Where neither is at hand the port stays open, and
// there is nothing to search for.
func (c *choice) draw(key *uint16, s span, off *uint32) bool {
	if c.w.Dice != nil {
		if p, ok := c.w.Dice.NextDrawn(uint16(s.min), uint16(s.min+s.size-1)); ok {
			*key = p
			c.usedHarder(0) // what has it must have made room
			return false
		}
		if c.w.Dice.Rand != nil {
			*off = c.w.Dice.Rand.Uint32N(65536)
			return true
		}
	}
	if s.size == 1 {
		*off = 0
		return true
	}
	c.leaveOpen(key, s)
	return false
}

// leaveOpen keeps the port from before the mapping in the place of one that was drawn,
// or the next that would do where another connection has that one. Where others have all
// ports, the last one is taken, and the connection clashes when it is confirmed.
func (c *choice) leaveOpen(key *uint16, s span) {
	if before := *key; s.size <= maxAttempts {
		if !c.search(key, s, 0, s.size) {
			return
		}
		*key = before
	}
	c.free = true
	ports := conntrack.Ports{Min: uint16(s.min), Max: uint16(s.min + s.size - 1)}
	if c.m == Src || isICMP(c.to.Proto) {
		c.f.Free |= packet.FreeSrcPort
		c.f.FreeSrc = ports
	} else {
		c.f.Free |= packet.FreeDstPort
		c.f.FreeDst = ports
	}
	if c.used(c.to) {
		c.search(key, s, uint32(*key)-s.min, min(s.size, maxAttempts))
	}
}

// search looks for a free port from a place on; without success the last one that
// was looked at stays.
func (c *choice) search(key *uint16, s span, off, attempts uint32) bool {
	for i := uint32(0); i < attempts; i++ {
		*key = uint16(s.min + uint32(uint16(off+i))%s.size)
		if !c.usedHarder(attempts - i) {
			return true
		}
	}
	return false
}

// usedHarder is used, but with few attempts left a new TCP connection may take the
// place of one that is over.
//
// Kernel: net/netfilter/nf_nat_core.c, nf_nat_used_tuple_harder (since 6.7).
func (c *choice) usedHarder(left uint32) bool {
	if !c.n.harder || left > harderThresh || c.to.Proto != packet.TCP ||
		c.f.TCP.State != conntrack.TCPSynSent {
		return c.used(c.to)
	}
	reply, _ := c.to.Invert()
	id, dir := c.n.t.Find(c.w, c.f.Zone, reply)
	if id == 0 {
		return false
	}
	old := c.n.t.Ref(c.w, id)
	if dir == conntrack.Original || old.TCP.State < conntrack.TCPTimeWait ||
		old.Any(conntrack.FixedTimeout|conntrack.Dying) || !old.Is(conntrack.SrcNAT) {
		return true
	}
	if int32(c.f.TCP.Seen[0].End-old.TCP.Seen[0].End) <= 0 {
		return true
	}
	offloaded := old.Any(conntrack.Offload | conntrack.HWOffload)
	return !c.n.t.Kill(c.w, id) || offloaded
}
