package ipset

import (
	"bytes"
	"math/bits"

	"github.com/hookpath/hookpath/packet"
)

// table is the content of a hash set as it was loaded: entries one behind another,
// and an index by the low bits of the kernel's hash. The kernel's own buckets are
// found in it, though its table may be far larger.
//
// Kernel: net/netfilter/ipset/ip_set_hash_gen.h, struct htable.
type table struct {
	l          layout
	bits       uint8 // of the kernel's table
	bucketSize uint8
	initval    uint32
	n          int
	elems      []byte
	hashes     []uint32
	nets       nets
	regions    []uint32 // entries of each region of 1024 buckets

	// The index, a list for each of its buckets while loading ...
	ibits uint8
	heads []uint32 // entry + 1
	tails []uint32
	next  []uint32
	// ... and sorted once it is frozen.
	starts []uint32
	order  []uint32
}

// regionBits is HTABLE_REGION_BITS.
const regionBits = 10

func numRegions(bits uint8) uint32 {
	if bits < regionBits {
		return 1
	}
	return 1 << (bits - regionBits)
}

// createHash checks the options of a hash type.
//
// Kernel: net/netfilter/ipset/ip_set_hash_gen.h, hash_*_create.
func (s *Set) createHash() error {
	if s.HashSize == 0 {
		s.HashSize = defaultHashSize
	}
	s.HashSize = max(s.HashSize, minHashSize)
	if s.MaxElem == 0 && !s.NoElem {
		s.MaxElem = defaultMaxElem
	}
	if err := s.checkMasks(); err != nil {
		return err
	}
	t := &table{l: s.layoutOf(), bits: uint8(bits.Len32(s.HashSize - 1)), initval: s.InitVal}
	if t.bits > 31 {
		return refuse("hashsize %d is too large", s.HashSize)
	}
	t.bucketSize = maxBucket
	if s.BucketSize != 0 {
		t.bucketSize = min(max(s.BucketSize, initBucket), maxBucket)
		t.bucketSize += t.bucketSize % 2
	}
	t.nets.tuned = t.bucketSize
	t.ibits = 3
	t.heads, t.tails = make([]uint32, 8), make([]uint32, 8)
	s.hash = t
	return nil
}

func (s *Set) checkMasks() error {
	host := s.Family.hostBits()
	switch {
	case s.Netmask > host:
		return refuse("netmask %d is longer than an address of %s", s.Netmask, s.Family)
	case s.Netmask != 0 && s.Bitmask != (packet.Addr{}):
		return refuse("netmask and bitmask exclude each other")
	case s.Netmask != 0:
		s.Bitmask = prefixAddr(s.Netmask, s.Family)
	case s.Bitmask == (packet.Addr{}):
	case s.Bitmask.Is4() != (s.Family == Inet):
		return refuse("bitmask %s is not of family %s", s.Bitmask, s.Family)
	case s.Bitmask.IsAny():
		return refuse("the bitmask is zero")
	}
	if s.kind.count(partMark) > 0 && s.MarkMask == 0 {
		s.MarkMask = 1<<32 - 1
	}
	return nil
}

// at returns the bytes of entry i.
func (t *table) at(i uint32) []byte { return t.elems[int(i)*t.l.size:][:t.l.size] }

// attrs returns the attributes of entry i.
func (t *table) attrs(i uint32) *byte { return &t.elems[(int(i)+1)*t.l.size-1] }

func (t *table) hashOf(e *elem) uint32 { return jhash2(e[:t.l.hashed], t.initval) }

// mask is that of the kernel's bucket numbers.
func (t *table) mask() uint32 { return 1<<t.bits - 1 }

// maxRegion is how many entries a region may have before all are counted.
func (t *table) maxRegion(maxElem uint32) uint32 { return maxElem / numRegions(t.bits) }

// equal compares a kept entry with an asked one; multi counts those of the same
// network where an interface tells them apart.
//
// Kernel: hash_*_data_equal.
func (t *table) equal(kept []byte, e *elem, iface bool, multi *int) bool {
	if !iface {
		return bytes.Equal(kept[:t.l.hashed], e[:t.l.hashed])
	}
	a := t.l.addr
	if !bytes.Equal(kept[:a], e[:a]) || kept[a+1] != e[a+1] {
		return false
	}
	*multi++
	if kept[a] != e[a] {
		return false
	}
	mine, asked := kept[t.l.hashed:][:16], e[t.l.hashed:][:16]
	if kept[t.l.size-1]&attrWildcard != 0 {
		n := bytes.IndexByte(mine, 0)
		return n >= 0 && bytes.Equal(mine[:n], asked[:n])
	}
	return bytes.Equal(mine, asked)
}

// insert puts an entry in, as ip_set_hash_gen's mtype_add does for `ipset add`, resizing
// included. It returns the entry's number and whether it was there.
func (s *Set) insert(e *elem, attr byte) (at uint32, there bool, err error) {
	t := s.hash
	if t.starts != nil {
		return 0, false, refuse("the set belongs to a host already")
	}
	h := t.hashOf(e)
	at, npos, multi, there := t.seek(s, e, h)
	if there {
		return at, true, nil
	}
	if s.full(h) {
		return 0, false, refuse("the set is full: maxelem is %d", s.MaxElem)
	}
	if err := s.grow(e, h, npos, multi); err != nil {
		return 0, false, err
	}
	return t.append(s, e, h, attr), false, nil
}

// seek walks the kernel's bucket of a hash.
func (t *table) seek(s *Set, e *elem, h uint32) (at uint32, npos, multi int, there bool) {
	iface := s.kind.isIface()
	for i := t.heads[h&(1<<t.ibits-1)]; i != 0; i = t.next[i-1] {
		if (t.hashes[i-1]^h)&t.mask() != 0 {
			continue
		}
		if t.equal(t.at(i-1), e, iface, &multi) {
			return i - 1, 0, 0, true
		}
		npos++
	}
	return 0, npos, multi, false
}

// full tells whether the kernel would refuse one more entry.
func (s *Set) full(h uint32) bool {
	t := s.hash
	if t.regions == nil {
		t.countRegions()
	}
	r := h & t.mask() >> regionBits & uint32(len(t.regions)-1)
	return t.regions[r] >= t.maxRegion(s.MaxElem) && uint32(t.n) >= s.MaxElem
}

func (t *table) countRegions() {
	n := numRegions(t.bits)
	if n > 1<<20 { // the table is far too large for what a file can hold
		n = 1 << 20
	}
	t.regions = make([]uint32, n)
	for _, h := range t.hashes {
		t.regions[h&t.mask()>>regionBits&(n-1)]++
	}
}

// grow doubles the kernel's table until the entry's bucket has room.
//
// Kernel: mtype_add from "Create a new slot", mtype_resize.
func (s *Set) grow(e *elem, h uint32, npos, multi int) error {
	t := s.hash
	for npos > 0 && npos%initBucket == 0 {
		if s.kind.isIface() {
			if t.nets.tuned >= maxTuned {
				return refuse("more than %d entries of one network", maxTuned)
			}
			if int(t.nets.tuned) <= multi {
				t.nets.tuned += initBucket
			}
		}
		if npos < int(t.nets.tuned) {
			return nil
		}
		if t.bits >= maxHashBits {
			return refuse("the hash can't grow any more")
		}
		t.bits++
		t.countRegions()
		_, npos, multi, _ = t.seek(s, e, h)
	}
	return nil
}

func (t *table) append(s *Set, e *elem, h uint32, attr byte) uint32 {
	i := uint32(t.n)
	t.n++
	t.elems = append(t.elems, e[:t.l.size]...)
	if s.kind.nets() > 0 {
		*t.attrs(i) = attr
	}
	t.hashes = append(t.hashes, h)
	t.next = append(t.next, 0)
	t.regions[h&t.mask()>>regionBits&uint32(len(t.regions)-1)]++
	t.nets.addAll(s, t.at(i))
	if t.n > 4<<t.ibits && t.ibits < 24 {
		t.reindex(t.ibits + 2)
		return i
	}
	t.link(i)
	return i
}

func (t *table) link(i uint32) {
	b := t.hashes[i] & (1<<t.ibits - 1)
	if t.heads[b] == 0 {
		t.heads[b] = i + 1
	} else {
		t.next[t.tails[b]-1] = i + 1
	}
	t.tails[b] = i + 1
}

func (t *table) reindex(bits uint8) {
	t.ibits = bits
	t.heads, t.tails = make([]uint32, 1<<bits), make([]uint32, 1<<bits)
	clear(t.next)
	for i := range t.n {
		t.link(uint32(i))
	}
}

// freeze sorts the entries by bucket; in one bucket they keep their order.
func (t *table) freeze() {
	if t.starts != nil {
		return
	}
	if t.regions == nil {
		t.countRegions()
	}
	starts := make([]uint32, 1<<t.ibits+1)
	order := make([]uint32, 0, t.n)
	for b := range t.heads {
		starts[b] = uint32(len(order))
		for i := t.heads[b]; i != 0; i = t.next[i-1] {
			order = append(order, i-1)
		}
	}
	starts[len(t.heads)] = uint32(len(order))
	t.order, t.starts = order, starts
	t.heads, t.tails, t.next = nil, nil, nil
}

// nets are the lengths of prefixes that a set holds.
//
// Kernel: struct net_prefixes, mtype_add_cidr, mtype_del_cidr.
type nets struct {
	count   [2][129]uint32
	present [2][3]uint64
	// tuned is the size that buckets may have by now (h->bucketsize).
	tuned uint8
}

func (n *nets) add(i int, cidr uint8) {
	n.count[i][cidr]++
	n.present[i][cidr/64] |= 1 << (cidr % 64)
}

func (n *nets) del(i int, cidr uint8) {
	if n.count[i][cidr] == 0 {
		return
	}
	if n.count[i][cidr]--; n.count[i][cidr] == 0 {
		n.present[i][cidr/64] &^= 1 << (cidr % 64)
	}
}

func (n *nets) addAll(s *Set, e []byte) {
	if k := s.kind.nets(); k > 0 {
		r := s.unpack(&s.hash.l, e)
		for i := range k {
			n.add(i, r.cidr[i])
		}
	}
}

func (n *nets) delAll(s *Set, e []byte) {
	if k := s.kind.nets(); k > 0 {
		r := s.unpack(&s.hash.l, e)
		for i := range k {
			n.del(i, r.cidr[i])
		}
	}
}

// below returns the longest prefix that is shorter than cidr; false when there is
// none.
func (n *nets) below(i int, cidr int) (uint8, bool) {
	for c := cidr - 1; c >= 0; {
		w := n.present[i][c/64] << (63 - c%64)
		if w != 0 {
			return uint8(c - bits.LeadingZeros64(w)), true
		}
		c = c/64*64 - 1
	}
	return 0, false
}

// longest is the prefix that the kernel adds with: the most specific one of the set,
// or that of a host when it is empty.
func (n *nets) longest(i int, host uint8) uint8 {
	if c, ok := n.below(i, int(host)+1); ok {
		return c
	}
	return host
}
