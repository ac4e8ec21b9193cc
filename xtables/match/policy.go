package match

import (
	"fmt"
	"strconv"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// policy matches packets by the IPsec transformations that were or will be applied.
// A host on whose packets' way IPsec stands is not run, so every packet has none.
//
// Kernel: net/netfilter/xt_policy.c, policy_mt.
type policy struct {
	Dir, Pol xtables.Enum
	Strict   bool
	elems    []policyElem
}

// policyElem is one transformation, all of whose tests may be left out.
type policyElem struct {
	reqid, spi, proto, mode xtables.Bits // unused Words: numbers in N
	src, dst                xtables.Host
	not                     [6]bool
}

// policyMost is XT_POLICY_MAX_ELEM.
const policyMost = 4

var (
	policyDirs  = []string{"in", "out"}
	policyKinds = []string{"none", "ipsec"}
	policyModes = []string{"transport", "tunnel"}
)

func newPolicy() xtables.Match {
	return &policy{Dir: xtables.Enum{Words: policyDirs},
		Pol: xtables.Enum{Words: policyKinds, N: 1}, elems: make([]policyElem, 1)}
}

// Options implements xtables.Match.
func (m *policy) Options(s *xtables.Spec) {
	s.Var("dir", &m.Dir).Required()
	s.Var("pol", &m.Pol).Always()
	s.Flag("strict", &m.Strict)
	s.Var("reqid", &policyOption{m, policyReqid}).Not(new(bool)).Multi().PrintAs(m.print)
	for what, name := range policyNames {
		if what != policyReqid {
			s.Var(name, &policyOption{m, what}).Not(new(bool)).Multi().Hidden()
		}
	}
	s.Var("next", &policyNext{m}).TakesNothing().Multi().Needs("strict").Hidden()
	s.Check(m.check)
}

func (m *policy) check(c *xtables.Context) error {
	if m.Pol.N == 0 {
		if m.Strict {
			return fmt.Errorf("--strict needs --pol ipsec")
		}
		m.elems = m.elems[:1]
		m.elems[0] = policyElem{}
		return nil
	}
	for i := range m.elems {
		e := &m.elems[i]
		transport := !e.mode.Given || (e.mode.N == 0) != e.not[policyMode]
		switch {
		case m.Strict && e.empty():
			return fmt.Errorf("with --strict each element needs at least one test")
		case (e.src.Given || e.dst.Given) && transport:
			return fmt.Errorf("--tunnel-src and --tunnel-dst need --mode tunnel")
		}
	}
	return nil
}

func (e *policyElem) empty() bool {
	return !e.reqid.Given && !e.spi.Given && !e.proto.Given && !e.mode.Given && !e.src.Given &&
		!e.dst.Given
}

// Validate implements xtables.Validator.
func (m *policy) Validate(b *xtables.Build) error {
	switch {
	case !legacy(b):
	case m.Dir.N == 1 && b.Hooks&(atPrerouting|atInput) != 0:
		return fmt.Errorf("--dir out can't be reached from PREROUTING and INPUT")
	case m.Dir.N == 0 && b.Hooks&(atPostrouting|atOutput) != 0:
		return fmt.Errorf("--dir in can't be reached from POSTROUTING and OUTPUT")
	}
	return nil
}

// Pred implements xtables.Match.
func (m *policy) Pred(*xtables.Build) field.Pred { return always(m.Pol.N == 0) }

// The tests of an element in the order of printing.
const (
	policyReqid = iota
	policySPI
	policyProto
	policyMode
	policyDst
	policySrc
)

var policyNames = [...]string{"reqid", "spi", "proto", "mode", "tunnel-dst", "tunnel-src"}

// policyOption is an option of the last element.
type policyOption struct {
	m    *policy
	what int
}

// Parse implements xtables.Value.
func (v *policyOption) Parse(a *xtables.Args) (err error) {
	e := &v.m.elems[len(v.m.elems)-1]
	e.not[v.what] = a.Not
	var n *xtables.Bits
	var num uint64
	switch v.what {
	case policyDst:
		return parseOnce(&e.dst, a)
	case policySrc:
		return parseOnce(&e.src, a)
	case policyReqid:
		n = &e.reqid
		num, err = xtables.ParseUint(a.Word, 1<<32-1)
	case policySPI:
		n = &e.spi
		num, err = xtables.ParseUint(a.Word, 1<<32-1)
	case policyProto:
		n = &e.proto
		num, err = policyProtocol(a.Word)
	default:
		n = &e.mode
		num, err = policyModeOf(a.Word)
	}
	if err == nil && n.Given {
		err = fmt.Errorf("the option is given twice: --next is missing")
	}
	n.N, n.Given = num, true
	return err
}

func parseOnce(h *xtables.Host, a *xtables.Args) error {
	if h.Given {
		return fmt.Errorf("the option is given twice: --next is missing")
	}
	return h.Parse(a)
}

func policyProtocol(s string) (uint64, error) {
	n, err := xtables.ParseProto(lower(s))
	const esp, ah, ipcomp = 50, 51, 108
	if err == nil && n != esp && n != ah && n != ipcomp {
		err = fmt.Errorf("protocol %q is none of esp, ah, ipcomp", s)
	}
	return uint64(n), err
}

func policyModeOf(s string) (uint64, error) {
	for i, w := range policyModes {
		if w == s {
			return uint64(i), nil
		}
	}
	return 0, fmt.Errorf("%q is none of transport, tunnel", s)
}

// Append implements xtables.Value.
func (v *policyOption) Append(b []byte, _ trace.Family) []byte { return b }

// Unset implements xtables.Value.
func (v *policyOption) Unset() bool { return true }

// policyNext is --next, which begins another element.
type policyNext struct{ m *policy }

// Parse implements xtables.Value.
func (v *policyNext) Parse(*xtables.Args) error {
	if len(v.m.elems) == policyMost {
		return fmt.Errorf("more than %d elements", policyMost)
	}
	v.m.elems = append(v.m.elems, policyElem{})
	return nil
}

// Append implements xtables.Value.
func (v *policyNext) Append(b []byte, _ trace.Family) []byte { return b }

// Unset implements xtables.Value.
func (v *policyNext) Unset() bool { return true }

// print prints all elements.
func (m *policy) print(b []byte) []byte {
	for i := range m.elems {
		if i > 0 {
			b = append(b, " --next"...)
		}
		b = m.elems[i].append(b)
	}
	return b
}

func (e *policyElem) append(b []byte) []byte {
	given := [...]bool{e.reqid.Given, e.spi.Given, e.proto.Given, e.mode.Given, e.dst.Given,
		e.src.Given}
	for what, name := range policyNames {
		if !given[what] {
			continue
		}
		if e.not[what] {
			b = append(b, " !"...)
		}
		b = append(append(append(b, " --"...), name...), ' ')
		b = e.appendTest(b, what)
	}
	return b
}

func (e *policyElem) appendTest(b []byte, what int) []byte {
	switch what {
	case policyReqid:
		return strconv.AppendUint(b, e.reqid.N, 10)
	case policySPI:
		return xtables.AppendHex(b, e.spi.N)
	case policyProto:
		return append(b, xtables.ProtoName(uint8(e.proto.N))...)
	case policyMode:
		return append(b, policyModes[e.mode.N]...)
	case policyDst:
		return appendHost(b, &e.dst)
	}
	return appendHost(b, &e.src)
}

func appendHost(b []byte, h *xtables.Host) []byte {
	if h.Addr.Is4() {
		return h.Append(b, trace.IPv4)
	}
	return h.Append(b, trace.IPv6)
}
