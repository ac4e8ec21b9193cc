package ipvs

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// ConnID is the number of a connection in a host's memory; zero is none.
type ConnID uint32

// connFlags are what a connection is. Kernel: IP_VS_CONN_F_*.
type connFlags uint8

const (
	noOutput  connFlags = 1 << iota // no answer passed here yet
	inactive                        // counts as an inactive one
	template                        // of persistence, no connection
	onePacket                       // for one packet, in no index
	tracked                         // conntrack knows it too (vs.conntrack)
	hashed                          // is in the index
)

// inKey is what packets of clients find a connection by.
type inKey struct {
	proto           uint8
	client, virtual packet.Addr
	cport, vport    uint16
}

// outKey is what answers find a connection by.
type outKey struct {
	proto          uint8
	client, server packet.Addr
	cport, sport   uint16
}

// conn is a connection or a template. Addresses and ports are those of client, virtual
// service and real server; a template of a mark's service has the mark as virtual address.
//
// Kernel: include/net/ip_vs.h, struct ip_vs_conn.
type conn struct {
	inKey
	real     packet.Addr
	rport    uint16
	server   int // in the table's servers, -1 for none
	method   Method
	flags    connFlags
	state    uint8
	mark     uint32
	timeout  world.Instant // how long it stays from its last packet on
	expires  world.Instant
	control  ConnID // the template that it hangs on
	controls int    // how many hang on it
	packets  uint64
	// next is the one behind it with the same key, in the index of clients and of answers.
	nextIn, nextOut ConnID
	free            bool
}

// vars are the counters of the table.
type vars struct {
	freed   ConnID // the last free place, whose nextIn is the one before
	soonest world.Instant
	toDrop  int // packets until the next that drop_packet drops
	live    int
}

func (c *conn) is(f connFlags) bool { return c.flags&f != 0 }

// outKey is what answers of the connection look like.
//
// Kernel: net/netfilter/ipvs/ip_vs_conn.c, ip_vs_conn_out_get.
func (c *conn) outKey() outKey {
	k := outKey{proto: c.proto, client: c.client, cport: c.cport, server: c.real, sport: c.rport}
	if c.method != Masq {
		k.server, k.sport = c.virtual, c.vport
	}
	return k
}

// conn returns a connection for reading and writing; the pointer is good until the next
// connection is made.
func (t *Table) conn(w *world.World, id ConnID) *conn { return t.conns.In(w.State).Ref(int(id)) }

// hash puts a connection into the index, before others with its keys.
//
// Kernel: net/netfilter/ipvs/ip_vs_conn.c, ip_vs_conn_hash.
func (t *Table) hash(w *world.World, id ConnID) {
	c := t.conn(w, id)
	if c.is(onePacket) {
		return
	}
	in, out := t.in.In(w.State), t.out.In(w.State)
	c.nextIn, _ = in.Get(c.inKey)
	in.Put(c.inKey, id)
	c.nextOut, _ = out.Get(c.outKey())
	out.Put(c.outKey(), id)
	c.flags |= hashed
}

// unhash takes a connection out of the index.
func (t *Table) unhash(w *world.World, id ConnID) {
	c := t.conn(w, id)
	if !c.is(hashed) {
		return
	}
	unlink(w, t, t.in.In(w.State), c.inKey, id, func(c *conn) *ConnID { return &c.nextIn })
	unlink(w, t, t.out.In(w.State), c.outKey(), id, func(c *conn) *ConnID { return &c.nextOut })
	c.flags &^= hashed
}

// unlink takes a connection out of one chain.
func unlink[K comparable](w *world.World, t *Table, index *world.Table[K, ConnID], key K,
	id ConnID, next func(*conn) *ConnID) {
	behind := *next(t.conn(w, id))
	first, _ := index.Get(key)
	switch {
	case first == id && behind == 0:
		index.Delete(key)
		return
	case first == id:
		index.Put(key, behind)
		return
	}
	for at := first; at != 0; {
		n := next(t.conn(w, at))
		if *n == id {
			*n = behind
			return
		}
		at = *n
	}
}

// find returns the connection of a client's packet, zero for none.
//
// Kernel: net/netfilter/ipvs/ip_vs_conn.c, __ip_vs_conn_in_get and ip_vs_ct_in_get: both
// look for the same keys, one passes templates over and one has only them.
func (t *Table) find(w *world.World, k inKey) ConnID {
	id, _ := t.in.In(w.State).Get(k)
	return id
}

// findTemplate returns the template of a client's network, zero for none.
func (t *Table) findTemplate(w *world.World, k inKey) ConnID {
	for id := t.find(w, k); id != 0; id = t.conn(w, id).nextIn {
		if t.conn(w, id).is(template) {
			return id
		}
	}
	return 0
}

// findOut returns the connection of an answer, zero for none.
func (t *Table) findOut(w *world.World, k outKey) ConnID {
	id, _ := t.out.In(w.State).Get(k)
	return id
}

// request is a connection to be made.
type request struct {
	inKey
	real   packet.Addr
	rport  uint16
	server int // -1 for none
	method Method
	flags  connFlags
	mark   uint32
}

// create makes a connection and binds it to its server.
//
// Kernel: net/netfilter/ipvs/ip_vs_conn.c, ip_vs_conn_new and ip_vs_bind_dest.
func (t *Table) create(w *world.World, r request) ConnID {
	c := conn{inKey: r.inKey, real: r.real, rport: r.rport, server: r.server,
		method: r.method, flags: r.flags, mark: r.mark, timeout: 3 * world.Second}
	if t.settings.conntrack {
		c.flags |= tracked
	}
	if r.server >= 0 {
		c.flags |= inactive
		if r.method != Masq {
			c.flags |= noOutput
		}
	}
	id := t.place(w, c)
	t.bind(w, t.conn(w, id))
	t.hash(w, id)
	return id
}

// place gives a connection a number.
func (t *Table) place(w *world.World, c conn) ConnID {
	v := &t.vars.In(w.State).V
	v.live++
	if v.freed == 0 {
		return ConnID(t.conns.In(w.State).Append(c))
	}
	id := v.freed
	old := t.conn(w, id)
	v.freed = old.nextIn
	*old = c
	return id
}

// bind counts a connection at its server.
func (t *Table) bind(w *world.World, c *conn) {
	n := t.countsOf(w, c.server)
	switch {
	case n == nil:
	case c.is(template):
		n.Persistent++
	default:
		if c.is(inactive) {
			n.Inactive++
		} else {
			n.Active++
		}
		if uint32(n.Total()) == t.servers[c.server].Upper {
			t.overload(c.server, n, 1)
		}
	}
}

// unbind takes a connection out of its server's counts.
//
// Kernel: net/netfilter/ipvs/ip_vs_conn.c, ip_vs_unbind_dest.
func (t *Table) unbind(w *world.World, c *conn) {
	n := t.countsOf(w, c.server)
	switch {
	case n == nil:
	case c.is(template):
		n.Persistent--
	default:
		before := uint32(n.Total())
		if c.is(inactive) {
			n.Inactive--
		} else {
			n.Active--
		}
		if before == t.servers[c.server].lower() {
			t.overload(c.server, n, -1)
		}
	}
}

// countsOf are a server's counts, nil for no server.
func (t *Table) countsOf(w *world.World, server int) *Counts {
	if server < 0 {
		return nil
	}
	return t.totals.In(w.State).Ref(server)
}

// lower is the number of connections below which a server is no longer overloaded.
func (d *Dest) lower() uint32 {
	if d.Lower != 0 {
		return d.Lower
	}
	return d.Upper - d.Upper>>2
}

// overload decides anew whether a server has too many connections, after one came (1) or
// went (-1).
//
// Kernel: net/netfilter/ipvs/ip_vs_ctl.c, __ip_vs_dest_update_overload.
func (t *Table) overload(server int, n *Counts, mode int) {
	upper, lower, total := t.servers[server].Upper, t.servers[server].lower(), uint32(n.Total())
	on, off := upper, lower
	if mode > 0 {
		on = lower
	}
	if mode < 0 {
		off = upper
	}
	switch {
	case upper != 0 && total >= on:
		n.Overload = true
	case upper == 0 || total < off:
		n.Overload = false
	}
}

// restart lets a connection live on from now, as the kernel does when it puts it back.
//
// Kernel: net/netfilter/ipvs/ip_vs_conn.c, ip_vs_conn_put.
func (t *Table) restart(w *world.World, id ConnID) {
	c := t.conn(w, id)
	if c.is(onePacket) {
		t.remove(w, id)
		return
	}
	t.expireAt(w, c, w.Now+c.timeout)
}

// expireAt sets when a connection's time is over.
func (t *Table) expireAt(w *world.World, c *conn, at world.Instant) {
	c.expires = at
	if v := &t.vars.In(w.State).V; v.soonest == 0 || at < v.soonest {
		v.soonest = at
	}
}

// expire ends all connections whose time is over. What still controls others stays a
// minute more.
//
// Kernel: net/netfilter/ipvs/ip_vs_conn.c, ip_vs_conn_expire.
func (t *Table) expire(w *world.World) {
	v := &t.vars.In(w.State).V
	for v.soonest != 0 && v.soonest <= w.Now {
		v.soonest = 0
		all := t.conns.In(w.State)
		for i := 1; i < all.Len(); i++ {
			c := all.Ref(i)
			switch {
			case c.free, c.expires == 0: // its first packet is on its way still
			case c.expires > w.Now:
				t.expireAt(w, c, c.expires)
			case c.controls > 0:
				c.timeout = 60 * world.Second
				t.expireAt(w, c, w.Now+c.timeout)
			default:
				t.remove(w, ConnID(i))
			}
		}
	}
}

// remove takes a connection out of the table, out of its server's counts, and out of
// conntrack where that knew it.
func (t *Table) remove(w *world.World, id ConnID) {
	t.unhash(w, id)
	c := t.conn(w, id)
	t.release(w, c)
	if c.is(tracked) && !c.is(onePacket) {
		t.forget(w, c)
	}
	t.unbind(w, c)
	v := &t.vars.In(w.State).V
	*c = conn{free: true, nextIn: v.freed}
	v.freed = id
	v.live--
}

// release takes a connection from the one that controls it. A chain that is to be dropped
// whole (timeout 0) takes a template that was never used with it.
func (t *Table) release(w *world.World, c *conn) {
	if c.control == 0 {
		return
	}
	master := c.control
	m := t.conn(w, master)
	m.controls--
	c.control = 0
	assured := m.is(template) && m.state&assuredTemplate != 0
	if c.timeout == 0 && m.controls == 0 && !assured {
		t.remove(w, master)
	}
}

// expireNow lets a connection's time be over at once.
//
// Kernel: net/netfilter/ipvs/ip_vs_conn.c, ip_vs_conn_expire_now: a timer that fires before
// the next packet.
func (t *Table) expireNow(w *world.World, id ConnID) { t.expireAt(w, t.conn(w, id), w.Now) }

// assuredTemplate is the state of a template that a client's connection came through by.
//
// Kernel: IP_VS_CTPL_S_ASSURED.
const assuredTemplate = 1

// assure marks the template of a connection as used.
//
// Kernel: include/net/ip_vs.h, ip_vs_control_assure_ct.
func (t *Table) assure(w *world.World, c *conn) {
	if c.control == 0 {
		return
	}
	if m := t.conn(w, c.control); m.is(template) {
		m.state |= assuredTemplate
	}
}
