package match

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/xtables"
)

// spi matches the security parameter index of AH or ESP. Later fragments never
// match; a cut header drops the packet.
//
// Kernel: net/ipv4/netfilter/ipt_ah.c, ah_mt; net/netfilter/xt_esp.c, esp_mt.
type spi struct {
	SPI xtables.Span
	Not bool
	opt string
}

func newAH() xtables.Match  { return &spi{SPI: xtables.Span{Hide: true}, opt: "ahspi"} }
func newESP() xtables.Match { return &spi{SPI: xtables.Span{Hide: true}, opt: "espspi"} }

// Options implements xtables.Match.
func (m *spi) Options(s *xtables.Spec) { s.Var(m.opt, &m.SPI).Not(&m.Not) }

// Pred implements xtables.Match.
func (m *spi) Pred(*xtables.Build) field.Pred {
	return field.And(l4(), m.SPI.Test(field.SPI, m.Not))
}

// ipcomp matches the compression parameter index of IPComp. Later fragments never
// match; a cut header drops the packet.
//
// Kernel: net/netfilter/xt_ipcomp.c, comp_mt.
type ipcomp struct {
	CPI      xtables.Span
	Not      bool
	Reserved bool // --compres, which the kernel does not look at
}

func newIPComp() xtables.Match { return &ipcomp{CPI: xtables.Span{Hide: true}} }

// Options implements xtables.Match.
func (m *ipcomp) Options(s *xtables.Spec) {
	s.Var("ipcompspi", &m.CPI).Not(&m.Not)
	s.Flag("compres", &m.Reserved)
}

// Pred implements xtables.Match.
func (m *ipcomp) Pred(*xtables.Build) field.Pred {
	lo, hi := uint64(0), uint64(1<<32-1)
	if m.CPI.Given {
		lo, hi = m.CPI.Lo, m.CPI.Hi
	}
	return field.And(is(field.FragOff, 0), derived(func(e *xtables.Env) field.Result {
		h := e.Packet.L4()
		if len(h) < 4 {
			return field.Drop
		}
		n := uint64(binary.BigEndian.Uint16(h[2:]))
		return result((n >= lo && n <= hi) != m.Not)
	}))
}
