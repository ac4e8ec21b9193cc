package match

import (
	"fmt"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/xtables"
)

// physdev matches the bridge ports of a packet that a bridge handed to the IP hooks.
// A packet that no bridge handed over matches what is negated.
//
// Kernel: net/netfilter/xt_physdev.c, physdev_mt.
type physdev struct {
	In, Out                    ifName
	IsIn, IsOut, IsBridged     bool
	NotIn, NotOut              bool
	NotIsIn, NotIsOut, NotIsBr bool
}

func newPhysdev() xtables.Match { return &physdev{} }

// Options implements xtables.Match.
func (m *physdev) Options(s *xtables.Spec) {
	s.Flag("physdev-is-in", &m.IsIn).Not(&m.NotIsIn)
	s.Var("physdev-in", &m.In).Not(&m.NotIn)
	s.Flag("physdev-is-out", &m.IsOut).Not(&m.NotIsOut)
	s.Var("physdev-out", &m.Out).Not(&m.NotOut)
	s.Flag("physdev-is-bridged", &m.IsBridged).Not(&m.NotIsBr)
	s.Check(func(c *xtables.Context) error {
		return someOf(c, "physdev-is-in", "physdev-in", "physdev-is-out", "physdev-out",
			"physdev-is-bridged")
	})
}

// Validate implements xtables.Validator.
func (m *physdev) Validate(b *xtables.Build) error {
	bridged := m.IsBridged && !m.NotIsBr
	if legacy(b) && (m.Out != "" || m.IsOut) && !bridged && b.Hooks&atOutput != 0 {
		return fmt.Errorf("--physdev-out and --physdev-is-out can't be reached from OUTPUT " +
			"without --physdev-is-bridged")
	}
	return nil
}

// Pred implements xtables.Match.
func (m *physdev) Pred(b *xtables.Build) field.Pred {
	noIn := is(field.PhysIn, 0)
	noOut := is(field.PhysOut, 0)
	plain := always((!m.IsBridged || m.NotIsBr) && (!m.IsIn || m.NotIsIn) &&
		(!m.IsOut || m.NotIsOut) && (m.In == "" || m.NotIn) && (m.Out == "" || m.NotOut))
	ps := make([]field.Pred, 1, 7)
	if m.IsBridged {
		ps = append(ps, field.NotIf(!m.NotIsBr, noOut))
	}
	if m.IsIn {
		ps = append(ps, field.NotIf(!m.NotIsIn, noIn))
	}
	if m.IsOut {
		ps = append(ps, field.NotIf(!m.NotIsOut, noOut))
	}
	if m.In != "" {
		// Without a port in the name is not asked at all.
		ps = append(ps, field.Or(noIn,
			field.NotIf(m.NotIn, field.Is(field.PhysIn, b.Devs(string(m.In))))))
	}
	if m.Out != "" {
		ps = append(ps, field.Not(noOut),
			field.NotIf(m.NotOut, field.Is(field.PhysOut, b.Devs(string(m.Out)))))
	}
	bridged := field.Not(field.And(noIn, noOut))
	ps[0] = bridged
	return field.Or(field.And(field.Not(bridged), plain), field.And(ps...))
}
