package ipset

import "slices"

// bucket is a bucket of the kernel's hash table that packets have changed. It is
// never changed in place: forks share it.
//
// Kernel: net/netfilter/ipset/ip_set_hash_gen.h, struct hbucket.
type bucket struct {
	slots []slot // up to hbucket.pos
	size  int
}

type slot struct {
	e    elem
	attr byte
	used bool
	bare bool   // without the comment that stood there
	ref  uint32 // of the extensions
}

// view is a bucket, be it changed or as it was loaded.
type view struct {
	t     *table
	slots []slot
	order []uint32 // entries that may be in it
	want  uint32   // bucket number
	own   bool
}

func (a *ask) bucket(l *live, key uint32) view {
	if tab := l.buckets.In(a.w.State); tab.Len() > 0 {
		if b, ok := tab.Get(key); ok {
			return view{t: l.hash, slots: b.slots, own: true}
		}
	}
	t := l.hash
	i := key & (1<<t.ibits - 1)
	return view{t: t, order: t.order[t.starts[i]:t.starts[i+1]], want: key}
}

// next finds the next used entry at or behind i; it returns the place behind it, and
// -1 at the end.
func (v *view) next(i int) (e []byte, attr byte, ref uint32, after int) {
	if v.own {
		for ; i < len(v.slots); i++ {
			if s := &v.slots[i]; s.used {
				return s.e[:v.t.l.size], s.attr, s.ref, i + 1
			}
		}
		return nil, 0, 0, -1
	}
	for ; i < len(v.order); i++ {
		n := v.order[i]
		if (v.t.hashes[n]^v.want)&v.t.mask() == 0 {
			e = v.t.at(n)
			return e, e[len(e)-1], n, i + 1
		}
	}
	return nil, 0, 0, -1
}

// testHash tells whether the packet is in a hash set.
//
// Kernel: net/netfilter/ipset/ip_set_hash_gen.h, mtype_test.
func (a *ask) testHash(l *live) int {
	host := l.hash.l.host
	r, ok := a.element(l, [2]uint8{host, host})
	if !ok {
		return errInvalid
	}
	return a.testRec(l, &r)
}

// testRec looks an element up: a host by all prefixes of the set, anything else as
// it is.
func (a *ask) testRec(l *live, r *rec) int {
	n := l.kind.nets()
	for i := range n {
		if r.cidr[i] != l.hash.l.host {
			n = 0
		}
	}
	multi := 0
	switch n {
	case 1:
		return a.testPrefixes(l, *r)
	case 2:
		return a.testPairs(l, *r)
	}
	return a.probe(l, r, &multi)
}

// probe looks at one bucket.
func (a *ask) probe(l *live, r *rec, multi *int) int {
	t, iface := l.hash, l.kind.isIface()
	e := l.pack(&t.l, r)
	v := a.bucket(l, t.hashOf(&e)&t.mask())
	for kept, attr, ref, i := v.next(0); i >= 0; kept, attr, ref, i = v.next(i) {
		if !t.equal(kept, &e, iface, multi) {
			continue
		}
		if !a.matchExt(l, ref, a.flags) {
			*multi = 0
			continue
		}
		if l.kind.nets() > 0 && attr&attrNoMatch != 0 {
			return errNoMatch
		}
		return 1
	}
	return 0
}

// testPrefixes tries each prefix length of the set, the longest first. A network
// that the set holds only with other interfaces ends the search.
//
// Kernel: mtype_test_cidrs.
func (a *ask) testPrefixes(l *live, r rec) int {
	prefixes := &l.nets.In(a.w.State).V
	n, multi := l.kind.netIndex(0), 0
	c, ok := prefixes.below(0, int(l.hash.l.host)+1)
	for ; ok && multi == 0; c, ok = prefixes.below(0, int(c)) {
		r.ip[n], r.cidr[0] = maskAddr(r.ip[n], c, l.Family), c
		if ret := a.probe(l, &r, &multi); ret != 0 {
			return ret
		}
	}
	return 0
}

// testPairs tries each pair of prefix lengths: for each of the first all of the
// second.
func (a *ask) testPairs(l *live, r rec) int {
	prefixes := &l.nets.In(a.w.State).V
	host, second := int(l.hash.l.host)+1, r.ip[1]
	for c, ok := prefixes.below(0, host); ok; c, ok = prefixes.below(0, int(c)) {
		r.ip[0], r.cidr[0], r.ip[1] = maskAddr(r.ip[0], c, l.Family), c, second
		for d, ok := prefixes.below(1, host); ok; d, ok = prefixes.below(1, int(d)) {
			r.ip[1], r.cidr[1] = maskAddr(r.ip[1], d, l.Family), d
			multi := 0
			if ret := a.probe(l, &r, &multi); ret != 0 {
				return ret
			}
		}
	}
	return 0
}

// adding is an element on its way into, or out of, a hash set.
type adding struct {
	l      *live
	r      rec
	e      elem
	key    uint32
	region int
	slots  []slot // a copy, free to change
	size   int
	there  bool // the kernel has such a bucket
}

// change prepares the bucket of the packet's element for a change.
func (a *ask) change(l *live) (c adding, ok bool) {
	c.l = l
	var cidr [2]uint8
	for i := range l.kind.nets() {
		cidr[i] = l.nets.In(a.w.State).V.longest(i, l.hash.l.host)
	}
	if c.r, ok = a.element(l, cidr); !ok {
		return c, false
	}
	c.e = l.pack(&l.hash.l, &c.r)
	c.key = l.hash.hashOf(&c.e) & l.hash.mask()
	c.region = int(c.key>>regionBits) & (len(l.hash.regions) - 1)
	return c, true
}

// load copies the bucket.
func (a *ask) load(c *adding, key uint32) {
	v := a.bucket(c.l, key)
	if v.own {
		b, _ := c.l.buckets.In(a.w.State).Get(key)
		c.slots, c.size = slices.Clone(b.slots), b.size
		c.there = b.size > 0
		return
	}
	c.slots = nil
	for e, attr, ref, i := v.next(0); i >= 0; e, attr, ref, i = v.next(i) {
		s := slot{attr: attr, used: true, ref: ref}
		copy(s.e[:], e)
		c.slots = append(c.slots, s)
	}
	c.size = (len(c.slots) + 1) &^ 1
	c.there = len(c.slots) > 0
}

// store puts the bucket back.
func (a *ask) store(c *adding, key uint32) {
	c.l.buckets.In(a.w.State).Put(key, bucket{c.slots, c.size})
}

// addHash adds the packet's element. A packet can't make the table grow: where its
// bucket is full, it is not added.
//
// Kernel: net/netfilter/ipset/ip_set_hash_gen.h, mtype_add.
func (a *ask) addHash(l *live) int {
	c, ok := a.change(l)
	if !ok {
		return errInvalid
	}
	full, force := a.fullRegion(&c)
	a.load(&c, c.key)
	if !c.there {
		if full {
			return errFull
		}
		c.size = initBucket
		return a.put(&c, len(c.slots), false)
	}
	j, multi, reuse, deleted := -1, 0, false, false
	for i := range c.slots {
		s := &c.slots[i]
		if !s.used {
			if j < 0 {
				j, reuse, deleted = i, true, true
			}
			continue
		}
		over := a.gone(l, s.ref)
		if l.hash.equal(s.e[:l.hash.l.size], &c.e, l.kind.isIface(), &multi) {
			if a.flags&Exist == 0 && !over {
				return errExist
			}
			a.renew(&c, s)
			a.store(&c, c.key)
			return okay
		}
		if over && j < 0 {
			j, reuse = i, true
		}
	}
	if reuse || force {
		return a.put(&c, max(j, 0), !deleted)
	}
	if full {
		return errFull
	}
	return a.push(&c, multi)
}

// push appends to a bucket.
func (a *ask) push(c *adding, multi int) int {
	if len(c.slots) >= c.size {
		limit := int(c.l.hash.bucketSize)
		if c.l.kind.isIface() {
			prefixes := &c.l.nets.In(a.w.State).V
			if prefixes.tuned >= maxTuned {
				return errFull
			}
			if int(prefixes.tuned) <= multi {
				prefixes.tuned += initBucket
			}
			limit = int(prefixes.tuned)
		}
		if c.size >= limit {
			return errAgain
		}
		c.size += initBucket
	}
	return a.put(c, len(c.slots), false)
}

// put writes the element into a slot; evict tells that another one was there.
func (a *ask) put(c *adding, j int, evict bool) int {
	regions := c.l.regions.In(a.w.State).Ref(c.region)
	if evict {
		c.dropPrefixes(a, c.slots[j].e[:c.l.hash.l.size])
		*regions--
	}
	*regions++
	s := slot{e: c.e, used: true, bare: true}
	if j == len(c.slots) {
		if c.l.hasExt() {
			s.ref = uint32(c.l.exts.In(a.w.State).Append(ext{}))
		}
		c.slots = append(c.slots, s)
	} else {
		s.ref = c.slots[j].ref
		c.slots[j] = s
	}
	if c.l.kind.nets() > 0 {
		c.l.nets.In(a.w.State).V.addAll(c.l.Set, c.e[:c.l.hash.l.size])
	}
	a.renew(c, &c.slots[j])
	a.store(c, c.key)
	return okay
}

// renew sets what an added entry carries; that it did not match is forgotten.
func (a *ask) renew(c *adding, s *slot) {
	s.attr &^= attrNoMatch
	s.e[c.l.hash.l.size-1] = lastByte(c.l, s)
	if c.l.hasExt() {
		*c.l.exts.In(a.w.State).Ref(int(s.ref)) = a.fresh(c.l)
	}
}

// lastByte is the attribute byte of an entry that has one.
func lastByte(l *live, s *slot) byte {
	if l.kind.nets() > 0 {
		return s.attr
	}
	return s.e[l.hash.l.size-1]
}

func (c *adding) dropPrefixes(a *ask, e []byte) {
	if c.l.kind.nets() > 0 {
		c.l.nets.In(a.w.State).V.delAll(c.l.Set, e)
	}
}

// fullRegion tells whether the set is full for the element, and whether it pushes
// another one out.
func (a *ask) fullRegion(c *adding) (full, force bool) {
	t, regions := c.l.hash, c.l.regions.In(a.w.State)
	if regions.Get(c.region) < t.maxRegion(c.l.MaxElem) {
		return false, false
	}
	if c.l.HasTimeout {
		a.collect(c)
	}
	var n uint32
	for i := range regions.Len() {
		n += regions.Get(i)
	}
	full = n >= c.l.MaxElem
	return full, full && c.l.ForceAdd
}

// collect removes the entries of a region whose time is over.
//
// Kernel: mtype_gc_do.
func (a *ask) collect(c *adding) {
	first := uint32(c.region) << regionBits
	for key := first; key < first+1<<regionBits && key <= c.l.hash.mask(); key++ {
		b := adding{l: c.l, region: c.region}
		a.load(&b, key)
		dead, changed := 0, false
		for i := range b.slots {
			s := &b.slots[i]
			if s.used && a.gone(c.l, s.ref) {
				b.dropPrefixes(a, s.e[:c.l.hash.l.size])
				*c.l.regions.In(a.w.State).Ref(c.region)--
				s.used, changed = false, true
			}
			if !s.used {
				dead++
			}
		}
		if changed {
			b.shrink(dead, dead >= b.size)
			a.store(&b, key)
		}
	}
}

// shrink gives two slots back when as many are unused.
func (c *adding) shrink(dead int, empty bool) {
	switch {
	case empty:
		c.slots, c.size = nil, 0
	case dead >= initBucket:
		c.slots = slices.DeleteFunc(c.slots, func(s slot) bool { return !s.used })
		c.size -= initBucket
	}
}

// delHash takes the packet's element out.
//
// Kernel: net/netfilter/ipset/ip_set_hash_gen.h, mtype_del.
func (a *ask) delHash(l *live) int {
	c, ok := a.change(l)
	if !ok {
		return errInvalid
	}
	a.load(&c, c.key)
	multi := 0
	for i := range c.slots {
		s := &c.slots[i]
		if !s.used || !l.hash.equal(s.e[:l.hash.l.size], &c.e, l.kind.isIface(), &multi) {
			continue
		}
		if a.gone(l, s.ref) {
			return errExist
		}
		c.dropPrefixes(a, c.e[:l.hash.l.size])
		s.used = false
		if i+1 == len(c.slots) {
			c.slots = c.slots[:i]
		}
		*l.regions.In(a.w.State).Ref(c.region)--
		dead := 0
		for i := range c.slots {
			if !c.slots[i].used {
				dead++
			}
		}
		c.shrink(dead, dead == len(c.slots))
		a.store(&c, c.key)
		return okay
	}
	return errExist
}
