package report

import (
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// verdict is how a branch ended, in the words of the story's first lines.
type verdict struct {
	word, text, place, why string
	good                   int // 1 arrived, 0 neither, -1 did not
}

// verdictOf sums a branch up by the end of the question's packet.
func verdictOf(b *Branch) verdict {
	o := b.Main()
	if o == nil {
		return verdict{word: "NOTHING", text: "The packet did not end: nothing was recorded."}
	}
	n := names{o.Host}
	v := verdict{good: -1}
	switch o.Result {
	case trace.Transmitted:
		v.good, v.word = 1, "FORWARDED"
		if len(b.Steps) > 0 {
			if _, local := b.Steps[0].Event.(*trace.LocalOut); local {
				v.word = "SENT"
			}
		}
		v.text = fmt.Sprintf("The packet leaves %s by %s as %s.", o.Host.Name, n.dev(o.Dev),
			packetText(o.Frame, true, o.Free))
	case trace.Delivered:
		v.good, v.word = 1, "DELIVERED"
		v.text = fmt.Sprintf("The packet reaches %s on %s.", n.receiver(o), o.Host.Name)
	case trace.Dropped:
		v.word, v.text = "DROPPED", "The packet is dropped on "+o.Host.Name+"."
	case trace.Rejected:
		v.word, v.text = "REJECTED", "The packet is refused on "+o.Host.Name+"; the sender is told."
	case trace.Absorbed:
		v.good, v.word, v.text = 0, "HELD", "The packet goes no further on "+o.Host.Name+"."
	}
	switch {
	case o.Result != trace.Transmitted && o.Result != trace.Delivered:
		v.place, v.why = n.place(b, o), n.why(b, o)
	case !b.Arrived():
		v = b.broken(v)
	default:
		return b.doubtful(v)
	}
	for _, c := range b.causes(b.bad().SKB) {
		v.why += "; " + c.text
	}
	return v
}

// doubtful is the verdict where the packet arrives in a way that nobody meant.
func (b *Branch) doubtful(v verdict) verdict {
	c := b.doubt()
	if c == nil {
		return v
	}
	v.word, v.good, v.why, v.place = "DOUBTFUL", 0, c.text, c.place
	if v.place != "" {
		return v
	}
	for i := range b.Steps {
		if t, ok := b.Steps[i].Event.(*trace.NAT); ok && t.Source != nil && i > 0 {
			if r, ok := b.Steps[i-1].Event.(*trace.Rule); ok {
				n := names{b.Steps[i].Host}
				v.place = fmt.Sprintf("%s, %s: %s", n.h.Name, n.chainPlace(r.Ref),
					n.h.Program(r.Ref.Table).Text(r.Ref))
			}
		}
	}
	return v
}

// broken is the verdict where the packet arrives and its answer does not.
func (b *Branch) broken(v verdict) verdict {
	v.good, v.word = -1, "BROKEN"
	if s := b.strays(); s != nil {
		v.text += " The answer has another source than the client asked."
		v.place, v.why = b.strayPlace(), s.why()
		return v
	}
	if o := b.end(b.Data); b.Data != 0 && o != nil && !b.Flows() {
		n := names{o.Host}
		v.text += " It is answered, but the data that follow do not arrive."
		v.place, v.why = n.place(b, o), n.why(b, o)
		return v
	}
	if o := b.end(b.Reply); o != nil {
		n := names{o.Host}
		v.text += " The answer does not come back."
		v.place, v.why = n.place(b, o), n.why(b, o)
	}
	return v
}

// strayPlace is where the answer took its way: the last route of the host that sent it.
func (b *Branch) strayPlace() string {
	for i := range b.Steps {
		s := &b.Steps[i]
		r, ok := s.Event.(*trace.Route)
		if !ok || !s.Reply || r.SKB != b.Reply || r.Index < 0 {
			continue
		}
		f := s.Host.Routes
		text := f.RouteText(r.Index)
		if r.Rule >= 0 {
			text = fmt.Sprintf("rule %d %s, %s", f.Rule(r.Rule).Priority, f.TableName(r.Table), text)
		}
		return fmt.Sprintf("%s, answer: %s", s.Host.Name, text)
	}
	return ""
}

// receiver is who took a packet.
func (n names) receiver(o *Outcome) string {
	if s := socketText(o.Host, o.World, o.Socket); s != "" {
		return s
	}
	return "the kernel"
}

// place is where the packet ended.
func (n names) place(b *Branch, o *Outcome) string {
	if o.By != nil && o.By.Table >= 0 {
		if o.By.Rule == 0 {
			return fmt.Sprintf("%s, %s %s: policy", o.Host.Name, n.table(*o.By), n.chain(*o.By))
		}
		return fmt.Sprintf("%s, %s %s rule %d: %s", o.Host.Name, n.table(*o.By), n.chain(*o.By),
			o.By.Rule, n.h.Program(o.By.Table).Text(*o.By))
	}
	hook := ""
	for i := range b.Steps {
		s := &b.Steps[i]
		if s.Host != o.Host || s.Event.Base().SKB != o.SKB {
			continue
		}
		switch e := s.Event.(type) {
		case *trace.HookRun:
			hook = e.Hook.String() + ", " + e.Name
		case *trace.Route:
			hook = "route lookup"
		case *trace.Deliver:
			hook = "behind INPUT"
		case *trace.Neigh:
			hook = "neighbour " + e.Addr.String() + " on " + n.dev(e.Dev)
		case *trace.Receive:
			hook = n.dev(e.Dev) + " in"
		}
	}
	return o.Host.Name + ", " + hook
}

// why says in a sentence what the reason means here.
func (n names) why(b *Branch, o *Outcome) string {
	text := whyTexts[o.Why]
	if text == "" {
		text = strings.ReplaceAll(string(o.Why), "-", " ")
	}
	if o.Reason != "" {
		text += " (" + string(o.Reason) + ")"
	}
	for i := range b.Steps {
		s := &b.Steps[i]
		r, ok := s.Event.(*trace.Route)
		if !ok || s.Host != o.Host || r.SKB != o.SKB || r.Check == nil || r.Check.OK ||
			r.Check.Why != o.Why {
			continue
		}
		text += ": " + n.check(r.Check) + n.markAside(b.look(o.SKB))
	}
	return text
}

// markAside says of the source check that it did not use the packet's mark.
func (n names) markAside(l look) string {
	if l.Mark == 0 || n.h.Sysctl.Int("net.ipv4.conf.all.src_valid_mark", 0) != 0 || l.in == 0 ||
		n.h.Sysctl.Int("net.ipv4.conf."+n.dev(l.in)+".src_valid_mark", 0) != 0 {
		return ""
	}
	return fmt.Sprintf(", looked up without the mark %#x (src_valid_mark=0)", l.Mark)
}

// whyTexts explains the closed list of reasons.
var whyTexts = map[trace.Why]string{
	"policy-drop":         "no rule of the chain decided, and its policy is DROP",
	"rule-drop":           "the rule says so",
	"reject":              "the rule says so",
	"rp-filter":           "rp_filter: the way back to the source is not the way it came in",
	"martian-source":      "a martian source: an address that can't come in here",
	"martian-destination": "a martian destination: an address that can't be sent to",
	"forwarding-off":      "the interface does not forward (net.ipv4.conf.*.forwarding=0)",
	"no-route":            "there is no route to the destination",
	"blackhole":           "a blackhole rule or route takes it",
	"unreachable":         "an unreachable rule or route answers it",
	"prohibit":            "a prohibit rule or route answers it",
	"no-listener":         "no socket takes it",
	"no-neighbour":        "the next hop's MAC address is not known; an ARP request leaves",
	"no-protocol":         "nobody on the host speaks this protocol",
	"ttl":                 "its time to live is used up",
	"mtu":                 "it is larger than the MTU and must not be fragmented",
	"decapsulated":        "the packet in it went on, as another packet",
	"tunnel-congestion":   "its tunnel saw congestion, which the packet in it can't carry",
	"encapsulated":        "it left in a tunnel, as another packet",
	"no-server":           "the virtual service has no real server that may take it",
	"no-connection":       "it comes from a real server, and no connection asked for it",
	"drop-packet":         "net.ipv4.vs.drop_packet drops some of the new connections",
	"old-conntrack":       "conntrack still has the connection that used its ports before",
	"local-boundary":      "IPVS would have to take it to this host, or from it, and does not here",
	"dnat-to-loopback":    "IPVS does not translate what comes from outside to 127.0.0.0/8",
	"has-socket":          "TPROXY gave it to a program of this host, and its route leads to another",
	"other-host":          "the frame is addressed to another host's MAC address",
	"link-down":           "the interface is down",
	"bad-checksum":        "a checksum is wrong",
	"header-truncated":    "a header is cut short",
	"packet-truncated":    "the packet is shorter than its header says",
	"bad-header":          "its IP header is broken",
	"queue":               "a queue in user space got it: the program there decides",
	"arp":                 "it is ARP: the host learns or answers",
	"source-not-local":    "its source is not an address of this host",
	"loop":                "it goes in circles",
	"bad-ip-option":       "one of its IP options is broken",
	"source-route-off":    "it carries a source route, and accept_source_route is off",
	"source-route-failed": "its source route can't be followed",
}

// packetText is a frame or an IP packet in one line: "10.0.0.5:40000 > 10.0.0.1:80 tcp
// S ttl 64".
func packetText(b []byte, frame bool, free packet.Free) string {
	p, ok := parse(b, frame)
	if !ok || !p.Is4() {
		return fmt.Sprintf("%d bytes that are no IPv4 packet", len(b))
	}
	sport, dport, ports := p.Ports()
	text := end(p.Src(), sport, ports, free&packet.FreeSrcPort != 0) + " > " +
		end(p.Dst(), dport, ports, free&packet.FreeDstPort != 0) + " " + protoText(p)
	return text + fmt.Sprintf(" ttl %d", p.TTL())
}

// bareIP tells whether a frame has no link header, as the copy that a host gets of
// what it sends to many.
func bareIP(b []byte) bool {
	return len(b) >= 20 && b[0]>>4 == 4 && int(b[2])<<8|int(b[3]) == len(b)
}

func parse(b []byte, frame bool) (*packet.Packet, bool) {
	if frame && !bareIP(b) {
		return packet.FromFrame(b)
	}
	return packet.FromIP(b)
}

// protoText is the protocol with what tells its packets apart.
func protoText(p *packet.Packet) string {
	word := protoWord(p.Protocol())
	if word == "" {
		word = fmt.Sprintf("proto %d", p.Protocol())
	}
	l4 := p.L4()
	switch {
	case p.FragOff() != 0:
		return word + fmt.Sprintf(" fragment at %d", p.FragOff())
	case p.Protocol() == packet.TCP && len(l4) >= 14:
		return word + " " + packet.TCPFlags(l4[13])
	case p.Protocol() == packet.ICMP && len(l4) >= 2:
		return word + " " + icmpText(l4[0], l4[1])
	}
	return word
}

func icmpText(typ, code uint8) string {
	switch {
	case typ == 8:
		return "echo request"
	case typ == 0:
		return "echo reply"
	case typ == 3 && code == 3:
		return "port unreachable"
	case typ == 3 && code == 13:
		return "administratively prohibited"
	case typ == 3 && code == 4:
		return "fragmentation needed"
	case typ == 3:
		return fmt.Sprintf("unreachable (code %d)", code)
	case typ == 11:
		return "time exceeded"
	case typ == 5:
		return "redirect"
	}
	return fmt.Sprintf("type %d code %d", typ, code)
}
