package ipvs

import "github.com/hookpath/hookpath/world"

// leastConns takes the server whose connections cost the least, whatever its weight; the
// first of equals.
//
// Kernel: net/netfilter/ipvs/ip_vs_lc.c, ip_vs_lc_schedule: costs have no sign here.
type leastConns struct{}

func newLeast(*world.Schema, *service) scheduler { return leastConns{} }

func (leastConns) schedule(c call) int {
	least, load := -1, uint32(0)
	for i := range c.svc.Dests {
		if !c.open(i) {
			continue
		}
		if cost := uint32(overhead(c.counts(i))); least < 0 || cost < load {
			least, load = i, cost
		}
	}
	return least
}
