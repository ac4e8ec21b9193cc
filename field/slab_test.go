package field

import "testing"

// TestSlab holds conjunctions from one slab against those made one by one, and sees
// that a later one leaves an earlier one alone.
func TestSlab(t *testing.T) {
	a, b, c := Is(Mark, Num(1)), Is(TTL, Num(2)), Not(Is(TOS, Num(3)))
	tests := [][]Pred{{}, {{}}, {a}, {{}, a, {}}, {a, b}, {And(a, b), c}, {And(a, b), {}}, {{}, a, {}, b, c}}
	var s Slab
	var got []Pred
	for range 3 * slabSize {
		for _, ps := range tests {
			got = append(got, s.And(ps...))
		}
	}
	for i, p := range got {
		want := And(tests[i%len(tests)]...)
		if p.Op != want.Op || p.ID != want.ID || len(p.Kids) != len(want.Kids) {
			t.Fatalf("%d: got %v, want %v", i, p, want)
		}
		for k := range p.Kids {
			if p.Kids[k].ID != want.Kids[k].ID || p.Kids[k].Op != want.Kids[k].Op {
				t.Fatalf("%d: test %d is %v, want %v", i, k, p.Kids[k], want.Kids[k])
			}
		}
		if cap(p.Kids) != len(p.Kids) && len(p.Kids) > 0 {
			t.Fatalf("%d: room for %d tests behind %d", i, cap(p.Kids), len(p.Kids))
		}
	}
}
