package xtables

import (
	"fmt"

	"github.com/hookpath/hookpath/trace"
)

// Bare is a word that is printed as it is, without quotes even where it would need
// them. One that is shorter than Min is refused, one that is longer than Max cut, as
// what goes into the kernel's arrays is; zero Max is any.
//
// iptables: libxtables/xtoptions.c, xtopt_parse_string.
type Bare struct {
	S        string
	Min, Max int
	Given    bool
}

// Parse implements Value.
func (t *Bare) Parse(a *Args) error {
	if len(a.Word) < t.Min {
		return fmt.Errorf("%q is shorter than %d bytes", a.Word, t.Min)
	}
	t.S, t.Given = a.Word, true
	if t.Max > 0 && len(t.S) > t.Max {
		a.Warn("%q is cut to %d bytes", cut(a.Word), t.Max)
		t.S = t.S[:t.Max]
	}
	return nil
}

// Append implements Value.
func (t *Bare) Append(b []byte, _ trace.Family) []byte { return append(b, t.S...) }

// Unset implements Value.
func (t *Bare) Unset() bool { return t.S == "" }

// LogPrefix is the text that log targets put before a line: a Bare that is printed in
// quotes where it needs them.
type LogPrefix struct{ Bare }

// Append implements Value.
func (t *LogPrefix) Append(b []byte, _ trace.Family) []byte { return AppendQuoted(b, t.S) }
