package ipset

import (
	"github.com/hookpath/hookpath/packet"
)

// bitmap is the content of a bitmap set as it was loaded.
//
// Kernel: net/netfilter/ipset/ip_set_bitmap_gen.h.
type bitmap struct {
	elements uint32 // the number of places
	hosts    uint32 // addresses of one place
	n        int
	bits     []uint64
	macs     map[uint32]packet.MAC // of the places whose address is known
}

// mapped is a place that packets have changed.
type mapped struct {
	set, filled bool
	bare        bool // without the comment that stood there
	mac         packet.MAC
}

// createBitmap checks the range of a bitmap.
//
// Kernel: bitmap_ip_create, bitmap_ipmac_create, bitmap_port_create.
func (s *Set) createBitmap() error {
	b := &bitmap{hosts: 1, macs: map[uint32]packet.MAC{}}
	s.bitmap = b
	if s.kind.count(partPort) > 0 {
		if s.FirstPort > s.LastPort {
			s.FirstPort, s.LastPort = s.LastPort, s.FirstPort
		}
		b.elements = uint32(s.LastPort-s.FirstPort) + 1
	} else if err := s.createRange(b); err != nil {
		return err
	}
	b.bits = make([]uint64, (b.elements+63)/64)
	if s.hasExt() {
		s.ext = make([]ext, b.elements)
	}
	return nil
}

func (s *Set) createRange(b *bitmap) error {
	if !s.First.Is4() || !s.Last.Is4() {
		return refuse("%s needs a range of IPv4 addresses", s.Type)
	}
	first, last := s.First.Uint32(), s.Last.Uint32()
	if first > last {
		first, last = last, first
	}
	n := uint64(last) - uint64(first) + 1
	switch {
	case s.Netmask > 32:
		return refuse("netmask %d is longer than an address", s.Netmask)
	case s.Netmask != 0 && s.Netmask != 32:
		rest := uint32(1)<<(32-s.Netmask) - 1
		first, last = first&^rest, last|rest
		bits, ok := rangeBits(first, last)
		if !ok || s.Netmask <= bits {
			return refuse("the range is no network that netmask %d can divide", s.Netmask)
		}
		b.hosts, n = rest+1, 1<<(s.Netmask-bits)
	}
	if n > maxBitmap {
		return refuse("the range has %d places, more than %d", n, maxBitmap)
	}
	s.First, s.Last, b.elements = packet.V4(first), packet.V4(last), uint32(n)
	return nil
}

// rangeBits is the length of the prefix that a range is.
//
// Kernel: net/netfilter/ipset/ip_set_bitmap_ip.c, range_to_mask.
func rangeBits(from, to uint32) (uint8, bool) {
	mask, bits := uint32(0xfffffffe), uint8(31)
	for ; bits > 0 && mask != 0 && to&mask != from; bits-- {
		mask <<= 1
	}
	return bits, mask != 0 || from == 0 && to == 1<<32-1
}

// place is where the packet stands in a bitmap.
func (a *ask) place(l *live) (id uint32, m packet.MAC, ret int) {
	if l.kind.count(partPort) > 0 {
		id, ret = a.portPlace(l)
		return id, m, ret
	}
	ip := a.addr(l, a.q.src(0))
	if ip.Uint32() < l.First.Uint32() || ip.Uint32() > l.Last.Uint32() {
		return 0, m, errRange
	}
	if l.kind.count(partMAC) > 0 {
		ok := false
		if m, ok = a.mac(a.q.src(1)); !ok {
			return 0, m, errInvalid
		}
	}
	return l.ipPlace(ip.Uint32()), m, okay
}

func (s *Set) ipPlace(ip uint32) uint32 {
	return (ip&^(s.bitmap.hosts-1) - s.First.Uint32()) / s.bitmap.hosts
}

func (a *ask) portPlace(l *live) (uint32, int) {
	port, proto, ok := a.port(a.q.src(0))
	if !ok || proto != packet.TCP && proto != packet.UDP {
		return 0, errInvalid
	}
	if port < l.FirstPort || port > l.LastPort {
		return 0, errRange
	}
	return uint32(port - l.FirstPort), okay
}

// placeAt is what stands at a place now.
func (a *ask) placeAt(l *live, id uint32) mapped {
	if tab := l.ids.In(a.w.State); tab.Len() > 0 {
		if m, ok := tab.Get(id); ok {
			return m
		}
	}
	b := l.bitmap
	m := mapped{set: b.bits[id/64]>>(id%64)&1 != 0}
	m.mac, m.filled = b.macs[id]
	return m
}

// testBitmap tells whether the packet is in a bitmap. errAgain means that the entry
// lacks the MAC address that the packet has.
//
// Kernel: mtype_test of ip_set_bitmap_gen.h, bitmap_ipmac_do_test.
func (a *ask) testBitmap(l *live) int {
	id, mac, ret := a.place(l)
	if ret != okay {
		return ret
	}
	m := a.placeAt(l, id)
	switch {
	case !m.set:
		return 0
	case l.kind.count(partMAC) == 0:
	case !m.filled:
		return errAgain
	case m.mac != mac:
		return 0
	}
	if !a.matchExt(l, id, a.flags) {
		return 0
	}
	return 1
}

// addBitmap adds the packet's element.
//
// Kernel: mtype_add of ip_set_bitmap_gen.h, bitmap_ipmac_do_add.
func (a *ask) addBitmap(l *live) int {
	id, mac, ret := a.place(l)
	if ret != okay {
		return ret
	}
	m := a.placeAt(l, id)
	hasMAC := l.kind.count(partMAC) > 0
	again := m.set && (m.filled || !hasMAC)
	if again && a.flags&Exist == 0 && !a.goneFrom(l, id, m) {
		return errExist
	}
	stored := m.set && hasMAC && !m.filled
	if !again || a.flags&Exist != 0 {
		m.mac = mac
	}
	// The comment is lost: of an entry that gets its MAC address as well.
	m.bare = m.bare || m.set
	m.set, m.filled = true, hasMAC
	l.ids.In(a.w.State).Put(id, m)
	if l.hasExt() {
		x := l.exts.In(a.w.State).Ref(int(id))
		fresh := a.fresh(l)
		if stored && a.timeout(l) == l.Timeout {
			fresh.expires = a.until(uint32(x.expires))
		}
		*x = fresh
	}
	return okay
}

// goneFrom tells whether the time of a place's entry is over; it has not begun while
// the MAC address is unknown.
func (a *ask) goneFrom(l *live, id uint32, m mapped) bool {
	if l.kind.count(partMAC) > 0 && !m.filled {
		return false
	}
	return a.gone(l, id)
}

// delBitmap takes the packet's element out, whatever its MAC address.
//
// Kernel: mtype_del of ip_set_bitmap_gen.h.
func (a *ask) delBitmap(l *live) int {
	id, _, ret := a.place(l)
	if ret != okay {
		return ret
	}
	m := a.placeAt(l, id)
	if !m.set {
		return errExist
	}
	l.ids.In(a.w.State).Put(id, mapped{bare: true})
	if a.goneFrom(l, id, m) || a.waiting(l, id, m) {
		return errExist
	}
	return okay
}

// waiting: an entry without MAC address keeps its seconds where others keep a moment,
// and the kernel takes them for one that is long over.
func (a *ask) waiting(l *live, id uint32, m mapped) bool {
	return l.HasTimeout && l.kind.count(partMAC) > 0 && !m.filled &&
		l.exts.In(a.w.State).Get(int(id)).expires != 0
}
