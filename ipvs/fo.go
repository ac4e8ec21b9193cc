package ipvs

import "github.com/hookpath/hookpath/world"

// failover takes the heaviest server, the first of equals; another only where that one is
// overloaded.
//
// Kernel: net/netfilter/ipvs/ip_vs_fo.c, ip_vs_fo_schedule.
type failover struct{}

func newFailover(*world.Schema, *service) scheduler { return failover{} }

func (failover) schedule(c call) int {
	heaviest, weight := -1, 0
	for i := range c.svc.Dests {
		if w := c.server(i).Weight; w > weight && c.open(i) {
			heaviest, weight = i, w
		}
	}
	return heaviest
}
