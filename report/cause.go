package report

import (
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/trace"
)

// cause is something on the question's way that may be behind a bad end, in words and
// with commands that may mend it.
type cause struct {
	text  string
	fixes []Fix
	place string // where it is, empty where the verdict tells
}

// causes lists what the way of a packet has that often is not meant.
func (b *Branch) causes(skb int) []cause {
	var out []cause
	for _, f := range []func(*finder) []cause{(*finder).raced, (*finder).bypassed, (*finder).entry,
		(*finder).marks, (*finder).gotos} {
		out = append(out, f(&finder{b, skb})...)
	}
	return out
}

// finder looks through the steps of one packet.
type finder struct {
	b   *Branch
	skb int
}

func (f *finder) each(do func(i int, n names, e trace.Event)) {
	for i := range f.b.Steps {
		if s := &f.b.Steps[i]; s.Event.Base().SKB == f.skb {
			do(i, names{s.Host}, s.Event)
		}
	}
}

// entry is a connection that was in the table before the question.
func (f *finder) entry() []cause {
	var out []cause
	f.each(func(i int, n names, e trace.Event) {
		c, ok := e.(*trace.Conntrack)
		if !ok || len(out) > 0 || f.b.Steps[i].Reply || !inTable(n, c) {
			return
		}
		cmd := n.deletes(c.Orig)
		out = append(out, cause{"the connection is in the table already, so the nat rules are not asked: " +
			tuple(c.Orig) + "; reply " + tuple(c.Reply), []Fix{n.fix("%s", cmd)}, ""})
	})
	return out
}

// inTable tells whether a connection was in the table before anything was asked.
func inTable(n names, c *trace.Conntrack) bool {
	w := n.h.NewWorld(n.h.Memory().Fork())
	for f := range n.h.Conntrack.All(w) {
		if f.Tuples[conntrack.Original] == (conntrack.Tuple{Src: c.Orig.Src, Dst: c.Orig.Dst,
			SPort: c.Orig.SPort, DPort: c.Orig.DPort, Proto: c.Orig.Proto}) {
			return true
		}
	}
	return false
}

// deletes is the command that takes a connection out of the table.
func (n names) deletes(t trace.Tuple) string {
	word := protoWord(t.Proto)
	if word == "" {
		word = fmt.Sprint(t.Proto)
	}
	cmd := fmt.Sprintf("conntrack -D -p %s --orig-src %s --orig-dst %s", word, t.Src, t.Dst)
	if word == "tcp" || word == "udp" {
		cmd += fmt.Sprintf(" --orig-port-src %d --orig-port-dst %d", t.SPort, t.DPort)
	}
	return cmd
}

// marks are rules that took away a mark that a rule before had set.
func (f *finder) marks() []cause {
	var out []cause
	var mark uint32
	var by trace.RuleRef
	f.each(func(_ int, n names, e trace.Event) {
		r, ok := e.(*trace.Rule)
		if !ok || r.Packet == nil || r.Packet.Mark == mark {
			return
		}
		if was := mark; was != 0 && r.Packet.Mark == 0 {
			text := fmt.Sprintf("%s sets mark %#x and %s takes it away again", n.chainPlace(by), was,
				n.chainPlace(r.Ref))
			if lost := f.missed(n, was); lost != "" {
				text += ", so that " + lost + " does not match"
			}
			out = append(out, cause{text: text, fixes: n.keepsMark(r.Ref)})
		}
		mark, by = r.Packet.Mark, r.Ref
	})
	return out
}

// missed is the ip rule that a mark would have matched.
func (f *finder) missed(n names, mark uint32) string {
	text := ""
	f.each(func(_ int, _ names, e trace.Event) {
		r, ok := e.(*trace.Route)
		if !ok {
			return
		}
		for _, t := range r.Tried {
			rule := n.h.Routes.Rule(t.Rule)
			if t.Why == trace.NoMatch && rule.Mark != 0 && mark&rule.MarkMask == rule.Mark {
				text = fmt.Sprintf("ip rule %d (%s)", rule.Priority, n.h.Routes.RuleText(t.Rule))
			}
		}
	})
	return text
}

// keepsMark are commands by which a rule leaves a mark alone: only a connection that has
// one gives it, or the rule goes.
func (n names) keepsMark(r trace.RuleRef) []Fix {
	text := n.h.Program(r.Table).Text(r)
	place := n.iptables(r)
	var out []Fix
	if i := strings.Index(text, "-j CONNMARK --restore-mark"); i >= 0 {
		out = append(out, n.fix("%s -R %s %d %s-m connmark ! --mark 0 %s", place, n.chain(r), r.Rule,
			text[:i], text[i:]))
	}
	return append(out, n.fix("%s -D %s %d", place, n.chain(r), r.Rule))
}

// gotos are jumps by -g into chains that decided nothing: what follows them is passed
// over.
func (f *finder) gotos() []cause {
	var out []cause
	var open []trace.RuleRef
	into := map[trace.RuleRef]int{}
	f.each(func(_ int, n names, e trace.Event) {
		switch e := e.(type) {
		case *trace.Rule:
			if e.Verdict == trace.Goto {
				open = append(open, e.Ref)
				into[e.Ref] = e.Chain
			}
		case *trace.ChainEnd:
			for _, r := range open {
				if r.Table != e.Ref.Table || into[r] != e.Ref.Chain || e.Policy {
					continue
				}
				if rest := n.behind(r); rest != "" {
					out = append(out, cause{fmt.Sprintf("%s enters %s by goto (-g): its end goes back behind "+
						"the rule that jumped to %s, and %s passed over", n.chainPlace(r),
						n.h.Program(r.Table).ChainName(into[r]), n.chain(r), rest), n.asJump(r), ""})
				}
			}
		}
	})
	return out
}

// behind names the rules that follow one in its chain.
func (n names) behind(r trace.RuleRef) string {
	switch last := len(n.h.Program(r.Table).Source.Chains[r.Chain].Rules); {
	case last <= r.Rule:
		return ""
	case last == r.Rule+1:
		return fmt.Sprintf("%s %d is", n.chain(r), last)
	default:
		return fmt.Sprintf("%s %d to %d are", n.chain(r), r.Rule+1, last)
	}
}

// asJump is the rule with -j in place of -g.
func (n names) asJump(r trace.RuleRef) []Fix {
	text := n.h.Program(r.Table).Text(r)
	i := strings.LastIndex(text, "-g ")
	if i < 0 {
		return nil
	}
	return []Fix{n.fix("%s -R %s %d %s-j %s", n.iptables(r), n.chain(r), r.Rule, text[:i],
		text[i+3:])}
}
