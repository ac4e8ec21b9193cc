package report

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/field"
)

// setText is a set of values in words: 80, 1024-65535, 10.0.0.0/8, 0x1/0x1.
func setText(id field.ID, s *field.Set) string {
	if s.IsFull() {
		return "(any)"
	}
	if rs, ok := s.Ranges(); ok {
		return rangesText(id, rs)
	}
	val, mask, _ := s.Mask()
	if id.Bits() == 128 {
		return prefixText(val, mask)
	}
	full := field.Ones(id.Bits())
	if mask.And(full) == full {
		return numberText(id, val.Lo)
	}
	return fmt.Sprintf("0x%x/0x%x", val.Lo, mask.And(full).Lo)
}

func rangesText(id field.ID, rs []field.Range) string {
	const most = 5
	var out []string
	for i, r := range rs {
		if i == most {
			out = append(out, "...")
			break
		}
		lo, hi := valueText(id, r.Lo), valueText(id, r.Hi)
		if lo == hi {
			out = append(out, lo)
			continue
		}
		out = append(out, lo+"-"+hi)
	}
	if len(out) == 0 {
		return "(none)"
	}
	return strings.Join(out, ",")
}

func valueText(id field.ID, v field.Value) string {
	if id.Bits() == 128 && id != field.CtLabel {
		return v.Addr().String()
	}
	return numberText(id, v.Lo)
}

func numberText(id field.ID, n uint64) string {
	switch id {
	case field.Proto, field.CtProto:
		if w := protoWord(uint8(n)); w != "" {
			return w
		}
	case field.Mark, field.CtMark, field.TOS, field.CtState, field.CtStatus, field.SrcType,
		field.DstType, field.TCPFlags:
		return "0x" + strconv.FormatUint(n, 16)
	}
	return strconv.FormatUint(n, 10)
}

func prefixText(val, mask field.Value) string {
	n := bits.OnesCount64(mask.Hi) + bits.OnesCount64(mask.Lo)
	a := val.Addr()
	if mask != field.PrefixMask(128, n) {
		return fmt.Sprintf("%s under a mask", a)
	}
	if a.Is4() && n >= 96 {
		n -= 96
		if n == 32 {
			return a.String()
		}
	} else if n == 128 {
		return a.String()
	}
	return a.String() + "/" + strconv.Itoa(n)
}

// devSet names the interfaces of a set.
func (n names) devSet(s *field.Set) string {
	var out []string
	for i := range n.h.Links.All() {
		l := &n.h.Links.All()[i]
		if s.Holds(field.U(uint64(l.Index))) {
			out = append(out, l.Name)
		}
	}
	if len(out) == 0 {
		return "(no such interface)"
	}
	const most = 4
	if len(out) > most {
		out = append(out[:most], "...")
	}
	return strings.Join(out, ",")
}
