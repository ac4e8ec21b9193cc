package match

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/xtables"
)

// mark matches the packet's mark (the fwmark of ip rule) under a mask.
//
// Kernel: net/netfilter/xt_mark.c, mark_mt, revision 1.
type mark struct {
	Mark xtables.Masked
	Not  bool
}

func newMark() xtables.Match { return &mark{} }

// Options implements xtables.Match.
func (m *mark) Options(s *xtables.Spec) { s.Var("mark", &m.Mark).Not(&m.Not).Required() }

// Pred implements xtables.Match.
func (m *mark) Pred(*xtables.Build) field.Pred {
	return field.NotIf(m.Not, field.Is(field.Mark, m.Mark.Set()))
}

// connmark matches the connection's mark under a mask; without a connection it
// matches nothing, negated or not.
//
// Kernel: net/netfilter/xt_connmark.c, connmark_mt.
type connmark struct{ mark }

func newConnmark() xtables.Match { return &connmark{} }

// Pred implements xtables.Match.
func (m *connmark) Pred(*xtables.Build) field.Pred {
	return field.NotIf(m.Not, field.Is(field.CtMark, m.Mark.Set()))
}
