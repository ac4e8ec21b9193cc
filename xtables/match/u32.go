package match

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// u32 computes numbers from the packet's bytes, the IP header being at 0, and tests
// whether they lie in ranges.
//
// Kernel: net/netfilter/xt_u32.c, u32_mt.
type u32 struct {
	Tests u32Tests
	Not   bool
}

func newU32() xtables.Match { return &u32{} }

// Options implements xtables.Match.
func (m *u32) Options(s *xtables.Spec) { s.Var("u32", &m.Tests).Not(&m.Not).Required() }

// Validate implements xtables.Validator.
func (m *u32) Validate(*xtables.Build) error {
	for i := range m.Tests {
		for _, s := range m.Tests[i].steps {
			if (s.op == '<' || s.op == '>') && s.n >= 32 {
				return fmt.Errorf("the kernel refuses to shift by %d", s.n)
			}
		}
	}
	return nil
}

// Pred implements xtables.Match.
func (m *u32) Pred(*xtables.Build) field.Pred {
	return xtables.Derived(func(e *xtables.Env) bool {
		return m.Tests.hold(e.Packet.IP()) != m.Not
	}, field.Len, field.Bytes)
}

// u32Tests are joined by &&.
type u32Tests []u32Test

// u32Test is a start, steps from it, and the ranges for what comes out.
type u32Test struct {
	start  uint32
	steps  []u32Step
	ranges []u32Range
}

type u32Step struct {
	op byte // & < > @
	n  uint32
}

type u32Range struct{ lo, hi uint32 }

// u32Most is XT_U32_MAXSIZE: tests of a rule, numbers and ranges of a test.
const u32Most = 10

func (ts u32Tests) hold(b []byte) bool {
	for i := range ts {
		v, ok := ts[i].eval(b)
		if !ok || !ts[i].in(v) {
			return false
		}
	}
	return true
}

// eval mirrors u32_match_it: false where bytes lie outside of the packet.
func (t *u32Test) eval(b []byte) (v uint32, ok bool) {
	read := func(at uint64) bool {
		if at+4 > uint64(len(b)) {
			return false
		}
		v = binary.BigEndian.Uint32(b[at:])
		return true
	}
	if !read(uint64(t.start)) {
		return 0, false
	}
	at := uint64(0)
	for _, s := range t.steps {
		switch s.op {
		case '&':
			v &= s.n
		case '<':
			v <<= s.n
		case '>':
			v >>= s.n
		case '@':
			if at += uint64(v); at >= 1<<32 || !read(at+uint64(s.n)) {
				return 0, false
			}
		}
	}
	return v, true
}

func (t *u32Test) in(v uint32) bool {
	for _, r := range t.ranges {
		if r.lo <= v && v <= r.hi {
			return true
		}
	}
	return false
}

// Parse implements xtables.Value.
//
// iptables: extensions/libxt_u32.c, u32_parse.
func (ts *u32Tests) Parse(a *xtables.Args) error {
	p := u32Parser{rest: a.Word}
	for {
		if len(*ts) == u32Most {
			return fmt.Errorf("more than %d tests", u32Most)
		}
		t, err := p.test()
		if err != nil {
			return fmt.Errorf("at byte %d: %w", len(a.Word)-len(p.rest), err)
		}
		*ts = append(*ts, t)
		if p.rest == "" {
			return nil
		}
		p.take("&&")
	}
}

type u32Parser struct{ rest string }

func (p *u32Parser) space() { p.rest = strings.TrimLeft(p.rest, " \t\n\v\f\r") }

// take removes a word; it is false when it does not stand there.
func (p *u32Parser) take(word string) bool {
	p.space()
	rest, ok := strings.CutPrefix(p.rest, word)
	if ok {
		p.rest = rest
	}
	return ok
}

func (p *u32Parser) number() (uint32, error) {
	p.space()
	n := strings.IndexFunc(p.rest, func(r rune) bool {
		return !strings.ContainsRune("0123456789abcdefABCDEFxX", r)
	})
	if n < 0 {
		n = len(p.rest)
	}
	v, err := xtables.ParseUint(p.rest[:n], 1<<32-1)
	if err != nil {
		return 0, fmt.Errorf("expected a number of 32 bits")
	}
	p.rest = p.rest[n:]
	p.space()
	return uint32(v), nil
}

func (p *u32Parser) test() (t u32Test, err error) {
	if t.start, err = p.number(); err != nil {
		return t, err
	}
	for !p.take("=") {
		op, ok := p.op()
		if !ok {
			return t, fmt.Errorf("expected one of & << >> @ =")
		}
		n, err := p.number()
		if err != nil {
			return t, err
		}
		if len(t.steps) == u32Most-1 {
			return t, fmt.Errorf("more than %d numbers before =", u32Most)
		}
		t.steps = append(t.steps, u32Step{op, n})
	}
	t.ranges, err = p.ranges()
	return t, err
}

func (p *u32Parser) op() (byte, bool) {
	for _, w := range [...]string{"&", "<<", ">>", "@"} {
		if p.take(w) {
			return w[0], true
		}
	}
	return 0, false
}

func (p *u32Parser) ranges() (rs []u32Range, err error) {
	for {
		var r u32Range
		if r.lo, err = p.number(); err != nil {
			return nil, err
		}
		r.hi = r.lo
		if p.take(":") {
			if r.hi, err = p.number(); err != nil {
				return nil, err
			}
		}
		if len(rs) == u32Most {
			return nil, fmt.Errorf("more than %d ranges behind =", u32Most)
		}
		rs = append(rs, r)
		switch {
		case p.rest == "" || strings.HasPrefix(p.rest, "&&"):
			return rs, nil
		case !p.take(","):
			return nil, fmt.Errorf("expected , or &&")
		}
	}
}

// Append implements xtables.Value.
func (ts *u32Tests) Append(b []byte, _ trace.Family) []byte {
	b = append(b, '"')
	for i, t := range *ts {
		if i > 0 {
			b = append(b, "&&"...)
		}
		b = fmt.Appendf(b, "0x%x", t.start)
		for _, s := range t.steps {
			if b = append(b, s.op); s.op == '<' || s.op == '>' {
				b = append(b, s.op)
			}
			b = fmt.Appendf(b, "0x%x", s.n)
		}
		b = append(b, '=')
		b = t.appendRanges(b)
	}
	return append(b, '"')
}

func (t *u32Test) appendRanges(b []byte) []byte {
	for i, r := range t.ranges {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "0x%x", r.lo)
		if r.lo != r.hi {
			b = fmt.Appendf(b, ":0x%x", r.hi)
		}
	}
	return b
}

// Unset implements xtables.Value.
func (ts *u32Tests) Unset() bool { return len(*ts) == 0 }
