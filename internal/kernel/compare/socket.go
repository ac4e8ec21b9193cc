package compare

import (
	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/socket"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
)

// leave gives the engine the socket that a question left behind in the kernel: what
// answers it finds it there.
func (p *pair) leave(k *walk.Walk, q *kernel.Question) {
	asked, ok := packet.FromIP(q.Packet)
	if !q.Out || !ok || q.Socket != "udp" && q.Socket != "tcp" {
		return
	}
	s := socket.Socket{Proto: asked.Protocol(), Local: asked.Src(), Dev: p.dev(q.Dev),
		UID: q.UID, GID: q.GID, GIDKnown: true, Transparent: q.Transparent}
	s.LPort, _, _ = asked.Ports()
	if q.Socket == "tcp" {
		s.State = socket.Connected
		s.Peer = asked.Dst()
		_, s.PPort, _ = asked.Ports()
		s.Local = sentFrom(k.Trace, s.Local)
	}
	p.host.Sockets.Add(k.World, s)
}

// sentFrom is the source that the first packet got, which a program may leave open.
func sentFrom(t *trace.Trace, asked packet.Addr) packet.Addr {
	for _, e := range t.Events {
		if out, ok := e.(*trace.LocalOut); ok && out.SKB == 1 {
			if p, ok := packet.FromIP(out.Frame); ok {
				return p.Src()
			}
		}
	}
	return asked
}
