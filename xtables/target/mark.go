package target

import (
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// xmark is value/mask of --set-xmark: the mark becomes (mark &^ mask) ^ value.
type xmark struct {
	Value, Mask uint32
	given       bool
}

// form is one of the options that say an xmark in another way.
type form struct {
	x    *xmark
	make func(v, mask uint32) xmark
	mask bool // value/mask is allowed
}

// Parse implements xtables.Value.
func (f *form) Parse(a *xtables.Args) error {
	if !f.mask && strings.Contains(a.Word, "/") {
		return fmt.Errorf("%q: a mask is not allowed here", a.Word)
	}
	var m xtables.Masked
	if err := m.Parse(a); err != nil {
		return err
	}
	*f.x = f.make(m.Value, m.Mask)
	f.x.given = true
	return nil
}

// Append implements xtables.Value.
func (f *form) Append(b []byte, _ trace.Family) []byte {
	b = xtables.AppendHex(b, uint64(f.x.Value))
	return xtables.AppendHex(append(b, '/'), uint64(f.x.Mask))
}

// Unset implements xtables.Value.
func (f *form) Unset() bool { return !f.x.given }

// markForms declares the five ways to say what becomes of a mark.
func markForms(s *xtables.Spec, x *xmark) {
	s.Var("set-xmark", &form{x, func(v, m uint32) xmark { return xmark{Value: v, Mask: m} }, true})
	s.Var("set-mark", &form{x, func(v, m uint32) xmark { return xmark{Value: v, Mask: m | v} },
		true}).Hidden()
	s.Var("and-mark", &form{x, func(v, _ uint32) xmark { return xmark{Mask: ^v} }, false}).Hidden()
	s.Var("or-mark", &form{x, func(v, _ uint32) xmark { return xmark{Value: v, Mask: v} },
		false}).Hidden()
	s.Var("xor-mark", &form{x, func(v, _ uint32) xmark { return xmark{Value: v} }, false}).Hidden()
}

// mark sets the packet's mark.
//
// Kernel: net/netfilter/xt_mark.c, mark_tg, revision 2.
type mark struct{ X xmark }

func newMark() xtables.Target { return &mark{} }

// Options implements xtables.Target.
func (t *mark) Options(s *xtables.Spec) {
	markForms(s, &t.X)
	s.ExactlyOne("set-xmark", "set-mark", "and-mark", "or-mark", "xor-mark")
}

// Effects implements xtables.Target.
func (t *mark) Effects() []field.Effect {
	return []field.Effect{{Op: field.Mix, ID: field.Mark, Val: field.U(uint64(t.X.Value)),
		Mask: field.U(uint64(t.X.Mask))}}
}

// Do implements xtables.Target.
func (t *mark) Do(e *xtables.Env) trace.Verdict {
	if t.X.Mask != ^uint32(0) {
		e.Deps().Note(field.Mark, field.U(uint64(^t.X.Mask)))
	}
	e.Packet.Mark = e.Packet.Mark&^t.X.Mask ^ t.X.Value
	return trace.Continue
}
