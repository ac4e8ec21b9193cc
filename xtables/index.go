package xtables

import (
	"sort"

	"github.com/hookpath/hookpath/field"
)

// minIndexed is the least number of rules in a row that get an index.
const minIndexed = 16

// indexed are the fields that an index goes by, the most telling first. No target
// changes them and lets the table go on.
var indexed = [...]field.ID{field.Dst, field.Src, field.MACSrc, field.DstPort, field.SrcPort,
	field.Out, field.In}

// segment is an index over all rules of a chain: for each of the indexed fields the
// rules that demand exactly one value of it, by that value, and the rest. A packet
// then meets the rules that its own values name, and the rest, merged by number:
// those passed over are proven not to match. Rules stay in their order, so a test
// that changes memory is asked as often as without an index.
type segment struct {
	fields []indexField
	rest   []int32
}

type indexField struct {
	id    field.ID
	rules map[field.Value][]int32
}

// buildSegments indexes the rules of one chain; short chains get none.
func buildSegments(rules []rule) []segment {
	if len(rules) < minIndexed {
		return nil
	}
	var s segment
	for i := range rules {
		id, v, ok := exactTest(&rules[i].pred)
		if !ok {
			s.rest = append(s.rest, int32(i))
			continue
		}
		f := s.field(id)
		f.rules[v] = append(f.rules[v], int32(i))
	}
	if len(s.fields) == 0 {
		return nil
	}
	return []segment{s}
}

func (s *segment) field(id field.ID) *indexField {
	for i := range s.fields {
		if s.fields[i].id == id {
			return &s.fields[i]
		}
	}
	s.fields = append(s.fields, indexField{id, map[field.Value][]int32{}})
	return &s.fields[len(s.fields)-1]
}

// exactTest finds the most telling test of a rule for exactly one value that comes
// before any code.
func exactTest(p *field.Pred) (id field.ID, v field.Value, ok bool) {
	kids := p.Kids
	if p.Op != field.OpAnd {
		kids = []field.Pred{*p}
	}
	best := len(indexed)
	for i := range kids {
		if !kids[i].Static() {
			break
		}
		if kids[i].Op != field.OpIn {
			continue
		}
		one, single := kids[i].Set.Single(kids[i].ID.Bits())
		if rank := rankOf(kids[i].ID); single && rank < best {
			best, id, v, ok = rank, kids[i].ID, one, true
		}
	}
	return id, v, ok
}

func rankOf(id field.ID) int {
	for i, x := range indexed {
		if x == id {
			return i
		}
	}
	return len(indexed)
}

// cursor goes through the rules of a chain that may match.
type cursor struct {
	seg   *segment
	chain *chain
	lists [len(indexed) + 1][]int32
	n     int
	plain bool
}

// next returns the number in the chain of the next rule to ask, at or behind
// r.at.next, or the chain's length.
func (c *cursor) next(r *run, ch *chain) int {
	if c.chain != ch || c.seg == nil {
		c.start(r, ch)
	}
	if c.plain {
		return r.at.next
	}
	best := ch.n
	for i := 0; i < c.n; i++ {
		l := c.lists[i]
		for len(l) > 0 && int(l[0]) < r.at.next {
			l = l[1:]
		}
		c.lists[i] = l
		if len(l) > 0 && int(l[0]) < best {
			best = int(l[0])
		}
	}
	return best
}

var noSegment segment

// start looks the packet's values up. Where a value is not known, or the transport
// header is cut so that a rule may drop the packet, every rule is asked.
func (c *cursor) start(r *run, ch *chain) {
	c.chain, c.n, c.plain, c.seg = ch, 0, true, &noSegment
	if len(ch.segments) == 0 || r.e.Trace != nil && r.e.Trace.Skips || r.p.Linear {
		return
	}
	if _, st := r.e.Field(field.L4); st != field.Known {
		return
	}
	seg := &ch.segments[0]
	deps := r.e.Deps()
	for i := range seg.fields {
		f := &seg.fields[i]
		v, st := r.e.Field(f.id)
		if st == field.Unknown {
			return
		}
		deps.Note(f.id, field.Ones(f.id.Bits()))
		if st == field.Known {
			c.add(f.rules[v], r.at.next)
		}
	}
	c.add(seg.rest, r.at.next)
	c.seg, c.plain = seg, false
}

func (c *cursor) add(l []int32, from int) {
	if from > 0 {
		l = l[sort.Search(len(l), func(i int) bool { return int(l[i]) >= from }):]
	}
	if len(l) > 0 {
		c.lists[c.n] = l
		c.n++
	}
}
