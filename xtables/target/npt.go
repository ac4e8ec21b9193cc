package target

import (
	"fmt"
	"strconv"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// npt puts another IPv6 prefix in place of that of the source (SNPT) or destination
// (DNPT). It is read and printed alone.
//
// Kernel: net/ipv6/netfilter/ip6t_NPT.c, ip6t_npt_map_pfx.
type npt struct {
	name     string
	From, To prefix6
}

func newSNPT() xtables.Target { return &npt{name: "SNPT"} }
func newDNPT() xtables.Target { return &npt{name: "DNPT"} }

// Options implements xtables.Target.
func (t *npt) Options(s *xtables.Spec) {
	s.Var("src-pfx", &t.From).Required()
	s.Var("dst-pfx", &t.To).Required()
}

// Effects implements xtables.Target.
func (t *npt) Effects() []field.Effect {
	id := field.Src
	if t.name == "DNPT" {
		id = field.Dst
	}
	return []field.Effect{{Op: field.Forget, ID: id}}
}

// Validate implements xtables.Validator.
func (t *npt) Validate(*xtables.Build) error {
	return unsupported("-j "+t.name, "translation of IPv6 prefixes")
}

// Do implements xtables.Target. It is never reached.
func (t *npt) Do(*xtables.Env) trace.Verdict { return trace.DropIt }

// prefix6 is an address with a prefix length of at most 64, both as written.
type prefix6 struct {
	host xtables.Host
	n    int
}

// Parse implements xtables.Value.
func (v *prefix6) Parse(a *xtables.Args) error {
	if err := v.host.Parse(a); err != nil {
		return err
	}
	n, ok := xtables.PrefixLen(v.host.Mask, trace.IPv6)
	if !ok || n > 64 {
		return fmt.Errorf("%q: a prefix of at most 64 bits is needed", a.Word)
	}
	v.n = n
	return nil
}

// Append implements xtables.Value.
func (v *prefix6) Append(b []byte, f trace.Family) []byte {
	h := v.host
	h.Mask = xtables.MaskOf(128, f)
	return strconv.AppendInt(append(h.Append(b, f), '/'), int64(v.n), 10)
}

// Unset implements xtables.Value.
func (v *prefix6) Unset() bool { return !v.host.Given }
