package walk

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/socket"
	"github.com/hookpath/hookpath/trace"
)

// leave keeps the socket that sends the present packet, so that what arrives later finds
// it: of UDP one bound to what the program bound it to, of TCP the connection. sent
// tells that there is a way to the destination, without which nothing connects.
func (k *Walk) leave(l *Local, bound packet.Addr, sent bool) {
	sport, dport, ok := k.p.Ports()
	if !ok || sport == 0 || l.Socket == "raw" || l.Socket == "icmp" {
		return
	}
	s := socket.Socket{Proto: k.p.Protocol(), Local: bound, LPort: sport, Dev: l.Dev, UID: l.UID,
		GID: l.GID, GIDKnown: true, Transparent: l.Transparent, Mark: l.Mark}
	switch {
	case s.Proto == packet.UDP && k.binds(l, bound):
		k.Sockets.Add(k.World, s)
	case s.Proto == packet.TCP && sent:
		s.State, s.Local, s.Peer, s.PPort = socket.Connected, k.p.Src(), k.p.Dst(), dport
		k.Sockets.Add(k.World, s)
	}
}

// binds tells whether a socket can be bound to an address.
//
// Kernel: net/ipv4/af_inet.c, __inet_bind.
func (k *Walk) binds(l *Local, a packet.Addr) bool {
	return a.IsAny() || l.Transparent || k.Routes.AddrType(a, 0, field.Src, nil) == trace.Local
}
