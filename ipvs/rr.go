package ipvs

import "github.com/hookpath/hookpath/world"

// roundRobin gives each server its turn. Its memory is the server that was chosen last,
// -1 for the head of the list.
//
// Kernel: net/netfilter/ipvs/ip_vs_rr.c.
type roundRobin struct{ last world.Slot[*world.Var[int]] }

func newRoundRobin(s *world.Schema, _ *service) scheduler {
	return &roundRobin{world.Add(s, func() *world.Var[int] { return &world.Var[int]{V: -1} })}
}

func (r *roundRobin) schedule(c call) int {
	last, n := r.last.In(c.w.State), len(c.svc.Dests)
	for k := range n {
		i := (last.V + 1 + k) % n
		if c.open(i) {
			last.V = i
			return i
		}
	}
	return -1
}
