package ipvs

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Header is what the load balancer sees of a packet.
//
// Kernel: include/net/ip_vs.h, struct ip_vs_iphdr.
type Header struct {
	Family   trace.Family
	Proto    uint8
	Src, Dst packet.Addr
	// L4 is the transport header with what follows it.
	L4   []byte
	Mark uint32
	// Tracked tells that conntrack has a confirmed entry of the packet.
	Tracked bool
	// Loopback tells that the packet came from this host: over lo, or from a program.
	Loopback bool
	// Unicast tells whether the destination is another host's (inet_addr_type).
	Unicast func() bool
	// Quoted is a packet in an ICMP error; Inverse swaps its ends, since it is one that the
	// receiver of the error sent.
	Quoted, Inverse bool
}

// ports are the packet's ports.
func (h *Header) ports() (src, dst uint16, ok bool) {
	if len(h.L4) < 4 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(h.L4), binary.BigEndian.Uint16(h.L4[2:]), true
}

// in is the key of the connection whose client sent the packet.
func (h *Header) in() (inKey, bool) {
	sport, dport, ok := h.ports()
	if h.Inverse {
		return inKey{h.Proto, h.Dst, h.Src, dport, sport}, ok
	}
	return inKey{h.Proto, h.Src, h.Dst, sport, dport}, ok
}

// out is the key of the connection whose real server sent the packet.
func (h *Header) out() (outKey, bool) {
	sport, dport, ok := h.ports()
	if h.Inverse {
		return outKey{proto: h.Proto, client: h.Src, server: h.Dst, cport: sport, sport: dport}, ok
	}
	return outKey{proto: h.Proto, client: h.Dst, server: h.Src, cport: dport, sport: sport}, ok
}

// Action is what becomes of a packet.
type Action uint8

// The actions.
const (
	Pass       Action = iota // it is none of a service
	Forward                  // it goes to Conn's real server
	Drop                     // without a word
	Unservable               // no server will do: port unreachable
)

// Decision is what the load balancer does with a packet of a client.
type Decision struct {
	Action  Action
	Conn    ConnID
	New     bool // the connection was made for this packet
	Service int  // number of the service, -1 where none was asked
	// Why names what dropped the packet.
	Why trace.Why
}

func pass() Decision { return Decision{Service: -1} }

// Speaks tells whether connections of a protocol can be balanced.
func (t *Table) Speaks(proto uint8) bool { return speaks(proto) }

// In decides about a packet on its way to a service. Forward means: Enter, send it by the
// connection, and Leave.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, ip_vs_in_hook behind its checks.
func (t *Table) In(w *world.World, h *Header) Decision {
	t.expire(w)
	id, d := t.known(w, h)
	switch {
	case d.Action != Pass:
		return d
	case id != 0:
		d.Action, d.Conn = Forward, id
		return d
	}
	return t.trySchedule(w, h)
}

// known finds the connection of a packet, and ends it where its time is over although it is
// still there: it begins anew, or its server is gone.
func (t *Table) known(w *world.World, h *Header) (ConnID, Decision) {
	k, ok := h.in()
	if !ok {
		return 0, pass()
	}
	id := t.find(w, k)
	if id == 0 || !h.beginsConn() {
		return id, pass()
	}
	c := t.conn(w, id)
	old := h.Tracked
	switch {
	case t.settings.expireNodest && c.server >= 0 && t.servers[c.server].Weight == 0:
	case t.settings.reuseMode != 0 && t.mayBeginAnew(c):
		if c.controls > 0 && old {
			return id, pass()
		}
	default:
		return id, pass()
	}
	if !old {
		c.flags &^= tracked
	}
	if c.controls == 0 {
		t.expireNow(w, id)
	}
	if old {
		return 0, Decision{Action: Drop, Service: -1, Why: "old-conntrack"}
	}
	return 0, pass()
}

// beginsConn tells whether a packet begins a connection.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, is_new_conn.
func (h *Header) beginsConn() bool {
	switch {
	case h.Proto == packet.TCP && len(h.L4) >= 20:
		return h.L4[13]&tcpSYN != 0
	case h.Proto == packet.SCTP && len(h.L4) >= sctpHeader+4:
		return h.L4[sctpHeader] == chunkInit
	}
	return false
}

// mayBeginAnew tells whether a connection's client may use its port for a new one.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, is_new_conn_expected.
func (t *Table) mayBeginAnew(c *conn) bool {
	switch {
	case c.control != 0:
		return false
	case c.proto == packet.TCP:
		halfSeen := t.settings.reuseMode&2 != 0 && c.state == tcpFinWait && c.is(noOutput)
		return c.state == tcpTimeWait || c.state == tcpClose || halfSeen
	case c.proto == packet.SCTP:
		return c.state == sctpClosed
	}
	return false
}

// trySchedule makes a connection for a packet that has none.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, ip_vs_try_to_schedule; conn_schedule of the
// protocols.
func (t *Table) trySchedule(w *world.World, h *Header) Decision {
	d := pass()
	begins, whole := t.mayBegin(h)
	if !begins {
		return d
	}
	if !whole {
		d.Action, d.Why = Drop, "truncated"
		return d
	}
	k, _ := h.in()
	svc := t.service(h.Family, h.Mark, k.proto, k.virtual, k.vport)
	if svc == nil {
		return d
	}
	d.Service = svc.number
	if t.drops(w) {
		d.Action, d.Why = Drop, "drop-packet"
		return d
	}
	id, ignored := t.schedule(w, svc, h, k)
	switch {
	case id != 0:
		d.Action, d.Conn, d.New = Forward, id, true
	case !ignored:
		t.leave(w, svc, h, k, &d)
	}
	return d
}

// mayBegin tells whether a packet may begin a connection, and whether its ports are there.
func (t *Table) mayBegin(h *Header) (begins, whole bool) {
	if h.Quoted {
		return true, len(h.L4) >= 4
	}
	switch h.Proto {
	case packet.TCP:
		if len(h.L4) < 20 {
			return true, false
		}
		flags := h.L4[13]
		return flags&tcpRST == 0 && (t.settings.sloppyTCP || flags&tcpSYN != 0), true
	case packet.UDP:
		return true, len(h.L4) >= 8
	case packet.SCTP:
		if len(h.L4) < sctpHeader+4 {
			return true, false
		}
		chunk := h.L4[sctpHeader]
		return chunk != chunkAbort && (t.settings.sloppySCTP || chunk == chunkInit), true
	}
	return false, false
}

const (
	ftpPort     = 21
	ftpDataPort = 20
)

// service finds a virtual service: by mark, by address and port, the FTP service for its
// data connections, and that of all ports.
//
// Kernel: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_service_find.
func (t *Table) service(f trace.Family, mark uint32, proto uint8, addr packet.Addr,
	port uint16) *service {
	if svc := t.byMark[markKey{f, mark}]; mark != 0 && svc != nil {
		return svc
	}
	if svc := t.byAddr[serviceKey{proto, addr, port}]; svc != nil {
		return svc
	}
	if proto == packet.TCP && (port == ftpDataPort || port >= t.settings.unprivileged) {
		if svc := t.byAddr[serviceKey{proto, addr, ftpPort}]; svc != nil {
			return svc
		}
	}
	return t.byAddr[serviceKey{proto, addr, 0}]
}

// drops tells whether drop_packet drops this new connection.
//
// Kernel: include/net/ip_vs.h, ip_vs_todrop.
func (t *Table) drops(w *world.World) bool {
	if t.settings.dropRate == 0 {
		return false
	}
	v := &t.vars.In(w.State).V
	if v.toDrop--; v.toDrop > 0 {
		return false
	}
	v.toDrop = t.settings.dropRate
	return true
}

// schedule lets a service choose a server, and makes the connection. Where there is none,
// ignored tells that the packet is to go on as if there were no service.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, ip_vs_schedule.
func (t *Table) schedule(w *world.World, svc *service, h *Header, k inKey) (id ConnID, ignored bool) {
	if k.cport == ftpDataPort {
		return 0, true
	}
	if h.Loopback {
		turned := *h
		turned.Inverse = !h.Inverse
		if back, ok := turned.in(); ok && t.find(w, back) != 0 {
			return 0, true
		}
	}
	if svc.Timeout != 0 {
		return t.schedulePersistent(w, svc, h, k), false
	}
	if svc.Mark == 0 && k.vport != svc.Port {
		return 0, false
	}
	i := t.choose(w, svc, h)
	if i < 0 {
		return 0, false
	}
	dest := &svc.Dests[i]
	rport := dest.Port
	if rport == 0 {
		rport = k.vport
	}
	return t.create(w, svc.request(k, i, rport)), false
}

// request is a connection of a service to its server of a number.
func (s *service) request(k inKey, i int, rport uint16) request {
	r := request{inKey: k, real: s.Dests[i].Addr, rport: rport, server: s.first + i,
		method: s.Dests[i].Method}
	if s.Flags&OnePacket != 0 && k.proto == packet.UDP {
		r.flags |= onePacket
	}
	return r
}

// choose asks the scheduler.
func (t *Table) choose(w *world.World, svc *service, h *Header) int {
	c := call{w: w, svc: svc, totals: t.totals.Look(w.State), src: h.Src, dst: h.Dst}
	sport, dport, _ := h.ports()
	c.sport = sport
	if h.Inverse {
		c.src, c.sport = h.Dst, dport
	}
	return svc.scheduler.schedule(c)
}

// schedulePersistent keeps a client with the server that its network had last: it finds or
// makes a template, and a connection that hangs on it.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, ip_vs_sched_persist.
func (t *Table) schedulePersistent(w *world.World, svc *service, h *Header, k inKey) ConnID {
	tk := svc.templateKey(k)
	master := t.findTemplate(w, tk)
	if master != 0 && !t.stillGood(w, master) {
		master = 0
	}
	var i int
	if master == 0 {
		if i = t.choose(w, svc, h); i < 0 {
			return 0
		}
		r := svc.request(tk, i, 0)
		r.flags = template
		if k.vport == svc.Port && svc.Port != ftpPort {
			r.rport = svc.Dests[i].Port
		}
		r.mark = h.Mark
		master = t.create(w, r)
		t.conn(w, master).timeout = world.Instant(svc.Timeout) * world.Second
	} else {
		i = t.conn(w, master).server - svc.first
	}
	rport := k.vport
	if rport == svc.Port && svc.Dests[i].Port != 0 {
		rport = svc.Dests[i].Port
	}
	r := svc.request(k, i, rport)
	r.mark = h.Mark
	id := t.create(w, r)
	t.conn(w, id).control = master
	m := t.conn(w, master)
	m.controls++
	t.expireAt(w, m, w.Now+m.timeout)
	return id
}

// templateKey is what the template of a client goes by: its network, and the service's port
// but for FTP and for services of every port.
func (s *service) templateKey(k inKey) inKey {
	tk := inKey{proto: k.proto, client: s.network(k.client), virtual: k.virtual}
	switch {
	case k.vport == s.Port:
		if s.Port != ftpPort {
			tk.vport = k.vport
		}
	case s.Mark != 0:
		tk.proto, tk.virtual = 0, packet.V4(s.Mark)
	}
	return tk
}

// network is the part of a client's address that counts for persistence.
func (s *service) network(a packet.Addr) packet.Addr {
	bits := s.Mask
	if a.Is4() {
		bits += 96
	}
	for i := range a {
		switch left := bits - 8*i; {
		case left <= 0:
			a[i] = 0
		case left < 8:
			a[i] &= 0xff << (8 - left)
		}
	}
	return a
}

// stillGood tells whether a template's server may be used again. A template whose server may
// not is found no more.
//
// Kernel: net/netfilter/ipvs/ip_vs_conn.c, ip_vs_check_template.
func (t *Table) stillGood(w *world.World, id ConnID) bool {
	c := t.conn(w, id)
	gone := c.server < 0 || t.settings.expireQuiescent && t.servers[c.server].Weight == 0
	if !gone {
		return true
	}
	const nowhere = 0xffff
	if c.vport != nowhere {
		t.unhash(w, id)
		c.rport, c.vport, c.cport = nowhere, nowhere, 0
		t.hash(w, id)
	}
	return false
}

// leave decides about a packet for which a service has no server: a bypass, the way on, or
// an answer.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, ip_vs_leave.
func (t *Table) leave(w *world.World, svc *service, h *Header, k inKey, d *Decision) {
	if t.settings.cacheBypass && svc.Mark != 0 && !h.Inverse && !h.Quoted && h.Unicast() {
		r := request{inKey: k, server: -1, method: Bypass, mark: h.Mark, real: packet.V4(0)}
		if svc.Flags&OnePacket != 0 && k.proto == packet.UDP {
			r.flags |= onePacket
		}
		d.Action, d.Conn, d.New = Forward, t.create(w, r), true
		return
	}
	switch {
	case svc.Port == ftpPort && svc.Mark == 0 && k.vport != ftpPort:
	case h.Quoted:
		d.Action, d.Why = Drop, "no-server"
	default:
		d.Action, d.Why = Unservable, "no-server"
	}
}
