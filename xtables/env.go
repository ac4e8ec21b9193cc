package xtables

import (
	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/ipset"
	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/nat"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/socket"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Rooms are the parts of the host that a rule can ask. They are immutable; what
// changes is in the world.
type Rooms struct {
	Links     *link.Table
	Routes    *route.FIB
	Sockets   *socket.Table
	Conntrack *conntrack.Tracker
	NAT       *nat.NAT
	Sets      *ipset.Sets
	IPVS      *ipvs.Table // nil where there is no load balancer
	Sysctl    link.Sysctl
	Kernel    Kernel
}

// Kernel is a kernel's version, 6.18.44 as {6, 18, 44}.
type Kernel struct {
	Major, Minor, Patch int
	// OneProcessor is a kernel built without SMP, as user-mode-linux 6.1 is: its
	// spinlocks never are taken.
	OneProcessor bool
}

// Before tells whether k is older than major.minor.
func (k Kernel) Before(major, minor int) bool {
	return k.Major < major || k.Major == major && k.Minor < minor
}

// Patched tells whether k is a patch of major.minor from first on, and before end.
func (k Kernel) Patched(major, minor, first, end int) bool {
	return k.Major == major && k.Minor == minor && k.Patch >= first && k.Patch < end
}

// Mover is what a target can ask the walk to do: only the walk sends packets.
type Mover interface {
	// SendUnreachable answers the packet with an ICMP (or ICMPv6) error.
	SendUnreachable(e *Env, typ, code uint8)
	// SendReset answers the packet with a TCP reset, as nf_send_reset does.
	SendReset(e *Env)
	// Tee sends a copy to a gateway.
	Tee(e *Env, gateway packet.Addr, out packet.Dev)
}

// Env is a packet at a rule: what matches and targets ask and act on. It answers
// predicates as a field.Source. One Env serves a whole table; it is not kept.
type Env struct {
	*Rooms
	World  *world.World
	Trace  *trace.Trace
	Packet *packet.Packet
	Mover  Mover
	Family trace.Family
	Hook   trace.Hook
	Table  *Program
	// Rule is the dense number of the present rule, unique in the host; it keys
	// choices and per-rule memory.
	Rule int
	// Nexthop is the next hop of the packet's route, the destination itself where that
	// is on link. MASQUERADE asks it.
	Nexthop packet.Addr
	// MTU is what the packet's route carries.
	MTU int
	// By is the rule or policy that gave the last verdict.
	By trace.RuleRef
	// Narrow answers tests on fields that lie outside of what is known.
	Narrow func(id field.ID, s *field.Set) bool
	// Unknown are the fields that the question left open; nil for none.
	Unknown map[field.ID]bool

	// stack is where the jumps of the present walk through a table return to, above
	// those of the walks that it is nested in.
	stack []frame
}

// Deps implements field.Source.
func (e *Env) Deps() *field.Deps { return e.Trace.Notes() }

// Decide implements field.Source.
func (e *Env) Decide(id field.ID, s *field.Set) bool {
	if e.Narrow == nil {
		return false
	}
	return e.Narrow(id, s)
}

// Field implements field.Source: bytes and skb first, then connection, socket and
// what the routing tables make of an address.
func (e *Env) Field(id field.ID) (field.Value, field.Status) {
	if e.Unknown[id] {
		return field.Value{}, field.Unknown
	}
	switch id {
	case field.InGroup:
		return e.group(e.Packet.In)
	case field.OutGroup:
		return e.group(e.Packet.Out)
	case field.UID, field.GID:
		return e.owner(id)
	case field.SrcType:
		return e.addrType(id, e.Packet.Src())
	case field.DstType:
		return e.addrType(id, e.Packet.Dst())
	case field.CPU:
		return field.Value{}, field.Unknown
	case field.Now:
		return field.U(uint64(e.World.Now.Unix())), field.Known
	}
	if id >= field.CtState && id <= field.CtHelper {
		return e.Conntrack.Field(e.World, e.Packet, id)
	}
	return field.OfPacket(e.Packet, id)
}

// SoftField implements field.Softer.
func (e *Env) SoftField(id field.ID) (field.Value, bool) {
	return field.SoftOfPacket(e.Packet, id)
}

func (e *Env) group(d packet.Dev) (field.Value, field.Status) {
	l := e.Links.ByIndex(d)
	if l == nil {
		return field.Value{}, field.Absent
	}
	return field.U(uint64(l.Group)), field.Known
}

func (e *Env) owner(id field.ID) (field.Value, field.Status) {
	uid, gid, ok := e.Sockets.Owner(e.World, e.Packet.Socket)
	if !ok {
		return field.Value{}, field.Absent
	}
	if id == field.GID {
		uid = gid
	}
	return field.U(uint64(uid)), field.Known
}

func (e *Env) addrType(id field.ID, a packet.Addr) (field.Value, field.Status) {
	from := field.Src
	if id == field.DstType {
		from = field.Dst
	}
	kind := e.Routes.AddrType(a, 0, from, e.Deps())
	return field.U(1 << kind), field.Known
}

// ReverseMTU is the MTU of the way back to a packet's source, a large number where
// there is none.
//
// Kernel: net/netfilter/xt_TCPMSS.c, tcpmss_reverse_mtu.
func (e *Env) ReverseMTU(p *packet.Packet) int {
	const none = 1 << 30
	d := e.Routes.Output(e.World, nil, &route.Flow{Dst: p.Src()})
	if d.Err != 0 {
		return none
	}
	if d.MTU != 0 {
		return d.MTU
	}
	if l := e.Links.ByIndex(d.Out); l != nil {
		return l.MTU
	}
	return none
}

// FirstAddr is the address that TPROXY takes where the rule names none: the first
// primary one of the device, else the packet's destination.
//
// Kernel: net/ipv4/netfilter/nf_tproxy_ipv4.c, nf_tproxy_laddr4.
func (e *Env) FirstAddr(dev packet.Dev, dst packet.Addr) packet.Addr {
	for _, a := range e.Links.Addrs(dev) {
		if !a.Secondary {
			return a.Local
		}
	}
	return dst
}

// Test is a predicate in code over an Env.
type Test struct {
	// F answers; it notes what it looks at beyond Fields by itself.
	F func(e *Env) field.Result
	// Fields are what the answer depends on.
	Fields []field.ID
}

// Test implements field.Func.
func (t *Test) Test(s field.Source) field.Result {
	if d := s.Deps(); d != nil {
		for _, id := range t.Fields {
			d.Note(id, field.Ones(id.Bits()))
		}
	}
	return t.F(s.(*Env))
}

// Reads implements field.Func.
func (t *Test) Reads() []field.ID { return t.Fields }

// Derived is a predicate in code that changes nothing.
func Derived(f func(*Env) bool, reads ...field.ID) field.Pred {
	return field.Derived(&Test{boolTest(f), reads})
}

// Call is a predicate in code that changes memory or rolls dice.
func Call(f func(*Env) bool, reads ...field.ID) field.Pred {
	return field.Call(&Test{boolTest(f), reads})
}

func boolTest(f func(*Env) bool) func(*Env) field.Result {
	return func(e *Env) field.Result {
		if f(e) {
			return field.Yes
		}
		return field.No
	}
}

// Build is what an extension sees while its rule is compiled.
type Build struct {
	*Rooms
	Schema *world.Schema
	Family trace.Family
	// Backend and Version say how the rules were loaded: iptables-nft hands some
	// tests to the kernel in a form of its own.
	Backend Backend
	Version Version
	Table   string
	Hooks   Hooks // the hooks that the rule can be reached from
	Rule    *Rule // the rule as parsed
	Number  int   // dense number of the rule
	HZ      int
	Now     world.Instant
	// Assume notes an assumption of the answer: "rule N: quota counts as just loaded".
	Assume func(string)
	// shared are the things that rules have in common, by name: see Shared.
	shared map[string]any
}

// Slot gives a rule a variable in the host's memory.
func Slot[T any](b *Build, init T) world.Slot[*world.Var[T]] {
	return world.Add(b.Schema, func() *world.Var[T] { return &world.Var[T]{V: init} })
}

// Devs is the set of the interfaces that a name or pattern (eth+) stands for.
func (b *Build) Devs(pattern string) field.Set {
	var ns []uint64
	for _, l := range b.Links.All() {
		if MatchName(pattern, l.Name) {
			ns = append(ns, uint64(l.Index))
		}
	}
	return field.OneOf(ns...)
}

// MatchName tells whether an interface name fits a pattern with a trailing +.
func MatchName(pattern, name string) bool {
	if n := len(pattern); n > 0 && pattern[n-1] == '+' {
		return len(name) >= n-1 && name[:n-1] == pattern[:n-1]
	}
	return pattern == name
}
