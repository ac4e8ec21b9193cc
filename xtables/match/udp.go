package match

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/xtables"
)

// udp matches ports of UDP. Later fragments never match; a cut header drops the
// packet.
//
// Kernel: net/netfilter/xt_tcpudp.c, udp_mt.
type udp struct {
	Src, Dst       xtables.Span
	NotSrc, NotDst bool
}

func newUDP() xtables.Match {
	s := xtables.PortSpan(0)
	s.Hide = true
	return &udp{Src: s, Dst: s}
}

// Options implements xtables.Match.
func (m *udp) Options(s *xtables.Spec) {
	s.Var("sport", &m.Src).Not(&m.NotSrc).Alias("source-port")
	s.Var("dport", &m.Dst).Not(&m.NotDst).Alias("destination-port")
}

// Pred implements xtables.Match.
func (m *udp) Pred(*xtables.Build) field.Pred {
	return field.And(l4(), m.Src.Test(field.SrcPort, m.NotSrc),
		m.Dst.Test(field.DstPort, m.NotDst))
}
