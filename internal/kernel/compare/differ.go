package compare

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/xtables"
)

// differ says what the engine did otherwise than the kernel, nil for nothing.
func (p *pair) differ(k *walk.Walk, a *kernel.Answer) *Diff {
	return p.differMasked(k, a, newMask(k.Trace.Events))
}

func (p *pair) differMasked(k *walk.Walk, a *kernel.Answer, m *mask) *Diff {
	if k.Err != nil {
		return &Diff{What: "engine", Engine: k.Err.Error()}
	}
	got, want := p.steps(k.Trace), p.kernelSteps(a.Steps)
	if d := newDiff("rules", got, agree(got, want)); d != nil && !(p.raced && sameSteps(got, want)) {
		return d
	}
	if d := m.compare("frames", p.frames(k.Trace), kernelFrames(a)); d != nil {
		return d
	}
	if d := m.compare("deliveries", deliveries(k.Trace), kernelDeliveries(a)); d != nil {
		return d
	}
	got, want = p.connections(k), slices.Clone(a.Flows)
	slices.Sort(got)
	slices.Sort(want)
	return newDiff("connections", got, want)
}

// sameSteps tells whether the steps are the same in another order.
func sameSteps(got, want []string) bool {
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	return newDiff("rules", got, agree(got, want)) == nil
}

// agree takes the engine's word into steps for which the kernel's trace tells too
// little: the verdict of an extension's target in legacy rules, and whether the match or
// the target dropped where both may.
func agree(got, want []string) []string {
	want = slices.Clone(want)
	for i := range want {
		if i < len(got) && got[i] == strings.Replace(want[i], " rule ", " hotdrop ", 1) {
			want[i] = got[i]
		}
		if i < len(got) && strings.HasSuffix(want[i], " ?") &&
			strings.HasPrefix(got[i], strings.TrimSuffix(want[i], "?")) {
			want[i] = got[i]
		}
	}
	return want
}

// kernelSteps are the kernel's trace. That a match dropped the packet is traced by
// nf_tables alone.
func (p *pair) kernelSteps(steps []kernel.Step) []string {
	var out []string
	for _, s := range steps {
		if s.Family != "ip" {
			continue
		}
		v := s.Verdict
		if v == "" {
			v = "?"
		}
		out = append(out, fmt.Sprintf("%s %s %s %d %s", s.Table, s.Chain, s.Kind, s.N, v))
	}
	return out
}

// inOrder are the events in the kernel's order: nf_tables tells of a rule behind what
// its target set in motion (REJECT's answer), legacy rules before that. What is not told
// of yet comes apart, the innermost last.
func (p *pair) inOrder(events []trace.Event) (out []trace.Event, held []*trace.Rule) {
	for _, e := range events {
		first := slices.IndexFunc(held, func(r *trace.Rule) bool { return r.SKB == e.Base().SKB })
		if _, dice := e.(*trace.Choice); dice {
			first = -1 // of an answer's route
		}
		for n := len(held); first >= 0 && n > first; n = len(held) {
			out, held = append(out, held[n-1]), held[:n-1]
		}
		r, ok := e.(*trace.Rule)
		if ok && p.toldLate(r) {
			held = append(held, r)
			continue
		}
		out = append(out, e)
	}
	return out, held
}

// toldLate tells the rules whose target may set something in motion before nf_tables
// tells of them.
func (p *pair) toldLate(r *trace.Rule) bool {
	prog := p.host.Program(r.Ref.Table)
	rule := prog.RuleAt(r.Ref)
	return prog.Backend == xtables.NFT && rule != nil && rule.Ext != nil &&
		(rule.Ext.Name == "REJECT" || rule.Ext.Name == "TEE")
}

// steps are the engine's trace in the kernel's words.
func (p *pair) steps(t *trace.Trace) []string {
	var out []string
	var last trace.RuleRef
	events, held := p.inOrder(t.Events)
	for _, r := range slices.Backward(held) {
		events = append(events, r)
	}
	for _, e := range events {
		switch e := e.(type) {
		case *trace.Rule:
			out = append(out, p.step("rule", e.Ref, e.Ref.Rule, e.Verdict, e.Chain))
		case *trace.ChainEnd:
			kind := "return"
			if e.Policy {
				kind = "policy"
			}
			rules := p.host.Program(e.Ref.Table).Source.Chains[e.Ref.Chain].Rules
			out = append(out, p.step(kind, e.Ref, len(rules)+1, e.Verdict, 0))
		case *trace.Drop:
			if p.hotdrop(e, last) {
				out = append(out, p.step("hotdrop", *e.By, e.By.Rule, trace.DropIt, 0))
			}
		}
		if r, ok := e.(*trace.Rule); ok {
			last = r.Ref
		}
	}
	return out
}

// hotdrop tells whether a match, and not a rule's target, dropped the packet where
// that is traced. last is the last rule that matched.
func (p *pair) hotdrop(d *trace.Drop, last trace.RuleRef) bool {
	return d.By != nil && d.By.Table >= 0 && d.By.Rule > 0 && *d.By != last &&
		p.host.Program(d.By.Table).Backend == xtables.NFT
}

func (p *pair) step(kind string, r trace.RuleRef, n int, v trace.Verdict, to int) string {
	prog := p.host.Program(r.Table)
	word := strings.ToUpper(v.String())
	if v == trace.Jump || v == trace.Goto {
		word += " " + prog.ChainName(to)
	}
	return fmt.Sprintf("%s %s %s %d %s", prog.Name, prog.ChainName(r.Chain), kind, n, word)
}

func (p *pair) connections(k *walk.Walk) []string {
	out := []string{}
	if p.host.Tracks() {
		for _, line := range p.host.Conntrack.Dump(k.World, conntrack.Format{Extended: true}) {
			words := strings.Fields(line)
			words = slices.DeleteFunc(words, func(w string) bool {
				return strings.HasPrefix(w, "use=")
			})
			out = append(out, strings.Join(words, " "))
		}
	}
	return out
}

// story is a disagreement with all that repeats it.
func (p *pair) story(k *walk.Walk, q *kernel.Question, a *kernel.Answer, diff *Diff) string {
	how := "arrives on " + q.In
	if q.Out {
		how = fmt.Sprintf("is sent by a %s socket (uid %d, mark %#x)", q.Socket, q.UID, q.Mark)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d question %s: a packet that %s: %s\n%s\n", p.seed, q.ID, how,
		sentence(q), diff)
	fmt.Fprintf(&b, "engine's outcomes:\n")
	for i := range k.Trace.Outcomes {
		o := &k.Trace.Outcomes[i]
		fmt.Fprintf(&b, "  %d %s %s %s\n", o.SKB, o.Result, o.Reason, o.Why)
	}
	fmt.Fprintf(&b, "kernel: %d frames, %d deliveries, send %q\n", len(a.Out), len(a.Delivered),
		a.Send)
	for _, f := range a.Out {
		fmt.Fprintf(&b, "  %s %x\n", f.Dev, []byte(f.Bytes))
	}
	p.eachRule(append(p.steps(k.Trace), p.kernelSteps(a.Steps)...), func(name, text string) {
		fmt.Fprintf(&b, "  %s: %s\n", name, text)
	})
	return b.String()
}

// eachRule calls f with the rules that the steps name: "filter FORWARD rule 3" and the
// rule's text.
func (p *pair) eachRule(steps []string, f func(name, text string)) {
	seen := map[string]bool{}
	for _, prog := range p.host.Programs() {
		for c := range prog.Source.Chains {
			for n := range prog.Source.Chains[c].Rules {
				ref := trace.RuleRef{Table: prog.Number, Chain: c, Rule: n + 1}
				name := fmt.Sprintf("%s %s rule %d", prog.Name, prog.ChainName(c), n+1)
				named := slices.ContainsFunc(steps, func(s string) bool {
					return strings.HasPrefix(s, name+" ")
				})
				if named && !seen[name] {
					seen[name] = true
					f(name, prog.Text(ref))
				}
			}
		}
	}
}

func sentence(q *kernel.Question) string {
	p, ok := packet.FromFrame(q.Frame)
	if q.Out {
		p, ok = packet.FromIP(q.Packet)
	}
	if !ok || !p.Is4() {
		return hex.EncodeToString(append(q.Frame, q.Packet...))
	}
	s, d, _ := p.Ports()
	return fmt.Sprintf("proto %d %s:%d to %s:%d, %s", p.Protocol(), p.Src(), s, p.Dst(), d,
		hex.EncodeToString(append(q.Frame, q.Packet...)))
}
