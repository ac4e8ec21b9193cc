package explore

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/hookpath/hookpath/world"
)

// node is a question that asks the dice: it takes the child that the dice say, and
// its name is an event when it has one.
type node struct {
	name    string
	weights []uint64
	kids    []*node
}

// genNode draws a tree of choices; names come from few, so that ways are alike.
func genNode(depth int) *rapid.Generator[*node] {
	return rapid.Custom(func(t *rapid.T) *node {
		n := &node{name: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "name")}
		if depth == 0 {
			return n
		}
		for range rapid.IntRange(0, 4).Draw(t, "kids") {
			n.kids = append(n.kids, genNode(depth-1).Draw(t, "kid"))
			n.weights = append(n.weights, rapid.Uint64Range(0, 5).Draw(t, "weight"))
		}
		if rapid.Bool().Draw(t, "even") {
			n.weights = nil
		}
		return n
	})
}

// ask walks the tree and returns the names on the way.
func (n *node) ask(d *world.Dice) string {
	text := ""
	for i := uint64(0); ; i++ {
		text += n.name
		if len(n.kids) == 0 {
			return text
		}
		n = n.kids[d.Take(world.Choice{Key: world.Key{A: i}, N: len(n.kids), Weights: n.weights})]
	}
}

// sum adds up what each result is worth, by going through the whole tree.
func (n *node) sum(text string, prob float64, into map[string]float64) {
	text += n.name
	if len(n.kids) == 0 {
		into[text] += prob
		return
	}
	c := world.Choice{N: len(n.kids), Weights: n.weights}
	share := c.Shares()
	for i, k := range n.kids {
		if p := prob * share(i); p > 0 {
			k.sum(text, p, into)
		}
	}
}

func same(a, b string) bool { return a == b }

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

// TestAll holds exploration by replay against going through the whole tree.
func TestAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := genNode(4).Draw(t, "tree")
		want := map[string]float64{}
		n.sum("", 1, want)
		got, cut := All(n.ask, same, Options{Walks: 1000})
		if cut != (Cut{}) || len(got) != len(want) {
			t.Fatalf("got %d branches, cut %v; want %d", len(got), cut, len(want))
		}
		for i, b := range got {
			if !near(b.Prob, want[b.Result]) {
				t.Fatalf("%q: probability %g, want %g", b.Result, b.Prob, want[b.Result])
			}
			if i > 0 && b.Prob > got[i-1].Prob+1e-9 {
				t.Fatalf("branch %d is more probable than the one before", i)
			}
		}
	})
}

// TestBound asks only a few times: what was asked and what was cut are everything.
func TestBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := genNode(4).Draw(t, "tree")
		walks := rapid.IntRange(1, 6).Draw(t, "walks")
		asked := 0
		got, cut := All(func(d *world.Dice) string { asked++; return n.ask(d) }, nil,
			Options{Walks: walks})
		sum := cut.Prob
		for _, b := range got {
			sum += b.Prob
		}
		if !near(sum, 1) || asked > walks || len(got) != asked {
			t.Fatalf("sum %g, asked %d of %d, %d branches", sum, asked, walks, len(got))
		}
		if (cut.Ways == 0) != near(cut.Prob, 0) {
			t.Fatalf("cut %+v", cut)
		}
		all, _ := All(n.ask, nil, Options{Walks: 1000})
		if len(all) >= walks && len(got) != walks {
			t.Fatalf("%d of %d ways asked, %d allowed", len(got), len(all), walks)
		}
	})
}

// TestWide has more alternatives than are kept waiting.
func TestWide(t *testing.T) {
	const wide = 5000
	got, cut := All(func(d *world.Dice) int {
		return d.Take(world.Choice{Key: world.Key{A: 1}, N: wide})
	}, nil, Options{Walks: 10})
	sum := cut.Prob
	for i, b := range got {
		sum += b.Prob
		if b.Result != i {
			t.Errorf("branch %d: got %d: ties go by the order of alternatives", i, b.Result)
		}
	}
	if len(got) != 10 || !near(sum, 1) {
		t.Errorf("%d branches, sum %g", len(got), sum)
	}
}

// TestTies orders equal branches by their alternatives, matched first, though the
// most probable answer of the first choice is asked first.
func TestTies(t *testing.T) {
	thirds := func(d *world.Dice) string {
		if d.Take(world.Choice{Key: world.Key{A: 1}, N: 2, Weights: []uint64{1, 2}}) == 0 {
			return "first"
		}
		return []string{"second", "third"}[d.Take(world.Choice{Key: world.Key{A: 2}, N: 2})]
	}
	got, _ := All(thirds, same, Options{})
	var names []string
	for _, b := range got {
		names = append(names, b.Result)
	}
	if want := []string{"first", "second", "third"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
}

// TestCommon leaves out choices that made no difference.
func TestCommon(t *testing.T) {
	got, _ := All(func(d *world.Dice) int {
		d.Take(world.Choice{Key: world.Key{A: 1}, N: 2}) // a rule that only counts
		return d.Take(world.Choice{Key: world.Key{A: 2}, N: 2})
	}, func(a, b int) bool { return a == b }, Options{})
	if len(got) != 2 {
		t.Fatalf("got %d branches, want 2", len(got))
	}
	for _, b := range got {
		if len(b.Taken) != 1 || b.Taken[0].Key.A != 2 || !near(b.Prob, 0.5) {
			t.Errorf("got %+v", b)
		}
	}
}
