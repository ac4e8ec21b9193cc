package ipset

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// Sets are the sets of a host. They are immutable; what changes is in the world.
type Sets struct {
	sets   []*live
	byName map[string]int
	open   bool
	kernel [2]int
}

// live is a set of a host, with the places of its memory.
type live struct {
	*Set
	id      int
	buckets world.Slot[*world.Table[uint32, bucket]]
	regions world.Slot[*world.Array[uint32]]
	nets    world.Slot[*world.Var[nets]]
	ids     world.Slot[*world.Table[uint32, mapped]]
	exts    world.Slot[*world.Array[ext]]
	refs    []int // of a list, the sets
}

// Option changes how New makes the sets.
type Option func(*Sets)

// Kernel says which kernel's behaviour the sets have; without it 6.18.
func Kernel(major, minor int) Option {
	return func(s *Sets) { s.kernel = [2]int{major, minor} }
}

// New takes sets into a host and adds their memory to its schema. With nil defs the
// sets are not known at all: see Open.
func New(schema *world.Schema, defs []Set, opts ...Option) (*Sets, error) {
	s := &Sets{byName: make(map[string]int, len(defs)), open: defs == nil, kernel: [2]int{6, 18}}
	for _, o := range opts {
		o(s)
	}
	if len(defs) >= 65535 {
		return nil, refuse("%d sets are more than the kernel has room for", len(defs))
	}
	for i := range defs {
		if _, ok := s.byName[defs[i].Name]; ok {
			return nil, refuse("set %q is there twice", defs[i].Name)
		}
		s.byName[defs[i].Name] = i
		s.sets = append(s.sets, &live{Set: &defs[i], id: i})
	}
	for _, l := range s.sets {
		if err := s.refer(l); err != nil {
			return nil, err
		}
		l.addMemory(schema)
	}
	return s, nil
}

// refer finds the members of a list.
func (s *Sets) refer(l *live) error {
	for _, m := range l.members {
		i, ok := s.byName[m.name]
		if !ok {
			return refuse("list %q: there is no set %q", l.Name, m.name)
		}
		if s.sets[i].kind.class == classList {
			return refuse("list %q: %q is a list itself", l.Name, m.name)
		}
		l.refs = append(l.refs, i)
	}
	return nil
}

func (l *live) addMemory(schema *world.Schema) {
	if l.hasExt() {
		loaded := l.ext
		l.exts = world.Add(schema, func() *world.Array[ext] {
			a := world.NewArray[ext](len(loaded))
			for i := range loaded {
				*a.Ref(i) = loaded[i]
			}
			return a
		})
	}
	switch t := l.hash; {
	case t != nil:
		t.freeze()
		l.buckets = world.Add(schema, world.NewTable[uint32, bucket])
		regions, prefixes := t.regions, t.nets
		l.regions = world.Add(schema, func() *world.Array[uint32] {
			a := world.NewArray[uint32](len(regions))
			for i, n := range regions {
				*a.Ref(i) = n
			}
			return a
		})
		if l.kind.nets() > 0 {
			l.nets = world.Add(schema, func() *world.Var[nets] { return &world.Var[nets]{V: prefixes} })
		}
	case l.bitmap != nil:
		l.ids = world.Add(schema, world.NewTable[uint32, mapped])
	}
}

// Open tells whether nothing is known of any set: no file said which there are.
func (s *Sets) Open() bool { return s == nil || s.open }

// ByName finds a set by its name.
func (s *Sets) ByName(name string) (int, bool) {
	if s == nil {
		return 0, false
	}
	i, ok := s.byName[name]
	return i, ok
}

// Len is the number of sets.
func (s *Sets) Len() int {
	if s == nil {
		return 0
	}
	return len(s.sets)
}

// Set is the definition of a set.
func (s *Sets) Set(i int) *Set { return s.sets[i].Set }

// Flags are those of a question (enum ipset_cmd_flags).
type Flags uint8

// The flags.
const (
	Exist Flags = 1 << iota
	SkipCounters
	SkipSubcounters
	MatchCounters
	ReturnNoMatch
	// Peek answers without changing anything; it is not the kernel's.
	Peek
)

// CounterOp compares a counter.
type CounterOp uint8

// The comparisons.
const (
	CounterAny CounterOp = iota
	CounterEQ
	CounterNE
	CounterLT
	CounterGT
)

// CounterTest is what is asked of a counter.
type CounterTest struct {
	Value uint64
	Op    CounterOp
}

func (t CounterTest) holds(n uint64) bool {
	switch t.Op {
	case CounterEQ:
		return n == t.Value
	case CounterNE:
		return n != t.Value
	case CounterLT:
		return n < t.Value
	case CounterGT:
		return n > t.Value
	}
	return true
}

// NoTimeout in a Query takes the set's default.
const NoTimeout = 1<<32 - 1

// Query is what a rule asks of a set, or does to it.
//
// Kernel: include/linux/netfilter/ipset/ip_set.h, struct ip_set_adt_opt.
type Query struct {
	Set   int
	Dims  uint8 // how many src and dst words there are
	Src   uint8 // bit i: the word of dimension i is src
	Flags Flags
	// Packets and Bytes are asked with MatchCounters.
	Packets, Bytes CounterTest
	// Timeout is that of an added entry, or NoTimeout.
	Timeout uint32
}

func (q *Query) src(dim int) bool { return q.Src>>dim&1 != 0 }

// Place is where the packet is: what a set asks for beyond its bytes.
type Place struct {
	Links *link.Table
	// Dev is skb->dev: the device in until POSTROUTING, then the device out; zero for
	// packets that are sent locally.
	Dev packet.Dev
	// Deps gets the bits that were looked at; nil notes nothing.
	Deps *field.Deps
	// SPort and DPort stand for the ports of the bytes where Ports says so; Source
	// for the source MAC address where HasSource says so.
	SPort, DPort uint16
	Ports        packet.Free
	Source       packet.MAC
	HasSource    bool
}

// Test tells whether the packet is in a set, and what the entry says of it for
// --map-set.
//
// Kernel: net/netfilter/ipset/ip_set_core.c, ip_set_test.
func (s *Sets) Test(w *world.World, p *packet.Packet, q *Query, at *Place) (bool, Info) {
	a := ask{w: w, p: p, q: q, at: at, sets: s, flags: q.Flags}
	n := a.test(s.sets[q.Set])
	return n > 0, a.info
}

// Add puts the packet's element into a set. It is false where the kernel refuses.
//
// Kernel: net/netfilter/ipset/ip_set_core.c, ip_set_add.
func (s *Sets) Add(w *world.World, p *packet.Packet, q *Query, at *Place) bool {
	a := ask{w: w, p: p, q: q, at: at, sets: s, flags: q.Flags}
	return a.add(s.sets[q.Set]) == okay
}

// Del takes the packet's element out of a set. It is false where the kernel refuses.
//
// Kernel: net/netfilter/ipset/ip_set_core.c, ip_set_del.
func (s *Sets) Del(w *world.World, p *packet.Packet, q *Query, at *Place) bool {
	a := ask{w: w, p: p, q: q, at: at, sets: s, flags: q.Flags}
	return a.del(s.sets[q.Set]) == okay
}

// The results of the functions that follow: positive for a match, zero for none, and
// for what was added or deleted; negative for errors. The numbers are our own.
const (
	okay = -iota
	errInvalid
	errNoMatch // -ENOTEMPTY: an entry with nomatch
	errExist
	errMismatch
	errRange
	errFull
	errAgain
)

// ask is one question on its way.
type ask struct {
	w     *world.World
	p     *packet.Packet
	q     *Query
	at    *Place
	sets  *Sets
	flags Flags
	info  Info
}

// fits tells whether the question has enough dimensions, and the set's family.
func (a *ask) fits(l *live) bool {
	if int(a.q.Dims) < l.kind.dims() {
		return false
	}
	if l.kind.noFamily {
		return true
	}
	if a.p.EtherType() == packet.EtherIPv6 {
		return l.Family == Inet6
	}
	return l.Family == Inet
}

func (a *ask) test(l *live) int {
	if !a.fits(l) {
		return 0
	}
	var n int
	switch l.kind.class {
	case classHash:
		n = a.testHash(l)
	case classBitmap:
		n = a.testBitmap(l)
	default:
		n = a.testList(l)
	}
	if n == errAgain {
		if a.flags&Peek == 0 {
			a.addBitmap(l)
		}
		return 1
	}
	if a.flags&ReturnNoMatch != 0 && l.kind.nets() > 0 && (n > 0 || n == errNoMatch) {
		if n == errNoMatch {
			return 1
		}
		return 0
	}
	return max(n, 0)
}

func (a *ask) add(l *live) int {
	if !a.fits(l) {
		return errMismatch
	}
	switch l.kind.class {
	case classHash:
		return a.addHash(l)
	case classBitmap:
		return a.addBitmap(l)
	}
	return a.eachMember(l, (*ask).add)
}

func (a *ask) del(l *live) int {
	if !a.fits(l) {
		return errMismatch
	}
	switch l.kind.class {
	case classHash:
		return a.delHash(l)
	case classBitmap:
		return a.delBitmap(l)
	}
	return a.eachMember(l, (*ask).del)
}

// expired tells whether a moment has passed, by the kernel's clock tick.
//
// Kernel: include/linux/netfilter/ipset/ip_set.h, ip_set_timeout_expired.
func (a *ask) expired(t world.Instant) bool {
	return t != 0 && t.Jiffies(a.w.HZ) < a.w.Now.Jiffies(a.w.HZ)
}

// gone tells whether an entry's time is over.
func (a *ask) gone(l *live, ref uint32) bool {
	return l.HasTimeout && a.expired(l.exts.In(a.w.State).Get(int(ref)).expires)
}

// matchExt asks and counts what an entry carries.
//
// Kernel: net/netfilter/ipset/ip_set_core.c, ip_set_match_extensions.
func (a *ask) matchExt(l *live, ref uint32, flags Flags) bool {
	if !l.hasExt() {
		return true
	}
	exts := l.exts.In(a.w.State)
	x := exts.Get(int(ref))
	if l.HasTimeout && a.expired(x.expires) {
		return false
	}
	if l.Counters {
		if flags&(SkipCounters|Peek) == 0 {
			x.packets++
			x.bytes += uint64(a.p.Len())
			*exts.Ref(int(ref)) = x
		}
		if flags&MatchCounters != 0 && !(a.q.Packets.holds(x.packets) && a.q.Bytes.holds(x.bytes)) {
			return false
		}
	}
	if l.SKBInfo {
		a.info = x.info
	}
	return true
}

// fresh is what an entry carries that a packet adds.
//
// Kernel: IP_SET_INIT_KEXT.
func (a *ask) fresh(l *live) ext {
	return ext{expires: a.until(a.timeout(l)), packets: 1, bytes: uint64(a.p.Len())}
}

func (a *ask) timeout(l *live) uint32 {
	if a.q.Timeout != NoTimeout {
		return min(a.q.Timeout, MaxTimeout)
	}
	return l.Timeout
}

func (a *ask) until(seconds uint32) world.Instant {
	if seconds == 0 {
		return 0
	}
	return a.w.Now + world.Instant(seconds)*world.Second
}

// Reads lists the fields that a question hangs on.
func (s *Sets) Reads(q *Query) []field.ID {
	var seen [field.NumIDs]bool
	s.eachSet(q, func(l *live) {
		for i, p := range l.kind.parts {
			for _, id := range readBy(p, q.src(i)) {
				seen[id] = true
			}
		}
	})
	var ids []field.ID
	for id := range seen {
		if seen[id] {
			ids = append(ids, field.ID(id))
		}
	}
	return ids
}

func readBy(p part, src bool) []field.ID {
	pick := func(a, b field.ID) field.ID {
		if src {
			return a
		}
		return b
	}
	switch p {
	case partIP, partNet:
		return []field.ID{pick(field.Src, field.Dst)}
	case partPort:
		return []field.ID{field.Proto, field.FragOff, field.L4, field.ICMPType, field.ICMPCode,
			pick(field.SrcPort, field.DstPort)}
	case partIface:
		return []field.ID{pick(field.In, field.Out)}
	case partMAC:
		return []field.ID{pick(field.MACSrc, field.MACDst), field.In, field.Out}
	case partMark:
		return []field.ID{field.Mark}
	}
	return nil
}

// eachSet calls f for the set of a question, and for the members of a list.
func (s *Sets) eachSet(q *Query, f func(*live)) {
	l := s.sets[q.Set]
	f(l)
	for _, m := range l.refs {
		f(s.sets[m])
	}
}

// Changes tells whether asking the question changes memory: counters, or the MAC
// addresses that bitmap:ip,mac learns.
func (s *Sets) Changes(q *Query) bool {
	changes := false
	list := s.sets[q.Set].kind.class == classList
	s.eachSet(q, func(l *live) {
		counts := l.Counters && q.Flags&SkipCounters == 0
		if list && l.kind.class != classList && q.Flags&SkipSubcounters != 0 {
			counts = false
		}
		changes = changes || counts || l.kind.class == classBitmap && l.kind.count(partMAC) > 0
	})
	return changes
}

// Informs tells whether entries of the set carry what --map-set takes.
func (s *Sets) Informs(q *Query) bool {
	informs := false
	s.eachSet(q, func(l *live) { informs = informs || l.SKBInfo })
	return informs
}

// Unsaid lists what no tool prints of the sets that packets are added to.
func (s *Sets) Unsaid(q *Query) (out []string) {
	s.eachSet(q, func(l *live) {
		if l.kind.class != classHash {
			return
		}
		if !l.HasInitVal {
			out = append(out, "set "+l.Name+": the seed of its hash is not known, so neither is "+
				"which of its buckets is full")
		}
		if !l.ForceAdd && uint32(l.hash.n) >= l.MaxElem {
			out = append(out, "set "+l.Name+" is full, and was made without forceadd "+
				"(ipset 7.17 does not print it)")
		}
	})
	return out
}
