package match

import (
	"fmt"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/xtables"
)

// addrtype matches what the local routing table makes of source and destination;
// limited to an interface, only that one's addresses count as local or broadcast.
//
// Kernel: net/netfilter/xt_addrtype.c, addrtype_mt_v1.
type addrtype struct {
	Src, Dst       xtables.Bits
	NotSrc, NotDst bool
	In, Out        bool
}

// addrTypes are the words of address types: bit n is RTN_ number n.
var addrTypes = []xtables.Bit{
	{Word: "UNSPEC", N: 1 << 0}, {Word: "UNICAST", N: 1 << 1}, {Word: "LOCAL", N: 1 << 2},
	{Word: "BROADCAST", N: 1 << 3}, {Word: "ANYCAST", N: 1 << 4}, {Word: "MULTICAST", N: 1 << 5},
	{Word: "BLACKHOLE", N: 1 << 6}, {Word: "UNREACHABLE", N: 1 << 7},
	{Word: "PROHIBIT", N: 1 << 8}, {Word: "THROW", N: 1 << 9}, {Word: "NAT", N: 1 << 10},
	{Word: "XRESOLVE", N: 1 << 11},
}

func newAddrtype() xtables.Match {
	b := xtables.Bits{Words: addrTypes, Short: true}
	return &addrtype{Src: b, Dst: b}
}

// Options implements xtables.Match.
func (m *addrtype) Options(s *xtables.Spec) {
	s.Var("src-type", &m.Src).Not(&m.NotSrc)
	s.Var("dst-type", &m.Dst).Not(&m.NotDst)
	s.Flag("limit-iface-in", &m.In)
	s.Flag("limit-iface-out", &m.Out)
	s.OneOf("limit-iface-in", "limit-iface-out")
	s.Check(func(c *xtables.Context) error { return someOf(c, "src-type", "dst-type") })
}

// Validate implements xtables.Validator.
func (m *addrtype) Validate(b *xtables.Build) error {
	switch {
	case !legacy(b):
	case m.Out && b.Hooks&(atPrerouting|atInput) != 0:
		return fmt.Errorf("--limit-iface-out can't be reached from PREROUTING and INPUT")
	case m.In && b.Hooks&(atPostrouting|atOutput) != 0:
		return fmt.Errorf("--limit-iface-in can't be reached from POSTROUTING and OUTPUT")
	}
	return nil
}

// Pred implements xtables.Match.
func (m *addrtype) Pred(*xtables.Build) field.Pred {
	if !m.In && !m.Out {
		return field.And(m.Src.Any(field.SrcType, m.NotSrc), m.Dst.Any(field.DstType, m.NotDst))
	}
	return field.And(m.limited(&m.Src, m.NotSrc, field.Src),
		m.limited(&m.Dst, m.NotDst, field.Dst))
}

// limited asks the type of an address on the limiting interface.
func (m *addrtype) limited(types *xtables.Bits, not bool, id field.ID) field.Pred {
	if !types.Given {
		return field.Pred{}
	}
	dev := field.Out
	if m.In {
		dev = field.In
	}
	mask := types.N
	return xtables.Derived(func(e *xtables.Env) bool {
		a, _ := e.Field(id)
		d := e.Packet.Out
		if dev == field.In {
			d = e.Packet.In
		}
		return mask>>typeOn(e, a.Addr(), d, id)&1 != 0 != not
	}, dev)
}

func typeOn(e *xtables.Env, a packet.Addr, d packet.Dev, id field.ID) uint {
	return uint(e.Routes.AddrType(a, d, id, e.Deps()))
}
