package target

import (
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// audit writes a record of the packet for the audit daemon.
//
// Kernel: net/netfilter/xt_AUDIT.c, audit_tg.
type audit struct {
	nothing
	Type auditType
}

func newAudit() xtables.Target { return &audit{} }

// Options implements xtables.Target.
func (t *audit) Options(s *xtables.Spec) { s.Var("type", &t.Type).Required() }

// auditType is what the record says became of the packet: accept, drop or reject.
type auditType struct{ word string }

// Parse implements xtables.Value.
func (v *auditType) Parse(a *xtables.Args) error {
	for _, w := range [...]string{"accept", "drop", "reject"} {
		if strings.EqualFold(a.Word, w) {
			v.word = w
			return nil
		}
	}
	return fmt.Errorf("%q is none of accept, drop, reject", a.Word)
}

// Append implements xtables.Value.
func (v *auditType) Append(b []byte, _ trace.Family) []byte { return append(b, v.word...) }

// Unset implements xtables.Value.
func (v *auditType) Unset() bool { return v.word == "" }
