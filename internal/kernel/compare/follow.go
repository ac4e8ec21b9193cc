package compare

import (
	"strings"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

// follower answers the choices that the kernel's trace tells: whether a rule with
// dice matched is whether it is the next step.
type follower struct {
	pair  *pair
	walk  *walk.Walk
	steps []kernel.Step // of the kernel, those that the engine traces too
	// followed counts the answers.
	followed int
}

// follow lets the dice of a walk follow the kernel's steps.
func (p *pair) follow(k *walk.Walk, a *kernel.Answer) *follower {
	f := &follower{pair: p, walk: k}
	for _, s := range a.Steps {
		if s.Family == "ip" && s.Kind != "hotdrop" {
			f.steps = append(f.steps, s)
		}
	}
	k.World.Dice.Oracle = f.answer
	return f
}

// hit and miss are the alternatives of -m statistic.
const hit, miss = 0, 1

// answer is world.Dice's Oracle. A rule that did not match for another reason may
// have rolled either way: the dice remember nothing.
func (f *follower) answer(c *world.Choice) (int, bool) {
	if c.Key.What != world.ChoiceStatistic {
		return 0, false
	}
	prog, ref := f.pair.ruleOf(int(c.Key.A))
	if prog == nil || prog.Backend == xtables.NFT && sends(prog.Text(ref)) {
		return 0, false // nf_tables tells of what was sent before it tells of the rule
	}
	f.followed++
	matched := false
	if at := f.told(int(c.Key.B >> 16)); at < len(f.steps) {
		s := &f.steps[at]
		matched = s.Kind == "rule" && s.Table == prog.Name && s.N == ref.Rule &&
			s.Chain == prog.ChainName(ref.Chain)
	}
	if matched != strings.Contains(prog.Text(ref), "! --probability") {
		return hit, true
	}
	return miss, true
}

// sends tells the rules whose target sends a packet.
func sends(rule string) bool {
	return strings.Contains(rule, "-j TEE") || strings.Contains(rule, "-j REJECT")
}

// ruleOf is the rule of a dense number, nil where it is not a rule's.
func (p *pair) ruleOf(number int) (*xtables.Program, trace.RuleRef) {
	for _, prog := range p.host.Programs() {
		for c, ch := range prog.Source.Chains {
			if number < len(ch.Rules) {
				return prog, trace.RuleRef{Table: prog.Number, Chain: c, Rule: number + 1}
			}
			number -= len(ch.Rules) + 1 // a chain's policy has a number too
		}
	}
	return nil, trace.RuleRef{}
}

// told is how many steps the kernel has told when the rules of a packet are asked.
func (f *follower) told(skb int) int {
	n := 0
	events, held := f.pair.inOrder(f.walk.Trace.Events)
	for _, e := range events {
		switch e.(type) {
		case *trace.Rule, *trace.ChainEnd:
			n++
		}
	}
	for _, r := range held {
		if r.SKB == skb { // its next step is yet to come
			n++
		}
	}
	return n
}
