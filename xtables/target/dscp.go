package target

import (
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// dscp sets the DSCP, the upper six bits of the type of service octet.
//
// Kernel: net/netfilter/xt_DSCP.c, dscp_tg.
type dscp struct{ DSCP xtables.Number }

func newDSCP() xtables.Target { return &dscp{xtables.Number{Max: 0x3f, Digits: 2}} }

// Options implements xtables.Target.
func (t *dscp) Options(s *xtables.Spec) {
	s.Var("set-dscp", &t.DSCP)
	s.Var("set-dscp-class", &dscpClass{&t.DSCP}).Hidden()
	s.ExactlyOne("set-dscp", "set-dscp-class")
}

// ecnBits are the two lower bits of the octet.
const ecnBits = 3

// Effects implements xtables.Target.
func (t *dscp) Effects() []field.Effect {
	return []field.Effect{{Op: field.Mix, ID: field.TOS, Val: field.U(t.DSCP.N << 2),
		Mask: field.U(0xff &^ ecnBits)}}
}

// Do implements xtables.Target.
func (t *dscp) Do(e *xtables.Env) trace.Verdict {
	e.Deps().Note(field.TOS, field.U(ecnBits))
	old := e.Packet.TOS()
	if tos := old&ecnBits | uint8(t.DSCP.N<<2); tos != old {
		e.Packet.SetTOS(tos)
	}
	return trace.Continue
}

// dscpClass is the name of a DSCP.
//
// iptables: extensions/dscp_helper.c, ds_classes.
type dscpClass struct{ *xtables.Number }

// Parse implements xtables.Value.
func (v *dscpClass) Parse(a *xtables.Args) error {
	n, ok := classOf(strings.ToUpper(a.Word))
	if !ok {
		return fmt.Errorf("%q is not a DSCP class: BE, EF, CS0 to CS7, AF11 to AF43", a.Word)
	}
	v.N, v.Given = n, true
	return nil
}

func classOf(s string) (uint64, bool) {
	digit := func(i int, from, to byte) (uint64, bool) {
		return uint64(s[i] - '0'), s[i] >= from && s[i] <= to
	}
	switch {
	case s == "BE":
		return 0, true
	case s == "EF":
		return 0x2e, true
	case len(s) == 3 && s[:2] == "CS":
		n, ok := digit(2, '0', '7')
		return n << 3, ok
	case len(s) == 4 && s[:2] == "AF":
		class, ok1 := digit(2, '1', '4')
		drop, ok2 := digit(3, '1', '3')
		return class<<3 | drop<<1, ok1 && ok2
	}
	return 0, false
}
