package target

import (
	"fmt"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// connmark sets the mark of the connection, or copies it from or to the packet's.
//
// Kernel: net/netfilter/xt_connmark.c, connmark_tg_shift, revision 2.
type connmark struct {
	X              xmark
	Save, Restore  bool
	NFMask, CTMask xtables.Uint
	Both           xtables.Uint // --mask
	Shift          markShift
}

func newConnmark() xtables.Target {
	full := xtables.Uint{N: 1<<32 - 1, Hex: true}
	return &connmark{NFMask: full, CTMask: full, Both: full}
}

// Options implements xtables.Target.
func (t *connmark) Options(s *xtables.Spec) {
	markForms(s, &t.X)
	s.Flag("save-mark", &t.Save)
	s.Flag("restore-mark", &t.Restore)
	masks := func(b []byte) []byte { return b }
	if t.Save || t.Restore {
		masks = t.appendMasks
	}
	s.Var("nfmask", &t.NFMask).PrintAs(masks)
	s.Var("ctmask", &t.CTMask).Hidden()
	s.Var("mask", &t.Both).Hidden()
	s.Var("left-shift-mark", &shiftForm{&t.Shift, false})
	s.Var("right-shift-mark", &shiftForm{&t.Shift, true})
	s.ExactlyOne("set-xmark", "set-mark", "and-mark", "or-mark", "xor-mark", "save-mark",
		"restore-mark")
	s.OneOf("mask", "nfmask")
	s.OneOf("mask", "ctmask")
	s.Check(t.check)
}

func (t *connmark) check(c *xtables.Context) error {
	if !c.Spec.Given("mask") {
		return nil
	}
	t.NFMask.N, t.CTMask.N = t.Both.N, t.Both.N
	t.X.Mask = uint32(t.Both.N)
	return nil
}

func (t *connmark) appendMasks(b []byte) []byte {
	b = xtables.AppendHex(append(b, " --nfmask "...), t.NFMask.N)
	return xtables.AppendHex(append(b, " --ctmask "...), t.CTMask.N)
}

// Effects implements xtables.Target.
func (t *connmark) Effects() []field.Effect {
	switch {
	case t.Restore:
		return []field.Effect{{Op: field.Forget, ID: field.Mark}}
	case t.Save || t.Shift.bits != 0:
		return []field.Effect{{Op: field.Forget, ID: field.CtMark}}
	}
	return []field.Effect{{Op: field.Mix, ID: field.CtMark, Val: field.U(uint64(t.X.Value)),
		Mask: field.U(uint64(t.X.Mask))}}
}

// Do implements xtables.Target.
func (t *connmark) Do(e *xtables.Env) trace.Verdict {
	nf, ct := uint32(t.NFMask.N), uint32(t.CTMask.N)
	e.Deps().Note(field.CtState, field.U(field.CtInvalid|field.CtUntracked))
	if e.Packet.CT.Flow == 0 {
		if t.Restore && e.Packet.Template != 0 { // a template has no mark
			e.Packet.Mark &^= nf
		}
		return trace.Continue
	}
	f := e.Conntrack.Ref(e.World, e.Packet.CT.Flow)
	switch {
	case t.Save:
		e.Deps().Note(field.Mark, field.U(uint64(nf)))
		f.Mark = f.Mark&^ct ^ t.Shift.of(e.Packet.Mark&nf)
	case t.Restore:
		e.Deps().Note(field.CtMark, field.U(uint64(ct)))
		e.Packet.Mark = e.Packet.Mark&^nf ^ t.Shift.of(f.Mark&ct)
	default:
		e.Deps().Note(field.CtMark, field.U(uint64(^t.X.Mask)))
		f.Mark = t.Shift.of(f.Mark&^t.X.Mask ^ t.X.Value)
	}
	return trace.Continue
}

// markShift moves a mark's bits; the last option on the line counts.
type markShift struct {
	bits  uint8
	right bool
}

func (s *markShift) of(mark uint32) uint32 {
	if s.right {
		return mark >> s.bits
	}
	return mark << s.bits
}

// shiftForm is one of the two options.
type shiftForm struct {
	s     *markShift
	right bool
}

// Parse implements xtables.Value.
func (f *shiftForm) Parse(a *xtables.Args) error {
	n, err := xtables.ParseUint(a.Word, 31)
	*f.s = markShift{uint8(n), f.right}
	return err
}

// Append implements xtables.Value.
func (f *shiftForm) Append(b []byte, _ trace.Family) []byte { return fmt.Append(b, f.s.bits) }

// Unset implements xtables.Value.
func (f *shiftForm) Unset() bool { return f.s.bits == 0 || f.s.right != f.right }
