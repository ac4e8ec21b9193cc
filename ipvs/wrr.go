package ipvs

import "github.com/hookpath/hookpath/world"

// weightedRobin gives each server as many turns as its weight. It goes round the list with
// a weight that a server must have, and lowers it after each round.
//
// Kernel: net/netfilter/ipvs/ip_vs_wrr.c.
type weightedRobin struct {
	turn world.Slot[*world.Var[wrrTurn]]
	// maybe are the turns that may be the present one, where the service was asked before.
	maybe world.Slot[*world.Var[*turns]]
	// top is the weight that a round begins with, step what it is lowered by.
	top, step int
}

// wrrTurn is where the scheduler stands. Kernel: struct ip_vs_wrr_mark.
type wrrTurn struct {
	last   int // the server that was chosen last, -1 for the head of the list
	weight int // that a server must have now
}

// newWeightedRobin follows the numbers through the adding of one server after the other,
// the last in the list first: the weight to begin with depends on it.
//
// Kernel: net/netfilter/ipvs/ip_vs_wrr.c, ip_vs_wrr_dest_changed.
func newWeightedRobin(s *world.Schema, svc *service) scheduler {
	r := &weightedRobin{step: 1}
	most, common, weight := 0, 0, 0
	for i := len(svc.Dests) - 1; i >= 0; i-- {
		most, common = max(most, svc.Dests[i].Weight), gcd(common, svc.Dests[i].Weight)
		r.step = max(common, 1)
		r.top = most - (r.step - 1)
		switch {
		case weight > r.top || weight == 0:
			weight = r.top
		case r.step > 1:
			weight = weight/r.step*r.step + 1
		}
	}
	r.turn = world.Add(s, func() *world.Var[wrrTurn] {
		return &world.Var[wrrTurn]{V: wrrTurn{-1, weight}}
	})
	first := &turns{known: !svc.Used}
	r.maybe = world.Add(s, func() *world.Var[*turns] { return &world.Var[*turns]{V: first} })
	return r
}

func (r *weightedRobin) schedule(c call) int {
	t := r.turn.In(c.w.State)
	if m := r.maybe.In(c.w.State); !m.V.known {
		return r.narrow(&c, &t.V, m)
	}
	return r.next(&c, &t.V)
}

// next looks on from the last server. It gives up when all servers were asked for a
// weight of one, wherever it began.
//
// Kernel: net/netfilter/ipvs/ip_vs_wrr.c, ip_vs_wrr_schedule.
func (r *weightedRobin) next(c *call, t *wrrTurn) int {
	if r.top == 0 {
		return -1
	}
	began, stop := t.last, -1
	lastRound, again := false, false
	for {
		found, over := t.round(c, stop)
		switch {
		case found:
			return t.last
		case over:
			return -1
		}
		r.lower(c, t)
		if t.weight <= 0 {
			t.weight = r.top
			if lastRound || began < 0 {
				return -1
			}
			again = true
		}
		lastRound = t.weight <= r.step
		if lastRound && again && began >= 0 {
			stop = began
		}
	}
}

// round asks the servers behind the last one for their weight, as far as the one to stop
// at, which ends it (over); then the last is the head.
func (t *wrrTurn) round(c *call, stop int) (found, over bool) {
	for i := t.last + 1; i < len(c.svc.Dests); i++ {
		t.last = i
		if d := c.server(i); d.Weight >= t.weight && !c.counts(i).Overload {
			return true, false
		}
		if i == stop {
			return false, true
		}
	}
	t.last = -1
	return false, false
}

// lower lowers the weight that is asked for, at once to one that a server has: the rounds
// between would find nobody. It stops at the last round, which decides about the end.
func (r *weightedRobin) lower(c *call, t *wrrTurn) {
	most := r.step
	for i := range c.svc.Dests {
		if w := c.server(i).Weight; w > most && !c.counts(i).Overload {
			most = w
		}
	}
	if over := t.weight - r.step - most; over > 0 {
		t.weight -= (over + r.step - 1) / r.step * r.step
	}
	t.weight -= r.step
}
