package target

import (
	"github.com/hookpath/hookpath/xtables"
)

// ulog is what NFLOG was before Linux 3.17, which took it away.
//
// iptables: extensions/libipt_ULOG.c.
type ulog struct {
	nothing
	Prefix               quoted
	Group, Range, Thresh xtables.Number
}

func newULOG() xtables.Target {
	return &ulog{Prefix: quoted{xtables.Bare{Min: 1, Max: 31}},
		Group:  xtables.Number{N: 1, Min: 1, Max: 32},
		Thresh: xtables.Number{N: 1, Min: 1, Max: 50}}
}

// Options implements xtables.Target.
func (t *ulog) Options(s *xtables.Spec) {
	s.Var("ulog-prefix", &t.Prefix)
	s.Var("ulog-nlgroup", &unless{&t.Group, 1})
	s.Var("ulog-cprange", &unless{&t.Range, 0})
	s.Var("ulog-qthreshold", &unless{&t.Thresh, 1})
}

// Validate implements xtables.Validator.
func (t *ulog) Validate(b *xtables.Build) error {
	if b.Kernel.Before(3, 17) {
		return nil
	}
	return unsupported("-j ULOG", "Linux has none since 3.17: use NFLOG")
}

// unless is a number that is not printed when it is def.
type unless struct {
	*xtables.Number
	def uint64
}

// Unset implements xtables.Value.
func (v *unless) Unset() bool { return v.N == v.def }
