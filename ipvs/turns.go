package ipvs

import (
	"maps"
	"slices"

	"github.com/hookpath/hookpath/world"
)

// turns are the places at which a weighted round may be, each as probable as the others. One
// is never changed once it is in a world.
type turns struct {
	known bool // the scheduler's own turn is it
	all   []wrrTurn
}

// mostTurns bounds them. A service whose round is longer is asked by weight each time: what one
// answer tells of the next is lost then.
const mostTurns = 1 << 14

// narrow lets the dice choose one of the servers that the possible turns lead to, and keeps
// those that led there.
func (r *weightedRobin) narrow(c *call, turn *wrrTurn, maybe *world.Var[*turns]) int {
	from := maybe.V.all
	if from == nil {
		from = r.round(c, *turn)
	}
	if len(from) == mostTurns {
		return r.byWeight(c)
	}
	to := map[int][]wrrTurn{}
	for _, t := range from {
		i := r.next(c, &t)
		to[i] = append(to[i], t)
	}
	servers := slices.Sorted(maps.Keys(to))
	if servers = slices.DeleteFunc(servers, func(i int) bool { return i < 0 }); len(servers) == 0 {
		return -1
	}
	weights := make([]uint64, len(servers))
	for k, i := range servers {
		weights[k] = uint64(len(to[i]))
	}
	i := c.ask(servers, weights)
	*turn = to[i][0]
	same := !slices.ContainsFunc(to[i], func(t wrrTurn) bool { return t != *turn })
	maybe.V = &turns{known: same, all: to[i]}
	return i
}

// round are the turns behind each choice of one round, mostTurns of them where it has more.
func (r *weightedRobin) round(c *call, t wrrTurn) []wrrTurn {
	var seen []wrrTurn
	at := map[wrrTurn]int{}
	for len(seen) < mostTurns {
		if r.next(c, &t) < 0 {
			return seen
		}
		if k, again := at[t]; again { // what was before belongs to the adding of the servers
			return seen[k:]
		}
		at[t] = len(seen)
		seen = append(seen, t)
	}
	return seen
}

func (r *weightedRobin) byWeight(c *call) int {
	var open []int
	var weights []uint64
	for i := range c.svc.Dests {
		if c.open(i) {
			open, weights = append(open, i), append(weights, uint64(c.server(i).Weight))
		}
	}
	if len(open) == 0 {
		return -1
	}
	return c.ask(open, weights)
}
