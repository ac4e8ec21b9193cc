package ipvs

import "github.com/hookpath/hookpath/world"

// neverQueue takes the first server that has nothing to do, else that of the shortest
// delay.
//
// Kernel: net/netfilter/ipvs/ip_vs_nq.c, ip_vs_nq_schedule.
type neverQueue struct{}

func newNeverQueue(*world.Schema, *service) scheduler { return neverQueue{} }

func (neverQueue) schedule(c call) int {
	best := nobodyYet()
	for i := range c.svc.Dests {
		if !c.open(i) {
			continue
		}
		n := c.counts(i)
		if n.Active == 0 {
			return i
		}
		if cost := delay(n); best.server < 0 || c.lighter(i, cost, best) {
			best = pick{i, cost}
		}
	}
	return best.server
}
