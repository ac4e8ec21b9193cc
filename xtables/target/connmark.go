package target

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// connmark sets the mark of the connection, or copies it from or to the packet's.
//
// Kernel: net/netfilter/xt_connmark.c, connmark_tg_shift.
type connmark struct {
	X             xmark
	Save, Restore bool
	NFMask        xtables.Uint
	CTMask        xtables.Uint
	Both          xtables.Uint // --mask
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
	s.ExactlyOne("set-xmark", "set-mark", "and-mark", "or-mark", "xor-mark", "save-mark",
		"restore-mark")
	s.Check(func(c *xtables.Context) error {
		if c.Spec.Given("mask") {
			t.NFMask.N, t.CTMask.N = t.Both.N, t.Both.N
		}
		return nil
	})
}

func (t *connmark) appendMasks(b []byte) []byte {
	b = xtables.AppendHex(append(b, " --nfmask "...), t.NFMask.N)
	return xtables.AppendHex(append(b, " --ctmask "...), t.CTMask.N)
}

// Effects implements xtables.Target.
func (t *connmark) Effects() []field.Effect {
	id := field.CtMark
	if t.Restore {
		id = field.Mark
	}
	if t.Save || t.Restore {
		return []field.Effect{{Op: field.Forget, ID: id}}
	}
	return []field.Effect{{Op: field.Mix, ID: id, Val: field.U(uint64(t.X.Value)),
		Mask: field.U(uint64(t.X.Mask))}}
}

// Do implements xtables.Target.
func (t *connmark) Do(e *xtables.Env) trace.Verdict {
	if e.Packet.CT.Flow == 0 {
		return trace.Continue
	}
	f := e.Conntrack.Ref(e.World, e.Packet.CT.Flow)
	nf, ct := uint32(t.NFMask.N), uint32(t.CTMask.N)
	switch {
	case t.Save:
		e.Deps().Note(field.Mark, field.U(uint64(nf)))
		f.Mark = f.Mark&^ct ^ e.Packet.Mark&nf
	case t.Restore:
		e.Deps().Note(field.CtMark, field.U(uint64(ct)))
		e.Packet.Mark = e.Packet.Mark&^nf ^ f.Mark&ct
	default:
		f.Mark = f.Mark&^t.X.Mask ^ t.X.Value
	}
	return trace.Continue
}
