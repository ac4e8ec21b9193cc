package ipset

import (
	"bytes"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// Entries yields the entries of a set as they are in a world, in the kernel's order
// of the loaded ones, then those in buckets that packets have changed. Entries whose
// time is over are passed over, as `ipset list` does.
func (s *Sets) Entries(w *world.World, set int, yield func(*Entry) bool) {
	l, a := s.sets[set], ask{w: w, sets: s}
	switch l.kind.class {
	case classHash:
		a.eachHash(l, yield)
	case classBitmap:
		a.eachPlace(l, yield)
	default:
		for i := range l.members {
			e := Entry{Set: l.members[i].name, Comment: l.comments[uint32(i)]}
			if a.gone(l, uint32(i)) {
				continue
			}
			a.carry(l, &e, uint32(i), true)
			if !yield(&e) {
				return
			}
		}
	}
}

func (a *ask) eachHash(l *live, yield func(*Entry) bool) {
	changed, t := l.buckets.In(a.w.State), l.hash
	for _, i := range t.order {
		if changed.Len() > 0 {
			if _, ok := changed.Get(t.hashes[i] & t.mask()); ok {
				continue
			}
		}
		if !a.yieldElem(l, t.at(i), i, l.comments[i], yield) {
			return
		}
	}
	for _, b := range changed.All {
		for i := range b.slots {
			s := &b.slots[i]
			note := ""
			if !s.bare {
				note = l.comments[s.ref]
			}
			if s.used && !a.yieldElem(l, s.bytes(l), s.ref, note, yield) {
				return
			}
		}
	}
}

// bytes are those of an entry with its attributes.
func (s *slot) bytes(l *live) []byte {
	b := s.e[:l.hash.l.size]
	b[len(b)-1] = lastByte(l, s)
	return b
}

func (a *ask) yieldElem(l *live, kept []byte, ref uint32, note string,
	yield func(*Entry) bool) bool {
	if a.gone(l, ref) {
		return true
	}
	e := l.entryOf(kept)
	e.Comment = note
	a.carry(l, &e, ref, true)
	return yield(&e)
}

// entryOf makes an Entry of what is kept.
func (s *Set) entryOf(kept []byte) Entry {
	r := s.unpack(&s.hash.l, kept)
	e := Entry{Addr: r.ip, Port: r.port, Proto: r.proto, Mark: r.mark, MAC: r.mac,
		HasMAC: s.kind.count(partMAC) > 0, PhysDev: r.physdev}
	if n := bytes.IndexByte(r.iface[:], 0); n > 0 {
		e.Iface = string(r.iface[:n])
	}
	for i := range s.kind.nets() {
		n := s.kind.netIndex(i)
		e.Prefix[n], e.HasPrefix[n] = r.cidr[i], true
	}
	if s.kind.nets() > 0 {
		attr := kept[len(kept)-1]
		e.NoMatch, e.Wildcard = attr&attrNoMatch != 0, attr&attrWildcard != 0
	}
	return e
}

// carry adds the extensions to an entry; running tells that its time has begun.
func (a *ask) carry(l *live, e *Entry, ref uint32, running bool) {
	if !l.hasExt() {
		return
	}
	x := l.exts.In(a.w.State).Get(int(ref))
	e.Packets, e.Bytes, e.HasCounts = x.packets, x.bytes, l.Counters
	e.Info, e.HasInfo = x.info, l.SKBInfo
	if e.HasTimeout = l.HasTimeout; !e.HasTimeout || x.expires == 0 {
		return
	}
	if !running {
		e.Timeout = uint32(x.expires)
		return
	}
	e.Timeout = uint32(max((x.expires-a.w.Now)/world.Second, 1))
}

func (a *ask) eachPlace(l *live, yield func(*Entry) bool) {
	for id := range l.bitmap.elements {
		m := a.placeAt(l, id)
		if !m.set || a.goneFrom(l, id, m) {
			continue
		}
		e := Entry{HasMAC: m.filled && l.kind.count(partMAC) > 0, MAC: m.mac}
		if l.kind.count(partPort) > 0 {
			e.Port = l.FirstPort + uint16(id)
		} else {
			e.Addr[0] = packet.V4(l.First.Uint32() + id*l.bitmap.hosts)
		}
		if !m.bare {
			e.Comment = l.comments[id]
		}
		a.carry(l, &e, id, m.filled || l.kind.count(partMAC) == 0)
		if !yield(&e) {
			return
		}
	}
}

// EachMAC yields the MAC addresses of a set's entries, and of those of a list's
// members.
func (s *Sets) EachMAC(w *world.World, set int, yield func(packet.MAC) bool) {
	more := true
	s.eachSet(&Query{Set: set}, func(l *live) {
		if !more || l.kind.count(partMAC) == 0 {
			return
		}
		s.Entries(w, l.id, func(e *Entry) bool {
			more = !e.HasMAC || yield(e.MAC)
			return more
		})
	})
}

// Holds tells whether an entry is in a set, as `ipset test` does.
//
// Kernel: net/netfilter/ipset/ip_set_core.c, ip_set_utest.
func (s *Sets) Holds(w *world.World, set int, e *Entry) bool {
	l, a := s.sets[set], ask{w: w, sets: s, q: &Query{}, at: &Place{}, flags: Peek}
	switch l.kind.class {
	case classList:
		i := l.memberAt(e.Set)
		return i >= 0 && !a.gone(l, uint32(i))
	case classBitmap:
		return a.holdsPlace(l, e)
	}
	r, ok := l.recOf(e)
	if !ok {
		return false
	}
	n := a.testRec(l, &r)
	if e.NoMatch {
		return n == errNoMatch
	}
	return n > 0
}

// recOf is the one element that an entry stands for.
func (s *Set) recOf(e *Entry) (r rec, ok bool) {
	l := loading{s: s, e: e}
	if l.check() != nil {
		return r, false
	}
	r = rec{ip: e.Addr, mark: e.Mark & s.MarkMask, port: e.Port, proto: e.Proto,
		physdev: e.PhysDev, mac: e.MAC}
	copy(r.iface[:15], e.Iface)
	if !withPorts(r.proto) && r.proto != packet.ICMP && r.proto != packet.ICMPv6 {
		r.port = 0
	}
	for i := range s.kind.count(partIP) + s.kind.nets() {
		if s.Bitmask != (packet.Addr{}) {
			r.ip[i] = andAddr(r.ip[i], s.Bitmask, s.Family)
		}
	}
	for i := range s.kind.nets() {
		n := s.kind.netIndex(i)
		r.cidr[i] = s.Family.hostBits()
		if e.HasPrefix[n] {
			r.cidr[i] = e.Prefix[n]
		}
		r.ip[n] = maskAddr(r.ip[n], r.cidr[i], s.Family)
	}
	return r, true
}

func (a *ask) holdsPlace(l *live, e *Entry) bool {
	var id uint32
	switch ip := e.Addr[0].Uint32(); {
	case l.kind.count(partPort) > 0:
		if e.Port < l.FirstPort || e.Port > l.LastPort {
			return false
		}
		id = uint32(e.Port - l.FirstPort)
	case ip < l.First.Uint32() || ip > l.Last.Uint32():
		return false
	default:
		id = l.ipPlace(ip)
	}
	m := a.placeAt(l, id)
	if !m.set || a.goneFrom(l, id, m) {
		return false
	}
	return !m.filled || l.kind.count(partMAC) == 0 || !e.HasMAC || m.mac == e.MAC
}
