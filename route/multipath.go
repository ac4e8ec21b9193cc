package route

import (
	"encoding/binary"
	"fmt"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// pathKey is what the multipath hash is made of: the same key takes the same way
// on. The kernel sorts addresses and ports, so both directions share a key.
//
// Kernel: net/ipv4/route.c, fib_multipath_hash; net/core/flow_dissector.c,
// __flow_hash_consistentify.
type pathKey struct {
	src, dst     packet.Addr
	sport, dport uint16
	proto        uint8
}

func (k pathKey) hash() uint64 {
	if compare(k.dst, k.src) < 0 {
		k.src, k.dst = k.dst, k.src
	}
	if k.dport < k.sport {
		k.sport, k.dport = k.dport, k.sport
	}
	var b [37]byte
	copy(b[:], k.src[:])
	copy(b[16:], k.dst[:])
	binary.BigEndian.PutUint16(b[32:], k.sport)
	binary.BigEndian.PutUint16(b[34:], k.dport)
	b[36] = k.proto
	h := uint64(14695981039346656037) // FNV-1a: only a name, not the kernel's hash
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// Bits of net.ipv4.fib_multipath_hash_fields.
const (
	hashSrc   = 1 << 0
	hashDst   = 1 << 1
	hashProto = 1 << 2
	hashSPort = 1 << 4
	hashDPort = 1 << 5
)

// policy keeps the parts of a key that the host's hash policy looks at.
func (f *FIB) policy(k pathKey) pathKey {
	switch f.hashPolicy {
	case 1:
		return k
	case 3:
		return f.custom(k)
	}
	return pathKey{src: k.src, dst: k.dst}
}

func (f *FIB) custom(k pathKey) (out pathKey) {
	if f.hashFields&hashSrc != 0 {
		out.src = k.src
	}
	if f.hashFields&hashDst != 0 {
		out.dst = k.dst
	}
	if f.hashFields&hashProto != 0 {
		out.proto = k.proto
	}
	if f.hashFields&hashSPort != 0 {
		out.sport = k.sport
	}
	if f.hashFields&hashDPort != 0 {
		out.dport = k.dport
	}
	return out
}

// matchesSource is the first kernel that prefers the way on whose address is the
// packet's source.
const matchesSource = 6016

// selectPath chooses one of several ways on. The secret of the kernel's hash is
// not known: the dice answer by the weights.
//
// Kernel: net/ipv4/fib_semantics.c, fib_select_multipath; net/ipv4/nexthop.c,
// nexthop_select_path.
func (f *FIB) selectPath(w *world.World, r *result, k pathKey, saddr packet.Addr) {
	if f.version < matchesSource {
		saddr = packet.Addr{}
	}
	var buf [2][16]uint64 // the common case does not allocate
	outs, weights := buf[0][:0], buf[1][:0]
	for i := range r.a.hops {
		width := f.width(r.a, i)
		if width == 0 {
			continue
		}
		sel := uint64(f.pick(w, r, i, saddr))
		if j := index(outs, sel); j >= 0 {
			weights[j] += width
			continue
		}
		outs, weights = append(outs, sel), append(weights, width)
	}
	if len(outs) == 0 {
		return
	}
	n := 0
	if len(outs) > 1 {
		n = f.roll(w, r.a, k, outs, weights)
	}
	r.sel = int(outs[n])
	r.hop = &r.a.hops[r.sel]
}

// width is the share of the hash's values that fall to a way on.
//
// Kernel: net/ipv4/fib_semantics.c, fib_rebalance.
func (f *FIB) width(a *alias, i int) uint64 {
	h := &a.hops[i]
	if a.group != nil && a.group.Resilient && i < len(a.group.Buckets) {
		return a.group.Buckets[i]
	}
	if !a.object && (h.dead || h.linkdown && h.ignored) {
		return 0
	}
	return h.weight
}

func index(s []uint64, v uint64) int {
	for i := range s {
		if s[i] == v {
			return i
		}
	}
	return -1
}

func (f *FIB) roll(w *world.World, a *alias, k pathKey, outs, weights []uint64) int {
	if w == nil || w.Dice == nil {
		return 0
	}
	c := world.Choice{Key: world.Key{What: world.ChoicePath, A: uint64(a.route) + 1, B: k.hash()},
		N: len(outs), Weights: append([]uint64(nil), weights...)}
	if w.Dice.Rand == nil {
		sels := append([]uint64(nil), outs...)
		c.Values = func(i int) string { return f.hopText(&a.hops[sels[i]]) }
	}
	return w.Dice.Take(c)
}

// pick is the way on that a hash value of the i-th share leads to.
func (f *FIB) pick(w *world.World, r *result, i int, saddr packet.Addr) int {
	if r.a.object {
		return f.pickObject(w, r.a, i)
	}
	best, score := r.sel, -1
	for j := range r.a.hops {
		h := &r.a.hops[j]
		dead := f.width(r.a, j) == 0
		if f.useNeigh && !f.goodNeigh(w, h, false) || dead {
			continue
		}
		s := 0
		if !saddr.IsAny() && h.saddr == saddr {
			s += 2
		}
		if j >= i {
			s++
		}
		if score < s {
			best, score = j, s
		}
		if s == 3 || saddr.IsAny() && s == 1 {
			break
		}
	}
	return best
}

// pickObject never takes a way on whose neighbour is known to be dead, unless
// all are.
func (f *FIB) pickObject(w *world.World, a *alias, i int) int {
	if a.group != nil && a.group.Resilient {
		return i
	}
	first := 0
	seen := false
	for j := range a.hops {
		if !f.goodNeigh(w, &a.hops[j], true) {
			continue
		}
		if !seen {
			first, seen = j, true
		}
		if j >= i {
			return j
		}
	}
	return first
}

// goodNeigh tells whether the gateway's neighbour entry, where there is one, is
// valid.
//
// Kernel: net/ipv4/fib_semantics.c, fib_good_nh; net/ipv4/nexthop.c, ipv4_good_nh.
func (f *FIB) goodNeigh(w *world.World, h *hop, object bool) bool {
	if h.scope != link.ScopeLink && !object {
		return true
	}
	n, ok := f.links.Neighbour(w, h.dev, h.via)
	return !ok || n.State.IsValid()
}

func (f *FIB) hopText(h *hop) string {
	if h.via.IsZero() {
		return "dev " + f.links.Name(h.dev)
	}
	return fmt.Sprintf("via %s dev %s", h.via, f.links.Name(h.dev))
}

// selectDefault chooses among default routes of one metric: those whose gateway
// is known to be dead are passed over. The kernel's memory of the last choice
// counts as new.
//
// Kernel: net/ipv4/fib_semantics.c, fib_select_default.
func (f *FIB) selectDefault(w *world.World, fl *Flow, r *result) {
	s := defaultSearch{f: f, w: w, lastIdx: -1, order: -1}
	nd := &r.t.nodes[r.node]
	lastPrio, lastTOS := r.a.metric, uint8(0)
	for i := nd.first; i < nd.first+nd.n; i++ {
		a := &r.t.aliases[i]
		if a.tos != 0 && a.tos != fl.TOS&tosMask || a.table != r.t.id {
			continue
		}
		if a.metric > lastPrio && a.tos == lastTOS {
			if lastTOS != 0 {
				continue
			}
			break
		}
		if a.dead {
			continue
		}
		lastTOS, lastPrio = a.tos, a.metric
		if a.scope != r.a.scope || a.kind != trace.Unicast || !a.hops[0].gateway() {
			continue
		}
		if s.step(a, r) {
			return
		}
	}
	s.finish(r)
}

// defaultSearch is the state of one walk over default routes.
type defaultSearch struct {
	f              *FIB
	w              *world.World
	last, resort   *alias
	order, lastIdx int
	stopped        bool
}

// step sees the next default route and tells whether the search is over.
func (s *defaultSearch) step(a *alias, r *result) bool {
	if s.stopped {
		return false
	}
	if s.last == nil {
		if a != r.a {
			s.stopped = true
			return false
		}
	} else if !s.dead(s.last) {
		r.assign(s.last)
		return true
	}
	s.last = a
	s.order++
	return false
}

func (s *defaultSearch) finish(r *result) {
	if s.order <= 0 || s.last == nil {
		return
	}
	if !s.dead(s.last) {
		r.assign(s.last)
		return
	}
	if s.lastIdx >= 0 {
		r.assign(s.resort)
	}
}

// dead follows fib_detect_death with no earlier choice (dflt -1).
func (s *defaultSearch) dead(a *alias) bool {
	n, ok := s.f.links.Neighbour(s.w, a.hops[0].dev, a.hops[0].via)
	if !ok || n.State.IsValid() {
		return false
	}
	if s.lastIdx < 0 && n.State != link.Incomplete {
		s.resort, s.lastIdx = a, s.order
	}
	return true
}

func (r *result) assign(a *alias) {
	r.a, r.hop, r.sel = a, &a.hops[0], 0
}
