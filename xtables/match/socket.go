package match

import (
	"encoding/binary"

	ct "github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/socket"
	"github.com/hookpath/hookpath/xtables"
)

// socketMatch matches packets for which this host has a socket: one that is bound to
// an address, or with --nowildcard any; with --transparent only transparent ones.
//
// Kernel: net/netfilter/xt_socket.c, socket_match, revision 3.
type socketMatch struct{ Transparent, NoWildcard, RestoreMark bool }

func newSocket() xtables.Match { return &socketMatch{} }

// Options implements xtables.Match.
func (m *socketMatch) Options(s *xtables.Spec) {
	s.Flag("transparent", &m.Transparent)
	s.Flag("nowildcard", &m.NoWildcard)
	s.Flag("restore-skmark", &m.RestoreMark)
}

// Pred implements xtables.Match. Who restores marks changes the packet, and so the rules
// behind: nothing may be asked out of turn.
func (m *socketMatch) Pred(b *xtables.Build) field.Pred {
	reads := []field.ID{field.HasSock, field.Src, field.Dst, field.Proto, field.SrcPort,
		field.DstPort, field.In}
	if !m.RestoreMark {
		return xtables.Derived(func(e *xtables.Env) bool {
			_, ok := m.find(e)
			return ok
		}, reads...)
	}
	assume(b, "-m socket --restore-skmark: a socket without fwmark in the sockets file has none")
	return xtables.Call(m.restores, reads...)
}

// find tells whether the packet has a socket that is asked for, and which.
func (m *socketMatch) find(e *xtables.Env) (socket.Socket, bool) {
	s, ok := socketOf(e)
	wild := !m.NoWildcard && s.State != socket.Gone && s.Local.IsAny()
	return s, ok && !wild && (s.Transparent || !m.Transparent)
}

// restores gives the packet the mark of its socket, unless that is a stub.
//
// Kernel: include/net/sock.h, sk_fullsock.
func (m *socketMatch) restores(e *xtables.Env) bool {
	s, ok := m.find(e)
	if ok && s.State != socket.Gone && !s.Request {
		e.Packet.Mark = s.Mark
	}
	return ok
}

func socketOf(e *xtables.Env) (socket.Socket, bool) {
	p := e.Packet
	if p.Socket != 0 {
		return e.Sockets.Get(e.World, p.Socket)
	}
	q, ok := questionOf(p)
	if !ok {
		return socket.Socket{}, false
	}
	q.unmap(e)
	return e.Sockets.Lookup(e.World, q.proto, q.src, q.sport, q.dst, q.dport, p.In)
}

// socketQuestion is what a socket is looked for by: dst is this host's end.
type socketQuestion struct {
	proto        uint8
	src, dst     packet.Addr
	sport, dport uint16
}

// questionOf reads the ends from the packet, or from what an ICMP error quotes.
//
// Kernel: net/ipv4/netfilter/nf_socket_ipv4.c, nf_sk_lookup_slow_v4.
func questionOf(p *packet.Packet) (q socketQuestion, ok bool) {
	l4 := p.L4()
	q = socketQuestion{proto: p.Protocol(), src: p.Src(), dst: p.Dst()}
	switch {
	case q.proto == packet.ICMP:
		return quoted(l4)
	case q.proto == packet.UDP && len(l4) < 8, q.proto == packet.TCP && len(l4) < 20,
		q.proto != packet.UDP && q.proto != packet.TCP:
		return q, false
	}
	q.sport, q.dport = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	return q, true
}

// quoted reads the packet that an ICMP error quotes, which this host has sent.
//
// Kernel: extract_icmp4_fields.
func quoted(icmp []byte) (q socketQuestion, ok bool) {
	const header, ip = 8, 20
	if len(icmp) < header+ip || !isError(icmp[0]) {
		return q, false
	}
	h := icmp[header:]
	n := int(h[0]&0xf) * 4
	if q.proto = h[9]; q.proto != packet.TCP && q.proto != packet.UDP || len(h) < n+4 {
		return q, false
	}
	q.dst, q.src = packet.AddrFrom4(h[12:]), packet.AddrFrom4(h[16:])
	q.dport, q.sport = binary.BigEndian.Uint16(h[n:]), binary.BigEndian.Uint16(h[n+2:])
	return q, true
}

// isError mirrors icmp_is_err.
func isError(typ uint8) bool {
	switch typ {
	case 3, 4, 5, 11, 12:
		return true
	}
	return false
}

// unmap takes the address that the socket knows, where the answer to a connection
// of translated source comes back.
func (q *socketQuestion) unmap(e *xtables.Env) {
	f := flowOf(e)
	icmp := e.Packet.Protocol() == packet.ICMP
	if f == nil || !f.Is(ct.SrcNATDone) {
		return
	}
	info := e.Packet.CT.Info
	if !icmp && info == packet.EstablishedReply || icmp && info == packet.RelatedReply {
		q.dst, q.dport = f.Tuples[ct.Original].Src, f.Tuples[ct.Original].SPort
	}
}
