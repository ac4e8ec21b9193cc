package match

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// rateest compares estimated rates with one another or with a number.
//
// Kernel: net/netfilter/xt_rateest.c, xt_rateest_mt.
type rateest struct {
	First, Second xtables.Text
	Delta         bool
	Rates         [len(rateestNames)]estimate
	Lt, Gt, Eq    bool
	Not           bool
}

// rateestNames are the options for rates; those with numbers belong to --rateest-delta.
var rateestNames = [...]string{"rateest-bps1", "rateest-pps1", "rateest-bps", "rateest-pps",
	"rateest-bps2", "rateest-pps2"}

func newRateest() xtables.Match {
	m := &rateest{First: xtables.Text{Max: 15}, Second: xtables.Text{Max: 15}}
	for i := range m.Rates {
		m.Rates[i].bits = i%2 == 0
	}
	return m
}

// Options implements xtables.Match.
func (m *rateest) Options(s *xtables.Spec) {
	s.Var("rateest1", &m.First).Alias("rateest").Required().PrintAs(m.print)
	s.Var("rateest2", &m.Second).Hidden()
	s.Flag("rateest-delta", &m.Delta).PrintAs(nothing)
	for i, name := range rateestNames {
		s.Var(name, &m.Rates[i]).TakesNothing().Hidden()
	}
	s.Flag("rateest-lt", &m.Lt).Not(&m.Not).PrintAs(nothing)
	s.Flag("rateest-gt", &m.Gt).Not(&m.Not).PrintAs(nothing)
	s.Flag("rateest-eq", &m.Eq).Not(&m.Not).PrintAs(nothing)
	s.ExactlyOne("rateest-lt", "rateest-gt", "rateest-eq")
	s.Check(m.check)
}

func nothing(b []byte) []byte { return b }

func (m *rateest) check(*xtables.Context) error {
	given, values := 0, 0
	for i := range m.Rates {
		r := &m.Rates[i]
		if !r.given {
			continue
		}
		given++
		if r.has {
			values++
		}
		if single := i == 2 || i == 3; single == m.Delta {
			return fmt.Errorf("--%s does not go with or without --rateest-delta", rateestNames[i])
		}
	}
	switch {
	case given == 0:
		return fmt.Errorf("a rate is needed: --rateest-bps or --rateest-pps")
	case m.Second.S == "" && values == 0:
		return fmt.Errorf("without --rateest2 the rate needs a number")
	}
	return nil
}

// Validate implements xtables.Validator.
func (m *rateest) Validate(*xtables.Build) error {
	return unsupported("-m rateest", "estimated rates are not known")
}

// Pred implements xtables.Match.
func (m *rateest) Pred(*xtables.Build) field.Pred { return field.Never() }

// print prints the whole match: what is compared, how, and with what.
func (m *rateest) print(b []byte) []byte {
	if m.Delta {
		b = append(b, " --rateest-delta"...)
	}
	name := " --rateest "
	if m.Second.S != "" {
		name = " --rateest1 "
	}
	b = append(append(b, name...), m.First.S...)
	b = m.printRates(b, 0, 2)
	if m.Not {
		b = append(b, " !"...)
	}
	b = append(append(b, " --rateest-"...), m.mode()...)
	b = m.printRates(b, 2, len(m.Rates))
	if m.Second.S == "" {
		return b
	}
	return append(append(b, " --rateest2 "...), m.Second.S...)
}

func (m *rateest) mode() string {
	switch {
	case m.Lt:
		return "lt"
	case m.Gt:
		return "gt"
	}
	return "eq"
}

func (m *rateest) printRates(b []byte, from, to int) []byte {
	for i := from; i < to; i++ {
		if !m.Rates[i].given {
			continue
		}
		b = append(append(b, " --"...), rateestNames[i]...)
		if m.Rates[i].has {
			b = m.Rates[i].Append(append(b, ' '), trace.IPv4)
		}
	}
	return b
}

// estimate is a rate whose number may be left out: packets, or bits with a unit.
type estimate struct {
	n          uint64
	bits       bool
	given, has bool
}

// rateUnits are the units of tc, in bits.
var rateUnits = [...]struct {
	name string
	bits float64
}{
	{"kibit", 1 << 10}, {"kbit", 1e3}, {"mibit", 1 << 20}, {"mbit", 1e6}, {"gibit", 1 << 30},
	{"gbit", 1e9}, {"tibit", 1 << 40}, {"tbit", 1e12}, {"kibps", 8 << 10}, {"kbps", 8e3},
	{"mibps", 8 << 20}, {"mbps", 8e6}, {"gibps", 8 << 30}, {"gbps", 8e9}, {"bit", 1}, {"bps", 8},
}

// Parse implements xtables.Value.
func (v *estimate) Parse(a *xtables.Args) (err error) {
	v.given = true
	word, ok := a.Next()
	if !ok {
		return nil
	}
	v.has = true
	if !v.bits {
		v.n, err = xtables.ParseUint(word, math.MaxUint32)
		return err
	}
	unit := 8.0 // a bare number is of bytes
	for _, u := range rateUnits {
		if text, ok := strings.CutSuffix(lower(word), u.name); ok {
			word, unit = text, u.bits
			break
		}
	}
	f, err := strconv.ParseFloat(word, 64)
	if bytes := f * unit / 8; err != nil || bytes < 0 || !(bytes <= math.MaxUint32) {
		return fmt.Errorf("%q is not a rate", word)
	}
	v.n = uint64(f * unit / 8)
	return nil
}

// Append implements xtables.Value.
func (v *estimate) Append(b []byte, _ trace.Family) []byte {
	if !v.bits {
		return strconv.AppendUint(b, v.n, 10)
	}
	return append(strconv.AppendUint(b, v.n*8, 10), "bit"...)
}

// Unset implements xtables.Value.
func (v *estimate) Unset() bool { return !v.given }
