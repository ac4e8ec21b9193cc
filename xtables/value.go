package xtables

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// Value is what an option holds: it parses and prints itself.
type Value interface {
	// Parse reads the option's argument, a.Word, and takes further words where the
	// option has them.
	Parse(a *Args) error
	// Append prints the argument as iptables-save does.
	Append(b []byte, f trace.Family) []byte
	// Unset tells whether the value is what it is without the option; such a value
	// is not printed, unless the option is declared Always.
	Unset() bool
}

// Args is what the parser hands to a value: the argument of one option and what
// stands around it.
type Args struct {
	Word    string // the option's argument
	Family  trace.Family
	Version Version
	Not     bool // a ! stood before the option
	Proto   uint8
	warn    func(string)
	next    func() (string, bool)
}

// Next takes one more word, for options with two arguments. It is false at the end
// and before an option.
func (a *Args) Next() (string, bool) { return a.next() }

// Warn notes something that is accepted but cannot mean what it seems to.
func (a *Args) Warn(format string, v ...any) {
	if a.warn != nil {
		a.warn(fmt.Sprintf(format, v...))
	}
}

// Version is a release of iptables whose acceptance rules a dump is read by.
type Version uint8

// The releases. A dump without header, or of an older iptables, is read by V189.
const (
	V189  Version = iota // 1.8.9: reversed port ranges are accepted and match nothing
	V1811                // 1.8.11: reversed ranges are refused
)

// ParseUint reads a number as xtables_strtoui does: decimal, octal with 0, or
// hexadecimal with 0x, from 0 to max.
func ParseUint(s string, max uint64) (uint64, error) {
	if s == "" || s[0] < '0' || s[0] > '9' || strings.Contains(s, "_") ||
		len(s) > 1 && s[0] == '0' && strings.ContainsAny(s[1:2], "bBoO") {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	if n > max {
		return 0, fmt.Errorf("%q is out of range (0-%d)", s, max)
	}
	return n, nil
}

// AppendHex prints n as %#x does: 0 without prefix is "0x0".
func AppendHex(b []byte, n uint64) []byte {
	return strconv.AppendUint(append(b, "0x"...), n, 16)
}

// Masked is value[/mask] of 32 bits, printed in hexadecimal; the mask is left out
// when it is all ones.
type Masked struct{ Value, Mask uint32 }

// Parse implements Value.
func (m *Masked) Parse(a *Args) error {
	v, mask, has := strings.Cut(a.Word, "/")
	n, err := ParseUint(v, 1<<32-1)
	if err != nil {
		return fmt.Errorf("%q is not value[/mask]: %w", a.Word, err)
	}
	m.Value, m.Mask = uint32(n), ^uint32(0)
	if !has {
		return nil
	}
	if n, err = ParseUint(mask, 1<<32-1); err != nil {
		return fmt.Errorf("%q is not value[/mask]: %w", a.Word, err)
	}
	m.Mask = uint32(n)
	return nil
}

// Append implements Value.
func (m *Masked) Append(b []byte, _ trace.Family) []byte {
	b = AppendHex(b, uint64(m.Value))
	if m.Mask != ^uint32(0) {
		b = AppendHex(append(b, '/'), uint64(m.Mask))
	}
	return b
}

// Unset implements Value.
func (m *Masked) Unset() bool { return *m == Masked{} }

// Set is the set of values v with v & Mask == Value. A Value with bits outside of
// the mask is never met.
func (m *Masked) Set() field.Set {
	if m.Value&^m.Mask != 0 {
		return field.Ranges()
	}
	return field.Masked(field.U(uint64(m.Value)), field.U(uint64(m.Mask)))
}

// Uint is a number. Max bounds it; zero Max means 32 bits.
type Uint struct {
	N   uint64
	Max uint64
	Hex bool
}

// Parse implements Value.
func (u *Uint) Parse(a *Args) (err error) {
	limit := u.Max
	if limit == 0 {
		limit = 1<<32 - 1
	}
	u.N, err = ParseUint(a.Word, limit)
	return err
}

// Append implements Value.
func (u *Uint) Append(b []byte, _ trace.Family) []byte {
	if u.Hex {
		return AppendHex(b, u.N)
	}
	return strconv.AppendUint(b, u.N, 10)
}

// Unset implements Value.
func (u *Uint) Unset() bool { return u.N == 0 }

// Text is a word, quoted when printed if it needs to be. Max is the longest that
// is accepted; zero accepts any.
type Text struct {
	S   string
	Max int
}

// Parse implements Value.
func (t *Text) Parse(a *Args) error {
	if t.Max > 0 && len(a.Word) > t.Max {
		return fmt.Errorf("%q is longer than %d bytes", a.Word, t.Max)
	}
	t.S = a.Word
	return nil
}

// Append implements Value.
func (t *Text) Append(b []byte, _ trace.Family) []byte { return AppendQuoted(b, t.S) }

// Unset implements Value.
func (t *Text) Unset() bool { return t.S == "" }

// AppendQuoted prints a word as xtables_save_string does: bare when it consists of
// letters, digits, '_' and '-', else in double quotes with " \ ' escaped.
func AppendQuoted(b []byte, s string) []byte {
	if s != "" && !strings.ContainsFunc(s, needsQuote) {
		return append(b, s...)
	}
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		if c := s[i]; c == '"' || c == '\\' || c == '\'' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

func needsQuote(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' ||
		r == '-')
}

// PortRange is port[:port]; names are those of the services list. The zero value
// is port 0; options begin with AllPorts.
type PortRange struct{ Lo, Hi uint16 }

// AllPorts is the range that is not printed.
func AllPorts() PortRange { return PortRange{0, 65535} }

// Parse implements Value.
func (r *PortRange) Parse(a *Args) (err error) {
	lo, hi, isRange := strings.Cut(a.Word, ":")
	*r = AllPorts()
	if lo != "" || !isRange {
		if r.Lo, err = ParsePort(lo, a.Proto); err != nil {
			return err
		}
	}
	if !isRange {
		r.Hi = r.Lo
		return nil
	}
	if hi != "" {
		if r.Hi, err = ParsePort(hi, a.Proto); err != nil {
			return err
		}
	}
	if r.Lo <= r.Hi {
		return nil
	}
	if a.Version >= V1811 {
		return fmt.Errorf("%q: the first port is greater than the last", a.Word)
	}
	a.Warn("port range %q is reversed: it matches nothing", a.Word)
	return nil
}

// Append implements Value.
func (r *PortRange) Append(b []byte, _ trace.Family) []byte {
	b = strconv.AppendUint(b, uint64(r.Lo), 10)
	if r.Lo == r.Hi {
		return b
	}
	return strconv.AppendUint(append(b, ':'), uint64(r.Hi), 10)
}

// Unset implements Value.
func (r *PortRange) Unset() bool { return *r == AllPorts() }

// Set is the set of ports in the range.
func (r *PortRange) Set() field.Set { return field.Between(uint64(r.Lo), uint64(r.Hi)) }

// ParsePort reads a port by number or by service name.
func ParsePort(s string, proto uint8) (uint16, error) {
	if n, err := ParseUint(s, 65535); err == nil {
		return uint16(n), nil
	}
	if n, ok := servicePort(s, proto); ok {
		return n, nil
	}
	return 0, fmt.Errorf("%q is not a port (0-65535) or a service name", s)
}

// Enum is one word of a list, or a number where Numbers is set. The list is ordered
// by number; empty strings are holes.
type Enum struct {
	N     uint32
	Set   bool
	Words []string
}

// Parse implements Value.
func (e *Enum) Parse(a *Args) error {
	for i, w := range e.Words {
		if w != "" && w == a.Word {
			e.N, e.Set = uint32(i), true
			return nil
		}
	}
	return fmt.Errorf("%q is none of %s", a.Word, strings.Join(e.Words, ", "))
}

// Append implements Value.
func (e *Enum) Append(b []byte, _ trace.Family) []byte { return append(b, e.Words[e.N]...) }

// Unset implements Value.
func (e *Enum) Unset() bool { return !e.Set }

// Prefix is address[/mask], where the mask may be a length or an address. Bits
// outside of the mask are cleared.
type Prefix struct{ Addr, Mask packet.Addr }

// Parse implements Value.
func (p *Prefix) Parse(a *Args) (err error) {
	*p, err = ParsePrefix(a.Word, a.Family)
	return err
}

// Append implements Value.
func (p *Prefix) Append(b []byte, f trace.Family) []byte {
	return appendMask(AppendAddr(b, p.Addr, f), p.Mask, f)
}

// Unset implements Value.
func (p *Prefix) Unset() bool { return p.Mask.IsAny() }

// Holds is the set of addresses in the prefix.
func (p *Prefix) Holds() field.Set { return field.AddrMask(p.Addr, p.Mask) }
