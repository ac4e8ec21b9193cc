package report

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// Fix is commands for one host. Whoever asks walks the question on the changed host
// before it is told.
type Fix struct {
	Host     string
	Commands []string
	// Opens is set where the fix only lets the packet past what stops it: it is told
	// where nothing else helps.
	Opens bool
}

// fix is one command for a host.
func (n names) fix(format string, v ...any) Fix {
	return Fix{Host: n.h.Name, Commands: []string{fmt.Sprintf(format, v...)}}
}

// Needed tells whether something about the answer may want mending: a packet that does
// not arrive, or leaves with an address that nobody meant.
func (a *Answer) Needed() bool {
	for i := range a.Branches {
		if b := &a.Branches[i]; !b.Arrived() || b.doubt() != nil {
			return true
		}
	}
	return false
}

// Candidates are commands that may mend the answer, the most fitting first. None of
// them was tried.
func (a *Answer) Candidates() []Fix {
	var out []Fix
	seen := map[string]bool{}
	for i := range a.Branches {
		for _, f := range a.Branches[i].candidates() {
			if key := f.Host + strings.Join(f.Commands, ";"); !seen[key] {
				seen[key] = true
				out = append(out, f)
			}
		}
	}
	return out
}

func (b *Branch) candidates() []Fix {
	var out []Fix
	if d := b.doubt(); d != nil {
		return d.fixes
	}
	o := b.bad()
	if o == nil {
		return nil
	}
	for _, c := range b.causes(o.SKB) {
		out = append(out, c.fixes...)
	}
	return append(out, names{o.Host}.mends(b, o)...)
}

// bad is the outcome that made a branch a bad one, nil for none.
func (b *Branch) bad() *Outcome {
	if b.Arrived() {
		return nil
	}
	o := b.Main()
	if o == nil || o.Result != trace.Transmitted && o.Result != trace.Delivered {
		return o
	}
	if !b.Flows() {
		return b.end(b.Data)
	}
	return b.end(b.Reply)
}

// mends are commands that fit the reason of an outcome.
func (n names) mends(b *Branch, o *Outcome) []Fix {
	var cmds []string
	look := b.look(o.SKB)
	switch o.Why {
	case "rp-filter":
		cmds = n.mendFilter(look)
	case "forwarding-off":
		cmds = []string{"sysctl -w net.ipv4.ip_forward=1",
			n.conf(look.in) + "forwarding=1"}
	case "martian-source", "martian-destination":
		cmds = []string{n.conf(look.in) + "route_localnet=1", n.conf(look.in) + "accept_local=1"}
	case "rule-drop", "policy-drop", "reject":
		cmds = n.mendDrop(look, o)
	case "no-route":
		cmds = n.otherTables(look)
	case "blackhole", "unreachable", "prohibit":
		cmds = n.mendRoute(b, o)
	}
	var out []Fix
	for _, c := range cmds {
		out = append(out, Fix{Host: n.h.Name, Commands: []string{c},
			Opens: strings.HasSuffix(c, "-j ACCEPT") || strings.HasSuffix(c, "rp_filter=0")})
	}
	return out
}

// iptables begins a command on the table of a rule.
func (n names) iptables(r trace.RuleRef) string {
	if t := n.table(r); t != "filter" {
		return "iptables -t " + t
	}
	return "iptables"
}

// look is how a packet looked last.
type look struct {
	*trace.Snap
	in packet.Dev
}

func (b *Branch) look(skb int) look {
	l := look{Snap: &trace.Snap{}}
	for i := range b.Steps {
		if e := b.Steps[i].Event; e.Base().SKB == skb && e.Base().Packet != nil {
			l.Snap = e.Base().Packet
			if l.In != 0 {
				l.in = l.In
			}
		}
	}
	return l
}

// conf begins the command that sets a value of an interface.
func (n names) conf(dev packet.Dev) string {
	return "sysctl -w net.ipv4.conf." + strings.ReplaceAll(n.dev(dev), ".", "/") + "."
}

func (n names) mendFilter(l look) []string {
	var out []string
	if l.Mark != 0 {
		out = append(out, n.conf(l.in)+"src_valid_mark=1")
	}
	return append(out, n.conf(l.in)+"rp_filter=2",
		"sysctl -w net.ipv4.conf.all.rp_filter=0; "+n.conf(l.in)+"rp_filter=0",
		fmt.Sprintf("ip route add %s dev %s", l.Src, n.dev(l.in)))
}

// mendDrop lets the packet through before what drops it.
func (n names) mendDrop(l look, o *Outcome) []string {
	if o.By == nil || o.By.Table < 0 {
		return nil
	}
	at := max(o.By.Rule, 1)
	text := fmt.Sprintf("%s -I %s %d -s %s -d %s", n.iptables(*o.By), n.chain(*o.By), at,
		l.Src, l.Dst)
	if word := protoWord(l.Proto); word != "" {
		text += " -p " + word
		if l.HasPorts && l.Free&packet.FreeDstPort == 0 {
			text += fmt.Sprintf(" --dport %d", l.DPort)
		}
	}
	return []string{text + " -j ACCEPT"}
}

// otherTables looks a destination up in each table that has a way for all.
func (n names) otherTables(l look) []string {
	var out []string
	for i := range n.h.Routes.Routes() {
		r := n.h.Routes.Route(i)
		if r.Dst.Bits() == 0 && r.Kind == trace.Unicast {
			out = append(out, fmt.Sprintf("ip rule add to %s lookup %s", l.Dst,
				n.h.Routes.TableName(r.Table)))
		}
	}
	return out
}

// mendRoute takes away the rule or route that refuses the packet.
func (n names) mendRoute(b *Branch, o *Outcome) []string {
	var out []string
	for i := range b.Steps {
		r, ok := b.Steps[i].Event.(*trace.Route)
		if !ok || r.SKB != o.SKB || r.Rule < 0 || b.Steps[i].Host != n.h {
			continue
		}
		if r.Index >= 0 {
			rt := n.h.Routes.Route(r.Index)
			out = append(out, fmt.Sprintf("ip route del %s %s table %s", rt.Kind, rt.Dst,
				n.h.Routes.TableName(rt.Table)))
			continue
		}
		out = append(out, fmt.Sprintf("ip rule del pref %d", n.h.Routes.Rule(r.Rule).Priority))
	}
	return out
}

// doubt is set where a packet arrives in a way that nobody can have meant.
func (b *Branch) doubt() *cause {
	if c := b.borrows(); c != nil {
		return c
	}
	return b.rivals()
}

// borrows is set where a packet has an address that MASQUERADE borrowed from another
// interface, though the route names its own or leads to everywhere.
func (b *Branch) borrows() *cause {
	var out *cause
	route := -1
	f := finder{b, 1}
	f.each(func(i int, n names, e trace.Event) {
		if r, ok := e.(*trace.Route); ok {
			route = r.Index
		}
		t, ok := e.(*trace.NAT)
		if !ok || t.Source == nil || t.Source.Step != trace.StepAny || route < 0 {
			return
		}
		src := routeSource(n.h.Routes.RouteText(route))
		if src == t.Source.Addr.String() || src == "" && n.h.Routes.Route(route).Dst.Bits() > 0 {
			return
		}
		out = n.borrowed(b, i, t, src)
	})
	return out
}

var sourcePattern = regexp.MustCompile(` src (\S+)`)

func routeSource(text string) string {
	if m := sourcePattern.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// borrowed tells of an address that MASQUERADE took from another interface.
func (n names) borrowed(b *Branch, at int, t *trace.NAT, src string) *cause {
	out := &cause{text: fmt.Sprintf("the packet gets the address %s of %s: MASQUERADE takes an address of "+
		"the interface that it leaves by, which has none of global scope, and then the first of another "+
		"one; answers to %s need not find the way back", t.Source.Addr, n.dev(t.Source.Dev),
		t.Source.Addr)}
	if src == "" {
		return out
	}
	out.text += ". The route's src " + src + " is what the host's own packets leave with; MASQUERADE " +
		"does not look at it"
	for i := at; i >= 0; i-- {
		r, ok := b.Steps[i].Event.(*trace.Rule)
		if !ok {
			continue
		}
		text := n.h.Program(r.Ref.Table).Text(r.Ref)
		if i := strings.Index(text, "-j MASQUERADE"); i >= 0 {
			out.fixes = []Fix{n.fix("%s -R %s %d %s-j SNAT --to-source %s", n.iptables(r.Ref),
				n.chain(r.Ref), r.Ref.Rule, text[:i], src)}
		}
		break
	}
	if out.fixes == nil {
		return out
	}
	if o := b.Main(); o != nil && o.Host == n.h {
		out.fixes = append(out.fixes, n.fix("ip addr add %s/32 dev %s", src, n.dev(o.Dev)))
	}
	return out
}

// TakesEntry tells whether a fix is that a connection leaves the table.
func TakesEntry(f Fix) bool { return strings.HasPrefix(f.Commands[0], "conntrack -D") }

// SameEnd tells whether the question's packet ends alike in two branches.
func SameEnd(a, b *Branch) bool {
	x, y := a.Main(), b.Main()
	if x == nil || y == nil {
		return x == y
	}
	return x.Result == y.Result && x.Why == y.Why && x.Dev == y.Dev && bytes.Equal(x.Frame, y.Frame)
}
