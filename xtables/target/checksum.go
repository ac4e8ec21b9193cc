package target

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// checksum completes a transport checksum that a socket left to the device.
//
// Kernel: net/netfilter/xt_CHECKSUM.c, checksum_tg.
type checksum struct{ Fill bool }

func newChecksum() xtables.Target { return &checksum{} }

// Options implements xtables.Target.
func (t *checksum) Options(s *xtables.Spec) {
	s.Flag("checksum-fill", &t.Fill)
	s.ExactlyOne("checksum-fill")
}

// Effects implements xtables.Target.
func (t *checksum) Effects() []field.Effect { return nil }

// Do implements xtables.Target.
func (t *checksum) Do(e *xtables.Env) trace.Verdict {
	e.Packet.Partial = false
	return trace.Continue
}
