package match

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// tcp matches ports, flags and options of TCP. Later fragments never match; a cut
// header, or a fragment that would overwrite the flags, drops the packet, unless
// nftables looks for ports and flags itself.
//
// Kernel: net/netfilter/xt_tcpudp.c, tcp_mt.
type tcp struct {
	ports
	Flags            tcpFlags
	Option           uint8
	NotFlags, NotOpt bool
}

func newTCP() xtables.Match {
	s := xtables.PortSpan(packet.TCP)
	s.Hide, s.Strict = true, true
	return &tcp{ports: ports{Src: s, Dst: s}}
}

// Options implements xtables.Match.
func (m *tcp) Options(s *xtables.Spec) {
	m.ports.Options(s)
	s.Var("tcp-option", &tcpOption{&m.Option}).Not(&m.NotOpt)
	s.Var("tcp-flags", &m.Flags).Not(&m.NotFlags)
	s.Var("syn", &tcpSyn{&m.Flags}).Not(&m.NotFlags).TakesNothing().Hidden()
	s.OneOf("tcp-flags", "syn")
}

// Gone implements xtables.Vanisher.
func (m *tcp) Gone(c *xtables.Context) bool {
	return m.gone(c) && m.Option == 0 && m.Flags.Unset()
}

// Pred implements xtables.Match.
func (m *tcp) Pred(b *xtables.Build) field.Pred {
	if b.Backend == xtables.NFT && m.Option == 0 && !(m.empty() && m.Flags.Unset()) {
		return field.And(soft(m.Flags.test(m.NotFlags)), m.native(b))
	}
	return field.And(m.test(), m.Flags.test(m.NotFlags), m.option())
}

func (m *tcp) option() field.Pred {
	if m.Option == 0 {
		return field.Pred{}
	}
	return derived(func(e *xtables.Env) field.Result {
		return tcpHasOption(e.Packet.L4(), m.Option, m.NotOpt)
	}, field.L4, field.Bytes)
}

// tcpOptions returns the options of a TCP header: false drops the packet.
func tcpOptions(h []byte) ([]byte, bool) {
	const fixed = 20
	if len(h) < fixed {
		return nil, false
	}
	n := int(h[12]>>4) * 4
	if n < fixed || len(h) < n {
		return nil, false
	}
	return h[fixed:n], true
}

// nextOption is the length of the option at the start of opts.
func nextOption(opts []byte) int {
	if opts[0] < 2 || len(opts) == 1 || opts[1] == 0 {
		return 1
	}
	return min(int(opts[1]), len(opts))
}

// tcpHasOption looks for an option's number.
//
// Kernel: net/netfilter/xt_tcpudp.c, tcp_find_option.
func tcpHasOption(h []byte, option uint8, not bool) field.Result {
	opts, ok := tcpOptions(h)
	if !ok {
		return field.Drop
	}
	for ; len(opts) > 0; opts = opts[nextOption(opts):] {
		if opts[0] == option {
			return result(!not)
		}
	}
	return result(not)
}

// tcpOption is the number of a TCP option, 1 to 255.
type tcpOption struct{ n *uint8 }

// Parse implements xtables.Value.
func (v *tcpOption) Parse(a *xtables.Args) error {
	n, err := xtables.ParseUint(a.Word, 255)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not the number of a TCP option (1-255)", a.Word)
	}
	*v.n = uint8(n)
	return nil
}

// Append implements xtables.Value.
func (v *tcpOption) Append(b []byte, _ trace.Family) []byte {
	return strconv.AppendUint(b, uint64(*v.n), 10)
}

// Unset implements xtables.Value.
func (v *tcpOption) Unset() bool { return *v.n == 0 }

// tcpFlagNames are the flags in the order of their bits, which is that of printing.
var tcpFlagNames = [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG"}

// tcpFlags is a mask of flags and which of them must be set.
type tcpFlags struct {
	mask, want uint8
	given      bool
}

func parseTCPFlags(s string) (n uint8, err error) {
	for _, w := range strings.Split(s, ",") {
		switch {
		case w == "", strings.EqualFold(w, "NONE"):
			continue
		case strings.EqualFold(w, "ALL"):
			n |= 0x3f
			continue
		}
		bit, ok := tcpFlag(w)
		if !ok {
			return 0, fmt.Errorf("%q is none of FIN, SYN, RST, PSH, ACK, URG, ALL, NONE", w)
		}
		n |= bit
	}
	return n, nil
}

func tcpFlag(word string) (uint8, bool) {
	for i, name := range tcpFlagNames {
		if strings.EqualFold(name, word) {
			return 1 << i, true
		}
	}
	return 0, false
}

// Parse implements xtables.Value.
func (v *tcpFlags) Parse(a *xtables.Args) (err error) {
	want, ok := a.Next()
	if !ok {
		return fmt.Errorf("the option needs two arguments: MASK FLAGS")
	}
	if v.mask, err = parseTCPFlags(a.Word); err != nil {
		return err
	}
	v.given = true
	v.want, err = parseTCPFlags(want)
	return err
}

// Append implements xtables.Value.
func (v *tcpFlags) Append(b []byte, _ trace.Family) []byte {
	return appendTCPFlags(append(appendTCPFlags(b, v.mask), ' '), v.want)
}

func appendTCPFlags(b []byte, n uint8) []byte {
	if n == 0 {
		return append(b, "NONE"...)
	}
	first := true
	for i, name := range tcpFlagNames {
		if n>>i&1 == 0 {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, name...)
	}
	return b
}

// Unset implements xtables.Value.
func (v *tcpFlags) Unset() bool { return !v.given || v.mask == 0 && v.want == 0 }

func (v *tcpFlags) test(not bool) field.Pred {
	switch {
	case !v.given:
		return field.Pred{}
	case v.want&^v.mask != 0:
		return field.And(field.Has(field.TCPFlags), always(not))
	}
	return field.NotIf(not, under(field.TCPFlags, uint64(v.want), uint64(v.mask)))
}

// tcpSyn is --syn, another word for --tcp-flags FIN,SYN,RST,ACK SYN.
type tcpSyn struct{ flags *tcpFlags }

// Parse implements xtables.Value.
func (v *tcpSyn) Parse(*xtables.Args) error {
	*v.flags = tcpFlags{mask: 0x17, want: 0x02, given: true}
	return nil
}

// Append implements xtables.Value.
func (v *tcpSyn) Append(b []byte, _ trace.Family) []byte { return b }

// Unset implements xtables.Value.
func (v *tcpSyn) Unset() bool { return true }
