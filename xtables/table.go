package xtables

import (
	"fmt"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Program is one table, compiled: flat lists of chains and rules that refer to one
// another by number. It is immutable.
//
// Kernel: net/netfilter/x_tables.c, struct xt_table_info.
type Program struct {
	Number  int // of the table in its host, for trace.RuleRef
	Name    string
	Family  trace.Family
	Backend Backend
	// Source is what was compiled; reports print from it.
	Source *Table

	chains   []chain
	rules    []rule
	entry    [6]int // chain of each hook, -1 where the table has none
	counters world.Slot[*world.Array[Counters]]
	// shapes say of how many tests a rule's own part consists, and each of its matches
	// behind that: a byte each. Most rules are alike.
	shapes []string
	// Linear asks every rule in turn: the slow twin that the index is held against.
	Linear bool
}

type chain struct {
	first, n int // its rules in Program.rules
	policy   trace.Verdict
	builtin  bool
	number   int // dense number of the policy's counter
	segments []segment
}

type rule struct {
	pred    field.Pred
	verdict trace.Verdict // Continue with a target or without any
	shape   uint32        // number in Program.shapes
	jump    int           // chain of Jump and Goto
	target  Target
	number  int // dense number in the host
}

// Validator is implemented by extensions that the kernel may refuse, that need
// something of the host, or that can't be run: it is asked before Pred and Do.
type Validator interface{ Validate(*Build) error }

// Compiler turns the tables of a host into Programs. Counters is the memory of all
// of them; rules are numbered from Next on.
type Compiler struct {
	Build    Build
	Counters world.Slot[*world.Array[Counters]]
	Next     int
	File     string

	shapes map[string]uint32 // of the present table, see Program.shapes
	slab   field.Slab
	kids   []field.Pred // of the present rule
}

// Compile compiles one table. An error is an *Error and names the line.
func (c *Compiler) Compile(rs *Ruleset, t *Table, number int) (*Program, error) {
	p := &Program{Number: number, Name: t.Name, Family: rs.Family, Backend: rs.Backend, Source: t,
		counters: c.Counters, chains: make([]chain, len(t.Chains)),
		entry: [6]int{-1, -1, -1, -1, -1, -1}}
	n := 0
	for _, ch := range t.Chains {
		n += len(ch.Rules)
	}
	p.rules = make([]rule, 0, n)
	c.shapes = map[string]uint32{}
	reach := reachable(t)
	for i, ch := range t.Chains {
		p.chains[i] = chain{first: len(p.rules), n: len(ch.Rules), policy: ch.Policy,
			builtin: ch.Builtin}
		if ch.Builtin {
			p.entry[ch.Hook] = i
		}
		for j := range ch.Rules {
			if err := c.rule(p, rs, &ch.Rules[j], reach[i]); err != nil {
				return nil, err
			}
		}
		p.chains[i].number = c.Next
		c.Next++
		p.chains[i].segments = buildSegments(p.rules[p.chains[i].first:])
	}
	return p, nil
}

// reachable is, for each chain, the set of hooks that it can be reached from.
func reachable(t *Table) []Hooks {
	reach := make([]Hooks, len(t.Chains))
	var todo []int
	for i, c := range t.Chains {
		if c.Builtin {
			reach[i] = 1 << c.Hook
			todo = append(todo, i)
		}
	}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for k := range t.Chains[i].Rules {
			to := t.Chains[i].Rules[k].to
			if to != nil && reach[to.place]|reach[i] != reach[to.place] {
				reach[to.place] |= reach[i]
				todo = append(todo, to.place)
			}
		}
	}
	return reach
}

func (c *Compiler) rule(p *Program, rs *Ruleset, r *Rule, reach Hooks) error {
	b := &c.Build
	b.Family, b.Table, b.Hooks, b.Rule, b.Number = rs.Family, p.Name, reach, r, c.Next
	b.Backend, b.Version = rs.Backend, rs.Version
	out := rule{number: c.Next}
	c.Next++
	kids := appendIPTests(c.kids[:0], b, &r.IP)
	own := len(kids)
	for _, m := range r.Matches {
		if err := admit(b, m.M, m.Ext.Limits); err != nil {
			return &Error{rs.File, r.Line, "-m " + m.Ext.Name, err.Error()}
		}
		kids = append(kids, m.M.Pred(b))
	}
	out.shape = c.shape(p, own, kids[own:])
	out.pred, c.kids = c.slab.And(kids...), kids
	if r.Ext != nil {
		if err := admit(b, r.Target, r.Ext.Limits); err != nil {
			return &Error{rs.File, r.Line, "-j " + r.Ext.Name, err.Error()}
		}
		out.target = r.Target
	} else if r.Jump != "" {
		out.verdict, out.jump = jumpOf(r)
	}
	p.rules = append(p.rules, out)
	return nil
}

// shape is the number of the shape of a rule with some tests of its own and matches.
func (c *Compiler) shape(p *Program, own int, matches []field.Pred) uint32 {
	var buf [16]byte
	b := append(buf[:0], byte(own))
	for i := range matches {
		b = append(b, byte(min(matches[i].Tests(), 255)))
	}
	n, ok := c.shapes[string(b)]
	if !ok {
		n = uint32(len(p.shapes))
		p.shapes = append(p.shapes, string(b))
		c.shapes[string(b)] = n
	}
	return n
}

func jumpOf(r *Rule) (trace.Verdict, int) {
	switch v, _ := standard(r.Jump); {
	case r.to == nil:
		return v, 0
	case r.Goto:
		return trace.Goto, r.to.place
	}
	return trace.Jump, r.to.place
}

// admit refuses what the kernel refuses at load: an extension in a chain that is
// reached from a hook where it can't work.
func admit(b *Build, ext any, l Limits) error {
	if l.Hooks != 0 && b.Hooks&^l.Hooks != 0 {
		return fmt.Errorf("can't be reached from %s", hookNames(b.Hooks&^l.Hooks))
	}
	if v, ok := ext.(Validator); ok {
		return v.Validate(b)
	}
	return nil
}

func hookNames(hs Hooks) string {
	s := ""
	for h := trace.Prerouting; h <= trace.Postrouting; h++ {
		if hs>>h&1 != 0 {
			if s != "" {
				s += ", "
			}
			s += h.String()
		}
	}
	return s
}

// appendIPTests adds what a rule asks without any -m, in the kernel's order.
//
// Kernel: net/ipv4/netfilter/ip_tables.c, ip_packet_match.
func appendIPTests(kids []field.Pred, b *Build, t *IPTest) []field.Pred {
	add := func(bit Not, id field.ID, s field.Set) {
		kids = append(kids, field.NotIf(t.Not&bit != 0, field.Is(id, s)))
	}
	if !t.Src.Unset() || t.Not&NotSrc != 0 {
		add(NotSrc, field.Src, t.Src.Holds())
	}
	if !t.Dst.Unset() || t.Not&NotDst != 0 {
		add(NotDst, field.Dst, t.Dst.Holds())
	}
	if !anyDev(t.In) {
		add(NotIn, field.In, b.Devs(t.In))
	}
	if !anyDev(t.Out) {
		add(NotOut, field.Out, b.Devs(t.Out))
	}
	if t.Not&NotIn != 0 && anyDev(t.In) || t.Not&NotOut != 0 && anyDev(t.Out) {
		kids = append(kids, field.Never())
	}
	if t.Proto != 0 {
		add(NotProto, field.Proto, field.Num(uint64(t.Proto)))
	}
	if t.Frag {
		kids = append(kids, field.NotIf(t.Not&NotFrag == 0, field.Is(field.FragOff, field.Num(0))))
	}
	return kids
}

// anyDev tells whether a name or pattern holds every interface, and none.
func anyDev(name string) bool { return name == "" || name == "+" }

// HasHook tells whether the table has a base chain at a hook.
func (p *Program) HasHook(h trace.Hook) bool { return p.entry[h] >= 0 }

// frame is where a jump returns to.
type frame struct{ chain, next int }

// Run walks the table's rules for a hook and returns Accept, DropIt, Queue or
// Stolen.
//
// Kernel: net/ipv4/netfilter/ip_tables.c, ipt_do_table.
func (p *Program) Run(e *Env) trace.Verdict {
	if p.entry[e.Hook] < 0 {
		return trace.Accept
	}
	r := run{p: p, e: e, base: len(e.stack), at: frame{p.entry[e.Hook], 0}}
	e.Table = p
	for {
		if v, done := r.step(); done {
			e.stack = e.stack[:r.base]
			return v
		}
	}
}

// run is one walk through a table.
type run struct {
	p    *Program
	e    *Env
	at   frame
	base int // of its jumps in Env.stack
	cur  cursor
	hits *world.Array[Counters]
}

// step goes to the next rule that matches, or to the end of the chain.
func (r *run) step() (trace.Verdict, bool) {
	c := &r.p.chains[r.at.chain]
	for {
		i := r.cur.next(r, c)
		if i >= c.n {
			return r.endOfChain(c)
		}
		r.at.next = i + 1
		rl := &r.p.rules[c.first+i]
		r.e.Rule = rl.number
		if r.e.Trace != nil {
			r.e.Trace.Tried++
		}
		switch rl.pred.Eval(r.e) {
		case field.Yes:
			return r.matched(rl, i)
		case field.Drop:
			r.hotdrop(i)
			return trace.DropIt, true
		}
		if r.e.Trace != nil && r.e.Trace.Skips {
			r.skipped(rl, i)
		}
	}
}

func (r *run) ref(i int) trace.RuleRef {
	return trace.RuleRef{Table: r.p.Number, Chain: r.at.chain, Rule: i + 1}
}

// matched counts the rule and does what it says.
func (r *run) matched(rl *rule, i int) (trace.Verdict, bool) {
	r.count(rl.number)
	r.e.By = r.ref(i)
	v := rl.verdict
	var ev *trace.Rule
	if r.e.Trace != nil {
		// The event comes before what the target does nested, such as an ICMP error.
		r.e.Trace.Matched++
		ev = &trace.Rule{Ref: r.ref(i), Verdict: v, Chain: rl.jump}
		r.e.Trace.Add(r.e.Packet, ev)
	}
	if rl.target != nil {
		v = rl.target.Do(r.e)
		if v == trace.DropIt { // many drop what is too short for them
			r.e.Deps().Note(field.Len, field.Ones(field.Len.Bits()))
		}
		if ev != nil {
			ev.Verdict, ev.Packet = v, trace.SnapOf(r.e.Packet)
		}
	}
	switch v {
	case trace.Continue:
		return 0, false
	case trace.Jump:
		r.e.stack = append(r.e.stack, r.at)
		r.enter(rl.jump)
		return 0, false
	case trace.Goto:
		r.enter(rl.jump)
		return 0, false
	case trace.Return:
		return r.leave()
	}
	return v, true
}

func (r *run) enter(chain int) {
	r.at = frame{chain, 0}
	r.cur.seg = nil
}

// endOfChain is reached behind the last rule.
func (r *run) endOfChain(c *chain) (trace.Verdict, bool) {
	if !c.builtin && r.e.Trace != nil {
		r.e.Trace.Add(r.e.Packet, &trace.ChainEnd{Ref: r.ref(-1), Verdict: trace.Return})
	}
	return r.leave()
}

// leave goes back behind the last jump, or takes the policy of the base chain when
// there is none: after a goto from a base chain, too.
func (r *run) leave() (trace.Verdict, bool) {
	if n := len(r.e.stack); n > r.base {
		r.at, r.e.stack = r.e.stack[n-1], r.e.stack[:n-1]
		r.cur.seg = nil
		return 0, false
	}
	base := r.p.entry[r.e.Hook]
	c := &r.p.chains[base]
	r.count(c.number)
	r.at.chain = base
	r.e.By = r.ref(-1)
	if r.e.Trace != nil {
		r.e.Trace.Add(r.e.Packet, &trace.ChainEnd{Ref: r.ref(-1), Policy: true,
			Verdict: c.policy})
	}
	return c.policy, true
}

func (r *run) count(number int) {
	if r.hits == nil {
		r.hits = r.p.counters.In(r.e.World.State)
	}
	c := r.hits.Ref(number)
	c.Packets++
	c.Bytes += uint64(r.e.Packet.Len())
}

func (r *run) hotdrop(i int) { r.e.By = r.ref(i) }

func (r *run) skipped(rl *rule, i int) {
	failed, at := firstFailed(&rl.pred, r.e)
	r.e.Trace.Add(r.e.Packet, &trace.Skip{Ref: r.ref(i), Failed: failed,
		Match: r.p.matchOf(rl, at), Unsure: failed.HasCall() && at+1 < rl.pred.Tests()})
}

// matchOf is the index of the match that a rule's test belongs to, -1 for the rule itself.
func (p *Program) matchOf(rl *rule, test int) int {
	shape := p.shapes[rl.shape]
	for i := range len(shape) {
		if test -= int(shape[i]); test < 0 {
			return i - 1
		}
	}
	return -1
}

// firstFailed is the first test of a conjunction that does not match, and its index.
// Tests that change memory are not asked again.
func firstFailed(p *field.Pred, e *Env) (*field.Pred, int) {
	if p.Op != field.OpAnd {
		return p, 0
	}
	for i := range p.Kids {
		if p.Kids[i].HasCall() || p.Kids[i].Eval(e) != field.Yes {
			return &p.Kids[i], i
		}
	}
	return p, 0
}

// Rules is the number of rules in the table.
func (p *Program) Rules() int { return len(p.rules) }

// ChainName returns the name of a chain of the table.
func (p *Program) ChainName(n int) string { return p.Source.Chains[n].Name }

// Text prints a rule as it stands behind "-A CHAIN", without the leading blank.
func (p *Program) Text(ref trace.RuleRef) string {
	c := p.Source.Chains[ref.Chain]
	if ref.Rule < 1 || ref.Rule > len(c.Rules) {
		return ""
	}
	b := AppendRule(nil, p.Family, &c.Rules[ref.Rule-1])
	if len(b) > 0 {
		b = b[1:]
	}
	return string(b)
}

// Pred is what a rule asks of a packet, its targets aside. The reference must not name a
// policy.
func (p *Program) Pred(ref trace.RuleRef) *field.Pred {
	return &p.rules[p.chains[ref.Chain].first+ref.Rule-1].pred
}

// RuleAt returns the rule that a reference names, nil for a policy.
func (p *Program) RuleAt(ref trace.RuleRef) *Rule {
	c := p.Source.Chains[ref.Chain]
	if ref.Rule < 1 || ref.Rule > len(c.Rules) {
		return nil
	}
	return &c.Rules[ref.Rule-1]
}
