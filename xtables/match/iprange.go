package match

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/xtables"
)

// iprange matches source and destination against ranges of addresses.
//
// Kernel: net/netfilter/xt_iprange.c, iprange_mt4 and iprange_mt6.
type iprange struct {
	Src, Dst       xtables.AddrRange
	NotSrc, NotDst bool
}

func newIPRange() xtables.Match { return &iprange{} }

// Options implements xtables.Match.
func (m *iprange) Options(s *xtables.Spec) {
	s.Var("src-range", &m.Src).Not(&m.NotSrc)
	s.Var("dst-range", &m.Dst).Not(&m.NotDst)
	s.Check(func(c *xtables.Context) error { return someOf(c, "src-range", "dst-range") })
}

// Pred implements xtables.Match.
func (m *iprange) Pred(*xtables.Build) field.Pred {
	return field.And(m.Src.Test(field.Src, m.NotSrc), m.Dst.Test(field.Dst, m.NotDst))
}
