package match

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// icmp matches type and code of ICMP or ICMPv6. Later fragments never match; a cut
// header drops the packet.
//
// Kernel: net/ipv4/netfilter/ip_tables.c, icmp_match; net/ipv6/netfilter/ip6_tables.c,
// icmp6_match.
type icmp struct {
	Type icmpType
	Not  bool
	opt  string
}

func newICMP() xtables.Match {
	return &icmp{Type: icmpType{names: icmpNames, any: true}, opt: "icmp-type"}
}

func newICMP6() xtables.Match {
	return &icmp{Type: icmpType{names: icmp6Names}, opt: "icmpv6-type"}
}

// Options implements xtables.Match.
func (m *icmp) Options(s *xtables.Spec) { s.Var(m.opt, &m.Type).Not(&m.Not).Required() }

// Pred implements xtables.Match.
func (m *icmp) Pred(*xtables.Build) field.Pred {
	v := &m.Type
	test := field.And(field.Is(field.ICMPType, field.Num(uint64(v.typ))),
		field.Is(field.ICMPCode, field.Between(uint64(v.lo), uint64(v.hi))))
	switch {
	case v.any && v.typ == 0xff:
		test = field.Pred{}
	case v.lo == 0 && v.hi == 0xff:
		test = field.Is(field.ICMPType, field.Num(uint64(v.typ)))
	}
	if test.Op == field.OpTrue && m.Not {
		return field.And(l4(), field.Never())
	}
	return field.And(l4(), field.NotIf(m.Not, test))
}

// icmpType is type[/code[:code]], by number or by name. Where any is set, type 255
// stands for every type, as it does in the kernel for ICMP.
type icmpType struct {
	names  []icmpName
	any    bool
	typ    uint8
	lo, hi uint8
}

type icmpName struct {
	name        string
	typ, lo, hi uint8
	since       xtables.Version
}

// Parse implements xtables.Value.
//
// iptables: extensions/libxt_icmp.h, ipt_parse_icmp.
func (v *icmpType) Parse(a *xtables.Args) error {
	n, err := v.lookup(a.Word, a.Version)
	if err == nil && n != nil {
		v.typ, v.lo, v.hi = n.typ, n.lo, n.hi
		return nil
	}
	if err != nil {
		return err
	}
	typ, code, has := strings.Cut(a.Word, "/")
	t, err := xtables.ParseUint(typ, 255)
	if err != nil {
		return fmt.Errorf("%q is not an ICMP type", a.Word)
	}
	v.typ, v.lo, v.hi = uint8(t), 0, 0xff
	if !has {
		return nil
	}
	if err := v.code(code); err != nil {
		return err
	}
	if v.any && v.typ == 0xff && a.Version < xtables.V1811 {
		v.lo, v.hi = 0, 0xff // printed as any, which it is to the kernel
	}
	return nil
}

func (v *icmpType) code(s string) error {
	lo, hi, isRange := strings.Cut(s, ":")
	a, err := xtables.ParseUint(lo, 255)
	if err != nil {
		return fmt.Errorf("%q is not an ICMP code", s)
	}
	v.lo, v.hi = uint8(a), uint8(a)
	if isRange {
		b, err := xtables.ParseUint(hi, 255)
		if err != nil {
			return fmt.Errorf("%q is not an ICMP code", s)
		}
		v.hi = uint8(b)
	}
	return nil
}

// lookup finds a name by its beginning, which only one name may have.
func (v *icmpType) lookup(word string, version xtables.Version) (found *icmpName, err error) {
	for i := range v.names {
		n := &v.names[i]
		if !begins(n.name, word) || version < n.since {
			continue
		}
		if len(n.name) == len(word) {
			return n, nil
		}
		if found != nil {
			return nil, fmt.Errorf("%q is ambiguous: %s or %s", word, found.name, n.name)
		}
		found = n
	}
	return found, nil
}

// begins tells whether a name begins with a word, in any case of letters.
func begins(name, word string) bool {
	return word != "" && len(word) <= len(name) && strings.EqualFold(name[:len(word)], word)
}

// Append implements xtables.Value.
func (v *icmpType) Append(b []byte, _ trace.Family) []byte {
	if v.any && v.typ == 0xff && v.lo == 0 && v.hi == 0xff {
		return append(b, "any"...)
	}
	b = strconv.AppendUint(b, uint64(v.typ), 10)
	if v.lo == 0 && v.hi == 0xff {
		return b
	}
	b = strconv.AppendUint(append(b, '/'), uint64(v.lo), 10)
	if v.lo == v.hi {
		return b
	}
	return strconv.AppendUint(append(b, ':'), uint64(v.hi), 10)
}

// Unset implements xtables.Value.
func (v *icmpType) Unset() bool { return false }

// icmpNames are the names of libxt_icmp; indented ones are codes.
var icmpNames = []icmpName{
	{"any", 0xff, 0, 0xff, 0},
	{"echo-reply", 0, 0, 0xff, 0}, {"pong", 0, 0, 0xff, 0},
	{"destination-unreachable", 3, 0, 0xff, 0},
	{"network-unreachable", 3, 0, 0, 0}, {"host-unreachable", 3, 1, 1, 0},
	{"protocol-unreachable", 3, 2, 2, 0}, {"port-unreachable", 3, 3, 3, 0},
	{"fragmentation-needed", 3, 4, 4, 0}, {"source-route-failed", 3, 5, 5, 0},
	{"network-unknown", 3, 6, 6, 0}, {"host-unknown", 3, 7, 7, 0},
	{"network-prohibited", 3, 9, 9, 0}, {"host-prohibited", 3, 10, 10, 0},
	{"TOS-network-unreachable", 3, 11, 11, 0}, {"TOS-host-unreachable", 3, 12, 12, 0},
	{"communication-prohibited", 3, 13, 13, 0}, {"host-precedence-violation", 3, 14, 14, 0},
	{"precedence-cutoff", 3, 15, 15, 0},
	{"source-quench", 4, 0, 0xff, 0},
	{"redirect", 5, 0, 0xff, 0}, {"network-redirect", 5, 0, 0, 0}, {"host-redirect", 5, 1, 1, 0},
	{"TOS-network-redirect", 5, 2, 2, 0}, {"TOS-host-redirect", 5, 3, 3, 0},
	{"echo-request", 8, 0, 0xff, 0}, {"ping", 8, 0, 0xff, 0},
	{"router-advertisement", 9, 0, 0xff, 0}, {"router-solicitation", 10, 0, 0xff, 0},
	{"time-exceeded", 11, 0, 0xff, 0}, {"ttl-exceeded", 11, 0, 0xff, 0},
	{"ttl-zero-during-transit", 11, 0, 0, 0}, {"ttl-zero-during-reassembly", 11, 1, 1, 0},
	{"parameter-problem", 12, 0, 0xff, 0}, {"ip-header-bad", 12, 0, 0, 0},
	{"required-option-missing", 12, 1, 1, 0},
	{"timestamp-request", 13, 0, 0xff, 0}, {"timestamp-reply", 14, 0, 0xff, 0},
	{"address-mask-request", 17, 0, 0xff, 0}, {"address-mask-reply", 18, 0, 0xff, 0},
}

// icmp6Names are the names of libip6t_icmp6.
var icmp6Names = []icmpName{
	{"destination-unreachable", 1, 0, 0xff, 0}, {"no-route", 1, 0, 0, 0},
	{"communication-prohibited", 1, 1, 1, 0}, {"beyond-scope", 1, 2, 2, 0},
	{"address-unreachable", 1, 3, 3, 0}, {"port-unreachable", 1, 4, 4, 0},
	{"failed-policy", 1, 5, 5, 0}, {"reject-route", 1, 6, 6, 0},
	{"packet-too-big", 2, 0, 0xff, 0},
	{"time-exceeded", 3, 0, 0xff, 0}, {"ttl-exceeded", 3, 0, 0xff, 0},
	{"ttl-zero-during-transit", 3, 0, 0, 0}, {"ttl-zero-during-reassembly", 3, 1, 1, 0},
	{"parameter-problem", 4, 0, 0xff, 0}, {"bad-header", 4, 0, 0, 0},
	{"unknown-header-type", 4, 1, 1, 0}, {"unknown-option", 4, 2, 2, 0},
	{"echo-request", 128, 0, 0xff, 0}, {"ping", 128, 0, 0xff, 0},
	{"echo-reply", 129, 0, 0xff, 0}, {"pong", 129, 0, 0xff, 0},
	{"mld-listener-query", 130, 0, 0xff, xtables.V1811}, {"mld-listener-report", 131, 0, 0xff, xtables.V1811},
	{"mld-listener-done", 132, 0, 0xff, xtables.V1811}, {"mld-listener-reduction", 132, 0, 0xff, xtables.V1811},
	{"router-solicitation", 133, 0, 0xff, 0}, {"router-advertisement", 134, 0, 0xff, 0},
	{"neighbour-solicitation", 135, 0, 0xff, 0}, {"neighbor-solicitation", 135, 0, 0xff, 0},
	{"neighbour-advertisement", 136, 0, 0xff, 0}, {"neighbor-advertisement", 136, 0, 0xff, 0},
	{"redirect", 137, 0, 0xff, 0},
}
