package target

import (
	"fmt"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// synproxy answers SYN segments in place of a server. It is read and printed alone:
// its cookies hang on a secret of the kernel.
//
// Kernel: net/ipv4/netfilter/ipt_SYNPROXY.c, synproxy_tg4.
type synproxy struct {
	Sack, Timestamp bool
	Scale, MSS      xtables.Number
	ECN             bool
}

func newSYNPROXY() xtables.Target {
	return &synproxy{Scale: xtables.Number{Max: 255}, MSS: xtables.Number{Max: 65535}}
}

// Options implements xtables.Target.
func (t *synproxy) Options(s *xtables.Spec) {
	s.Flag("sack-perm", &t.Sack)
	s.Flag("timestamp", &t.Timestamp)
	s.Var("wscale", &t.Scale)
	s.Var("mss", &t.MSS)
	s.Flag("ecn", &t.ECN)
	s.Check(func(c *xtables.Context) error {
		if c.Proto() != packet.TCP {
			return fmt.Errorf("needs -p tcp")
		}
		return nil
	})
}

// Effects implements xtables.Target.
func (t *synproxy) Effects() []field.Effect { return nil }

// Validate implements xtables.Validator.
func (t *synproxy) Validate(*xtables.Build) error {
	return unsupported("-j SYNPROXY", "its SYN cookies hang on a secret of the kernel")
}

// Do implements xtables.Target. It is never reached.
func (t *synproxy) Do(*xtables.Env) trace.Verdict { return trace.DropIt }
