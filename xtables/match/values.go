package match

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// lower is the text in lower case.
func lower(s string) string { return strings.ToLower(s) }

// someOf refuses a match none of whose options are given.
func someOf(c *xtables.Context, names ...string) error {
	for _, n := range names {
		if c.Spec.Given(n) {
			return nil
		}
	}
	return fmt.Errorf("one of the options --%s is needed", strings.Join(names, ", --"))
}

// defaulted is a number that is not printed when it is def.
type defaulted struct {
	*xtables.Uint
	def uint64
}

// Unset implements xtables.Value.
func (d *defaulted) Unset() bool { return d.N == d.def }

// number is a number from Min to Max that may not be given; zero Max is 32 bits.
type number struct {
	n        uint64
	Min, Max uint64
	hex      int // digits at least of hexadecimal printing with 0x, zero for decimal
	given    bool
}

// Parse implements xtables.Value.
func (v *number) Parse(a *xtables.Args) (err error) {
	limit := v.Max
	if limit == 0 {
		limit = math.MaxUint32
	}
	if v.n, err = xtables.ParseUint(a.Word, limit); err != nil {
		return err
	}
	if v.n < v.Min {
		return fmt.Errorf("%q is out of range (%d-%d)", a.Word, v.Min, limit)
	}
	v.given = true
	return nil
}

// Append implements xtables.Value.
func (v *number) Append(b []byte, _ trace.Family) []byte {
	if v.hex > 0 {
		return fmt.Appendf(b, "0x%0*x", v.hex, v.n)
	}
	return strconv.AppendUint(b, v.n, 10)
}

// Unset implements xtables.Value.
func (v *number) Unset() bool { return !v.given }

// ifName is the name of an interface, or a pattern with a trailing +.
//
// iptables: libxtables/xtables.c, xtables_parse_interface.
type ifName string

const maxIfName = 15

// Parse implements xtables.Value.
func (v *ifName) Parse(a *xtables.Args) error {
	if a.Word == "" || len(a.Word) > maxIfName {
		return fmt.Errorf("%q can't be the name of an interface: 1 to %d bytes", a.Word,
			maxIfName)
	}
	*v = ifName(a.Word)
	return nil
}

// Append implements xtables.Value.
func (v *ifName) Append(b []byte, _ trace.Family) []byte { return append(b, *v...) }

// Unset implements xtables.Value.
func (v *ifName) Unset() bool { return *v == "" }
