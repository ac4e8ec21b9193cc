package match

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/xtables"
)

// udp matches ports of UDP. Later fragments never match; a cut header drops the
// packet, unless nftables looks for the ports itself.
//
// Kernel: net/netfilter/xt_tcpudp.c, udp_mt.
type udp struct{ ports }

func newUDP() xtables.Match {
	s := xtables.PortSpan(0)
	s.Hide = true
	return &udp{ports{Src: s, Dst: s}}
}

// Gone implements xtables.Vanisher.
func (m *udp) Gone(c *xtables.Context) bool { return m.gone(c) }

// Pred implements xtables.Match.
func (m *udp) Pred(b *xtables.Build) field.Pred {
	if b.Backend == xtables.NFT && !m.empty() {
		return m.native(b)
	}
	return m.test()
}
