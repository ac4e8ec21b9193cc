package xtables

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/trace"
)

// Rate is a number of packets a second, minute, hour or day, kept as the limit and
// hashlimit matches keep it: the period between two packets in units of 1/Scale
// seconds. Unit is the number of seconds that the word behind the / stood for.
//
// iptables: extensions/libxt_limit.c and libxt_hashlimit.c, parse_rate, print_rate.
type Rate struct {
	Period uint64
	Scale  uint64
	Unit   uint64
	Given  bool
}

// rateUnits are the words in order of printing, and what may be shortened to them.
var rateUnits = [...]struct {
	print, word string
	seconds     uint64
}{
	{"day", "day", 86400}, {"hour", "hour", 3600}, {"min", "minute", 60}, {"sec", "second", 1},
}

// Parse implements Value.
func (r *Rate) Parse(a *Args) error {
	count, unit, has := strings.Cut(a.Word, "/")
	r.Unit, r.Given = 1, true
	if has {
		if r.Unit = rateUnit(unit); r.Unit == 0 {
			return fmt.Errorf("%q is not a rate: NUMBER/second, minute, hour or day", a.Word)
		}
	}
	n, err := strconv.ParseUint(count, 10, 63)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a rate: NUMBER/second, minute, hour or day", a.Word)
	}
	if r.Period = r.Scale * r.Unit / n; r.Period == 0 {
		return fmt.Errorf("rate %q is too fast: at most %d/second", a.Word, r.Scale)
	}
	return nil
}

// rateUnit returns the seconds of a unit or of its beginning; zero for none.
func rateUnit(s string) uint64 {
	for i := range rateUnits {
		u := &rateUnits[i]
		if s != "" && len(s) <= len(u.word) && strings.EqualFold(u.word[:len(s)], s) {
			return u.seconds
		}
	}
	return 0
}

// Append implements Value.
func (r *Rate) Append(b []byte, _ trace.Family) []byte {
	u := r.Printed()
	b = strconv.AppendUint(b, rateUnits[u].seconds*r.Scale/r.Period, 10)
	return append(append(b, '/'), rateUnits[u].print...)
}

// Printed is the index of the unit that the rate is printed in.
func (r *Rate) Printed() int {
	for i := 1; i < len(rateUnits); i++ {
		mult := rateUnits[i].seconds * r.Scale
		if r.Period > mult || mult/r.Period < mult%r.Period {
			return i - 1
		}
	}
	return len(rateUnits) - 1
}

// PrintedUnit is the number of seconds of the unit that the rate is printed in.
func (r *Rate) PrintedUnit() uint64 { return rateUnits[r.Printed()].seconds }

// Unset implements Value.
func (r *Rate) Unset() bool { return !r.Given }
