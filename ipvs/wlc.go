package ipvs

import "github.com/hookpath/hookpath/world"

// weightedLeast takes the server with the fewest connections for its weight.
//
// Kernel: net/netfilter/ipvs/ip_vs_wlc.c, ip_vs_wlc_schedule.
type weightedLeast struct{}

func newWeightedLeast(*world.Schema, *service) scheduler { return weightedLeast{} }

func (weightedLeast) schedule(c *call) int {
	least, load := -1, int64(0)
	for i := range c.svc.Dests {
		switch {
		case least < 0 && c.open(i):
			least, load = i, overhead(c.counts(i))
		case least >= 0 && !c.counts(i).Overload:
			other := overhead(c.counts(i))
			if load*int64(c.server(i).Weight) > other*int64(c.server(least).Weight) {
				least, load = i, other
			}
		}
	}
	return least
}

// overhead is what a server's connections cost: an active one as much as 257 others.
//
// Kernel: include/net/ip_vs.h, ip_vs_dest_conn_overhead.
func overhead(c *Counts) int64 { return int64(c.Active)<<8 + int64(c.Total()) }
