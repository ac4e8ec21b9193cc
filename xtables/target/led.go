package target

import (
	"fmt"
	"strconv"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// led lights an LED of the machine.
//
// Kernel: net/netfilter/xt_LED.c, led_tg.
type led struct {
	nothing
	Trigger quoted
	Delay   ledDelay
	Blink   bool
}

func newLED() xtables.Target { return &led{Trigger: quoted{xtables.Bare{Min: 1, Max: 26}}} }

// Options implements xtables.Target.
func (t *led) Options(s *xtables.Spec) {
	s.Var("led-trigger-id", &t.Trigger).Required()
	s.Var("led-delay", &t.Delay)
	s.Flag("led-always-blink", &t.Blink)
}

// quoted is a word that is printed between double quotes, whatever it is.
type quoted struct{ xtables.Bare }

// Append implements xtables.Value.
func (v *quoted) Append(b []byte, _ trace.Family) []byte {
	return append(append(append(b, '"'), v.S...), '"')
}

// ledDelay is a number of milliseconds, or "inf".
type ledDelay struct {
	ms  uint64
	inf bool
}

// Parse implements xtables.Value.
func (v *ledDelay) Parse(a *xtables.Args) (err error) {
	if v.inf = a.Word == "inf"; v.inf {
		return nil
	}
	if v.ms, err = xtables.ParseUint(a.Word, 1<<31-1); err != nil {
		return fmt.Errorf("%q is neither milliseconds nor inf", a.Word)
	}
	return nil
}

// Append implements xtables.Value.
func (v *ledDelay) Append(b []byte, _ trace.Family) []byte {
	if v.inf {
		return append(b, "inf"...)
	}
	return strconv.AppendUint(b, v.ms, 10)
}

// Unset implements xtables.Value.
func (v *ledDelay) Unset() bool { return v.ms == 0 && !v.inf }
