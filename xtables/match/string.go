package match

import (
	"fmt"
	"strconv"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// stringMatch matches a pattern in the bytes of the packet from the IP header on.
// What counts is the pattern's first place behind --from: it must end before --to.
//
// Kernel: net/netfilter/xt_string.c, string_mt, revision 1; net/core/skbuff.c,
// skb_find_text.
type stringMatch struct {
	Pattern  pattern
	Algo     xtables.Enum
	From, To number
	FoldCase bool
	Not      bool
}

// algos are the search algorithms that take plain patterns.
var algos = []string{"bm", "kmp"}

func newString() xtables.Match {
	n := number{Max: 65535}
	return &stringMatch{Algo: xtables.Enum{Words: algos}, From: n, To: n}
}

// Options implements xtables.Match.
func (m *stringMatch) Options(s *xtables.Spec) {
	s.Var("string", &m.Pattern).Not(&m.Not).PrintAs(m.print)
	s.Var("hex-string", &hexPattern{&m.Pattern}).Not(&m.Not).Hidden()
	s.Var("algo", &m.Algo).Required()
	s.Var("from", &m.From).PrintAs(m.printFrom)
	s.Var("to", &m.To).PrintAs(m.printTo)
	s.Flag("icase", &m.FoldCase)
	s.ExactlyOne("string", "hex-string")
	s.Check(func(*xtables.Context) error {
		if m.From.n > m.to() {
			return fmt.Errorf("--from %d is behind --to %d", m.From.n, m.to())
		}
		return nil
	})
}

func (m *stringMatch) to() uint64 {
	if !m.To.given {
		return 65535
	}
	return m.To.n
}

func (m *stringMatch) print(b []byte) []byte {
	if m.Not {
		b = append(b, " !"...)
	}
	if m.Pattern.isText() {
		return m.Pattern.Append(append(b, " --string "...), 0)
	}
	return fmt.Appendf(b, " --hex-string \"|%x|\"", []byte(m.Pattern))
}

func (m *stringMatch) printFrom(b []byte) []byte {
	if m.From.n == 0 {
		return b
	}
	return strconv.AppendUint(append(b, " --from "...), m.From.n, 10)
}

func (m *stringMatch) printTo(b []byte) []byte {
	if m.to() == 0 || m.to() == 65535 {
		return b
	}
	return strconv.AppendUint(append(b, " --to "...), m.To.n, 10)
}

// Pred implements xtables.Match.
func (m *stringMatch) Pred(*xtables.Build) field.Pred {
	s := newSearch(string(m.Pattern), m.Algo.N == 0, m.FoldCase)
	from, to := int(m.From.n), int(m.to())
	return xtables.Derived(func(e *xtables.Env) bool {
		return s.between(e.Packet.IP(), from, to) != m.Not
	}, field.Len, field.Bytes)
}

// between tells whether the first place of the pattern behind from ends before to.
func (s *search) between(b []byte, from, to int) bool {
	if from >= len(b) || from >= to {
		return false
	}
	at := s.in(b[from:])
	return at >= 0 && at+len(s.pattern) <= to-from
}

// pattern is the bytes that are looked for.
type pattern string

// maxPattern is XT_STRING_MAX_PATTERN_SIZE.
const maxPattern = 128

// Parse implements xtables.Value.
func (v *pattern) Parse(a *xtables.Args) error { return v.set(a.Word) }

func (v *pattern) set(s string) error {
	if s == "" || len(s) > maxPattern {
		return fmt.Errorf("the pattern has %d bytes: 1 to %d are allowed", len(s), maxPattern)
	}
	*v = pattern(s)
	return nil
}

// isText tells whether the pattern is printed as it is.
//
// iptables: extensions/libxt_string.c, is_hex_string.
func (v pattern) isText() bool {
	for i := 0; i < len(v); i++ {
		if v[i] < ' ' || v[i] > '~' {
			return false
		}
	}
	return len(v) > 0 && v[len(v)-1] != '\\'
}

// Append implements xtables.Value.
func (v pattern) Append(b []byte, _ trace.Family) []byte {
	b = append(b, '"')
	for i := 0; i < len(v); i++ {
		if v[i] == '"' || v[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, v[i])
	}
	return append(b, '"')
}

// Unset implements xtables.Value.
func (v pattern) Unset() bool { return v == "" }

// hexPattern is a pattern with hexadecimal digits between bars.
type hexPattern struct{ *pattern }

// Parse implements xtables.Value.
//
// iptables: extensions/libxt_string.c, parse_hex_string.
func (v hexPattern) Parse(a *xtables.Args) error {
	var out []byte
	hex := false
	for s := a.Word; s != ""; {
		switch {
		case s[0] == '|':
			hex = !hex
			s = s[1:]
			for hex && s != "" && s[0] == ' ' {
				s = s[1:]
			}
		case hex:
			if len(s) < 3 {
				return fmt.Errorf("%q: a block of digits is not closed by |", a.Word)
			}
			n, err := strconv.ParseUint(s[:2], 16, 8)
			if err != nil {
				return fmt.Errorf("%q: %q are not two hexadecimal digits", a.Word, s[:2])
			}
			out = append(out, byte(n))
			if s = s[2:]; s[0] == ' ' {
				s = s[1:]
			}
		case s[0] == '\\' && len(s) == 1:
			return fmt.Errorf("%q: nothing stands behind the last backslash", a.Word)
		case s[0] == '\\':
			out, s = append(out, s[1]), s[2:]
		default:
			out, s = append(out, s[0]), s[1:]
		}
	}
	return v.set(string(out))
}
