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

// explore walks a question once for each combination of answers of the dice.
func explore(h *walk.Host, question func(*walk.Walk), o options) ([]exploreBranch, float64) {
	type todo struct {
		forced []int
		prob   float64
	}
	queue := []todo{{nil, 1}}
	var out []exploreBranch
	cut := 0.0
	for len(queue) > 0 {
		sort.SliceStable(queue, func(i, j int) bool { return queue[i].prob > queue[j].prob })
		t := queue[0]
		queue = queue[1:]
		if len(out) >= maxBranches {
			cut += t.prob
			continue
		}
		w := h.NewWorld(o.State.Fork())
		w.Now = o.Now
		w.Dice = &world.Dice{Forced: t.forced, Drawn: append([]uint16(nil), o.Drawn...)}
		k := h.NewWalk(w, &trace.Trace{Skips: o.Skips})
		question(k)
		prob := 1.0
		for i, taken := range w.Dice.Taken {
			if i >= len(t.forced) {
				for alt := range taken.N {
					if p := prob * taken.Prob(alt); alt != taken.Index && p > 0 {
						forced := make([]int, 0, i+1)
						for _, x := range w.Dice.Taken[:i] {
							forced = append(forced, x.Index)
						}
						queue = append(queue, todo{append(forced, alt), p})
					}
				}
			}
			prob *= taken.Prob(taken.Index)
		}
		out = append(out, exploreBranch{prob, w.Dice.Taken, k.Trace, w.State})
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].Prob > out[j].Prob })
	return out, cut
}
