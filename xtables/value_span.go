package xtables

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
)

// Span is first[:last], where an end that is left out is the least or the greatest
// number. The zero Span is not given.
//
// iptables: libxtables/xtoptions.c, xtopt_parse_mint.
type Span struct {
	Lo, Hi uint64
	Max    uint64 // the greatest number; zero means 32 bits
	Ports  bool   // words of the services list stand for numbers
	Proto  uint8  // the protocol whose services count, zero for any
	// Hide says that the whole range is not printed, since it asks nothing.
	Hide bool
	// quiet says that the whole range is not printed behind a ! either, though it
	// matches nothing: so iptables-save did before 1.8.11.
	quiet bool
	// Strict says that every release refuses a reversed range.
	Strict bool
	Given  bool
}

// PortSpan returns a Span of ports whose names are those of a protocol.
func PortSpan(proto uint8) Span { return Span{Max: 65535, Ports: true, Proto: proto} }

func (s *Span) max() uint64 {
	if s.Max == 0 {
		return 1<<32 - 1
	}
	return s.Max
}

// Parse implements Value.
func (s *Span) Parse(a *Args) (err error) {
	lo, hi, isRange := strings.Cut(a.Word, ":")
	s.Given, s.Lo, s.Hi = true, 0, s.max()
	if lo != "" || !isRange {
		if s.Lo, err = s.number(lo); err != nil {
			return err
		}
	}
	switch {
	case !isRange:
		s.Hi = s.Lo
	case hi != "":
		if s.Hi, err = s.number(hi); err != nil {
			return err
		}
	}
	if s.Lo <= s.Hi {
		s.quiet = a.Version < V1811 && s.Unset()
		return nil
	}
	if s.Strict || a.Version >= V1811 {
		return fmt.Errorf("%q: the first number is greater than the last", a.Word)
	}
	a.Warn("range %q is reversed: it matches nothing", a.Word)
	return nil
}

func (s *Span) number(word string) (uint64, error) {
	if !s.Ports {
		return ParseUint(word, s.max())
	}
	n, err := ParsePort(word, s.Proto)
	return uint64(n), err
}

// Append implements Value.
func (s *Span) Append(b []byte, _ trace.Family) []byte {
	b = strconv.AppendUint(b, s.Lo, 10)
	if s.Lo == s.Hi {
		return b
	}
	return strconv.AppendUint(append(b, ':'), s.Hi, 10)
}

// Unset implements Value.
func (s *Span) Unset() bool { return !s.Given || s.Hide && s.Lo == 0 && s.Hi == s.max() }

// silent implements quieter.
func (s *Span) silent() bool { return s.quiet }

// Set is the set of numbers in the span.
func (s *Span) Set() field.Set { return field.Between(s.Lo, s.Hi) }

// Test asks whether a field lies in the span, or does not; a Span that is not given
// asks nothing.
func (s *Span) Test(id field.ID, not bool) field.Pred {
	if !s.Given || s.Unset() && !not {
		return field.Pred{}
	}
	return field.NotIf(not, field.Is(id, s.Set()))
}
