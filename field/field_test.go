package field_test

import (
	"testing"

	"github.com/hookpath/hookpath/field"
	"pgregory.net/rapid"
)

// width is small enough to try every value.
const width = 8

// drawSet draws a set of 8-bit values, and the values that it holds, worked out without
// any of Set's own arithmetic.
func drawSet(t *rapid.T, label string) (field.Set, [256]bool) {
	var holds [256]bool
	byteOf := func(name string) uint64 {
		return uint64(rapid.Byte().Draw(t, label+" "+name))
	}
	fill := func(in func(v uint64) bool) {
		for v := range holds {
			holds[v] = in(uint64(v))
		}
	}
	switch rapid.IntRange(0, 4).Draw(t, label) {
	case 0:
		fill(func(uint64) bool { return true })
		return field.Set{}, holds
	case 1:
		val, mask := byteOf("value"), byteOf("mask")
		fill(func(v uint64) bool { return v&mask == val&mask })
		return field.Masked(field.U(val), field.U(mask)), holds
	case 2:
		lo, hi := byteOf("low"), byteOf("high")
		fill(func(v uint64) bool { return lo <= v && v <= hi })
		return field.Between(lo, hi), holds
	case 3:
		ns := rapid.SliceOfN(rapid.Uint64Range(0, 255), 0, 5).Draw(t, label+" numbers")
		fill(func(v uint64) bool {
			for _, n := range ns {
				if n == v {
					return true
				}
			}
			return false
		})
		return field.OneOf(ns...), holds
	}
	var rs []field.Range
	for range rapid.IntRange(0, 4).Draw(t, label+" ranges") {
		rs = append(rs, field.Range{Lo: field.U(byteOf("low")), Hi: field.U(byteOf("high"))})
	}
	fill(func(v uint64) bool {
		for _, r := range rs {
			if r.Lo.Lo <= v && v <= r.Hi.Lo {
				return true
			}
		}
		return false
	})
	return field.Ranges(rs...), holds
}

// TestSetHolds holds sets against the values they were made of.
func TestSetHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, holds := drawSet(t, "set")
		for v, want := range holds {
			if got := s.Holds(field.U(uint64(v))); got != want {
				t.Fatalf("%d: got %t, want %t", v, got, want)
			}
		}
		if s.IsFull() && holds != fullSet() {
			t.Fatal("full, and a value is missing")
		}
		if v, ok := s.Single(width); ok != (count(holds) == 1 && ok) || ok && !holds[v.Lo] {
			t.Fatalf("single %d of %d values", v.Lo, count(holds))
		}
	})
}

func fullSet() (all [256]bool) {
	for i := range all {
		all[i] = true
	}
	return all
}

func count(holds [256]bool) (n int) {
	for _, in := range holds {
		if in {
			n++
		}
	}
	return n
}

// TestSetAlgebra: what Covers and Disjoint claim is true of every value. They may not
// know, but of two ranges they do.
func TestSetAlgebra(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, inA := drawSet(t, "a")
		b, inB := drawSet(t, "b")
		covers, disjoint := true, true
		for v := range inA {
			covers = covers && (inA[v] || !inB[v])
			disjoint = disjoint && !(inA[v] && inB[v])
		}
		if field.Covers(&a, &b, width) && !covers {
			t.Fatal("a is said to cover b")
		}
		if field.Disjoint(&a, &b, width) && !disjoint {
			t.Fatal("a and b are said to be disjoint")
		}
		_, rangesA := a.Ranges()
		_, rangesB := b.Ranges()
		if rangesA && rangesB && field.Disjoint(&a, &b, width) != disjoint {
			t.Fatal("disjoint ranges are not known to be")
		}
		if !field.Covers(&a, &a, width) {
			t.Fatal("a set does not cover itself")
		}
	})
}

// TestLooked: values that agree in the bits looked at get one answer.
func TestLooked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, _ := drawSet(t, "set")
		w := rapid.SampledFrom([]int{8, 32}).Draw(t, "width")
		v := uint64(rapid.Byte().Draw(t, "value"))
		looked := s.Looked(field.U(v), w).Lo
		for other := range uint64(256) {
			if (v^other)&looked == 0 && s.Holds(field.U(v)) != s.Holds(field.U(other)) {
				t.Fatalf("%#x and %#x agree in %#x and part", v, other, looked)
			}
		}
	})
}

// TestEffect: what Mix says bit by bit.
func TestEffect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old, val, mask := rapid.Uint32().Draw(t, "old"), rapid.Uint32().Draw(t, "value"),
			rapid.Uint32().Draw(t, "mask")
		e := field.Effect{Op: field.Mix, ID: field.Mark, Val: field.U(uint64(val)),
			Mask: field.U(uint64(mask))}
		got, ok := e.Apply(field.U(uint64(old)))
		if want := old&^mask ^ val; !ok || got.Lo != uint64(want) {
			t.Fatalf("got %#x, want %#x", got.Lo, want)
		}
	})
	for _, op := range []field.EffectOp{field.Fresh, field.Forget} {
		if _, known := (field.Effect{Op: op}).Apply(field.U(1)); known {
			t.Errorf("the effect %d leaves no choice", op)
		}
	}
	if v, ok := (field.Effect{Op: field.SetTo, Val: field.U(7)}).Apply(field.U(1)); !ok ||
		v != field.U(7) {
		t.Errorf("set to 7 gave %v", v)
	}
}

// bag answers a predicate from a table.
type bag struct {
	values [field.NumIDs]field.Value
	status [field.NumIDs]field.Status
	told   bool // what Decide says
	deps   field.Deps
}

func (b *bag) Field(id field.ID) (field.Value, field.Status) { return b.values[id], b.status[id] }
func (b *bag) Decide(field.ID, *field.Set) bool              { return b.told }
func (b *bag) Deps() *field.Deps                             { return &b.deps }

// asked are the fields that drawn predicates ask about.
var asked = []field.ID{field.TOS, field.TTL, field.Proto, field.TCPFlags}

// naive is a tree of tests with the plainest evaluation: the result, and by panic never.
type naive struct {
	op    string
	id    field.ID
	holds [256]bool
	full  bool
	kids  []naive
}

func drawPred(t *rapid.T, depth int) (field.Pred, naive) {
	ops := []string{"in", "in", "not", "and", "or"}
	if depth == 0 {
		ops = ops[:1]
	}
	n := naive{op: rapid.SampledFrom(ops).Draw(t, "op")}
	if n.op == "in" {
		var s field.Set
		s, n.holds = drawSet(t, "set")
		n.full = s.IsFull()
		n.id = rapid.SampledFrom(asked).Draw(t, "field")
		return field.Is(n.id, s), n
	}
	kids := 1
	if n.op != "not" {
		kids = rapid.IntRange(0, 3).Draw(t, "kids")
	}
	var ps []field.Pred
	for range kids {
		p, k := drawPred(t, depth-1)
		ps, n.kids = append(ps, p), append(n.kids, k)
	}
	switch n.op {
	case "not":
		return field.Not(ps[0]), n
	case "and":
		return field.And(ps...), n
	}
	return field.Or(ps...), n
}

func (n *naive) eval(b *bag) field.Result {
	switch n.op {
	case "in":
		return n.in(b)
	case "not":
		return map[field.Result]field.Result{field.Yes: field.No, field.No: field.Yes,
			field.Missing: field.Missing, field.Drop: field.Drop}[n.kids[0].eval(b)]
	}
	neutral := map[string]field.Result{"and": field.Yes, "or": field.No}[n.op]
	for i := range n.kids {
		if r := n.kids[i].eval(b); r != neutral {
			return r
		}
	}
	return neutral
}

func (n *naive) in(b *bag) field.Result {
	yes := n.holds[b.values[n.id].Lo]
	switch b.status[n.id] {
	case field.Absent:
		return field.Missing
	case field.HotDrop:
		return field.Drop
	case field.Unknown:
		yes = b.told || n.full
	}
	if yes {
		return field.Yes
	}
	return field.No
}

func drawBag(t *rapid.T) *bag {
	b := &bag{told: rapid.Bool().Draw(t, "told")}
	for _, id := range asked {
		b.values[id] = field.U(uint64(rapid.Byte().Draw(t, id.String())))
		b.status[id] = rapid.SampledFrom([]field.Status{field.Known, field.Known, field.Known,
			field.Absent, field.HotDrop, field.Unknown}).Draw(t, id.String()+" is")
	}
	return b
}

// TestEval holds the evaluator against the naive one, and changes what it did not look at.
func TestEval(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, n := drawPred(t, 3)
		b := drawBag(t)
		got := p.Eval(b)
		if want := n.eval(b); got != want {
			t.Fatalf("got %d, want %d", got, want)
		}
		other := *b
		for _, id := range asked {
			drawn := uint64(rapid.Byte().Draw(t, id.String()+" becomes"))
			looked := b.deps[id].Lo
			other.values[id].Lo = b.values[id].Lo&looked | drawn&^looked
		}
		if again := p.Eval(&other); again != got {
			t.Fatalf("%d became %d by what nobody looked at", got, again)
		}
	})
}

// TestDeps: the tuple of a connection that a packet begins is the packet's, and whether
// there is one shows in its state.
func TestDeps(t *testing.T) {
	for _, row := range []struct{ note, from field.ID }{
		{field.CtProto, field.Proto}, {field.CtOrigSrc, field.Src}, {field.CtOrigDst, field.Dst},
		{field.CtReplSrc, field.Dst}, {field.CtReplDst, field.Src},
		{field.CtOrigSPort, field.SrcPort}, {field.CtOrigDPort, field.DstPort},
		{field.CtReplSPort, field.DstPort}, {field.CtReplDPort, field.SrcPort},
	} {
		var d field.Deps
		d.Note(row.note, field.U(5))
		if d[row.note] != field.U(5) || d[row.from] != field.U(5) {
			t.Errorf("%s: %v of itself, %v of %s", row.note, d[row.note], d[row.from], row.from)
		}
		if d[field.CtState] != field.U(field.CtInvalid|field.CtUntracked) {
			t.Errorf("%s: the state is not noted", row.note)
		}
	}
	var none *field.Deps
	none.Note(field.Src, field.U(1)) // notes nothing
}

// TestNames: every field has a name and a width, and no name is there twice.
func TestNames(t *testing.T) {
	seen := map[string]field.ID{}
	for id := field.None + 1; id < field.NumIDs; id++ {
		if id.String() == "" || id.Bits() == 0 {
			t.Errorf("field %d has name %q and %d bits", id, id, id.Bits())
		}
		if other, twice := seen[id.String()]; twice {
			t.Errorf("fields %d and %d are both called %s", other, id, id)
		}
		seen[id.String()] = id
	}
}
