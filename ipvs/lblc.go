package ipvs

import "github.com/hookpath/hookpath/world"

// locality sends the packets of a destination to the server that had them before, and takes
// the one with the fewest connections for its weight where there is none or it is crowded.
//
// Kernel: net/netfilter/ipvs/ip_vs_lblc.c, ip_vs_lblc_schedule.
type locality struct{ locals }

func newLocality(s *world.Schema, svc *service) scheduler {
	return &locality{newLocals(s, svc, svc.table.settings.lblcTime)}
}

func (l *locality) schedule(c call) int {
	e, known := l.get(&c)
	if known {
		l.put(&c, e)
		// An overloaded one goes on too: the kernel does not ask.
		if i := int(e.servers[0]); c.server(i).Weight > 0 && !c.crowded(i) {
			return i
		}
	}
	i := l.fresh(&c, known)
	switch {
	case i < 0, known && int(e.servers[0]) == i:
		return i
	case known:
		l.table.In(c.w.State).Delete(c.dst)
	}
	l.add(&c, i)
	return i
}
