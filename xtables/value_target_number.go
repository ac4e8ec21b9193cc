package xtables

import (
	"fmt"
	"strconv"

	"github.com/hookpath/hookpath/trace"
)

// Number is a number from Min to Max that may not be given; zero Max is 32 bits.
// Digits is how many digits at least are printed in hexadecimal, behind 0x; zero
// prints it in decimal.
type Number struct {
	N, Min, Max uint64
	Digits      int
	Given       bool
}

// Parse implements Value.
func (v *Number) Parse(a *Args) (err error) {
	limit := v.Max
	if limit == 0 {
		limit = 1<<32 - 1
	}
	if v.N, err = ParseUint(a.Word, limit); err != nil {
		return err
	}
	if v.N < v.Min {
		return fmt.Errorf("%q is out of range (%d-%d)", a.Word, v.Min, limit)
	}
	v.Given = true
	return nil
}

// Append implements Value.
func (v *Number) Append(b []byte, _ trace.Family) []byte {
	if v.Digits > 0 {
		return fmt.Appendf(b, "0x%0*x", v.Digits, v.N)
	}
	return strconv.AppendUint(b, v.N, 10)
}

// Unset implements Value.
func (v *Number) Unset() bool { return !v.Given }
