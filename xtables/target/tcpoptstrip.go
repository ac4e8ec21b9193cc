package target

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// tcpoptstrip overwrites TCP options with no-operations.
//
// Kernel: net/netfilter/xt_TCPOPTSTRIP.c, tcpoptstrip_mangle_packet.
type tcpoptstrip struct{ Strip optionSet }

func newTCPOPTSTRIP() xtables.Target { return &tcpoptstrip{} }

// Options implements xtables.Target.
func (t *tcpoptstrip) Options(s *xtables.Spec) { s.Var("strip-options", &t.Strip) }

// Effects implements xtables.Target.
func (t *tcpoptstrip) Effects() []field.Effect {
	if !t.Strip.has(optMSS) {
		return nil
	}
	return []field.Effect{{Op: field.Forget, ID: field.TCPMSS}}
}

const optMSS, optNop = 2, 1

// Do implements xtables.Target.
func (t *tcpoptstrip) Do(e *xtables.Env) trace.Verdict {
	p := e.Packet
	l4 := p.L4()
	if p.FragOff() != 0 {
		return trace.Continue
	}
	if len(l4) < tcpHeader {
		return trace.DropIt
	}
	n := int(l4[12]>>4) * 4
	if n < tcpHeader || n > len(l4) {
		return trace.DropIt
	}
	p.Pull(p.Len() - len(l4) + n)
	for i := tcpHeader; i < n-1; {
		size := optionLen(l4, i)
		if i+size > n {
			break
		}
		if t.Strip.has(l4[i]) {
			for j := i; j < i+size; j++ {
				writeTCP(p, j, optNop)
			}
		}
		i += size
	}
	return trace.Continue
}

// optionLen is the length of the TCP option at i.
//
// Kernel: optlen of xt_TCPOPTSTRIP.c and xt_TCPMSS.c.
func optionLen(l4 []byte, i int) int {
	if l4[i] <= optNop || l4[i+1] == 0 {
		return 1
	}
	return int(l4[i+1])
}

// optionSet is a list of TCP options by number or name.
type optionSet struct {
	bits  [4]uint64
	given bool
}

func (s *optionSet) has(n uint8) bool { return s.bits[n/64]>>(n%64)&1 != 0 }

var optionNames = map[string]uint64{"wscale": 3, "mss": optMSS, "sack-permitted": 4, "sack": 5,
	"timestamp": 8, "md5": 19}

// Parse implements xtables.Value.
func (s *optionSet) Parse(a *xtables.Args) error {
	for _, w := range strings.Split(a.Word, ",") {
		n, ok := optionNames[w]
		if !ok {
			var err error
			if n, err = xtables.ParseUint(w, 255); err != nil || n <= optNop {
				return fmt.Errorf("%q: %q is not a TCP option (2-255)", a.Word, w)
			}
		}
		s.bits[n/64] |= 1 << (n % 64)
	}
	s.given = true
	return nil
}

// Append implements xtables.Value.
func (s *optionSet) Append(b []byte, _ trace.Family) []byte {
	first := true
	for n := range 256 {
		if !s.has(uint8(n)) {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = strconv.AppendInt(b, int64(n), 10)
	}
	return b
}

// Unset implements xtables.Value.
func (s *optionSet) Unset() bool { return !s.given }
