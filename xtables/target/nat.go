package target

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/nat"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// natTo is the argument of --to-destination and --to-source: addresses, ports, and
// a base port for a shift.
type natTo struct {
	R     nat.Range
	given bool
	shift bool // a base port is allowed
}

// Parse implements xtables.Value.
func (t *natTo) Parse(a *xtables.Args) error {
	addr, ports, hasPorts := cutPorts(a.Word, a.Family)
	if addr != "" {
		if err := t.parseAddrs(addr, a.Family); err != nil {
			return err
		}
	}
	t.given = true
	if !hasPorts {
		if addr == "" {
			return fmt.Errorf("%q is neither an address nor a port", a.Word)
		}
		return nil
	}
	return parsePorts(&t.R, ports, a.Proto, t.shift)
}

// cutPorts splits address and ports; IPv6 addresses with ports stand in brackets.
func cutPorts(s string, f trace.Family) (addr, ports string, has bool) {
	if f == trace.IPv4 {
		return strings.Cut(s, ":")
	}
	if in, ok := strings.CutPrefix(s, "["); ok {
		a, rest, _ := strings.Cut(in, "]")
		p, has := strings.CutPrefix(rest, ":")
		return a, p, has
	}
	return s, "", false
}

func (t *natTo) parseAddrs(s string, f trace.Family) (err error) {
	if strings.HasPrefix(s, "--") {
		return fmt.Errorf("the address is missing: an iptables-save that is older than what loaded " +
			"the rules prints this")
	}
	lo, hi, isRange := strings.Cut(s, "-")
	if t.R.MinAddr, err = xtables.ParseAddr(lo, f); err != nil {
		return err
	}
	t.R.MaxAddr = t.R.MinAddr
	if isRange {
		if t.R.MaxAddr, err = xtables.ParseAddr(hi, f); err != nil {
			return err
		}
	}
	t.R.Flags |= nat.MapIPs
	return nil
}

// parsePorts reads port[-port[/base]].
func parsePorts(r *nat.Range, s string, proto uint8, shift bool) (err error) {
	switch proto {
	case packet.TCP, packet.UDP, packet.SCTP, packet.DCCP, packet.ICMP:
	default:
		return fmt.Errorf("a port needs -p tcp, udp, sctp, dccp or icmp")
	}
	s, base, hasBase := strings.Cut(s, "/")
	// A name is one port, though it may hold a dash; a range is of numbers.
	r.MinPort, err = xtables.ParsePort(s, proto)
	r.MaxPort = r.MinPort
	lo, hi, isRange := strings.Cut(s, "-")
	if err != nil && isRange {
		r.MinPort, r.MaxPort, err = numericRange(lo, hi)
	}
	if err != nil {
		return err
	}
	if r.MinPort > r.MaxPort {
		return fmt.Errorf("%q: the first port is greater than the last", s)
	}
	r.Flags |= nat.ProtoSpecified
	if !hasBase {
		return nil
	}
	if !shift || !isRange {
		return fmt.Errorf("%q: a base port needs a range of ports", s)
	}
	r.Flags |= nat.ProtoOffset
	if r.BasePort, err = xtables.ParsePort(base, proto); err == nil && r.BasePort == 0 {
		err = fmt.Errorf("the base port can't be 0")
	}
	return err
}

func numericRange(lo, hi string) (uint16, uint16, error) {
	a, err := xtables.ParseUint(lo, 65535)
	if err != nil {
		return 0, 0, err
	}
	b, err := xtables.ParseUint(hi, 65535)
	return uint16(a), uint16(b), err
}

// Append implements xtables.Value.
func (t *natTo) Append(b []byte, f trace.Family) []byte {
	r := &t.R
	if r.Flags&nat.MapIPs != 0 {
		six := f == trace.IPv6 && r.Flags&nat.ProtoSpecified != 0
		if six {
			b = append(b, '[')
		}
		b = xtables.AppendAddr(b, r.MinAddr, f)
		if r.MaxAddr != r.MinAddr {
			b = xtables.AppendAddr(append(b, '-'), r.MaxAddr, f)
		}
		if six {
			b = append(b, ']')
		}
	}
	if r.Flags&nat.ProtoSpecified == 0 {
		return b
	}
	return appendPorts(append(b, ':'), r)
}

func appendPorts(b []byte, r *nat.Range) []byte {
	b = strconv.AppendUint(b, uint64(r.MinPort), 10)
	if r.MaxPort != r.MinPort || r.Flags&nat.ProtoOffset != 0 {
		b = strconv.AppendUint(append(b, '-'), uint64(r.MaxPort), 10)
	}
	if r.Flags&nat.ProtoOffset != 0 {
		b = strconv.AppendUint(append(b, '/'), uint64(r.BasePort), 10)
	}
	return b
}

// Unset implements xtables.Value.
func (t *natTo) Unset() bool { return !t.given }

// natFlags are the flags that NAT targets share.
type natFlags struct{ Random, RandomFully, Persistent bool }

func (n *natFlags) apply(r nat.Range) nat.Range {
	if n.Random {
		r.Flags |= nat.ProtoRandom
	}
	if n.RandomFully {
		r.Flags |= nat.ProtoRandomFully
	}
	if n.Persistent {
		r.Flags |= nat.Persistent
	}
	return r
}

// natEffects says that one end of the packet becomes something of the range, and
// that its connection knows.
func natEffects(r *nat.Range, addr, port field.ID) []field.Effect {
	es := []field.Effect{{Op: field.Forget, ID: addr}, {Op: field.Forget, ID: port}}
	if r.Flags&nat.MapIPs != 0 {
		es[0] = field.Effect{Op: field.Fresh, ID: addr,
			Range: field.AddrRange(r.MinAddr, r.MaxAddr)}
	}
	return append(es, mapped...)
}

// mapped are the fields of a connection that a mapping changes.
var mapped = []field.Effect{{Op: field.Forget, ID: field.CtState},
	{Op: field.Forget, ID: field.CtStatus}, {Op: field.Forget, ID: field.CtReplSrc},
	{Op: field.Forget, ID: field.CtReplDst}, {Op: field.Forget, ID: field.CtReplSPort},
	{Op: field.Forget, ID: field.CtReplDPort}}

// dnat maps a new connection's destination.
//
// Kernel: net/netfilter/xt_nat.c, xt_dnat_target_v2.
type dnat struct {
	To natTo
	natFlags
}

func newDNAT() xtables.Target { return &dnat{To: natTo{shift: true}} }

// Options implements xtables.Target.
func (t *dnat) Options(s *xtables.Spec) {
	s.Var("to-destination", &t.To).Required()
	s.Flag("random", &t.Random)
	s.Flag("persistent", &t.Persistent)
}

// Effects implements xtables.Target.
func (t *dnat) Effects() []field.Effect { return natEffects(&t.To.R, field.Dst, field.DstPort) }

// Do implements xtables.Target.
func (t *dnat) Do(e *xtables.Env) trace.Verdict {
	noteRange(e, &t.To.R, field.DstPort)
	return e.NAT.Setup(e.World, e.Packet.CT.Flow, t.apply(t.To.R), nat.Dst)
}

// noteRange notes what the choice within a range goes by: a hash of the addresses, and
// whether the port lies in it already.
func noteRange(e *xtables.Env, r *nat.Range, port field.ID) {
	d := e.Deps()
	if r.Flags&nat.MapIPs != 0 && r.MinAddr != r.MaxAddr {
		d.Note(field.Src, field.Ones(128))
		d.Note(field.Dst, field.Ones(128))
	}
	if r.Flags&nat.ProtoSpecified != 0 && r.MinPort != r.MaxPort {
		d.Note(port, field.Ones(16))
		d.Note(field.ICMPID, field.Ones(16))
	}
}

// snat maps a new connection's source.
//
// Kernel: net/netfilter/xt_nat.c, xt_snat_target_v1.
type snat struct {
	To natTo
	natFlags
}

func newSNAT() xtables.Target { return &snat{} }

// Options implements xtables.Target.
func (t *snat) Options(s *xtables.Spec) {
	s.Var("to-source", &t.To).Required()
	s.Flag("random", &t.Random)
	s.Flag("random-fully", &t.RandomFully)
	s.Flag("persistent", &t.Persistent)
}

// Effects implements xtables.Target.
func (t *snat) Effects() []field.Effect { return natEffects(&t.To.R, field.Src, field.SrcPort) }

// Do implements xtables.Target.
func (t *snat) Do(e *xtables.Env) trace.Verdict {
	noteRange(e, &t.To.R, field.SrcPort)
	return e.NAT.Setup(e.World, e.Packet.CT.Flow, t.apply(t.To.R), nat.Src)
}

// toPorts is the argument of --to-ports.
type toPorts struct {
	R     nat.Range
	given bool
}

// Parse implements xtables.Value.
func (t *toPorts) Parse(a *xtables.Args) error {
	t.given = true
	return parsePorts(&t.R, a.Word, a.Proto, false)
}

// Append implements xtables.Value.
func (t *toPorts) Append(b []byte, _ trace.Family) []byte { return appendPorts(b, &t.R) }

// Unset implements xtables.Value.
func (t *toPorts) Unset() bool { return !t.given }

// masquerade maps a new connection's source to an address of the way out.
//
// Kernel: net/netfilter/xt_MASQUERADE.c, masquerade_tg.
type masquerade struct {
	Ports toPorts
	natFlags
}

func newMasquerade() xtables.Target { return &masquerade{} }

// Options implements xtables.Target.
func (t *masquerade) Options(s *xtables.Spec) {
	s.Var("to-ports", &t.Ports)
	s.Flag("random", &t.Random)
	s.Flag("random-fully", &t.RandomFully)
}

// Effects implements xtables.Target.
func (t *masquerade) Effects() []field.Effect {
	return natEffects(&t.Ports.R, field.Src, field.SrcPort)
}

// Do implements xtables.Target.
func (t *masquerade) Do(e *xtables.Env) trace.Verdict {
	noteRange(e, &t.Ports.R, field.SrcPort)
	if e.Nexthop == e.Packet.Dst() {
		e.Deps().Note(field.Dst, field.Ones(128))
	}
	return e.NAT.Masquerade(e.World, e.Trace, e.Packet, e.Nexthop, t.apply(t.Ports.R))
}

// redirect maps a new connection's destination to this host.
//
// Kernel: net/netfilter/xt_REDIRECT.c, redirect_tg4.
type redirect struct {
	Ports toPorts
	natFlags
}

func newRedirect() xtables.Target { return &redirect{} }

// Options implements xtables.Target.
func (t *redirect) Options(s *xtables.Spec) {
	s.Var("to-ports", &t.Ports)
	s.Flag("random", &t.Random)
}

// Effects implements xtables.Target.
func (t *redirect) Effects() []field.Effect {
	return natEffects(&t.Ports.R, field.Dst, field.DstPort)
}

// Do implements xtables.Target.
func (t *redirect) Do(e *xtables.Env) trace.Verdict {
	noteRange(e, &t.Ports.R, field.DstPort)
	e.Deps().Note(field.In, field.Ones(32))
	return e.NAT.Redirect(e.World, e.Packet, e.Hook, t.apply(t.Ports.R))
}

// netmap maps an address to the one with the same host part in another network.
//
// Kernel: net/netfilter/xt_NETMAP.c, netmap_tg4.
type netmap struct{ To xtables.Prefix }

func newNetmap() xtables.Target { return &netmap{} }

// Options implements xtables.Target.
func (t *netmap) Options(s *xtables.Spec) { s.Var("to", &t.To).Required() }

// Effects implements xtables.Target.
func (t *netmap) Effects() []field.Effect {
	ends := []field.Effect{{Op: field.Forget, ID: field.Src}, {Op: field.Forget, ID: field.Dst}}
	return append(ends, mapped...)
}

// Do implements xtables.Target.
func (t *netmap) Do(e *xtables.Env) trace.Verdict {
	last := t.To.Addr
	for i := range last {
		last[i] |= ^t.To.Mask[i]
	}
	if t.To.Addr.Is4() {
		last = packet.V4(t.To.Addr.Uint32() | ^t.To.Mask.Uint32())
	}
	return e.NAT.Netmap(e.World, e.Packet, e.Hook, nat.Range{Flags: nat.MapIPs | nat.Netmap,
		MinAddr: t.To.Addr, MaxAddr: last})
}
