// Package field is the language of tests: the named fields that anything can be
// asked about, sets of values, predicates over them, and the one evaluator that
// rules, ip rules, routes and services share.
//
// A predicate is data. Only what changes memory or rolls dice is code, and such a
// test is marked, so that nothing is ever moved across it.
package field

// Op is the kind of a predicate's node.
type Op uint8

// The kinds.
const (
	OpTrue    Op = iota // always matches: the zero Pred
	OpIn                // the field's value lies in Set
	OpNot               // the only kid does not match
	OpAnd               // all kids match, asked from left to right
	OpOr                // some kid matches, asked from left to right
	OpDerived           // Fn, a pure function of fields, host and memory
	OpCall              // Fn, which changes memory or rolls dice
)

// Status says how a field's value is known.
type Status uint8

// The statuses.
const (
	Known   Status = iota
	Absent         // the packet has no such field: the whole match fails, also under a not
	HotDrop        // a header is cut: the kernel drops the packet at once
	Unknown        // outside of what is known; the test decides, on a path of its own
)

// Result is the answer of a predicate.
type Result uint8

// The answers. Missing and Drop pass through not, and, or unchanged.
const (
	No Result = iota
	Yes
	Missing // an absent field: the match as a whole fails
	Drop    // hotdrop: the packet is dropped without asking further
)

// Func is a test that is code.
type Func interface {
	Test(s Source) Result
	// Reads lists the fields that the answer depends on.
	Reads() []ID
}

// Pred is a tree of tests, built once at load. The zero Pred matches everything.
type Pred struct {
	Op  Op
	ID  ID  // of OpIn
	Set Set // of OpIn
	// Soft, of OpIn, marks a test that nftables runs itself: it looks at the bytes where
	// the header would be, be they there in part or be it a later fragment, and never
	// drops the packet. See Softer.
	Soft bool
	Kids []Pred
	Fn   Func // of OpDerived and OpCall
}

// Source answers what a predicate asks.
type Source interface {
	// Field returns the present value of a field.
	Field(ID) (Value, Status)
	// Decide answers a test on an Unknown field and remembers the answer, so that
	// a later test on this path agrees with it.
	Decide(ID, *Set) bool
	// Deps is where the bits are noted that were looked at; nil notes nothing.
	Deps() *Deps
}

// Deps are the bits of each field that an answer hung on.
type Deps [NumIDs]Value

// Note adds bits of a field.
//
// The tuple of a connection that the packet itself begins is the packet's.
func (d *Deps) Note(id ID, bits Value) {
	if d == nil {
		return
	}
	d[id] = d[id].Or(bits)
	if id > CtState && id <= CtHelper { // there is no connection for these
		d[CtState] = d[CtState].Or(U(CtInvalid | CtUntracked))
	}
	if id == CtStatus || id == CtExpire { // the packet itself moves its connection on
		d[TCPFlags] = Ones(TCPFlags.Bits())
		d[Bytes] = U(1) // sequence numbers
	}
	if id >= CtProto && id <= CtReplDPort {
		from := begun[id-CtProto]
		d[from] = d[from].Or(bits)
	}
}

// Add adds all bits that another answer hung on.
func (d *Deps) Add(more *Deps) {
	for id := range more {
		d[id] = d[id].Or(more[id])
	}
}

// begun are the fields of a packet from which a new connection has CtProto and what
// follows.
var begun = [...]ID{Proto, Src, Dst, Dst, Src, SrcPort, DstPort, DstPort, SrcPort}

// Is tests that a field lies in a set.
func Is(id ID, s Set) Pred { return Pred{Op: OpIn, ID: id, Set: s} }

// Has tests that a field is there at all: Missing and Drop come from it like
// from any test.
func Has(id ID) Pred { return Pred{Op: OpIn, ID: id} }

// Not tests that p does not match.
func Not(p Pred) Pred {
	if p.Op == OpNot {
		return p.Kids[0]
	}
	return Pred{Op: OpNot, Kids: []Pred{p}}
}

// NotIf returns p, or its negation when not is set.
func NotIf(not bool, p Pred) Pred {
	if not {
		return Not(p)
	}
	return p
}

// And tests that all match, in order. Nested ands and trues are flattened.
func And(ps ...Pred) Pred {
	var s Slab
	return s.and(ps, false)
}

// Slab makes conjunctions whose tests stand side by side, many in one piece of
// memory. The zero Slab is ready.
type Slab struct{ free []Pred }

// slabSize is how many tests a piece of a Slab holds.
const slabSize = 512

// And tests that all match, as the function And does.
func (s *Slab) And(ps ...Pred) Pred { return s.and(ps, true) }

func (s *Slab) and(ps []Pred, many bool) Pred {
	n, last := 0, 0
	for i := range ps {
		if t := ps[i].Tests(); t > 0 {
			n, last = n+t, i
		}
	}
	switch {
	case n == 0:
		return Pred{}
	case n == ps[last].Tests():
		return ps[last]
	}
	out := s.take(n, many)
	for i := range ps {
		switch ps[i].Op {
		case OpTrue:
		case OpAnd:
			out = append(out, ps[i].Kids...)
		default:
			out = append(out, ps[i])
		}
	}
	return Pred{Op: OpAnd, Kids: out}
}

// take is an empty list with room for n tests and no more.
func (s *Slab) take(n int, many bool) []Pred {
	if !many || n > slabSize {
		return make([]Pred, 0, n)
	}
	if len(s.free) < n {
		s.free = make([]Pred, slabSize)
	}
	out := s.free[:0:n]
	s.free = s.free[n:]
	return out
}

// Tests is how many tests p adds to a conjunction.
func (p *Pred) Tests() int {
	switch p.Op {
	case OpTrue:
		return 0
	case OpAnd:
		return len(p.Kids)
	}
	return 1
}

// Or tests that some match, in order. With no kids it never matches.
func Or(ps ...Pred) Pred {
	if len(ps) == 1 {
		return ps[0]
	}
	return Pred{Op: OpOr, Kids: ps}
}

// Never is the predicate that matches nothing.
func Never() Pred { return Pred{Op: OpOr} }

// Derived wraps a pure function.
func Derived(f Func) Pred { return Pred{Op: OpDerived, Fn: f} }

// Call wraps a test that changes memory or rolls dice.
func Call(f Func) Pred { return Pred{Op: OpCall, Fn: f} }

// Eval answers p for a source.
func (p *Pred) Eval(s Source) Result {
	switch p.Op {
	case OpTrue:
		return Yes
	case OpIn:
		return p.in(s)
	case OpNot:
		return p.Kids[0].Eval(s).not()
	case OpAnd:
		return p.and(s)
	case OpOr:
		return p.or(s)
	}
	return cutShort(s, p.Fn.Test(s))
}

// cutShort notes that a header that is cut hung on the packet's length.
func cutShort(s Source, r Result) Result {
	if r == Drop {
		s.Deps().Note(Len, Ones(Len.Bits()))
	}
	return r
}

func (p *Pred) in(s Source) Result {
	v, st := s.Field(p.ID)
	if st == Unknown && !p.Set.IsFull() {
		return result(s.Decide(p.ID, &p.Set))
	}
	if d := s.Deps(); d != nil {
		d.Note(p.ID, p.Set.Looked(v, p.ID.Bits()))
	}
	switch {
	case p.Soft && st != Known:
		return p.soft(s)
	case st == Absent:
		return Missing
	case st == HotDrop:
		return cutShort(s, Drop)
	}
	return result(p.Set.Holds(v))
}

// Softer is a Source that has the bytes for Soft tests where a field is not there.
type Softer interface {
	SoftField(ID) (Value, bool)
}

func (p *Pred) soft(s Source) Result {
	s.Deps().Note(Len, Ones(Len.Bits())) // how much of the header is there
	if r, ok := s.(Softer); ok {
		if v, ok := r.SoftField(p.ID); ok {
			return result(p.Set.Holds(v))
		}
	}
	return Missing
}

func (p *Pred) and(s Source) Result {
	for i := range p.Kids {
		if r := p.Kids[i].Eval(s); r != Yes {
			return r
		}
	}
	return Yes
}

func (p *Pred) or(s Source) Result {
	for i := range p.Kids {
		if r := p.Kids[i].Eval(s); r != No {
			return r
		}
	}
	return No
}

func (r Result) not() Result {
	switch r {
	case No:
		return Yes
	case Yes:
		return No
	}
	return r
}

func result(b bool) Result {
	if b {
		return Yes
	}
	return No
}

// Static tells whether p holds no code at all, so that an index may evaluate or
// pass over it in any order.
func (p *Pred) Static() bool {
	if p.Op == OpDerived || p.Op == OpCall {
		return false
	}
	for i := range p.Kids {
		if !p.Kids[i].Static() {
			return false
		}
	}
	return true
}

// HasCall tells whether p changes memory or rolls dice somewhere.
func (p *Pred) HasCall() bool {
	if p.Op == OpCall {
		return true
	}
	for i := range p.Kids {
		if p.Kids[i].HasCall() {
			return true
		}
	}
	return false
}
