package report

import (
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

// teller turns the steps of a branch into lines.
type teller struct {
	Style
	out   []line
	host  *walk.Host
	n     names
	last  map[int]*trace.Snap // of each packet
	skb   int
	quiet []string // stages of the present hook that only let the packet pass
	hook  string
	table string // of the present stage
	spoke bool   // the present stage has printed a line
	reply bool
	data  bool
	// wrapped is set between a tunnel and the outer packet, which answers nobody.
	wrapped bool
	main    *Outcome
	arp     asking
}

// lines tells the walk of a branch.
func (b *Branch) lines(s Style) []line {
	t := &teller{Style: s, last: map[int]*trace.Snap{}, skb: 1, main: b.Main(), arp: b.arp()}
	steps := b.Steps
	if !s.AllRules {
		steps = folded(steps)
	}
	flows := b.Flows()
	for i := range steps {
		if s := &steps[i]; !t.arp.aside(s) && !(s.Data && flows) {
			t.step(s)
		}
	}
	t.flush()
	same(t.out)
	return t.out
}

// same leaves out the place of a line that is the line's before.
func same(lines []line) {
	last := ""
	for i := range lines {
		where := lines[i].where
		if lines[i].host == "" && where == last {
			lines[i].where = ""
		}
		last = where
		if lines[i].host != "" {
			last = ""
		}
	}
}

func (t *teller) add(where, what, format string, v ...any) {
	t.out = append(t.out, line{where: where, what: what, text: fmt.Sprintf(format, v...)})
}

// step tells one event.
func (t *teller) step(s *Step) {
	skb := s.Event.Base().SKB
	if s.Host != t.host || s.Reply != t.reply || s.Data != t.data {
		t.flush()
		t.host, t.n, t.reply, t.data, t.skb = s.Host, names{s.Host}, s.Reply, s.Data, skb
		l := line{host: s.Host.Name, text: hostText(s.Host)}
		switch {
		case s.Reply:
			l.text = "the answer"
		case s.Data:
			l.text = "the data that follow"
		}
		t.out = append(t.out, l)
	}
	if skb != t.skb {
		t.flush()
		t.skb = skb
	}
	t.event(s)
	if p := s.Event.Base().Packet; p != nil {
		t.last[skb] = p
	}
}

func (t *teller) event(s *Step) {
	switch e := s.Event.(type) {
	case *trace.HookRun:
		t.hookRun(e)
	case *trace.Rule:
		t.rule(e)
	case *trace.Skip:
		t.speak(t.n.chainPlace(e.Ref), "skipped: "+t.n.failed(e))
	case *trace.ChainEnd:
		t.chainEnd(e)
	case *trace.Conntrack:
		t.conntrack(e)
	case *trace.NAT:
		t.nat(e)
	case *trace.Choice: // the fork of the ways tells it
	default:
		t.flush()
		t.decision(s)
	}
}

// hostText is the kernel and back end of a host.
func hostText(h *walk.Host) string {
	text := fmt.Sprintf("(Linux %d.%d", h.Kernel.Major, h.Kernel.Minor)
	seen := map[xtables.Backend]bool{}
	for _, p := range h.Programs() {
		if !seen[p.Backend] {
			seen[p.Backend] = true
			text += ", iptables " + p.Backend.String()
		}
	}
	if len(h.Programs()) == 0 {
		text += ", no rules"
	}
	return text + ")"
}

// hookRun begins a stage.
func (t *teller) hookRun(e *trace.HookRun) {
	if name := e.Hook.String(); name != t.hook {
		t.flush()
		t.hook = name
	}
	t.table, t.spoke = e.Name, false
	switch e.Name {
	case "conntrack", "confirm", "defrag", "ipvs":
		return
	}
	t.quiet = append(t.quiet, e.Name)
}

// flush prints the stages that only let the packet pass, in one line.
func (t *teller) flush() {
	if len(t.quiet) > 0 {
		t.add(t.hook, strings.Join(t.quiet, " "), "policy ACCEPT")
		t.quiet = nil
	}
	t.hook = ""
}

// speak prints a line of the present stage.
func (t *teller) speak(what, text string) {
	if n := len(t.quiet); n > 0 && !t.spoke && t.quiet[n-1] == t.table {
		t.quiet = t.quiet[:n-1]
	}
	if len(t.quiet) > 0 {
		t.add(t.hook, strings.Join(t.quiet, " "), "policy ACCEPT")
		t.quiet = nil
	}
	t.spoke = true
	t.out = append(t.out, line{where: t.hook, what: what, text: text})
}

// chainPlace is "filter FORWARD 3".
func (n names) chainPlace(r trace.RuleRef) string {
	chain := n.chain(r)
	if p := n.h.Program(r.Table); p.Source.Chains[r.Chain].Builtin {
		chain = p.Name + " " + chain
	}
	if r.Rule == 0 {
		return chain
	}
	return fmt.Sprintf("%s %d", chain, r.Rule)
}

// folded leaves out jumps into chains in which nothing matched, so that what decided
// can be seen.
func folded(steps []Step) []Step {
	out := make([]Step, 0, len(steps))
	for _, s := range steps {
		e, ok := s.Event.(*trace.ChainEnd)
		if n := len(out); ok && !e.Policy && n > 0 {
			r, ok := out[n-1].Event.(*trace.Rule)
			if ok && r.Verdict == trace.Jump && r.Ref.Table == e.Ref.Table && r.Chain == e.Ref.Chain &&
				out[n-1].Host == s.Host {
				out = out[:n-1]
				continue
			}
		}
		out = append(out, s)
	}
	return out
}

// shortRule is a rule's text with its comments behind it; those that only hold a
// hash, as Calico's do, are left out.
func shortRule(text string) string {
	const opt = "-m comment --comment "
	var notes []string
	for {
		i := strings.Index(text, opt)
		if i < 0 {
			break
		}
		note, rest := cutNote(text[i+len(opt):])
		text = strings.TrimSpace(text[:i]) + " " + strings.TrimSpace(rest)
		if !strings.HasPrefix(note, "cali:") {
			notes = append(notes, note)
		}
	}
	text = strings.TrimSpace(text)
	if len(notes) > 0 {
		text += "  /* " + strings.Join(notes, "; ") + " */"
	}
	return strings.TrimSpace(text)
}

// cutNote cuts off a word, in double quotes or not.
func cutNote(s string) (note, rest string) {
	if !strings.HasPrefix(s, `"`) {
		note, rest, _ = strings.Cut(s, " ")
		return note, rest
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return s[1:i], s[i+1:]
		}
	}
	return s[1:], ""
}

func (t *teller) rule(e *trace.Rule) {
	text := t.n.h.Program(e.Ref.Table).Text(e.Ref)
	if !t.AllRules {
		text = shortRule(text)
	}
	if text == "" {
		text = "(counts)"
	}
	if old, now := t.last[t.skb], e.Packet; old != nil && now != nil {
		if old.Mark != now.Mark {
			text += fmt.Sprintf("; mark %#x -> %#x", old.Mark, now.Mark)
		}
		// FORWARD takes one off between two hooks: that is not the rule's doing.
		if name := t.n.target(e.Ref); old.TTL != now.TTL && (name == "TTL" || name == "HL") {
			text += fmt.Sprintf("; ttl %d -> %d", old.TTL, now.TTL)
		}
	}
	t.speak(t.n.chainPlace(e.Ref), text)
	if e.Verdict == trace.DropIt && t.isEnd(e.Ref) {
		t.out[len(t.out)-1].here = true
	}
}

// isEnd tells whether a rule or policy is what ended the question's packet.
func (t *teller) isEnd(r trace.RuleRef) bool {
	o := t.main
	return o != nil && o.Host == t.host && o.SKB == t.skb && o.By != nil && *o.By == r
}

func (t *teller) chainEnd(e *trace.ChainEnd) {
	switch {
	case !e.Policy:
		if t.AllRules {
			t.speak(t.n.chainPlace(e.Ref), "end: back to the chain before")
		}
	case e.Verdict != trace.Accept:
		t.speak(t.n.chainPlace(e.Ref), "policy "+e.Verdict.String())
		t.out[len(t.out)-1].here = t.isEnd(e.Ref)
	case t.spoke:
		t.speak(t.n.chainPlace(e.Ref), "policy ACCEPT")
	}
}

func (t *teller) conntrack(e *trace.Conntrack) {
	switch {
	case e.Confirmed:
		t.speak("conntrack", "entry made: "+tuple(e.Orig)+"; reply "+tuple(e.Reply))
	case e.State == trace.StateInvalid || e.State == trace.StateUntracked:
		t.speak("conntrack", e.State.String())
	default:
		text := e.State.String() + " " + tuple(e.Orig)
		if e.SNAT {
			text += " SNAT"
		}
		if e.DNAT {
			text += " DNAT"
		}
		t.speak("conntrack", text)
	}
}

func (t *teller) nat(e *trace.NAT) {
	side := "src"
	if e.Dst {
		side = "dst"
	}
	what := "" // the rule of the line before chose it
	if !t.spoke {
		what = "nat" // a connection that is translated already
		if t.table == "ipvs" {
			what = "ipvs"
		}
	}
	t.speak(what, side+" "+endpoint(e.From)+" -> "+endpoint(e.To))
	t.out[len(t.out)-1].detail = true
	if c := e.Source; c != nil {
		t.speak("", fmt.Sprintf("chosen %s (%s): %s", c.Addr, t.n.dev(c.Dev), sourceWhy(c.Step)))
		t.out[len(t.out)-1].detail = true
		if len(c.Passed) > 0 {
			var over []string
			for _, p := range c.Passed {
				over = append(over, fmt.Sprintf("%s %s (%s)", t.n.dev(p.Dev), p.Addr, p.Why))
			}
			t.speak("", "passed over: "+strings.Join(over, ", "))
			t.out[len(t.out)-1].detail = true
		}
	}
}

// decision tells what happens outside of hooks.
func (t *teller) decision(s *Step) {
	switch e := s.Event.(type) {
	case *trace.Receive:
		t.add(t.n.dev(e.Dev)+" in", "", "%s", packetText(e.Frame, true, 0))
	case *trace.Transmit:
		free := packet.Free(0)
		if e.Packet != nil {
			free = e.Packet.Free
		}
		t.add(t.n.dev(e.Dev)+" out", "", "%s", packetText(e.Frame, true, free))
	case *trace.LocalOut:
		where := "sends"
		if e.Parent != 0 && !t.wrapped {
			where = "answers"
		}
		t.wrapped = false
		t.add(where, "", "%s", packetText(e.Frame, false, 0))
	case *trace.Deliver:
		to := socketText(s.Host, s.World, e.Socket)
		if to == "" {
			to = "no socket"
		}
		t.add("delivery", "", "%s", to)
	case *trace.Route:
		t.route(e)
	case *trace.Neigh:
		if !e.Found {
			t.add("neighbour", "", "%s on %s: %s", e.Addr, t.n.dev(e.Dev), t.arp.answers(e))
		}
	case *trace.IPVS:
		t.ipvs(e)
	case *trace.Decap:
		t.add("tunnel", e.Method, "the packet in it goes on as received by %s", t.n.dev(e.Dev))
	case *trace.Encap:
		t.add("tunnel", e.Method, "%s > %s", e.From, e.To)
		t.wrapped = true
	case *trace.Fragment:
		t.add("fragments", "", "%d pieces for MTU %d", e.Pieces, e.MTU)
	case *trace.Reassemble:
		t.add("fragments", "", "%d pieces made whole", e.Fragments)
	case *trace.Drop:
		t.drop(e)
	}
}

func (t *teller) route(e *trace.Route) {
	f := t.n.h.Routes
	what := "no rule"
	if e.Rule >= 0 {
		what = fmt.Sprintf("rule %d %s", f.Rule(e.Rule).Priority, f.TableName(e.Table))
	}
	text := f.RouteText(e.Index)
	if text == "" {
		text = routeWords(e, t.n.dev(e.Out))
	}
	if e.Kind == trace.Local {
		text += " -> this host"
	}
	t.add("route", what, "%s", text)
	for _, try := range e.Tried {
		if try.Why == trace.NoRoute && !t.AllRules {
			continue
		}
		if try.Why == trace.NoMatch && !t.AllRules {
			continue
		}
		t.out = append(t.out, line{detail: true, text: fmt.Sprintf("behind rule %d: %s: %s",
			f.Rule(try.Rule).Priority, f.RuleText(try.Rule), try.Why)})
	}
	if e.Check != nil && !e.Check.OK {
		t.out = append(t.out, line{where: "source check", text: t.n.check(e.Check)})
	}
}

func routeWords(e *trace.Route, out string) string {
	if out == "" {
		return e.Kind.String()
	}
	text := e.Kind.String() + " dev " + out
	if !e.Nexthop.IsZero() {
		text += " via " + e.Nexthop.String()
	}
	return text
}

func (t *teller) drop(e *trace.Drop) {
	for i := len(t.out) - 1; i >= 0 && t.out[i].host == ""; i-- {
		if t.out[i].here {
			return // the rule that did it is marked already
		}
	}
	text := string(e.Reason)
	if w := whyTexts[e.Why]; w != "" {
		text += "  " + w
	} else {
		text += "  " + string(e.Why)
	}
	here := t.main != nil && t.main.SKB == t.skb && t.main.Host == t.host
	t.out = append(t.out, line{where: "DROP", text: text, here: here})
}

// choiceTexts says what each choice of the branch was.
func (b *Branch) choiceTexts() []string {
	var out []string
	for i := range b.Taken {
		c := &b.Taken[i]
		text := choiceValue(&c.Choice, c.Index)
		if c.Key.What != world.ChoiceField {
			text = c.Key.What.String() + ": " + text
		}
		out = append(out, text)
	}
	return out
}
