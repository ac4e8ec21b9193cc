package ipvs

import "github.com/hookpath/hookpath/world"

// overflow takes the heaviest server that has no more active connections than its weight,
// the first of equals.
//
// Kernel: net/netfilter/ipvs/ip_vs_ovf.c, ip_vs_ovf_schedule.
type overflow struct{}

func newOverflow(*world.Schema, *service) scheduler { return overflow{} }

func (overflow) schedule(c call) int {
	heaviest, weight := -1, 0
	for i := range c.svc.Dests {
		w := c.server(i).Weight
		if w > weight && c.open(i) && int(c.counts(i).Active) <= w {
			heaviest, weight = i, w
		}
	}
	return heaviest
}
