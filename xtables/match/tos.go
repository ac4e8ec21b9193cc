package match

import (
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// tos matches the type of service octet under a mask.
//
// Kernel: net/netfilter/xt_dscp.c, tos_mt, revision 1.
type tos struct {
	TOS tosMask
	Not bool
}

func newTOS() xtables.Match { return &tos{} }

// Options implements xtables.Match.
func (m *tos) Options(s *xtables.Spec) { s.Var("tos", &m.TOS).Not(&m.Not).Required() }

// Pred implements xtables.Match.
func (m *tos) Pred(*xtables.Build) field.Pred {
	if m.TOS.value&^m.TOS.mask != 0 {
		return always(m.Not)
	}
	return field.NotIf(m.Not, under(field.TOS, uint64(m.TOS.value), uint64(m.TOS.mask)))
}

// tosMask is value[/mask] of an octet; names come with a mask of their own.
type tosMask struct{ value, mask uint8 }

var tosNames = [...]struct {
	name  string
	value uint8
}{
	{"Minimize-Delay", 0x10}, {"Maximize-Throughput", 0x08}, {"Maximize-Reliability", 0x04},
	{"Minimize-Cost", 0x02}, {"Normal-Service", 0x00},
}

// Parse implements xtables.Value.
//
// iptables: libxtables/xtoptions.c, xtopt_parse_tosmask.
func (v *tosMask) Parse(a *xtables.Args) error {
	for _, n := range tosNames {
		if strings.EqualFold(n.name, a.Word) {
			*v = tosMask{n.value, 0x3f}
			return nil
		}
	}
	value, mask, has := strings.Cut(a.Word, "/")
	n, err := xtables.ParseUint(value, 255)
	if err != nil {
		return fmt.Errorf("%q is not value[/mask] or the name of a type of service", a.Word)
	}
	*v = tosMask{uint8(n), 0xff}
	if has {
		n, err = xtables.ParseUint(mask, 255)
		v.mask = uint8(n)
	}
	return err
}

// Append implements xtables.Value.
func (v *tosMask) Append(b []byte, _ trace.Family) []byte {
	return fmt.Appendf(b, "0x%02x/0x%02x", v.value, v.mask)
}

// Unset implements xtables.Value.
func (v *tosMask) Unset() bool { return false }

// dscp matches the DSCP, the upper six bits of the octet.
//
// Kernel: net/netfilter/xt_dscp.c, dscp_mt.
type dscp struct {
	DSCP number
	Not  bool
}

func newDSCP() xtables.Match { return &dscp{DSCP: number{Max: 0x3f, hex: 2}} }

// Options implements xtables.Match.
func (m *dscp) Options(s *xtables.Spec) {
	s.Var("dscp", &m.DSCP).Not(&m.Not)
	s.Var("dscp-class", &dscpClass{&m.DSCP}).Not(&m.Not).Hidden()
	s.ExactlyOne("dscp", "dscp-class")
}

// Pred implements xtables.Match.
func (m *dscp) Pred(*xtables.Build) field.Pred {
	return field.NotIf(m.Not, under(field.TOS, m.DSCP.n<<2, 0xfc))
}

// dscpClass is the name of a DSCP.
type dscpClass struct{ *number }

var dscpClasses = [...]struct {
	name string
	n    uint64
}{
	{"CS0", 0x00}, {"CS1", 0x08}, {"CS2", 0x10}, {"CS3", 0x18}, {"CS4", 0x20}, {"CS5", 0x28},
	{"CS6", 0x30}, {"CS7", 0x38}, {"BE", 0x00}, {"AF11", 0x0a}, {"AF12", 0x0c}, {"AF13", 0x0e},
	{"AF21", 0x12}, {"AF22", 0x14}, {"AF23", 0x16}, {"AF31", 0x1a}, {"AF32", 0x1c},
	{"AF33", 0x1e},
	{"AF41", 0x22}, {"AF42", 0x24}, {"AF43", 0x26}, {"EF", 0x2e},
}

// Parse implements xtables.Value.
func (v dscpClass) Parse(a *xtables.Args) error {
	for _, c := range dscpClasses {
		if strings.EqualFold(c.name, a.Word) {
			v.n, v.given = c.n, true
			return nil
		}
	}
	return fmt.Errorf("%q is not the name of a DSCP class", a.Word)
}

// ecn matches the congestion bits of the IP header and of TCP.
//
// Kernel: net/netfilter/xt_ecn.c, ecn_mt4.
type ecn struct {
	CWR, ECE       bool
	NotCWR, NotECE bool
	ECT            number
	NotECT         bool
}

func newECN() xtables.Match { return &ecn{ECT: number{Max: 3}} }

// Options implements xtables.Match.
func (m *ecn) Options(s *xtables.Spec) {
	s.Flag("ecn-tcp-ece", &m.ECE).Not(&m.NotECE)
	s.Flag("ecn-tcp-cwr", &m.CWR).Not(&m.NotCWR)
	s.Var("ecn-ip-ect", &m.ECT).Not(&m.NotECT)
	s.Check(func(c *xtables.Context) error {
		switch {
		case !m.ECE && !m.CWR && !m.ECT.given:
			return fmt.Errorf("at least one option is needed")
		case (m.ECE || m.CWR) && c.Proto() != packet.TCP:
			return fmt.Errorf("--ecn-tcp-cwr and --ecn-tcp-ece need -p tcp")
		}
		return nil
	})
}

// Pred implements xtables.Match.
func (m *ecn) Pred(*xtables.Build) field.Pred {
	var ip field.Pred
	if m.ECT.given {
		ip = field.NotIf(m.NotECT, under(field.TOS, m.ECT.n, 3))
	}
	if !m.ECE && !m.CWR {
		return ip
	}
	// The kernel looks at the octet even in a later fragment, and a header that is
	// cut does not drop the packet.
	return field.And(ip, xtables.Derived(func(e *xtables.Env) bool {
		h := e.Packet.L4()
		const flags, ece, cwr = 13, 0x40, 0x80
		return len(h) >= 20 && (!m.ECE || (h[flags]&ece != 0) != m.NotECE) &&
			(!m.CWR || (h[flags]&cwr != 0) != m.NotCWR)
	}, field.TCPFlags))
}

// tcpmss matches the maximum segment size option of TCP. Without the option, only
// the negation matches; a header that is cut drops the packet.
//
// Kernel: net/netfilter/xt_tcpmss.c, tcpmss_mt.
type tcpmss struct {
	MSS xtables.Span
	Not bool
}

func newTCPMSS() xtables.Match { return &tcpmss{MSS: xtables.Span{Max: 65535, Strict: true}} }

// Options implements xtables.Match.
func (m *tcpmss) Options(s *xtables.Spec) { s.Var("mss", &m.MSS).Not(&m.Not).Required() }

// Pred implements xtables.Match.
func (m *tcpmss) Pred(*xtables.Build) field.Pred {
	return derived(func(e *xtables.Env) field.Result {
		opts, ok := tcpOptions(e.Packet.L4())
		if !ok {
			return field.Drop
		}
		for ; len(opts) > 0; opts = opts[nextOption(opts):] {
			if opts[0] == 2 && len(opts) >= 4 && opts[1] == 4 {
				mss := uint64(opts[2])<<8 | uint64(opts[3])
				return result((mss >= m.MSS.Lo && mss <= m.MSS.Hi) != m.Not)
			}
		}
		return result(m.Not)
	}, field.L4, field.TCPMSS)
}
