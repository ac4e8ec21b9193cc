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

// multiport matches source ports, destination ports or either against a list. Later
// fragments never match; a header without ports drops the packet.
//
// Kernel: net/netfilter/xt_multiport.c, multiport_mt, revision 1.
type multiport struct {
	Src, Dst, Either portList
	NotSrc, NotDst   bool
	NotEither        bool
}

// multiportProtos are the protocols of a rule that may have multiport.
var multiportProtos = []uint8{packet.TCP, packet.UDP, packet.UDPLite, packet.SCTP, packet.DCCP}

func newMultiport() xtables.Match { return &multiport{} }

// Options implements xtables.Match.
func (m *multiport) Options(s *xtables.Spec) {
	s.Var("sports", &m.Src).Not(&m.NotSrc).Alias("source-ports", "source-port")
	s.Var("dports", &m.Dst).Not(&m.NotDst).Alias("destination-ports", "destination-port")
	s.Var("ports", &m.Either).Not(&m.NotEither).Alias("port")
	s.ExactlyOne("sports", "dports", "ports")
}

// Pred implements xtables.Match.
func (m *multiport) Pred(*xtables.Build) field.Pred {
	switch {
	case len(m.Src) > 0:
		return field.NotIf(m.NotSrc, field.Is(field.SrcPort, m.Src.set()))
	case len(m.Dst) > 0:
		return field.NotIf(m.NotDst, field.Is(field.DstPort, m.Dst.set()))
	}
	set := m.Either.set()
	return field.NotIf(m.NotEither,
		field.Or(field.Is(field.DstPort, set), field.Is(field.SrcPort, set)))
}

// portList is a list of ports and ranges, of which the kernel holds fifteen numbers.
type portList []portRange

type portRange struct{ lo, hi uint16 }

const maxMultiPorts = 15

// Parse implements xtables.Value.
func (l *portList) Parse(a *xtables.Args) error {
	slots := 0
	for _, word := range strings.Split(a.Word, ",") {
		r, n, err := parsePortRange(word, a.Proto)
		if err != nil {
			return err
		}
		if slots += n; slots > maxMultiPorts {
			return fmt.Errorf("more than %d ports (a range counts twice)", maxMultiPorts)
		}
		*l = append(*l, r)
	}
	return nil
}

func parsePortRange(word string, proto uint8) (r portRange, slots int, err error) {
	lo, hi, isRange := strings.Cut(word, ":")
	if r.lo, err = xtables.ParsePort(lo, proto); err != nil {
		return r, 0, err
	}
	if !isRange {
		return portRange{r.lo, r.lo}, 1, nil
	}
	if r.hi, err = xtables.ParsePort(hi, proto); err != nil {
		return r, 0, err
	}
	if r.lo >= r.hi {
		return r, 0, fmt.Errorf("%q: the first port is not less than the last", word)
	}
	return r, 2, nil
}

// Append implements xtables.Value.
func (l *portList) Append(b []byte, _ trace.Family) []byte {
	for i, r := range *l {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(r.lo), 10)
		if r.lo != r.hi {
			b = strconv.AppendUint(append(b, ':'), uint64(r.hi), 10)
		}
	}
	return b
}

// Unset implements xtables.Value.
func (l *portList) Unset() bool { return len(*l) == 0 }

func (l *portList) set() field.Set {
	rs := make([]field.Range, 0, len(*l))
	for _, r := range *l {
		rs = append(rs, field.Range{Lo: field.U(uint64(r.lo)), Hi: field.U(uint64(r.hi))})
	}
	return field.Ranges(rs...)
}
