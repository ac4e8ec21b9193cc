package conntrack

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// key is where a direction of a connection stands in the table.
type key struct {
	Tuple
	zone uint16
}

// ref says which connections have a key: as their original tuple, as their reply.
// Both can be there only where zones count in one direction; then the one that came
// last is found first.
type ref struct {
	id   [2]packet.FlowID
	last Dir
}

// Source is what NAT finds connections of one source by.
//
// Kernel: net/netfilter/nf_nat_core.c, hash_by_src and same_src.
type Source struct {
	Addr  packet.Addr
	Port  uint16
	Proto uint8
	Zone  uint16
}

// lag is how many places must be free before the first is used again: a packet
// may still point at a connection that was deleted on its way.
const lag = 256

// vars are the counters of the table.
type vars struct {
	freeHead, freeTail packet.FlowID
	free               int
	count              int // connections, those not confirmed included
	expects            int // expectations, expired ones included
	cursor             packet.FlowID
}

// Ref returns a connection for reading and writing; the pointer is good until the
// next connection is made. It panics for a number that was never given.
func (t *Tracker) Ref(w *world.World, id packet.FlowID) *Flow {
	return t.flows.In(w.State).Ref(int(id))
}

// Get returns a connection, nil for zero and for numbers that nobody has. The
// pointer is good until the next connection is made.
func (t *Tracker) Get(w *world.World, id packet.FlowID) *Flow {
	flows := t.flows.In(w.State)
	if id == 0 || int(id) >= flows.Len() {
		return nil
	}
	return flows.Ref(int(id))
}

// Count is the number of connections, those not confirmed included.
func (t *Tracker) Count(w *world.World) int { return t.vars.In(w.State).V.count }

// alloc makes an empty connection; it fails when the table is full and nothing can
// be dropped from it.
//
// Kernel: net/netfilter/nf_conntrack_core.c, __nf_conntrack_alloc.
func (t *Tracker) alloc(w *world.World) (packet.FlowID, bool) {
	v := &t.vars.In(w.State).V
	if t.max > 0 && v.count >= t.max && !t.earlyDrop(w, v) {
		return 0, false
	}
	v.count++
	flows := t.flows.In(w.State)
	if v.free <= lag {
		return packet.FlowID(flows.Append(Flow{})), true
	}
	id := v.freeHead
	f := flows.Ref(int(id))
	v.freeHead = f.next
	v.free--
	*f = Flow{}
	return id, true
}

// earlyDrop makes room by deleting a connection that is not assured. Which one the
// kernel takes hangs on a secret hash; here it is the next in turn of a bounded
// stretch.
//
// Kernel: net/netfilter/nf_conntrack_core.c, early_drop.
func (t *Tracker) earlyDrop(w *world.World, v *vars) bool {
	flows := t.flows.In(w.State)
	const stretch = 64
	for range min(stretch, flows.Len()) {
		v.cursor++
		if int(v.cursor) >= flows.Len() {
			v.cursor = 1
		}
		f := flows.Ref(int(v.cursor))
		if f.Is(Confirmed) && !f.Any(Dying|Assured|Offload) {
			return t.Kill(w, v.cursor)
		}
	}
	return false
}

// release gives a place back.
func (t *Tracker) release(w *world.World, id packet.FlowID) {
	v := &t.vars.In(w.State).V
	flows := t.flows.In(w.State)
	v.count--
	v.free++
	flows.Ref(int(id)).next = 0
	if v.free == 1 {
		v.freeHead, v.freeTail = id, id
		return
	}
	flows.Ref(int(v.freeTail)).next = id
	v.freeTail = id
}

// Hold notes that another packet (a copy) points at the same connection.
func (t *Tracker) Hold(w *world.World, p *packet.Packet) {
	if f := t.Get(w, p.CT.Flow); f != nil && !f.Is(Confirmed) {
		f.refs++
	}
}

// Release is to be called when a packet ends: a connection that is not confirmed
// vanishes with its last packet.
//
// Kernel: net/netfilter/nf_conntrack_core.c, nf_ct_destroy.
func (t *Tracker) Release(w *world.World, p *packet.Packet) {
	f := t.Get(w, p.CT.Flow)
	if f == nil || f.Any(Confirmed|Dying) || f.refs == 0 {
		return
	}
	if f.refs--; f.refs > 0 {
		return
	}
	f.Status |= Dying
	t.forget(w, p.CT.Flow, f)
}

// forget drops all that is known of a connection beside the table, and its place.
func (t *Tracker) forget(w *world.World, id packet.FlowID, f *Flow) {
	t.removeExpects(w, id)
	t.dropSource(w, f)
	if f.Helper == FTP {
		t.lines.In(w.State).Delete(id)
	}
	t.release(w, id)
}

// find returns the connection that has a tuple, and the direction; zero when there
// is none. One whose time has come is deleted on the way.
//
// Kernel: net/netfilter/nf_conntrack_core.c, ____nf_conntrack_find, nf_ct_key_equal,
// and the two lookups of resolve_normal_ct for zones that count in one direction.
func (t *Tracker) find(w *world.World, z Zone, tu Tuple) (packet.FlowID, Dir) {
	orig, reply := z.In(Original), z.In(Reply)
	tuples := t.tuples.In(w.State)
	r, ok := tuples.Get(key{tu, orig})
	if ok {
		if reply != orig {
			r.id[Reply] = 0
		}
		for _, d := range [...]Dir{r.last, r.last.Not()} {
			if id := t.live(w, r.id[d]); id != 0 {
				return id, d
			}
		}
	}
	if reply == orig {
		return 0, Reply
	}
	r, _ = tuples.Get(key{tu, reply})
	return t.live(w, r.id[Reply]), Reply
}

// live returns id unless it is zero or expired.
func (t *Tracker) live(w *world.World, id packet.FlowID) packet.FlowID {
	if id == 0 {
		return 0
	}
	if f := t.Ref(w, id); f.expired(w.Now) {
		t.Kill(w, id)
		return 0
	}
	return id
}

// expired tells whether a confirmed connection's time has come.
func (f *Flow) expired(now world.Instant) bool { return f.Is(Confirmed) && f.Timeout <= now }

// Find returns the connection that a packet with this tuple would hit now, and the
// direction, without changing anything; zero for none.
func (t *Tracker) Find(w *world.World, z Zone, tu Tuple) (packet.FlowID, Dir) {
	return t.find(w, z, tu)
}

// Hit returns the connection that a packet would belong to if it were tracked now, and
// the direction; zero where it would begin one or none. Reports ask it for entries that
// outlive the rules they were made by.
func (t *Tracker) Hit(w *world.World, p *packet.Packet) (packet.FlowID, Dir) {
	if p.CT.Flow != 0 || !p.Is4() {
		return p.CT.Flow, DirOf(p.CT.Info)
	}
	l4, proto, ok := l4proto(p.IP())
	if !ok {
		return 0, Original
	}
	tuple, ok := t.tupleOf(p.IP(), l4, proto)
	if !ok {
		return 0, Original
	}
	return t.find(w, t.zoneOf(p), tuple)
}

// Taken tells whether a connection other than ignored has a tuple already, as its
// original or its reply. Those that began with the very same tuple do not count:
// that clash is resolved when the newer one is confirmed.
//
// Kernel: net/netfilter/nf_conntrack_core.c, nf_conntrack_tuple_taken.
func (t *Tracker) Taken(w *world.World, tu Tuple, ignored packet.FlowID) bool {
	me := t.Ref(w, ignored)
	z := me.Zone
	r, ok := t.tuples.In(w.State).Get(key{tu, z.In(Reply)})
	if !ok {
		return false
	}
	if z.In(Original) != z.In(Reply) {
		r.id[Original] = 0
	}
	for _, id := range r.id {
		if id == ignored {
			continue
		}
		if id = t.live(w, id); id == 0 {
			continue
		}
		f := t.Ref(w, id)
		if f.Tuples[Original] == me.Tuples[Original] &&
			f.Zone.In(Original) == z.In(Original) {
			continue
		}
		return true
	}
	return false
}

// insert puts a direction of a connection into the table.
func (t *Tracker) insert(w *world.World, id packet.FlowID, f *Flow, d Dir) {
	tuples := t.tuples.In(w.State)
	k := key{f.Tuples[d], f.Zone.In(d)}
	r, _ := tuples.Get(k)
	r.id[d], r.last = id, d
	tuples.Put(k, r)
}

// unlink takes a direction of a connection out of the table.
func (t *Tracker) unlink(w *world.World, id packet.FlowID, f *Flow, d Dir) {
	tuples := t.tuples.In(w.State)
	k := key{f.Tuples[d], f.Zone.In(d)}
	r, ok := tuples.Get(k)
	if !ok || r.id[d] != id {
		return
	}
	if r.id[d] = 0; r.id[d.Not()] == 0 {
		tuples.Delete(k)
		return
	}
	tuples.Put(k, r)
}

// Kill deletes a connection from the table; false when it is being deleted already.
// Packets that point at it keep it until they end.
//
// Kernel: net/netfilter/nf_conntrack_core.c, nf_ct_delete.
func (t *Tracker) Kill(w *world.World, id packet.FlowID) bool {
	f := t.Get(w, id)
	if f == nil || f.Is(Dying) {
		return false
	}
	f.Status |= Dying
	t.unlink(w, id, f, Original)
	t.unlink(w, id, f, Reply)
	t.forget(w, id, f)
	return true
}

// SourceOf is where connections of a tuple's source are found.
func SourceOf(tu *Tuple, z Zone) Source {
	s := Source{Addr: tu.Src, Port: tu.SPort, Proto: tu.Proto}
	if z.Dir == ZoneBoth {
		s.Zone = z.ID
	}
	return s
}

func (f *Flow) source() Source { return SourceOf(&f.Tuples[Original], f.Zone) }

// AddSource lets NAT find a connection by its source.
//
// Kernel: net/netfilter/nf_nat_core.c, nf_nat_setup_info, nat_bysource.
func (t *Tracker) AddSource(w *world.World, id packet.FlowID) {
	f := t.Ref(w, id)
	if f.bySource {
		return
	}
	heads := t.sources.In(w.State)
	s := f.source()
	first, _ := heads.Get(s)
	if first != 0 {
		t.Ref(w, first).prevSrc = id
	}
	f.nextSrc, f.prevSrc, f.bySource = first, 0, true
	heads.Put(s, id)
}

// SameSource returns the newest connection of a source, zero for none.
func (t *Tracker) SameSource(w *world.World, s Source) packet.FlowID {
	first, _ := t.sources.In(w.State).Get(s)
	return first
}

// NextSource is the connection behind id in the list that SameSource begins.
func (t *Tracker) NextSource(w *world.World, id packet.FlowID) packet.FlowID {
	return t.Ref(w, id).nextSrc
}

// dropSource takes a connection out of the list of its source.
func (t *Tracker) dropSource(w *world.World, f *Flow) {
	if !f.bySource {
		return
	}
	f.bySource = false
	if f.nextSrc != 0 {
		t.Ref(w, f.nextSrc).prevSrc = f.prevSrc
	}
	if f.prevSrc != 0 {
		t.Ref(w, f.prevSrc).nextSrc = f.nextSrc
		return
	}
	heads := t.sources.In(w.State)
	if f.nextSrc == 0 {
		heads.Delete(f.source())
		return
	}
	heads.Put(f.source(), f.nextSrc)
}
