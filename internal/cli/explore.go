package cli

import (
	"sort"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

// options say how a question is explored.
type options struct {
	State *world.State
	Now   world.Instant
	Drawn []uint16
	Skips bool
}

// exploreBranch is one path of a question.
type exploreBranch struct {
	Prob  float64
	Taken []world.Taken
	Trace *trace.Trace
	State *world.State
}

// maxBranches bounds the walks of one question.
const maxBranches = 256

// explore walks a question once for each combination of answers of the dice, the
// most probable first. What it returns besides is the probability of what was not
// walked.
func explore(h *walk.Host, question func(*walk.Walk), o options) ([]exploreBranch, float64) {
	queue := []prefix{{nil, 1}}
	var out []exploreBranch
	cut := 0.0
	for len(queue) > 0 {
		sort.SliceStable(queue, func(i, j int) bool { return queue[i].prob > queue[j].prob })
		p := queue[0]
		queue = queue[1:]
		if len(out) >= maxBranches {
			cut += p.prob
			continue
		}
		w := h.NewWorld(o.State.Fork())
		w.Now = o.Now
		w.Dice = &world.Dice{Forced: p.forced, Drawn: append([]uint16(nil), o.Drawn...)}
		k := h.NewWalk(w, &trace.Trace{Skips: o.Skips})
		question(k)
		prob, more := others(w.Dice.Taken, len(p.forced))
		queue = append(queue, more...)
		out = append(out, exploreBranch{prob, w.Dice.Taken, k.Trace, w.State})
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].before(&out[j]) })
	return out, cut
}

// prefix is the first answers of a walk that is still to be made.
type prefix struct {
	forced []int
	prob   float64
}

// others returns the probability of a walk, and the walks that part from it behind
// the answers that were forced.
func others(taken []world.Taken, forced int) (prob float64, out []prefix) {
	prob = 1
	var path []int
	for i := range taken {
		t := &taken[i]
		for alt := range t.N {
			if p := prob * t.Prob(alt); i >= forced && alt != t.Index && p > 0 {
				out = append(out, prefix{append(path[:i:i], alt), p})
			}
		}
		prob *= t.Prob(t.Index)
		path = append(path, t.Index)
	}
	return prob, out
}

// before orders branches: the more probable first, then by the order of the rules
// and alternatives, matched first.
func (b *exploreBranch) before(c *exploreBranch) bool {
	const same = 1e-9
	if d := b.Prob - c.Prob; d > same || d < -same {
		return d > 0
	}
	for i := range min(len(b.Taken), len(c.Taken)) {
		if x, y := b.Taken[i].Index, c.Taken[i].Index; x != y {
			return x < y
		}
	}
	return false
}
