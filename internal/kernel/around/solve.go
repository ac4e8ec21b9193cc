package around

import (
	"math/rand/v2"

	"github.com/hookpath/hookpath/field"
)

// wish is what a test asks of a field, or with not, that it does not ask.
type wish struct {
	set *field.Set
	not bool
}

// wishes are those of a way through the rules, by field, the outermost first.
type wishes map[field.ID][]wish

// add collects what makes a predicate true; with not, what makes it false. Of
// alternatives one is drawn. Tests that are code ask nothing that could be read.
func (w wishes) add(r *rand.Rand, p *field.Pred, not bool) {
	switch {
	case p.Op == field.OpIn:
		w[p.ID] = append(w[p.ID], wish{&p.Set, not})
	case p.Op == field.OpNot:
		w.add(r, &p.Kids[0], !not)
	case len(p.Kids) == 0:
	case (p.Op == field.OpAnd) == not:
		w.add(r, &p.Kids[r.IntN(len(p.Kids))], not)
	default:
		for i := range p.Kids {
			w.add(r, &p.Kids[i], not)
		}
	}
}

// holds tells whether a value is what all wishes for a field ask.
func (w wishes) holds(id field.ID, v field.Value) bool {
	for _, x := range w[id] {
		if x.set.Holds(v) == x.not {
			return false
		}
	}
	return true
}

// tries bounds the values that are drawn for a field.
const tries = 24

// solve draws a value that all wishes for a field agree with. Where none is found it
// is one that the last wish agrees with; def where there is no wish.
func (w wishes) solve(r *rand.Rand, id field.ID, def field.Value) field.Value {
	if w.holds(id, def) {
		return def
	}
	best := def
	for n := range tries {
		for i := len(w[id]) - 1; i >= 0; i-- {
			v := sample(r, w[id][i].set, id.Bits())
			if w[id][i].not {
				v = random(r, id.Bits())
			} else if n == 0 && best == def {
				best = v
			}
			if w.holds(id, v) {
				return v
			}
		}
	}
	return best
}

// sample draws a value of a set.
func sample(r *rand.Rand, s *field.Set, bits int) field.Value {
	if list, ok := s.Ranges(); ok {
		if len(list) == 0 {
			return field.Value{}
		}
		x := list[r.IntN(len(list))]
		span := x.Hi.Lo - x.Lo.Lo
		v := x.Lo
		if span < 1<<32 {
			v.Lo += r.Uint64N(span + 1)
		}
		return v
	}
	val, mask, _ := s.Mask()
	free := field.Ones(bits).AndNot(mask)
	if free.Hi != 0 || free.Lo > 1<<32-1 { // an address: only its IPv4 part is free
		free = field.U(free.Lo & (1<<32 - 1))
	}
	return val.And(field.Ones(bits)).Or(random(r, bits).And(free))
}

func random(r *rand.Rand, bits int) field.Value {
	v := field.U(r.Uint64()).And(field.Ones(min(bits, 64)))
	if bits == 128 { // an IPv4 address
		v = field.U(0xffff<<32 | uint64(r.Uint32()))
	}
	return v
}
