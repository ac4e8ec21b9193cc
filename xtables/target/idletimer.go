package target

import (
	"github.com/hookpath/hookpath/xtables"
)

// idletimer restarts a timer that tells a program when a link is idle.
//
// Kernel: net/netfilter/xt_IDLETIMER.c, idletimer_tg_target.
type idletimer struct {
	nothing
	Timeout xtables.Number
	Label   xtables.Bare
	Alarm   bool
}

func newIdletimer() xtables.Target {
	return &idletimer{Timeout: xtables.Number{Min: 1, Max: 1<<31 - 1},
		Label: xtables.Bare{Min: 1, Max: 27}}
}

// Options implements xtables.Target.
func (t *idletimer) Options(s *xtables.Spec) {
	s.Var("timeout", &t.Timeout).Required()
	s.Var("label", &t.Label).Required()
	s.Flag("alarm", &t.Alarm)
}
