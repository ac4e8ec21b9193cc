package compare

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/internal/kernel/gen"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/match"
	"github.com/hookpath/hookpath/xtables/target"
)

// Cover counts what packets met on which engine and kernel agreed: how often each
// extension, plain test, form of NAT, selector of ip rule and kind of route matched and
// did not. The zero Cover counts nothing yet.
type Cover struct {
	counts map[string]*[2]int // by name: matched, not matched
}

// The columns of Cover.
const (
	matched = iota
	missed
)

func (c *Cover) count(name string, how int) {
	if c.counts == nil {
		c.counts = map[string]*[2]int{}
	}
	if c.counts[name] == nil {
		c.counts[name] = new([2]int)
	}
	c.counts[name][how]++
}

// Add counts a walk that was traced with its skipped rules.
func (c *Cover) Add(h *walk.Host, t *trace.Trace) {
	for _, e := range t.Events {
		switch e := e.(type) {
		case *trace.Rule:
			p := h.Program(e.Ref.Table)
			r := p.RuleAt(e.Ref)
			c.tests(r, len(r.Matches), nil)
			c.target(p, e.Ref, matched)
		case *trace.Skip:
			if !e.Unsure {
				c.skip(h.Program(e.Ref.Table), e)
			}
			c.target(h.Program(e.Ref.Table), e.Ref, missed)
		case *trace.Route:
			c.route(h.Routes, e)
		}
	}
}

// skip counts a rule that did not match: what stands before the test that failed did.
func (c *Cover) skip(p *xtables.Program, e *trace.Skip) {
	r := p.RuleAt(e.Ref)
	if e.Match >= 0 {
		c.tests(r, e.Match, nil)
		c.count("-m "+r.Matches[e.Match].Ext.Name, missed)
		return
	}
	c.tests(r, 0, e.Failed)
}

// tests counts the plain tests of a rule and its first n matches as passed; with a
// failed test, the plain tests up to that.
func (c *Cover) tests(r *xtables.Rule, n int, failed *field.Pred) {
	for _, t := range plainTests() {
		switch {
		case !t.given(&r.IP):
		case failed != nil && t.id == testOf(failed):
			c.count(t.name, missed)
			return
		default:
			c.count(t.name, matched)
		}
	}
	for i := range n {
		c.count("-m "+r.Matches[i].Ext.Name, matched)
	}
}

// testOf is the field that a plain test of a rule asks.
func testOf(p *field.Pred) field.ID {
	if p.Op == field.OpNot {
		return p.Kids[0].ID
	}
	return p.ID
}

// plainTest is a test that needs no extension.
type plainTest struct {
	name  string
	id    field.ID
	given func(*xtables.IPTest) bool
}

// plainTests are in the order in which the kernel asks them.
func plainTests() []plainTest {
	return []plainTest{
		{"-s", field.Src, func(t *xtables.IPTest) bool { return !t.Src.Unset() }},
		{"-d", field.Dst, func(t *xtables.IPTest) bool { return !t.Dst.Unset() }},
		{"-i", field.In, func(t *xtables.IPTest) bool { return t.In != "" }},
		{"-o", field.Out, func(t *xtables.IPTest) bool { return t.Out != "" }},
		{"-p", field.Proto, func(t *xtables.IPTest) bool { return t.Proto != 0 }},
		{"-f", field.FragOff, func(t *xtables.IPTest) bool { return t.Frag }},
	}
}

// target counts a rule's target, or its jump.
func (c *Cover) target(p *xtables.Program, ref trace.RuleRef, how int) {
	r := p.RuleAt(ref)
	switch {
	case r.Goto:
		c.count("-g CHAIN", how)
	case r.Ext != nil:
		c.count("-j "+r.Ext.Name, how)
		for _, form := range gen.NATForms(strings.Fields(p.Text(ref))) {
			c.count(form, how)
		}
	case slices.Contains([]string{"ACCEPT", "DROP", "RETURN"}, r.Jump):
		c.count("-j "+r.Jump, how)
	case r.Jump != "":
		c.count("-j CHAIN", how)
	}
}

// route counts what a routing decision tried and chose.
func (c *Cover) route(f *route.FIB, e *trace.Route) {
	for _, t := range e.Tried {
		c.rule(f.Rule(t.Rule), t.Why != trace.NoMatch, t.Why == trace.Suppressed)
	}
	if e.Rule >= 0 {
		c.rule(f.Rule(e.Rule), true, false)
	}
	if e.Index < 0 {
		return
	}
	r := f.Route(e.Index)
	c.count("route "+r.Kind.String(), matched)
	for _, form := range []struct {
		name string
		has  bool
	}{
		{"multipath", len(r.Hops) > 1}, {"nhid", r.NHID != 0}, {"tos", r.TOS != 0},
		{"src", !r.Src.IsZero()}, {"realm", r.Realms != 0}, {"metric", r.Metric != 0},
		{"mtu", r.MTU != 0}, {"onlink", len(r.Hops) > 0 && r.Hops[0].OnLink},
	} {
		if form.has {
			c.count("route "+form.name, matched)
		}
	}
}

// rule counts the selectors and the action of an ip rule. Of one that did not match,
// only a lone selector is known to be the one that failed.
func (c *Cover) rule(r route.Rule, ok, suppressed bool) {
	if r.Priority == 0 || r.Priority >= 32766 {
		return
	}
	how := missed
	if ok {
		how = matched
	}
	c.action(&r, how, suppressed)
	if r.Not {
		c.count("ip rule not", how)
		return
	}
	names := selectors(&r)
	if !ok && len(names) > 1 {
		return
	}
	for _, name := range names {
		c.count("ip rule "+name, how)
	}
}

func (c *Cover) action(r *route.Rule, how int, suppressed bool) {
	name := map[route.Action]string{route.ToTable: "lookup", route.Goto: "goto", route.Nop: "nop",
		route.BlackholeAction: "blackhole", route.UnreachableAction: "unreachable",
		route.ProhibitAction: "prohibit"}[r.Action]
	c.count("ip rule "+name, how)
	if how == missed {
		return
	}
	if !suppressed {
		how = missed
	}
	if r.SuppressPrefix.Set {
		c.count("ip rule suppress_prefixlength", how)
	}
	if r.SuppressGroup.Set {
		c.count("ip rule suppress_ifgroup", how)
	}
}

// selectors are the selectors that an ip rule has, by the words of ip rule.
func selectors(r *route.Rule) []string {
	var out []string
	for _, s := range []struct {
		name string
		has  bool
	}{
		{"from", r.Src.IsValid() && r.Src.Bits() > 0}, {"to", r.Dst.IsValid() && r.Dst.Bits() > 0},
		{"iif", r.In != ""}, {"oif", r.Out != ""}, {"fwmark", r.MarkMask != 0},
		{"tos", r.TOS != 0}, {"ipproto", r.Proto != 0}, {"sport", !r.SPort.IsZero()},
		{"dport", !r.DPort.IsZero()}, {"uidrange", r.UID.Set},
	} {
		if s.has {
			out = append(out, s.name)
		}
	}
	return out
}

// Print writes a line for each name: matched, not matched.
func (c *Cover) Print(w io.Writer) {
	for _, name := range slices.Sorted(maps.Keys(c.counts)) {
		n := c.counts[name]
		fmt.Fprintf(w, "%-30s %8d matched %8d not\n", name, n[matched], n[missed])
	}
	left := leftOut()
	for _, name := range slices.Sorted(maps.Keys(left)) {
		fmt.Fprintf(w, "%-30s left out: %s\n", name, left[name])
	}
}

// Short are the names that have fewer than n matches, or non-matches where they can
// fail.
func (c *Cover) Short(n int) []string {
	var out []string
	for _, name := range wanted() {
		if c.lacks(name, n) {
			k := c.of(name)
			out = append(out, fmt.Sprintf("%s (%d matched, %d not)", name, k[matched], k[missed]))
		}
	}
	return out
}

func (c *Cover) of(name string) [2]int {
	if k := c.counts[name]; k != nil {
		return *k
	}
	return [2]int{}
}

func (c *Cover) lacks(name string, n int) bool {
	k := c.of(name)
	return k[matched] < n || k[missed] < n && !neverFails(name)
}

// helps tells whether a scenario about some subjects covers what is short.
func (c *Cover) helps(focus []string, n int) bool {
	return slices.ContainsFunc(focus, func(name string) bool { return c.lacks(name, n) })
}

// neverFails tells what has no way not to match.
func neverFails(name string) bool {
	return name == "-m comment" || strings.HasPrefix(name, "route ")
}

// wanted are the names that must be covered.
func wanted() []string {
	left := leftOut()
	var out []string
	add := func(name string) {
		if left[name] == "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	for _, m := range match.All() {
		if m.Families.Has(trace.IPv4) {
			add("-m " + m.Name)
		}
	}
	for _, t := range target.All() {
		if t.Families.Has(trace.IPv4) {
			add("-j " + t.Name)
		}
	}
	for _, name := range gen.Subjects() {
		add(name)
	}
	for _, name := range []string{"-p", "-j CHAIN", "-g CHAIN", "-j ACCEPT", "-j DROP", "-j RETURN",
		"route unicast", "route local", "route broadcast", "route blackhole", "route unreachable",
		"route prohibit", "route multipath", "route nhid", "route onlink", "route src",
		"route realm", "route tos", "route metric", "route mtu"} {
		add(name)
	}
	return out
}

// leftOut says of each extension that is not compared why not.
func leftOut() map[string]string {
	out := map[string]string{
		"-m bpf":      "the engine refuses it: programs are not run",
		"-m cgroup":   "the engine refuses it: control groups are not in a snapshot",
		"-m ipvs":     "the engine refuses it: IPVS is not run yet",
		"-m nfacct":   "the kernel refuses it without an object, which no dump of iptables holds",
		"-m osf":      "the engine refuses it: fingerprints are not in a snapshot",
		"-m rateest":  "the engine refuses it: estimates are not in a snapshot",
		"-j SECMARK":  "the kernel refuses it without a security module",
		"-j SYNPROXY": "the engine refuses it: its cookies hang on a secret",
	}
	for _, list := range []struct{ option, file string }{
		{"-m", "/proc/net/ip_tables_matches"}, {"-j", "/proc/net/ip_tables_targets"}} {
		text, err := os.ReadFile(list.file)
		if err != nil {
			continue // then all of them must be covered
		}
		has := strings.Fields(string(text))
		for _, name := range known(list.option) {
			if !slices.Contains(has, name) {
				out[list.option+" "+name] = "this kernel has none"
			}
		}
	}
	return out
}

// known are the extensions that the engine knows.
func known(option string) []string {
	var out []string
	if option == "-m" {
		for _, m := range match.All() {
			out = append(out, m.Name)
		}
		return out
	}
	for _, t := range target.All() {
		out = append(out, t.Name)
	}
	return out
}
