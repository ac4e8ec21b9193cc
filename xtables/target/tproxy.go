package target

import (
	"fmt"
	"strconv"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/socket"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// tproxy hands a packet to a local socket without touching its bytes.
//
// Kernel: net/netfilter/xt_TPROXY.c, tproxy_tg4.
type tproxy struct {
	Port onPort
	IP   onIP
	Mark tproxyMark
}

func newTPROXY() xtables.Target { return &tproxy{} }

// Options implements xtables.Target.
func (t *tproxy) Options(s *xtables.Spec) {
	s.Var("on-port", &t.Port).Required()
	s.Var("on-ip", &t.IP).Always()
	s.Var("tproxy-mark", &t.Mark).Always()
	s.Check(func(c *xtables.Context) error {
		if p := c.Proto(); p != packet.TCP && p != packet.UDP {
			return fmt.Errorf("needs -p tcp or -p udp")
		}
		return nil
	})
}

// onPort is a port by number or service; 0 is that of the packet.
type onPort struct{ n uint16 }

// Parse implements xtables.Value.
func (v *onPort) Parse(a *xtables.Args) (err error) {
	v.n, err = xtables.ParsePort(a.Word, a.Proto)
	return err
}

// Append implements xtables.Value.
func (v *onPort) Append(b []byte, _ trace.Family) []byte {
	return strconv.AppendUint(b, uint64(v.n), 10)
}

// Unset implements xtables.Value.
func (v *onPort) Unset() bool { return v.n == 0 }

// onIP is an address; the zero one is that of the device, and printed too.
type onIP struct{ gateway }

// Append implements xtables.Value.
func (v *onIP) Append(b []byte, f trace.Family) []byte {
	if v.Given {
		return v.gateway.Append(b, f)
	}
	any := xtables.Host{Mask: xtables.MaskOf(hostBits(f), f)}
	return any.Append(b, f)
}

func hostBits(f trace.Family) int {
	if f == trace.IPv4 {
		return 32
	}
	return 128
}

// tproxyMark is value[/mask], always printed with its mask.
type tproxyMark struct{ xtables.Masked }

// Append implements xtables.Value.
func (v *tproxyMark) Append(b []byte, _ trace.Family) []byte {
	return fmt.Appendf(b, "%#x/%#x", v.Value, v.Mask)
}

// Effects implements xtables.Target.
func (t *tproxy) Effects() []field.Effect {
	return []field.Effect{{Op: field.Mix, ID: field.Mark, Val: field.U(uint64(t.Mark.Value)),
		Mask: field.U(uint64(t.Mark.Mask))},
		{Op: field.SetTo, ID: field.HasSock, Val: field.U(1)},
		{Op: field.Forget, ID: field.UID}, {Op: field.Forget, ID: field.GID}}
}

// Validate implements xtables.Validator.
func (t *tproxy) Validate(b *xtables.Build) error {
	if b.Family == trace.IPv6 {
		return unsupported("-j TPROXY", "sockets of IPv6 are not looked up")
	}
	return nil
}

// Do implements xtables.Target.
func (t *tproxy) Do(e *xtables.Env) trace.Verdict {
	p := e.Packet
	sport, dport, ok := p.Ports()
	if !ok || len(p.L4()) < 8 {
		return trace.DropIt
	}
	for _, id := range [...]field.ID{field.Src, field.Dst, field.SrcPort, field.DstPort, field.In,
		field.TCPFlags} {
		e.Deps().Note(id, field.Ones(id.Bits()))
	}
	to := end{p.Dst(), dport}
	s, found := t.connected(e, end{p.Src(), sport}, to)
	again := found && s.State == socket.Gone && reopens(p)
	if addr := t.IP.Addr; !addr.IsAny() {
		to.addr = addr
	} else {
		to.addr = e.FirstAddr(p.In, p.Dst())
	}
	if t.Port.n != 0 {
		to.port = t.Port.n
	}
	if !found || again {
		if l, ok := t.listening(e, end{p.Src(), sport}, to); ok || !again {
			s, found = l, ok
		}
	}
	if !found || !s.Transparent {
		return trace.DropIt
	}
	p.Mark = p.Mark&^t.Mark.Mask ^ t.Mark.Value
	p.Socket = s.ID
	return trace.Accept
}

// end is one end of a connection.
type end struct {
	addr packet.Addr
	port uint16
}

// connected finds the connection that the packet belongs to.
//
// Kernel: nf_tproxy_get_sock_v4, NF_TPROXY_LOOKUP_ESTABLISHED.
func (t *tproxy) connected(e *xtables.Env, from, to end) (socket.Socket, bool) {
	p := e.Packet
	s, ok := e.Sockets.Lookup(e.World, p.Protocol(), from.addr, from.port, to.addr, to.port, p.In)
	if p.Protocol() == packet.UDP {
		return s, ok && s.State == socket.Connected && !s.Local.IsAny()
	}
	return s, ok && s.State != socket.Listen
}

// listening finds who waits for new connections: no connection has port 0 at its
// other end.
//
// Kernel: nf_tproxy_get_sock_v4, NF_TPROXY_LOOKUP_LISTENER.
func (t *tproxy) listening(e *xtables.Env, from, to end) (socket.Socket, bool) {
	p := e.Packet
	if p.Protocol() == packet.TCP {
		if len(p.L4()) < tcpHeader {
			return socket.Socket{}, false
		}
		from.port = 0
	}
	s, ok := e.Sockets.Lookup(e.World, p.Protocol(), from.addr, from.port, to.addr, to.port, p.In)
	return s, ok && s.State != socket.Connected
}

// reopens tells whether a segment begins a connection anew that is about to vanish.
//
// Kernel: net/ipv4/netfilter/nf_tproxy_ipv4.c, nf_tproxy_handle_time_wait4.
func reopens(p *packet.Packet) bool {
	const fin, syn, rst, ack = 1, 2, 4, 16
	l4 := p.L4()
	return p.Protocol() == packet.TCP && len(l4) >= tcpHeader &&
		l4[13]&(fin|syn|rst|ack) == syn
}
