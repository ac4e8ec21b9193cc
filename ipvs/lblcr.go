package ipvs

import "github.com/hookpath/hookpath/world"

// replicated sends the packets of a destination to one of a set of servers, which grows
// while they are crowded and shrinks after a time without change.
//
// Kernel: net/netfilter/ipvs/ip_vs_lblcr.c, ip_vs_lblcr_schedule.
type replicated struct{ locals }

func newReplicated(s *world.Schema, svc *service) scheduler {
	return &replicated{newLocals(s, svc, svc.table.settings.lblcrTime)}
}

func (r *replicated) schedule(c call) int {
	e, known := r.get(&c)
	if !known {
		i := r.fresh(&c, false)
		if i >= 0 {
			r.add(&c, i)
		}
		return i
	}
	i := e.least(&c)
	if len(e.servers) > 1 && c.w.Now > e.changed+r.time {
		e.without(e.most(&c), c.w.Now)
	}
	if i < 0 || c.crowded(i) {
		if i = (weightedLeast{overhead}).schedule(c); i >= 0 {
			e.with(i, c.w.Now)
		}
	}
	r.put(&c, e)
	return i
}

// least is the server of a set with the fewest connections for its weight, -1 where none
// is open.
//
// Kernel: net/netfilter/ipvs/ip_vs_lblcr.c, ip_vs_dest_set_min.
func (e *local) least(c *call) int {
	best := nobodyYet()
	for _, i := range e.servers {
		best = weightedLeast{overhead}.better(c, best, int(i))
	}
	return best.server
}

// most is the server of a set with the most connections for its weight, -1 where none has
// a weight.
//
// Kernel: net/netfilter/ipvs/ip_vs_lblcr.c, ip_vs_dest_set_max.
func (e *local) most(c *call) int {
	worst := nobodyYet()
	for _, s := range e.servers {
		i := int(s)
		if c.server(i).Weight <= 0 {
			continue
		}
		cost := overhead(c.counts(i))
		if worst.server < 0 || c.heavier(i, cost, worst) {
			worst = pick{i, cost}
		}
	}
	return worst.server
}

// heavier tells whether a server costs more for its weight than another.
func (c *call) heavier(i int, cost int32, than pick) bool {
	mine, its := int64(c.server(i).Weight), int64(c.server(than.server).Weight)
	return int64(than.cost)*mine < int64(cost)*its
}
