package target

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// rateest counts packets for -m rateest, which is not among the matches that are run.
//
// Kernel: net/netfilter/xt_RATEEST.c, xt_rateest_tg.
type rateest struct {
	nothing
	Name          xtables.Bare
	Interval, Log rateTime
}

func newRATEEST() xtables.Target { return &rateest{Name: xtables.Bare{Max: 15}} }

// Options implements xtables.Target.
func (t *rateest) Options(s *xtables.Spec) {
	s.Var("rateest-name", &t.Name).Required()
	s.Var("rateest-interval", &t.Interval).Required()
	s.Var("rateest-ewmalog", &t.Log).Required()
	s.Check(func(*xtables.Context) error { return t.round() })
}

// round brings both times to what the kernel keeps: powers of two.
//
// iptables: extensions/libxt_RATEEST.c, RATEEST_final_check.
func (t *rateest) round() error {
	const quarter = second / 4
	n, asked := 0, t.Interval.us
	for n <= 5 && asked > quarter<<n {
		n++
	}
	if n > 5 {
		return fmt.Errorf("--rateest-interval: the time is too long")
	}
	log := 1
	for ; log < 32; log++ {
		w := 1 - 1/float64(uint64(1)<<log)
		if float64(asked)/-math.Log(w) > float64(t.Log.us) {
			break
		}
	}
	if log--; log == 0 || log >= 31 {
		return fmt.Errorf("--rateest-ewmalog: the time is out of range")
	}
	t.Interval.us = quarter << n
	t.Log.us = t.Interval.us << log
	return nil
}

const second = 1000000

// rateTime is a time in microseconds with its unit.
type rateTime struct {
	us    uint64
	given bool
}

var timeUnits = map[string]float64{"s": second, "sec": second, "secs": second, "ms": second / 1000,
	"msec": second / 1000, "msecs": second / 1000, "us": 1, "usec": 1, "usecs": 1}

// Parse implements xtables.Value.
func (v *rateTime) Parse(a *xtables.Args) error {
	unit := strings.TrimLeft(a.Word, "0123456789.")
	f, err := strconv.ParseFloat(a.Word[:len(a.Word)-len(unit)], 64)
	u, ok := timeUnits[strings.ToLower(unit)]
	if unit == "" {
		u, ok = 1, true
	}
	if err != nil || !ok || f*u > math.MaxUint32 {
		return fmt.Errorf("%q is not a time", a.Word)
	}
	v.us, v.given = uint64(f*u), true
	return nil
}

// Append implements xtables.Value.
func (v *rateTime) Append(b []byte, _ trace.Family) []byte {
	switch {
	case v.us >= second:
		return fmt.Appendf(b, "%.1fs", float64(v.us)/second)
	case v.us >= second/1000:
		return fmt.Appendf(b, "%.1fms", float64(v.us)/(second/1000))
	}
	return fmt.Appendf(b, "%dus", v.us)
}

// Unset implements xtables.Value.
func (v *rateTime) Unset() bool { return !v.given }
