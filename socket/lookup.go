package socket

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// ends are what an arriving packet is looked up by.
type ends struct {
	src, dst     packet.Addr
	sport, dport uint16
	in           packet.Dev
}

// Lookup finds the socket that takes a packet: of TCP and SCTP a connection, else
// a listener; of UDP the best datagram socket.
//
// Kernel: include/net/inet_hashtables.h, __inet_lookup; net/ipv4/udp.c,
// __udp4_lib_lookup; net/sctp/input.c, __sctp_rcv_lookup_endpoint.
func (t *Table) Lookup(w *world.World, proto uint8, src packet.Addr, sport uint16,
	dst packet.Addr, dport uint16, in packet.Dev) (Socket, bool) {
	e := &ends{src, dst, sport, dport, in}
	switch proto {
	case packet.UDP, packet.UDPLite:
		return t.lookupUDP(w, proto, e)
	case packet.TCP, packet.SCTP, packet.DCCP:
		return t.lookupStream(w, proto, e)
	}
	return Socket{}, false
}

// best is the highest score so far.
type best struct {
	score int
	s     Socket
}

// offer takes a socket with a higher score; of equals the one that came first,
// among datagram sockets the youngest.
func (b *best) offer(s *Socket, score int, young bool) {
	if score > b.score || young && score == b.score && score > 0 && s.Inode > b.s.Inode {
		b.score, b.s = score, *s
	}
}

func (t *Table) lookupStream(w *world.World, proto uint8, e *ends) (Socket, bool) {
	if b := t.scan(w, portKey{proto: proto, port: e.dport}, e, connection); b.score > 0 {
		return b.s, true
	}
	listen := func(local packet.Addr) scorer {
		return func(s *Socket, e *ends) int { return listener(s, local, e) }
	}
	for _, local := range [...]packet.Addr{e.dst, {}} {
		k := portKey{proto: proto, port: e.dport}
		if b := t.scan(w, k, e, listen(local)); b.score > 0 {
			return b.s, true
		}
	}
	return Socket{}, false
}

func (t *Table) lookupUDP(w *world.World, proto uint8, e *ends) (Socket, bool) {
	k := portKey{proto: proto, port: e.dport}
	for _, local := range [...]packet.Addr{e.dst, {}} {
		b := t.scan(w, k, e, func(s *Socket, e *ends) int { return datagram(s, local, e) })
		if b.score > 0 {
			return b.s, true
		}
	}
	return Socket{}, false
}

// Connected tells whether a port has a socket that takes packets of one peer only.
func (t *Table) Connected(w *world.World, proto uint8, port uint16) bool {
	k := portKey{proto: proto, port: port}
	for _, i := range t.ports[k] {
		if !noAny(t.base[i].Peer).IsZero() {
			return true
		}
	}
	if !t.dynamic || w == nil || w.State == nil {
		return false
	}
	for f := range t.keys.In(w.State).All {
		if f.portKey == k && !f.peer.IsZero() {
			return true
		}
	}
	return false
}

type scorer func(*Socket, *ends) int

// scan offers every socket of a port: those of the snapshot, then those in
// memory that could match.
func (t *Table) scan(w *world.World, k portKey, e *ends, score scorer) best {
	var b best
	young := k.proto == packet.UDP || k.proto == packet.UDPLite
	for _, i := range t.ports[k] {
		if s := &t.base[i]; !t.isGone(w, s.ID) {
			b.offer(s, score(s, e), young)
		}
	}
	if !t.dynamic || w == nil || w.State == nil {
		return b
	}
	keys, arr := t.keys.In(w.State), t.dyn.In(w.State)
	if keys.Len() == 0 {
		return b
	}
	for _, f := range e.candidates(k) {
		if id, ok := keys.Get(f); ok {
			d := arr.Get(int(id) - len(t.base) - 1)
			s := d.socket(id)
			b.offer(&s, score(&s, e), young)
		}
	}
	return b
}

func (t *Table) isGone(w *world.World, id uint32) bool {
	if !t.dynamic || w == nil || w.State == nil {
		return false
	}
	_, gone := t.gone.In(w.State).Get(id)
	return gone
}

// candidates are the keys under which a socket in memory could take the packet.
func (e *ends) candidates(k portKey) (out [8]fullKey) {
	for i := range out {
		f := fullKey{portKey: k}
		if i&1 != 0 {
			f.local = e.dst
		}
		if i&2 != 0 {
			f.peer, f.pport = e.src, e.sport
		}
		if i&4 != 0 {
			f.dev = e.in
		}
		out[i] = f
	}
	return out
}

// onDevice tells whether the socket hears a device.
//
// Kernel: include/net/inet_sock.h, inet_bound_dev_eq.
func (s *Socket) onDevice(in packet.Dev) bool { return s.Dev == 0 || s.Dev == in }

func sameAddr(a, b packet.Addr) bool { return a == b || a.IsAny() && b.IsAny() }

// connection scores a connection: all four ends must agree.
//
// Kernel: include/net/inet_hashtables.h, inet_match.
func connection(s *Socket, e *ends) int {
	if s.State != Connected && s.State != Gone || s.Local != e.dst || s.Peer != e.src ||
		s.LPort != e.dport || s.PPort != e.sport || !s.onDevice(e.in) {
		return 0
	}
	return 1
}

// listener scores a listener bound to local.
//
// Kernel: net/ipv4/inet_hashtables.c, compute_score.
func listener(s *Socket, local packet.Addr, e *ends) int {
	if s.State != Listen || !sameAddr(s.Local, local) || !s.onDevice(e.in) || s.V6Only {
		return 0
	}
	score := 1
	if s.Dev != 0 {
		score++
	}
	if !s.V6 {
		score++
	}
	return score
}

// datagram scores a UDP socket bound to local.
//
// Kernel: net/ipv4/udp.c, compute_score.
func datagram(s *Socket, local packet.Addr, e *ends) int {
	if !sameAddr(s.Local, local) || s.V6Only || !s.onDevice(e.in) {
		return 0
	}
	score := 2
	if s.V6 {
		score = 1
	}
	if !s.Peer.IsAny() {
		if s.Peer != e.src {
			return 0
		}
		score += 4
	}
	if s.PPort != 0 {
		if s.PPort != e.sport {
			return 0
		}
		score += 4
	}
	if s.Dev != 0 {
		score += 4
	}
	return score
}

// Multicast finds every datagram socket that gets a copy of a multicast or
// broadcast.
//
// Kernel: net/ipv4/udp.c, __udp4_lib_mcast_deliver, __udp_is_mcast_sock.
func (t *Table) Multicast(w *world.World, proto uint8, src packet.Addr, sport uint16,
	dst packet.Addr, dport uint16, in packet.Dev) []Socket {
	e := &ends{src, dst, sport, dport, in}
	var out []Socket
	t.scan(w, portKey{proto: proto, port: dport}, e, func(s *Socket, e *ends) int {
		if s.hearsMulticast(e) {
			out = append(out, *s)
		}
		return 0
	})
	return out
}

func (s *Socket) hearsMulticast(e *ends) bool {
	return (s.Peer.IsAny() || s.Peer == e.src) && (s.PPort == 0 || s.PPort == e.sport) &&
		(s.Local.IsAny() || s.Local == e.dst) && !s.V6Only && s.onDevice(e.in) && !s.McastAllOff
}

// Raw finds the raw sockets that get a copy of a packet of a protocol.
//
// Kernel: net/ipv4/raw.c, raw_v4_match.
func (t *Table) Raw(w *world.World, proto uint8, src, dst packet.Addr, in packet.Dev) []Socket {
	e := &ends{src: src, dst: dst, in: in}
	var out []Socket
	t.scan(w, portKey{proto: proto, raw: true}, e, func(s *Socket, e *ends) int {
		if (s.Peer.IsAny() || s.Peer == e.src) && (s.Local.IsAny() || s.Local == e.dst) &&
			!s.V6 && s.onDevice(e.in) {
			out = append(out, *s)
		}
		return 0
	})
	return out
}

// Transparent finds what the socket match and TPROXY look for: a connection, else
// a listener or datagram socket, of the packet's own ends.
//
// Kernel: net/ipv4/netfilter/nf_socket_ipv4.c, nf_socket_get_sock_v4.
func (t *Table) Transparent(w *world.World, proto uint8, src packet.Addr, sport uint16,
	dst packet.Addr, dport uint16, in packet.Dev) (Socket, bool) {
	return t.Lookup(w, proto, src, sport, dst, dport, in)
}
