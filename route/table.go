package route

import (
	"bytes"
	"slices"
	"sync"

	"github.com/gaissmai/bart"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
)

// table is a routing table: prefixes, each with its routes in the order in which
// the kernel asks them.
type table struct {
	id       uint32
	lpm      bart.Table[int32] // the node of the longest prefix
	nodes    []node
	aliases  []alias
	defaults int // default routes

	once sync.Once
	cuts []packet.Addr // where the longest prefix changes, see looked
}

// node is a prefix of a table.
type node struct {
	prefix   prefix
	first, n int32 // of aliases
	parent   int32 // the next shorter prefix around it, -1 for none
}

// entry is a route on its way into a table.
type entry struct {
	prefix prefix
	alias  alias
}

// newTable sorts routes into a table.
//
// Kernel: net/ipv4/fib_trie.c, fib_find_alias: longer prefixes, then local
// before main, then larger tos, then smaller metric, then the order of adding.
func newTable(id uint32, es []entry) *table {
	t := &table{id: id}
	slices.SortStableFunc(es, func(a, b entry) int {
		return cmpOr(family(a.prefix)-family(b.prefix),
			bytes.Compare(a.prefix.addr[:], b.prefix.addr[:]),
			a.prefix.bits-b.prefix.bits, int(b.alias.table)-int(a.alias.table),
			int(b.alias.tos)-int(a.alias.tos), cmpU32(a.alias.metric, b.alias.metric))
	})
	t.aliases = make([]alias, len(es))
	var around []int32 // the prefixes that hold the present one
	for i := range es {
		t.aliases[i] = es[i].alias
		if n := len(t.nodes); n > 0 && t.nodes[n-1].prefix == es[i].prefix {
			t.nodes[n-1].n++
		} else {
			around = t.addNode(es[i].prefix, int32(i), around)
		}
		if t.isDefault(&es[i]) {
			t.defaults++
		}
	}
	return t
}

// family sorts IPv4 before IPv6: an IPv6 prefix is not around an IPv4 one.
func family(p prefix) int {
	if p.addr.Is4() {
		return 0
	}
	return 1
}

func (t *table) isDefault(e *entry) bool {
	return e.alias.bits == 0 && e.alias.table == t.id && e.prefix.addr.Is4()
}

func (t *table) addNode(p prefix, first int32, around []int32) []int32 {
	for len(around) > 0 && !t.nodes[around[len(around)-1]].prefix.around(p) {
		around = around[:len(around)-1]
	}
	nd := node{prefix: p, first: first, n: 1, parent: -1}
	if len(around) > 0 {
		nd.parent = around[len(around)-1]
	}
	t.nodes = append(t.nodes, nd)
	t.lpm.Insert(p.netip(), int32(len(t.nodes)-1))
	return append(around, int32(len(t.nodes)-1))
}

func cmpOr(ns ...int) int {
	for _, n := range ns {
		if n != 0 {
			return n
		}
	}
	return 0
}

func cmpU32(a, b uint32) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// result is what a lookup found. The zero result is nothing.
//
// Kernel: include/net/ip_fib.h, struct fib_result.
type result struct {
	a     *alias
	hop   *hop
	sel   int
	rule  int // -1 for none
	node  int32
	t     *table
	realm uint32 // of the rule
}

// lookup finds a flow's route in one table; EAGAIN is none. With another error
// the result holds the route that made it.
//
// Kernel: net/ipv4/fib_trie.c, fib_table_lookup.
func (t *table) lookup(fl *Flow) (result, Errno) {
	if t == nil {
		return result{rule: -1}, EAGAIN
	}
	fl.noteDst(t)
	n, ok := t.lpm.Lookup(or4(fl.Dst).Netip())
	if !ok {
		return result{rule: -1}, EAGAIN
	}
	for n >= 0 {
		nd := &t.nodes[n]
		for i := nd.first; i < nd.first+nd.n; i++ {
			a := &t.aliases[i]
			if !a.fits(fl) {
				continue
			}
			if a.err != 0 {
				return result{a: a, rule: -1, node: n, t: t}, a.err
			}
			if a.dead {
				continue
			}
			if sel := a.goodHop(fl); sel >= 0 {
				return result{a, &a.hops[sel], sel, -1, n, t, 0}, 0
			}
			if a.object {
				n = t.sameKey(n) // the kernel leaves the leaf
				break
			}
		}
		n = t.nodes[n].parent
	}
	return result{rule: -1}, EAGAIN
}

// sameKey climbs to the shortest prefix around a node with the same first
// address: these share a leaf of the kernel's trie.
func (t *table) sameKey(n int32) int32 {
	for {
		p := t.nodes[n].parent
		if p < 0 || t.nodes[p].prefix.addr != t.nodes[n].prefix.addr {
			return n
		}
		n = p
	}
}

// fits compares what a route asks besides the destination.
func (a *alias) fits(fl *Flow) bool {
	if a.tos != 0 {
		fl.deps.Note(field.TOS, field.U(tosMask))
		if a.tos != fl.TOS&tosMask {
			return false
		}
	}
	return a.scope >= fl.Scope
}

// goodHop is the first way on that may be used, -1 for none.
//
// Kernel: net/ipv4/fib_trie.c, fib_lookup_good_nhc.
func (a *alias) goodHop(fl *Flow) int {
	for i := range a.hops {
		h := &a.hops[i]
		if h.dead || h.linkdown && h.ignored && fl.Flags&IgnoreLinkState == 0 {
			continue
		}
		if fl.Out == 0 || fl.Out == h.dev || a.route == openMark {
			return i
		}
	}
	return -1
}

// noteDst notes the bits of the destination that decide which prefix is the
// longest.
func (fl *Flow) noteDst(t *table) {
	if fl.deps != nil {
		fl.deps.Note(field.Dst, field.PrefixMask(128, t.looked(or4(fl.Dst))))
	}
}

// looked is the length of the shortest prefix of a in which every address has
// the same longest match: no prefix of the table begins or ends inside it.
func (t *table) looked(a packet.Addr) int {
	t.once.Do(t.cut)
	i, found := slices.BinarySearchFunc(t.cuts, a, compare)
	if found {
		i++
	}
	n := 0
	if i > 0 {
		n = t.inside(a, t.cuts[i-1], 0)
	}
	if i < len(t.cuts) {
		n = t.inside(a, t.cuts[i], n)
	}
	return n
}

// inside lengthens n until the prefix of a of that length holds no cut at c,
// other than at its first address.
func (t *table) inside(a, c packet.Addr, n int) int {
	for n < 128 {
		p := prefix{mask(a, n), n}
		if c == p.addr || !p.holds(c) {
			break
		}
		n++
	}
	return n
}

func compare(a, b packet.Addr) int { return bytes.Compare(a[:], b[:]) }

// mask zeroes all but the first n bits.
func mask(a packet.Addr, n int) packet.Addr {
	for i := range a {
		keep := min(max(n-8*i, 0), 8)
		a[i] &= byte(uint(0xff00) >> keep)
	}
	return a
}

// cut lists the first address of each prefix and the one behind it.
func (t *table) cut() {
	for i := range t.nodes {
		p := t.nodes[i].prefix
		t.cuts = append(t.cuts, p.addr)
		if end, ok := behind(p); ok {
			t.cuts = append(t.cuts, end)
		}
	}
	slices.SortFunc(t.cuts, compare)
	t.cuts = slices.Compact(t.cuts)
}

// behind is the first address behind a prefix, false at the end of all.
func behind(p prefix) (packet.Addr, bool) {
	a := p.addr
	for i := range a {
		keep := min(max(p.bits-8*i, 0), 8)
		a[i] |= ^byte(uint(0xff00) >> keep)
	}
	for i := 15; i >= 0; i-- {
		a[i]++
		if a[i] != 0 {
			return a, true
		}
	}
	return a, false
}

// kindOf is the kind of the address's route in a table, as the kernel's address
// types go by it.
func (t *table) kindOf(dst packet.Addr, d *field.Deps) (result, bool) {
	fl := Flow{Dst: dst, deps: d}
	r, err := t.lookup(&fl)
	return r, err == 0
}
