package match

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/xtables"
)

// mac matches the source address of the Ethernet header. Packets without one, and
// those that lo carries, never match.
//
// Kernel: net/netfilter/xt_mac.c, mac_mt.
type mac struct {
	Source xtables.MAC
	Not    bool
}

func newMAC() xtables.Match { return &mac{} }

// Options implements xtables.Match.
func (m *mac) Options(s *xtables.Spec) { s.Var("mac-source", &m.Source).Not(&m.Not).Required() }

// Pred implements xtables.Match.
func (m *mac) Pred(b *xtables.Build) field.Pred {
	var bare []uint64
	for _, l := range b.Links.All() {
		if l.Is(link.LoopbackFlag) || l.NoHeader {
			bare = append(bare, uint64(l.Index))
		}
	}
	return field.And(field.Not(field.Is(field.In, field.OneOf(bare...))),
		field.NotIf(m.Not, field.Is(field.MACSrc, field.Num(field.MACNumber(m.Source.Addr)))))
}
