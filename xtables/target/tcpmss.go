package target

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// tcpmss sets TCP's MSS option, or clamps it to the path's MTU.
//
// Kernel: net/netfilter/xt_TCPMSS.c, tcpmss_mangle_packet.
type tcpmss struct {
	MSS   xtables.Number
	Clamp bool
}

// newTCPMSS sets no more than 65534: the kernel takes 65535 for a clamp.
func newTCPMSS() xtables.Target { return &tcpmss{MSS: xtables.Number{Max: 65534}} }

// Options implements xtables.Target.
func (t *tcpmss) Options(s *xtables.Spec) {
	s.Var("set-mss", &setMSS{t})
	s.Var("clamp-mss-to-pmtu", &clampMSS{t}).TakesNothing()
	s.Check(func(c *xtables.Context) error {
		if !t.Clamp && !t.MSS.Given {
			return fmt.Errorf("one of the options --set-mss, --clamp-mss-to-pmtu is missing")
		}
		if c.Backend == xtables.Legacy && !asksSYN(c) {
			return fmt.Errorf("needs a test for SYN: -m tcp --syn")
		}
		return nil
	})
}

// setMSS and clampMSS are kept in one place: the last one counts.
//
// iptables: extensions/libxt_TCPMSS.c, TCPMSS_parse.
type (
	setMSS   struct{ t *tcpmss }
	clampMSS struct{ t *tcpmss }
)

// Parse implements xtables.Value.
func (v setMSS) Parse(a *xtables.Args) error {
	v.t.Clamp = false
	return v.t.MSS.Parse(a)
}

// Append implements xtables.Value.
func (v setMSS) Append(b []byte, f trace.Family) []byte { return v.t.MSS.Append(b, f) }

// Unset implements xtables.Value.
func (v setMSS) Unset() bool { return v.t.Clamp || v.t.MSS.Unset() }

// Parse implements xtables.Value.
func (v clampMSS) Parse(*xtables.Args) error {
	v.t.Clamp = true
	return nil
}

// Append implements xtables.Value.
func (v clampMSS) Append(b []byte, _ trace.Family) []byte { return b }

// Unset implements xtables.Value.
func (v clampMSS) Unset() bool { return !v.t.Clamp }

// asksSYN tells whether the rule takes only segments with SYN, as the kernel demands
// of legacy rules.
//
// Kernel: net/netfilter/xt_TCPMSS.c, find_syn_match.
func asksSYN(c *xtables.Context) bool {
	for i := range c.Rule.Matches {
		if c.Rule.Matches[i].Ext.Name != "tcp" {
			continue
		}
		one := xtables.Rule{Matches: c.Rule.Matches[i : i+1]}
		text := string(xtables.AppendRule(nil, c.Family, &one))
		before, after, ok := strings.Cut(text, "--tcp-flags ")
		words := strings.Fields(after)
		if ok && len(words) > 1 && strings.Contains(words[1], "SYN") &&
			!strings.HasSuffix(before, "! ") {
			return true
		}
	}
	return false
}

// Validate implements xtables.Validator. Where the packet has no route yet, there is
// no path to clamp to.
//
// Kernel: tcpmss_tg4_check.
func (t *tcpmss) Validate(b *xtables.Build) error {
	if t.Clamp && b.Hooks&(atPrerouting|atInput) != 0 {
		return fmt.Errorf("--clamp-mss-to-pmtu: can't be reached from PREROUTING or INPUT")
	}
	return nil
}

// Effects implements xtables.Target.
func (t *tcpmss) Effects() []field.Effect {
	return []field.Effect{{Op: field.Forget, ID: field.TCPMSS}, {Op: field.Forget, ID: field.Len}}
}

// Do implements xtables.Target.
func (t *tcpmss) Do(e *xtables.Env) trace.Verdict {
	p := e.Packet
	if p.FragOff() != 0 {
		return trace.Continue
	}
	p.Pull(p.Len()) // the kernel makes the whole packet one stretch
	l4 := p.L4()
	if len(l4) < tcpHeader {
		return trace.DropIt
	}
	n := int(l4[12]>>4) * 4
	if n < tcpHeader || n > len(l4) {
		return trace.DropIt
	}
	e.Deps().Note(field.TCPMSS, field.Ones(16))
	e.Deps().Note(field.Len, field.Ones(field.Len.Bits()))
	mss, ok := t.mss(e)
	if !ok {
		return trace.DropIt
	}
	if at := findMSS(l4, n); at > 0 {
		lowerMSS(p, at+2, mss)
		return trace.Continue
	}
	// An option that is missing is added, but not before data, nor to a full header.
	if len(l4) == n && n < 15*4 {
		addMSS(p, min(mss, 536))
	}
	return trace.Continue
}

// mss is the value that the segment may have at most; false where a path has no room
// for one.
func (t *tcpmss) mss(e *xtables.Env) (uint16, bool) {
	const headers, largest = 20 + tcpHeader, 65535
	if !t.Clamp {
		return uint16(t.MSS.N), true
	}
	e.Deps().Note(field.Src, field.Ones(128))
	mtu := min(e.MTU, e.ReverseMTU(e.Packet), largest)
	return uint16(mtu - headers), mtu > headers
}

// findMSS is where the MSS option stands in a header of n bytes, zero without one.
func findMSS(l4 []byte, n int) int {
	for i := tcpHeader; i <= n-4; i += optionLen(l4, i) {
		if l4[i] == optMSS && l4[i+1] == 4 {
			return i
		}
	}
	return 0
}

// lowerMSS writes a smaller value; none is ever raised.
func lowerMSS(p *packet.Packet, at int, mss uint16) {
	l4 := p.L4()
	old := [2]byte{l4[at], l4[at+1]}
	if be16(old[:]) <= mss {
		return
	}
	binary.BigEndian.PutUint16(l4[at:], mss)
	packet.Replace(l4[16:18], old[:], l4[at:at+2])
}

// addMSS puts the option behind the fixed header. The checksum is mended, not
// computed: a wrong one stays wrong.
func addMSS(p *packet.Packet, mss uint16) {
	ip := p.IP()
	n := len(ip) - len(p.L4())
	out := make([]byte, 0, len(ip)+4)
	out = append(out, ip[:n+tcpHeader]...)
	out = append(out, optMSS, 4, byte(mss>>8), byte(mss))
	out = append(out, ip[n+tcpHeader:]...)
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	packet.Replace(out[10:12], ip[2:4], out[2:4])
	l4 := out[n:]
	sum, was := l4[16:18], len(ip)-n
	packet.Replace(sum, []byte{byte(was >> 8), byte(was)},
		[]byte{byte(len(l4) >> 8), byte(len(l4))})
	packet.Replace(sum, []byte{0, 0, 0, 0}, l4[tcpHeader:tcpHeader+4])
	old := [2]byte{l4[12], l4[13]}
	l4[12] += 1 << 4
	packet.Replace(sum, old[:], l4[12:14])
	p.SetIP(out)
}
