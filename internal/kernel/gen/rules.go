package gen

import (
	"fmt"
	"slices"
	"strings"
)

// table is a drawn table.
type table struct {
	name   string
	chains []*chain
}

// chain is a drawn chain; a user chain belongs to one hook, from which alone it
// is reached, since extensions are allowed by hook.
type chain struct {
	table  string
	name   string
	hook   string
	policy string // "-" of a user chain
	rules  []*rule
	parent *rule // the rule that jumps here first
}

// rule is a drawn rule, with what a packet must be to match it.
type rule struct {
	*chain
	proto  uint8 // 0: any
	words  []string
	bend   []func(*draft)
	target string
}

// place is where rules may stand, by table.
func places() map[string][]string {
	return map[string][]string{
		"raw":      {"PREROUTING", "OUTPUT"},
		"mangle":   {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
		"nat":      {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
		"filter":   {"INPUT", "FORWARD", "OUTPUT"},
		"security": {"INPUT", "FORWARD", "OUTPUT"},
	}
}

func (g *Gen) drawTables(h *host) {
	for _, t := range []struct {
		name    string
		percent int
	}{{"raw", 45}, {"mangle", 65}, {"nat", 65}, {"filter", 85}, {"security", 15}} {
		if g.chance(t.percent) {
			h.tables = append(h.tables, g.drawTable(t.name))
		}
	}
	if len(h.tables) == 0 {
		h.tables = append(h.tables, g.drawTable("filter"))
	}
	all := h.chains()
	for _, c := range all {
		if c.policy == "-" {
			g.addWay(c)
		}
	}
	for range g.Rules/2 + g.IntN(g.Rules) {
		g.addRule(pick(g, all))
	}
}

// addWay draws a jump or goto to a user chain that asks little, so that the
// chain is reached.
func (g *Gen) addWay(c *chain) {
	var from []*chain
	for _, other := range g.host.table(c.table).chains {
		if slices.Contains(g.host.children(other), c) {
			from = append(from, other)
		}
	}
	r := &rule{chain: pick(g, from), target: "jump"}
	if g.chance(50) {
		g.drawProto(r)
	}
	option := "-j"
	if g.chance(20) {
		option, r.target = "-g", "goto"
	}
	r.say(nil, option, c.name)
	r.chain.rules = append(r.chain.rules, r)
	c.parent = r
}

func (g *Gen) drawTable(name string) *table {
	t := &table{name: name}
	for _, hook := range places()[name] {
		policy := "ACCEPT"
		if name != "nat" && g.chance(6) {
			policy = "DROP"
		}
		t.chains = append(t.chains, &chain{table: name, name: hook, hook: hook, policy: policy})
	}
	for _, base := range t.chains[:len(t.chains):len(t.chains)] {
		for i := range g.IntN(3) {
			t.chains = append(t.chains, &chain{table: name, hook: base.hook, policy: "-",
				name: fmt.Sprintf("%s-%s%d", name[:1], base.name[:3], i)})
		}
	}
	return t
}

func (h *host) chains() []*chain {
	var out []*chain
	for _, t := range h.tables {
		out = append(out, t.chains...)
	}
	return out
}

func (h *host) table(name string) *table {
	for _, t := range h.tables {
		if t.name == name {
			return t
		}
	}
	return nil
}

// addRule draws a rule at the end of a chain.
func (g *Gen) addRule(c *chain) {
	r := &rule{chain: c}
	g.drawPlain(r)
	g.drawProto(r)
	for range one(g, 0, 1, 1, 1, 1, 2) {
		g.drawMatch(r)
	}
	if len(r.words) == 0 && g.chance(80) { // else nothing passes it
		g.drawMatch(r)
	}
	g.drawTarget(r)
	c.rules = append(c.rules, r)
}

// say adds words; a nil wish asks nothing of the packet.
func (r *rule) say(wish func(*draft), words ...any) {
	for _, w := range words {
		r.words = append(r.words, fmt.Sprint(w))
	}
	if wish != nil {
		r.bend = append(r.bend, wish)
	}
}

// has tells whether the rule has these words.
func (r *rule) has(words string) bool {
	return strings.Contains(strings.Join(r.words, " ")+" ", words+" ")
}

// not draws "!" before an option. The wish of an inverted option is dropped,
// since almost any packet fits.
func (g *Gen) not(r *rule, wish func(*draft), words ...any) {
	if strings.HasPrefix(fmt.Sprint(words[0]), "-m ") { // the option stands behind
		r.say(nil, words[0])
		words = words[1:]
	}
	if g.chance(18) {
		r.say(nil, "!")
		wish = nil
	}
	r.say(wish, words...)
}

// drawPlain draws -s, -d, -i, -o and -f.
func (g *Gen) drawPlain(r *rule) {
	if g.chance(20) {
		p := g.prefixAt(r.hook, true)
		g.not(r, func(d *draft) { g.wantAddr(d, true, p.String()) }, "-s", p)
	}
	if g.chance(20) {
		p := g.prefixAt(r.hook, false)
		g.not(r, func(d *draft) { g.wantAddr(d, false, p.String()) }, "-d", p)
	}
	if g.chance(15) && r.hook != "OUTPUT" && r.hook != "POSTROUTING" {
		dev := one(g, g.dev(), g.dev(), "lo", "eth+")
		g.not(r, func(d *draft) { d.wantIn(dev) }, "-i", dev)
	}
	if g.chance(15) && r.hook != "PREROUTING" && r.hook != "INPUT" {
		dev := one(g, g.dev(), g.dev(), "lo", "eth+")
		g.not(r, nil, "-o", dev)
	}
	if g.chance(2) {
		g.not(r, func(d *draft) { d.fragment = true }, "-f")
	}
}

// protocol is a protocol that rules name.
type protocol struct {
	name   string
	number uint8
	weight int
}

func (p protocol) weigh() int { return p.weight }

func protocols() []protocol {
	return []protocol{{"tcp", 6, 35}, {"udp", 17, 25}, {"icmp", 1, 12}, {"", 0, 25},
		{"sctp", 132, 4}, {"gre", 47, 1}, {"esp", 50, 1}, {"ah", 51, 1}, {"udplite", 136, 1},
		{"dccp", 33, 1}, {"ipcomp", 108, 1}, {"99", 99, 1}}
}

func protoNumber(name string) uint8 {
	for _, p := range protocols() {
		if p.name == name {
			return p.number
		}
	}
	return 0
}

func (g *Gen) drawProto(r *rule) {
	p := draw(g, protocols())
	if p.name == "" {
		return
	}
	if g.chance(6) { // an inverted protocol allows no protocol's match
		r.say(nil, "!", "-p", p.name)
		return
	}
	r.proto = p.number
	r.say(func(d *draft) { d.proto = p.number }, "-p", p.name)
	if m := protoMatch(p.name); m != nil && g.chance(60) {
		m(g, r)
	}
}

// rulesFile is what iptables-restore reads.
func (h *host) rulesFile() string {
	var b strings.Builder
	for _, t := range h.tables {
		fmt.Fprintf(&b, "*%s\n", t.name)
		for _, c := range t.chains {
			fmt.Fprintf(&b, ":%s %s [0:0]\n", c.name, c.policy)
		}
		for _, c := range t.chains {
			for _, r := range c.rules {
				fmt.Fprintf(&b, "-A %s %s\n", c.name, strings.Join(r.words, " "))
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

// children are the user chains of the same hook that may be jumped to: later
// ones only, so that there are no loops.
func (h *host) children(c *chain) []*chain {
	t := h.table(c.table)
	if t == nil {
		return nil
	}
	at := slices.Index(t.chains, c)
	var out []*chain
	for i, other := range t.chains {
		if i > at && other.hook == c.hook && other.policy == "-" {
			out = append(out, other)
		}
	}
	return out
}
