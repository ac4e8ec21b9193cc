package report

import (
	"fmt"

	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// first is the question's packet as it began; nil where nothing was recorded.
func (b *Branch) first() *packet.Packet {
	for i := range b.Steps {
		switch e := b.Steps[i].Event.(type) {
		case *trace.Receive:
			p, _ := packet.FromFrame(append([]byte(nil), e.Frame...))
			return p
		case *trace.LocalOut:
			p, _ := packet.FromIP(append([]byte(nil), e.Frame...))
			return p
		}
	}
	return nil
}

// stray is an answer that nobody waits for: it has another source than what was asked.
type stray struct {
	asked, from trace.Endpoint
	host        string // who answered
}

// strays finds an answer whose source is not what the client asked. Where ports are open
// they are not looked at.
func (b *Branch) strays() *stray {
	asked := b.first()
	if b.Reply == 0 || asked == nil || !asked.Is4() {
		return nil
	}
	o := b.end(b.Reply)
	if o == nil || o.Result != trace.Transmitted && o.Result != trace.Delivered &&
		o.Why != "no-listener" {
		return nil
	}
	l := b.look(o.SKB)
	_, dport, _ := asked.Ports()
	if l.Src.IsZero() || l.Src == asked.Dst() &&
		(!l.HasPorts || l.SPort == dport || l.Free&packet.FreeSrcPort != 0) {
		return nil
	}
	return &stray{trace.Endpoint{Addr: asked.Dst(), Port: dport},
		trace.Endpoint{Addr: l.Src, Port: l.SPort}, b.answerer()}
}

// answerer is the host that the answer set off from; empty without one.
func (b *Branch) answerer() string {
	for i := range b.Steps {
		if b.Steps[i].Reply {
			return b.Steps[i].Host.Name
		}
	}
	return ""
}

// why says it in a sentence.
func (s *stray) why() string {
	return fmt.Sprintf("the client asked %s and is answered by %s, which it has no connection to",
		endText(s.asked), endText(s.from))
}

func endText(e trace.Endpoint) string {
	if e.Port == 0 {
		return e.Addr.String()
	}
	return plainEnd(e)
}

// bypassed is the cause where a load balancer's answer does not come by it again.
func (f *finder) bypassed() []cause {
	s := f.b.strays()
	if s == nil {
		return nil
	}
	for i := range f.b.Steps {
		e, ok := f.b.Steps[i].Event.(*trace.IPVS)
		if !ok || e.Back || e.Index < 0 || ipvs.Method(e.Method) != ipvs.Masq ||
			e.Real.Addr != s.from.Addr {
			continue
		}
		n := names{f.b.Steps[i].Host}
		return []cause{{fmt.Sprintf("IPVS rewrites the destination alone: the server sees the client "+
			"and answers it past %s, so that nobody turns %s back into %s", n.h.Name, plainEnd(e.Real),
			plainEnd(e.Virtual)), n.bypassFixes(f.b, e, s), ""}}
	}
	return nil
}

// bypassFixes bring the server's answers back to the load balancer.
func (n names) bypassFixes(b *Branch, e *trace.IPVS, s *stray) []Fix {
	const universe = 0
	var out packet.Dev
	for i := range b.Steps {
		t, ok := b.Steps[i].Event.(*trace.Transmit)
		if ok && b.Steps[i].Host == n.h && !b.Steps[i].Reply && t.SKB == e.SKB {
			out = t.Dev
		}
	}
	dip := n.h.Links.Select(out, e.Real.Addr, universe)
	if dip.IsZero() {
		return nil
	}
	table := fmt.Sprint(e.Virtual.Port)
	if e.Virtual.Port == 0 {
		table = "100"
	}
	return []Fix{
		{Host: s.host, Commands: []string{fmt.Sprintf("ip route replace default via %s", dip)}},
		{Host: s.host, Commands: []string{fmt.Sprintf("ip route add default via %s table %s", dip, table),
			fmt.Sprintf("ip rule add from %s table %s", e.Real.Addr, table)}},
		{Host: n.h.Name, Commands: []string{"sysctl -w net.ipv4.vs.conntrack=1",
			fmt.Sprintf("iptables -t nat -A POSTROUTING -m ipvs --vaddr %s -j MASQUERADE",
				e.Virtual.Addr)}},
	}
}
