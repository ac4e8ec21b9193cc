package ipvs

import (
	"slices"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// locals remember where the packets of a destination went, for lblc and lblcr. What was not
// used for long is forgotten by a timer that fires each minute from the first question on;
// when the service was made, which the kernel counts from, no dump says.
//
// Kernel: net/netfilter/ipvs/ip_vs_lblc.c, struct ip_vs_lblc_table; ip_vs_lblcr.c has the
// same.
type locals struct {
	family trace.Family
	time   world.Instant // after which an entry is forgotten
	table  world.Slot[*world.Table[packet.Addr, local]]
	timer  world.Slot[*world.Var[localTimer]]
}

// local is where the packets of one destination went.
type local struct {
	servers []int32 // that were added last first; never written to, copied to be changed
	used    world.Instant
	changed world.Instant // when a server came or went
}

// localTimer is what the timer goes on from.
type localTimer struct {
	next    world.Instant
	counter int // of ticks until all is looked through, zero before the first question
	rover   int // the place of the table that was looked at last
}

// Sizes and times of the table. Kernel: IP_VS_LBLC_TAB_BITS, ip_vs_lblc_init_svc,
// CHECK_EXPIRE_INTERVAL, ENTRY_TIMEOUT, COUNT_FOR_FULL_EXPIRATION.
const (
	localBits   = 10
	localPlaces = 1 << localBits
	localMany   = 16 * localPlaces  // above which entries go early
	localMost   = localMany * 3 / 2 // with which no new one is made
	localTick   = 60 * world.Second
	localEarly  = 6 * 60 * world.Second
	localRounds = 30
)

func newLocals(s *world.Schema, svc *service, time world.Instant) locals {
	return locals{svc.Family, time, world.Add(s, world.NewTable[packet.Addr, local]),
		world.Add(s, func() *world.Var[localTimer] { return &world.Var[localTimer]{} })}
}

// fresh chooses the server of a destination of which nothing is remembered. That of a service
// which was asked before may have gone anywhere: no dump has the table.
func (l *locals) fresh(c *call, known bool) int {
	if c.svc.Used && !known {
		return c.any()
	}
	return weightedLeast{overhead}.schedule(*c)
}

// get returns what is remembered of the call's destination, as used now.
func (l *locals) get(c *call) (local, bool) {
	l.sweep(c.w)
	e, ok := l.table.In(c.w.State).Get(c.dst)
	e.used = c.w.Now
	return e, ok
}

func (l *locals) put(c *call, e local) { l.table.In(c.w.State).Put(c.dst, e) }

// add remembers a server for a destination that nothing is remembered of, if there is room.
func (l *locals) add(c *call, server int) {
	if l.table.In(c.w.State).Len() >= localMost {
		return
	}
	l.put(c, local{servers: []int32{int32(server)}, used: c.w.Now, changed: c.w.Now})
}

// crowded tells whether a server has more active connections than its weight, while another
// has less than half of its own.
//
// Kernel: net/netfilter/ipvs/ip_vs_lblc.c, is_overloaded.
func (c *call) crowded(i int) bool {
	if int(c.counts(i).Active) <= c.server(i).Weight {
		return false
	}
	for k := range c.svc.Dests {
		if int(c.counts(k).Active)*2 < c.server(k).Weight {
			return true
		}
	}
	return false
}

// sweep lets the timer fire as often as it should have by now.
//
// Kernel: net/netfilter/ipvs/ip_vs_lblc.c, ip_vs_lblc_check_expire. The kernel's timers of
// that length fire up to two seconds late.
func (l *locals) sweep(w *world.World) {
	t := &l.timer.In(w.State).V
	if t.counter == 0 {
		t.counter, t.next = 1, w.Now+localTick
	}
	for t.next <= w.Now {
		if l.idle(w, t); t.next > w.Now {
			return
		}
		l.tick(w, t)
		t.next += localTick
	}
}

// idle passes the ticks at which nothing can be forgotten: they only count.
func (l *locals) idle(w *world.World, t *localTimer) {
	table := l.table.In(w.State)
	if table.Len() > localMany {
		return
	}
	until := w.Now + 1
	for _, e := range table.All {
		until = min(until, e.used+l.time)
	}
	if until <= t.next {
		return
	}
	n := (until - t.next + localTick - 1) / localTick
	t.next += n * localTick
	t.counter = int((world.Instant(t.counter)-1+n)%localRounds) + 1
}

// tick is one firing of the timer: each thirtieth looks all through, others only where
// there are too many.
func (l *locals) tick(w *world.World, t *localTimer) {
	table := l.table.In(w.State)
	switch {
	case t.counter%localRounds == 0:
		for _, a := range l.unused(table, t.next-l.time) {
			table.Delete(a)
		}
		t.counter = 1
	case table.Len() <= localMany:
		t.counter++
	default:
		l.early(table, t)
	}
}

// unused are the destinations that were last used at a moment or before it.
func (l *locals) unused(table *world.Table[packet.Addr, local], at world.Instant) []packet.Addr {
	var out []packet.Addr
	for a, e := range table.All {
		if e.used <= at {
			out = append(out, a)
		}
	}
	return out
}

// early forgets some of what was not used for six minutes, place by place from where it
// stopped last.
func (l *locals) early(table *world.Table[packet.Addr, local], t *localTimer) {
	goal := min((table.Len()-localMany)*4/3, localMany/2)
	old := make([][]packet.Addr, localPlaces)
	for _, a := range l.unused(table, t.next-localEarly) {
		place := hash32(fold(l.family, a), localBits)
		old[place] = append(old[place], a)
	}
	for range localPlaces {
		t.rover = (t.rover + 1) % localPlaces
		for _, a := range old[t.rover] {
			table.Delete(a)
			goal--
		}
		if goal <= 0 {
			return
		}
	}
}

// with adds a server to a set, if it is not in it.
func (e *local) with(server int, now world.Instant) {
	if !slices.Contains(e.servers, int32(server)) {
		e.servers = slices.Insert(slices.Clone(e.servers), 0, int32(server))
		e.changed = now
	}
}

// without takes a server out of a set.
func (e *local) without(server int, now world.Instant) {
	if i := slices.Index(e.servers, int32(server)); i >= 0 {
		e.servers = slices.Delete(slices.Clone(e.servers), i, i+1)
		e.changed = now
	}
}
