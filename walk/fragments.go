package walk

import (
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/trace"
)

// reassemble would keep a fragment until its packet is whole.
func (k *Walk) reassemble() trace.Verdict {
	k.Err = &link.UnsupportedError{What: "a fragment where the host reassembles (conntrack, or a " +
		"packet for the host itself)"}
	return trace.Stolen
}

// fragment would cut a packet that does not fit.
func (k *Walk) fragment(int) {
	k.Err = &link.UnsupportedError{What: "a packet larger than the MTU of its way out"}
	k.end(&trace.Outcome{Result: trace.Absorbed, Why: "unsupported"})
}
