package report

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/packet/icmp"
	"github.com/hookpath/hookpath/trace"
)

// KTrace tells the walk as the lines that the kernel's TRACE target logs. Branches
// follow one another, with an empty line between them.
//
// Kernel: net/ipv4/netfilter/ip_tables.c, trace_packet; net/netfilter/nf_log_syslog.c.
func (a *Answer) KTrace() []byte {
	var out bytes.Buffer
	for i := range a.Branches {
		if i > 0 {
			out.WriteByte('\n')
		}
		k := ktracer{out: &out, frames: map[int]*packet.Packet{}, snaps: map[int]*trace.Snap{}}
		for j := range a.Branches[i].Steps {
			k.step(&a.Branches[i].Steps[j])
		}
	}
	return out.Bytes()
}

type ktracer struct {
	out    *bytes.Buffer
	frames map[int]*packet.Packet
	snaps  map[int]*trace.Snap
	in     packet.Dev
	outDev packet.Dev
}

func (k *ktracer) step(s *Step) {
	n := names{s.Host}
	skb := s.Event.Base().SKB
	switch e := s.Event.(type) {
	case *trace.Receive:
		k.frame(skb, e.Frame, true)
	case *trace.LocalOut:
		k.frame(skb, e.Frame, false)
	case *trace.HookRun:
		k.in, k.outDev = e.In, e.Out
	case *trace.Rule:
		k.line(n, n.ruleKind(e), e.Ref, skb)
	case *trace.ChainEnd:
		kind := "return"
		if e.Policy {
			kind = "policy"
		}
		k.line(n, kind, e.Ref, skb)
	}
	if p := s.Event.Base().Packet; p != nil {
		k.snaps[skb] = p
	}
}

// ruleKind is TRACE's word for a rule that matched. To it a verdict that asks for nothing
// is the end of its chain: it tells the two apart by what stands in the rule alone.
//
// Kernel: net/ipv4/netfilter/ip_tables.c, get_chainname_rulenum.
func (n names) ruleKind(e *trace.Rule) string {
	p := n.h.Program(e.Ref.Table)
	r := p.RuleAt(e.Ref)
	switch {
	case r == nil || !standard(r.Jump) || p.Text(e.Ref) != "-j "+r.Jump:
		return "rule"
	case p.Source.Chains[e.Ref.Chain].Builtin:
		return "policy"
	}
	return "return"
}

// standard tells whether a target is a verdict of the standard target, and no jump.
func standard(target string) bool {
	return target == "ACCEPT" || target == "DROP" || target == "RETURN"
}

func (k *ktracer) frame(skb int, b []byte, link bool) {
	if p, ok := parse(b, link); ok {
		k.frames[skb] = p
	}
}

func (k *ktracer) line(n names, kind string, r trace.RuleRef, skb int) {
	fmt.Fprintf(k.out, "TRACE: %s:%s:%s:%d IN=%s OUT=%s ", n.table(r), n.chain(r), kind, n.number(r),
		n.dev(k.in), n.dev(k.outDev))
	if p := k.frames[skb]; p != nil {
		k.out.WriteString(k.packet(p, skb))
	}
	k.out.WriteByte('\n')
}

// packet is what the log says of the packet's bytes, with what changed since.
func (k *ktracer) packet(p *packet.Packet, skb int) string {
	var b strings.Builder
	if dst, ok := p.LinkDst(); ok && k.in != 0 {
		src, _ := p.LinkSrc()
		fmt.Fprintf(&b, "MAC=%s:%s:%02x:%02x ", dst, src, p.EtherType()>>8, p.EtherType()&0xff)
	}
	s := k.snaps[skb]
	if s == nil {
		s = trace.SnapOf(p)
	}
	b.WriteString(ipLog(p, s))
	if s.Mark != 0 {
		fmt.Fprintf(&b, "MARK=0x%x ", s.Mark)
	}
	return b.String()
}

// ipLog is what the log says of an IPv4 packet whose fields are now those of s.
//
// Kernel: net/netfilter/nf_log_syslog.c, dump_ipv4_packet.
func ipLog(p *packet.Packet, s *trace.Snap) string {
	if !p.Is4() {
		return ""
	}
	var b strings.Builder
	ip := p.IP()
	fmt.Fprintf(&b, "SRC=%s DST=%s LEN=%d TOS=0x%02X PREC=0x%02X TTL=%d ID=%d ", s.Src, s.Dst,
		binary.BigEndian.Uint16(ip[2:]), p.TOS()&0x1e, p.TOS()&0xe0, s.TTL,
		binary.BigEndian.Uint16(ip[4:]))
	for i, word := range []string{"CE ", "DF ", "MF "} {
		if ip[6]<<i&0x80 != 0 {
			b.WriteString(word)
		}
	}
	if off := p.FragOff(); off != 0 {
		fmt.Fprintf(&b, "FRAG:%d ", off/8)
	}
	b.WriteString(transportLog(p, s))
	return b.String()
}

// icmpLog is what the log says of an ICMP header behind its type and code.
func icmpLog(l4 []byte) string {
	const header, fragNeeded = 8, 4
	if len(l4) < header {
		return ""
	}
	text := ""
	switch t := l4[0]; t {
	case icmp.EchoReplyType, icmp.EchoRequest:
		return fmt.Sprintf("ID=%d SEQ=%d ", binary.BigEndian.Uint16(l4[4:]),
			binary.BigEndian.Uint16(l4[6:]))
	case icmp.ParamProblem:
		return fmt.Sprintf("PARAMETER=%d ", l4[4])
	case icmp.RedirectType:
		text = fmt.Sprintf("GATEWAY=%s ", packet.AddrFrom4(l4[4:]))
	case icmp.DestUnreachable, icmp.SourceQuench, icmp.TimeExceeded:
	default:
		return ""
	}
	if in, ok := parse(l4[header:], false); ok {
		text += "[" + ipLog(in, trace.SnapOf(in)) + "] "
	}
	if l4[0] == icmp.DestUnreachable && l4[1] == fragNeeded {
		text += fmt.Sprintf("MTU=%d ", binary.BigEndian.Uint16(l4[6:]))
	}
	return text
}

func transportLog(p *packet.Packet, s *trace.Snap) string {
	word := strings.ToUpper(protoWord(p.Protocol()))
	if !packet.HasPorts(p.Protocol()) && p.Protocol() != packet.ICMP || word == "" {
		return fmt.Sprintf("PROTO=%d ", p.Protocol())
	}
	text := "PROTO=" + word + " "
	if s.HasPorts {
		text += fmt.Sprintf("SPT=%d DPT=%d ", s.SPort, s.DPort)
	}
	l4 := p.L4()
	switch {
	case p.Protocol() == packet.ICMP && len(l4) >= 2:
		text += fmt.Sprintf("TYPE=%d CODE=%d ", l4[0], l4[1]) + icmpLog(l4)
	case p.Protocol() == packet.TCP && len(l4) >= 20:
		text += fmt.Sprintf("WINDOW=%d RES=0x%02x %s URGP=%d ", binary.BigEndian.Uint16(l4[14:]),
			l4[12]&0xf<<2, kernelFlags(l4[13]), binary.BigEndian.Uint16(l4[18:]))
	case p.Protocol() == packet.UDP && len(l4) >= 8:
		text += fmt.Sprintf("LEN=%d ", binary.BigEndian.Uint16(l4[4:]))
	}
	return text
}

// kernelFlags names TCP's flags in the order of the kernel's log.
func kernelFlags(f uint8) string {
	var out []string
	for _, x := range []struct {
		bit  uint8
		name string
	}{{128, "CWR"}, {64, "ECE"}, {32, "URG"}, {16, "ACK"}, {8, "PSH"}, {4, "RST"}, {2, "SYN"},
		{1, "FIN"}} {
		if f&x.bit != 0 {
			out = append(out, x.name)
		}
	}
	return strings.Join(out, " ")
}
