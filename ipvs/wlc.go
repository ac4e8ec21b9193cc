package ipvs

import "github.com/hookpath/hookpath/world"

// weightedLeast takes the server whose connections cost the least for its weight, the first
// of equals.
//
// Kernel: net/netfilter/ipvs/ip_vs_wlc.c, ip_vs_wlc_schedule, and others that count another
// cost.
type weightedLeast struct{ cost func(Counts) int32 }

func newWeightedLeast(*world.Schema, *service) scheduler { return weightedLeast{overhead} }

func (l weightedLeast) schedule(c call) int {
	best := nobodyYet()
	for i := range c.svc.Dests {
		best = l.better(&c, best, i)
	}
	return best.server
}

// pick is a server and what its connections cost.
type pick struct {
	server int // -1 for none yet
	cost   int32
}

func nobodyYet() pick { return pick{server: -1} }

// better is the one of two that costs less for its weight, the first of equals. The first
// of all must be open; those behind it need only not be overloaded, since without a weight
// they never cost less.
func (l weightedLeast) better(c *call, best pick, i int) pick {
	n := c.counts(i)
	if n.Overload || best.server < 0 && c.server(i).Weight <= 0 {
		return best
	}
	cost := l.cost(n)
	if best.server < 0 || c.lighter(i, cost, best) {
		return pick{i, cost}
	}
	return best
}

// lighter tells whether a server costs less for its weight than another.
func (c *call) lighter(i int, cost int32, than pick) bool {
	mine, its := int64(c.server(i).Weight), int64(c.server(than.server).Weight)
	return int64(than.cost)*mine > int64(cost)*its
}

// overhead is what a server's connections cost: an active one as much as 257 others. It
// wraps as the kernel's number does.
//
// Kernel: include/net/ip_vs.h, ip_vs_dest_conn_overhead.
func overhead(n Counts) int32 { return n.Active<<8 + n.Total() }
