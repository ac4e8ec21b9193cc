package target

import (
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// tos sets the type of service octet under a mask.
//
// Kernel: net/netfilter/xt_DSCP.c, tos_tg.
type tos struct{ X xmark }

func newTOS() xtables.Target { return &tos{} }

// tosWords are in small letters.
var tosWords = map[string]uint32{"minimize-delay": 0x10, "maximize-throughput": 0x08,
	"maximize-reliability": 0x04, "minimize-cost": 0x02, "normal-service": 0}

// tosForm is an argument of TOS's options.
type tosForm struct{ form }

// Parse implements xtables.Value.
func (f *tosForm) Parse(a *xtables.Args) error {
	if v, ok := tosWords[strings.ToLower(a.Word)]; ok && f.mask {
		*f.x = xmark{Value: v, Mask: 0x3f, given: true}
		return nil
	}
	v, mask, has := strings.Cut(a.Word, "/")
	n, err := xtables.ParseUint(v, 255)
	m := uint64(255)
	if err == nil && has {
		m, err = xtables.ParseUint(mask, 255)
	}
	if err != nil || has && !f.mask {
		return fmt.Errorf("%q is not a TOS value[/mask]", a.Word)
	}
	*f.x = f.make(uint32(n), uint32(m))
	f.x.given = true
	return nil
}

// Append implements xtables.Value.
func (f *tosForm) Append(b []byte, _ trace.Family) []byte {
	return fmt.Appendf(b, "0x%02x/0x%02x", f.x.Value, f.x.Mask)
}

// Options implements xtables.Target.
func (t *tos) Options(s *xtables.Spec) {
	add := func(name string, mask bool, f func(v, m uint32) xmark) *xtables.Option {
		return s.Var(name, &tosForm{form{&t.X, f, mask}})
	}
	add("set-tos", true, func(v, m uint32) xmark { return xmark{Value: v, Mask: m} })
	add("and-tos", false, func(v, _ uint32) xmark { return xmark{Mask: ^v & 0xff} }).Hidden()
	add("or-tos", false, func(v, _ uint32) xmark { return xmark{Value: v, Mask: v} }).Hidden()
	add("xor-tos", false, func(v, _ uint32) xmark { return xmark{Value: v} }).Hidden()
	s.ExactlyOne("set-tos", "and-tos", "or-tos", "xor-tos")
}

// Effects implements xtables.Target.
func (t *tos) Effects() []field.Effect {
	return []field.Effect{{Op: field.Mix, ID: field.TOS, Val: field.U(uint64(t.X.Value)),
		Mask: field.U(uint64(t.X.Mask))}}
}

// Do implements xtables.Target.
func (t *tos) Do(e *xtables.Env) trace.Verdict {
	old := e.Packet.TOS()
	e.Deps().Note(field.TOS, field.U(uint64(^t.X.Mask)&0xff))
	if v := old&^uint8(t.X.Mask) ^ uint8(t.X.Value); v != old {
		e.Packet.SetTOS(v)
	}
	return trace.Continue
}
