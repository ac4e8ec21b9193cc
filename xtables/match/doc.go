// Package match is what a rule can ask of a packet beyond addresses, interfaces and
// protocol: one file an extension, and one literal list of them. It stands in every
// table's rules, wherever the packet meets them.
//
// A match is a declaration of options and a predicate. What can be said by tests on
// fields is data; what looks at other bytes, at other rooms, or changes memory is
// code.
package match

import (
	"fmt"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// The hooks that the kernel admits matches at.
const (
	atPrerouting  = xtables.Hooks(1 << trace.Prerouting)
	atInput       = xtables.Hooks(1 << trace.Input)
	atForward     = xtables.Hooks(1 << trace.Forward)
	atOutput      = xtables.Hooks(1 << trace.Output)
	atPostrouting = xtables.Hooks(1 << trace.Postrouting)
)

// assume notes that a rule's memory is not in the snapshot.
func assume(b *xtables.Build, format string, v ...any) {
	if b.Assume != nil {
		b.Assume(fmt.Sprintf("line %d: ", b.Rule.Line) + fmt.Sprintf(format, v...))
	}
}

// unsupported is the error of a match that is read and printed but can't be run.
func unsupported(what, why string) error {
	return &link.UnsupportedError{What: what, Why: why}
}

// legacy tells whether the kernel has checked at load which hooks reach the rule.
// nftables checks what a match says of hooks by itself in base chains alone, and what
// a dump has was loaded.
func legacy(b *xtables.Build) bool { return b.Backend == xtables.Legacy }

// l4 asks that the fixed part of the transport header is there: later fragments do
// not match, a cut header drops the packet.
func l4() field.Pred { return field.Has(field.L4) }

// noConn asks that the packet has no connection.
func noConn() field.Pred {
	return field.Not(field.Is(field.CtState,
		field.Masked(field.Value{}, field.U(field.CtInvalid|field.CtUntracked))))
}

// is asks that a field is just n.
func is(id field.ID, n uint64) field.Pred { return field.Is(id, field.Num(n)) }

// under asks that a field is value under a mask.
func under(id field.ID, value, mask uint64) field.Pred {
	return field.Is(id, field.Masked(field.U(value), field.U(mask)))
}

// always is True or Never.
func always(yes bool) field.Pred {
	if yes {
		return field.Pred{}
	}
	return field.Never()
}

// result turns a bool into a Result.
func result(yes bool) field.Result {
	if yes {
		return field.Yes
	}
	return field.No
}

// derived is a predicate in code that can drop the packet.
func derived(f func(*xtables.Env) field.Result, reads ...field.ID) field.Pred {
	return field.Derived(&xtables.Test{F: f, Fields: reads})
}

// call is a predicate in code that changes memory and can drop the packet.
func call(f func(*xtables.Env) field.Result, reads ...field.ID) field.Pred {
	return field.Call(&xtables.Test{F: f, Fields: reads})
}
