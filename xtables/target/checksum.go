package target

import (
	"github.com/hookpath/hookpath/xtables"
)

// checksum fills in a transport checksum that is left to the hardware. A frame in
// a snapshot's world has its checksums, so nothing is left to do.
//
// Kernel: net/netfilter/xt_CHECKSUM.c, checksum_tg.
type checksum struct {
	nothing
	Fill bool
}

func newChecksum() xtables.Target { return &checksum{} }

// Options implements xtables.Target.
func (t *checksum) Options(s *xtables.Spec) {
	s.Flag("checksum-fill", &t.Fill)
	s.ExactlyOne("checksum-fill")
}
