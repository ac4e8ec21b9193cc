package target

import (
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// class is major:minor of --set-class, both in hexadecimal.
type class struct {
	n     uint32
	given bool
}

// Parse implements xtables.Value.
func (c *class) Parse(a *xtables.Args) error {
	hi, lo, ok := strings.Cut(a.Word, ":")
	x, ok1 := hex32(hi)
	y, ok2 := hex32(lo)
	if !ok || !ok1 || !ok2 {
		return fmt.Errorf("%q is not major:minor in hexadecimal", a.Word)
	}
	c.n, c.given = x<<16|y&0xffff, true
	return nil
}

// hex32 reads a hexadecimal number with or without 0x.
func hex32(s string) (uint32, bool) {
	n, err := xtables.ParseUint("0x"+strings.TrimPrefix(strings.ToLower(s), "0x"), 1<<32-1)
	return uint32(n), err == nil
}

// Append implements xtables.Value.
func (c *class) Append(b []byte, _ trace.Family) []byte {
	return fmt.Appendf(b, "%04x:%04x", c.n>>16, c.n&0xffff)
}

// Unset implements xtables.Value.
func (c *class) Unset() bool { return !c.given }

// classify sets skb->priority.
//
// Kernel: net/netfilter/xt_CLASSIFY.c, classify_tg.
type classify struct{ Class class }

func newClassify() xtables.Target { return &classify{} }

// Options implements xtables.Target.
func (t *classify) Options(s *xtables.Spec) { s.Var("set-class", &t.Class).Required() }

// Effects implements xtables.Target.
func (t *classify) Effects() []field.Effect {
	return []field.Effect{{Op: field.SetTo, ID: field.Priority, Val: field.U(uint64(t.Class.n))}}
}

// Do implements xtables.Target.
func (t *classify) Do(e *xtables.Env) trace.Verdict {
	e.Packet.Priority = t.Class.n
	return trace.Continue
}
