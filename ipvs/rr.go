package ipvs

import "github.com/hookpath/hookpath/world"

// roundRobin gives each server its turn. Its memory is the server that was chosen last,
// -1 for the head of the list; turnUnknown makes each open one as probable as the others.
//
// Kernel: net/netfilter/ipvs/ip_vs_rr.c.
type roundRobin struct{ last world.Slot[*world.Var[int]] }

// turnUnknown is the last server of a service that was asked before.
const turnUnknown = -2

func newRoundRobin(s *world.Schema, svc *service) scheduler {
	first := -1
	if svc.Used {
		first = turnUnknown
	}
	return &roundRobin{world.Add(s, func() *world.Var[int] { return &world.Var[int]{V: first} })}
}

func (r *roundRobin) schedule(c call) int {
	last, n := r.last.In(c.w.State), len(c.svc.Dests)
	if last.V == turnUnknown {
		i := c.any()
		if i >= 0 {
			last.V = i
		}
		return i
	}
	for k := range n {
		i := (last.V + 1 + k) % n
		if c.open(i) {
			last.V = i
			return i
		}
	}
	return -1
}

// any lets the dice choose one of the open servers, each as probable as the others; -1 where
// there is none.
func (c *call) any() int {
	var open []int
	for i := range c.svc.Dests {
		if c.open(i) {
			open = append(open, i)
		}
	}
	if len(open) == 0 {
		return -1
	}
	return c.ask(open, nil)
}
