package target

import (
	"encoding/binary"
	"fmt"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// ecn sets the bits of congestion notification: ECE and CWR of TCP, and those of the
// IP header.
//
// Kernel: net/ipv4/netfilter/ipt_ECN.c, ecn_tg.
type ecn struct{ ECE, CWR, IP xtables.Number }

func newECN() xtables.Target {
	bit := xtables.Number{Max: 1}
	return &ecn{ECE: bit, CWR: bit, IP: xtables.Number{Max: ecnBits}}
}

// Options implements xtables.Target.
func (t *ecn) Options(s *xtables.Spec) {
	s.Var("ecn-tcp-remove", &removal{t}).TakesNothing()
	s.Var("ecn-tcp-ece", &t.ECE).PrintAs(t.print("ecn-tcp-ece", &t.ECE))
	s.Var("ecn-tcp-cwr", &t.CWR).PrintAs(t.print("ecn-tcp-cwr", &t.CWR))
	s.Var("ecn-ip-ect", &t.IP).PrintAs(t.print("ecn-ip-ect", &t.IP))
	s.OneOf("ecn-tcp-remove", "ecn-tcp-ece")
	s.OneOf("ecn-tcp-remove", "ecn-tcp-cwr")
	s.Check(t.check)
}

// removal is the flag that stands for both of TCP's bits being cleared. It is
// printed where nothing else is done.
//
// iptables: extensions/libipt_ECN.c, ECN_save.
type removal struct{ t *ecn }

// Parse implements xtables.Value.
func (v removal) Parse(*xtables.Args) error {
	v.t.ECE.Given, v.t.CWR.Given = true, true
	return nil
}

// Append implements xtables.Value.
func (v removal) Append(b []byte, _ trace.Family) []byte { return b }

// Unset implements xtables.Value.
func (v removal) Unset() bool { return !v.t.removes() }

func (t *ecn) removes() bool {
	return t.ECE.Given && t.CWR.Given && t.ECE.N+t.CWR.N == 0 && !t.IP.Given
}

func (t *ecn) print(name string, v *xtables.Number) func([]byte) []byte {
	return func(b []byte) []byte {
		if t.removes() || !v.Given {
			return b
		}
		return fmt.Appendf(b, " --%s %d", name, v.N)
	}
}

func (t *ecn) check(c *xtables.Context) error {
	if !t.ECE.Given && !t.CWR.Given && !t.IP.Given {
		return fmt.Errorf("an operation is needed: --ecn-tcp-remove")
	}
	if t.tcpBits() != 0 && c.Proto() != packet.TCP {
		return fmt.Errorf("TCP operations need -p tcp")
	}
	return nil
}

const ece, cwr = 0x40, 0x80

// tcpBits are the bits of TCP's flags that are set or cleared.
func (t *ecn) tcpBits() (bits uint8) {
	if t.ECE.Given {
		bits |= ece
	}
	if t.CWR.Given {
		bits |= cwr
	}
	return bits
}

func (t *ecn) tcpValue() uint8 { return uint8(t.ECE.N)*ece | uint8(t.CWR.N)*cwr }

// Effects implements xtables.Target.
func (t *ecn) Effects() (out []field.Effect) {
	if t.IP.Given {
		out = append(out, field.Effect{Op: field.Mix, ID: field.TOS, Val: field.U(t.IP.N),
			Mask: field.U(ecnBits)})
	}
	if m := t.tcpBits(); m != 0 {
		out = append(out, field.Effect{Op: field.Mix, ID: field.TCPFlags,
			Val: field.U(uint64(t.tcpValue())), Mask: field.U(uint64(m))})
	}
	return out
}

// Do implements xtables.Target.
func (t *ecn) Do(e *xtables.Env) trace.Verdict {
	p := e.Packet
	if t.IP.Given {
		e.Deps().Note(field.TOS, field.U(0xff&^ecnBits))
		t.markIP(p)
	}
	mask := t.tcpBits()
	if mask == 0 || p.Protocol() != packet.TCP {
		return trace.Continue
	}
	e.Deps().Note(field.TCPFlags, field.U(uint64(^mask)))
	// The kernel looks for a header in later fragments too.
	l4 := p.L4()
	if len(l4) < tcpHeader {
		return trace.DropIt
	}
	if flags := l4[13]&^mask | t.tcpValue(); flags != l4[13] {
		p.Pull(p.Len() - len(l4) + tcpHeader)
		writeTCP(p, 13, flags)
	}
	return trace.Continue
}

// markIP writes the two bits. The kernel mends the checksum for the octet alone as
// if it were the word, which comes to the same.
func (t *ecn) markIP(p *packet.Packet) {
	if tos := p.TOS()&^ecnBits | uint8(t.IP.N); tos != p.TOS() {
		p.SetTOS(tos)
	}
}

const tcpHeader = 20

// writeTCP changes one octet of the TCP header and mends the checksum.
//
// Kernel: net/core/utils.c, inet_proto_csum_replace2.
func writeTCP(p *packet.Packet, at int, v uint8) {
	l4 := p.L4()
	word := at &^ 1
	old := [2]byte{l4[word], l4[word+1]}
	l4[at] = v
	packet.Replace(l4[16:18], old[:], l4[word:word+2])
}

func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
