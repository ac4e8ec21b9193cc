package gen

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// subject is something whose matches and misses are counted. Its name is that of
// package compare's table.
type subject struct {
	name   string
	weight int // more for what packets seldom fit
	place  func(*Gen)
}

func (s subject) weigh() int { return s.weight }

// focused is how many subjects a scenario is about.
const focused = 5

// Focus draws what the scenario of a seed is about; nothing for every fourth seed,
// whose rules are drawn without a purpose.
func Focus(seed uint64) []string {
	if seed%4 == 3 {
		return nil
	}
	g := &Gen{Rand: rand.New(rand.NewPCG(seed, 0x666f6375))}
	var out []string
	for len(out) < focused {
		if name := draw(g, subjects()).name; !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// Subjects are the names that Options.Focus takes.
func Subjects() []string {
	var out []string
	for _, s := range subjects() {
		out = append(out, s.name)
	}
	return out
}

func subjects() []subject {
	return slices.Concat(plainSubjects(), matchSubjects(), targetSubjects(), natSubjects(),
		policySubjects(), routeSubjects())
}

// rare are the subjects that need more scenarios than others, and how many times more.
func rare() map[string]int {
	return map[string]int{
		"-j CHECKSUM": 4, "-j ECN": 3, "-j TCPMSS": 3, "-j TCPOPTSTRIP": 3, "-j TPROXY": 2,
		"-m connlabel": 2, "-m dccp": 3, "-m ecn": 4, "-m esp": 4, "-m ah": 4, "-m ipcomp": 4,
		"-m helper": 4, "-m socket": 4, "-m tcpmss": 3, "-m sctp": 2, "-m cluster": 2,
		"DNAT --persistent": 2, "DNAT --random": 2, "DNAT :port-port": 4, "DNAT :port": 2, "DNAT addr-addr": 2,
		"MASQUERADE --random": 4, "MASQUERADE --random-fully": 4, "MASQUERADE :port-port": 6,
		"MASQUERADE plain": 3, "REDIRECT :port": 3, "REDIRECT :port-port": 4,
		"REDIRECT --random": 2, "SNAT --persistent": 2, "SNAT --random": 3,
		"SNAT --random-fully": 3, "SNAT :port": 4, "SNAT :port-port": 4, "SNAT addr-addr": 2,
		"ip rule blackhole": 2, "ip rule from": 2, "ip rule sport": 3, "ip rule dport": 2,
		"ip rule suppress_ifgroup": 3, "ip rule suppress_prefixlength": 3, "ip rule tos": 2,
		"route broadcast": 4, "route tos": 3, "route mtu": 3, "route nhid": 2,
		"ip rule oif": 3, "ip rule prohibit": 2, "-m physdev": 2, "-m cpu": 2, "-f": 2, "-j TRACE": 2,
	}
}

func (g *Gen) placeFocus() {
	for _, s := range subjects() {
		if slices.Contains(g.Except, s.name[strings.LastIndexByte(s.name, ' ')+1:]) {
			continue
		}
		for n := 0; n < 2 && slices.Contains(g.Focus, s.name); n++ {
			s.place(g)
		}
	}
}

func weightOf(name string) int { return max(1, rare()[name]) }

func matchSubjects() []subject {
	var out []subject
	for _, m := range matches() {
		name := "-m " + m.name
		out = append(out, subject{name, weightOf(name), func(g *Gen) { g.featureMatch(m) }})
	}
	for _, proto := range []string{"tcp", "udp", "icmp", "sctp", "dccp"} {
		name := "-m " + proto
		m := match{name: proto, fits: isProto(protoNumber(proto)), add: protoMatch(proto)}
		out = append(out, subject{name, weightOf(name), func(g *Gen) { g.featureMatch(m) }})
	}
	return out
}

func targetSubjects() []subject {
	var out []subject
	for _, t := range targets() {
		if name := "-j " + t.name; !slices.Contains([]string{"none", "jump", "goto"}, t.name) {
			out = append(out, subject{name, weightOf(name), func(g *Gen) { g.featureTarget(t, "") }})
		}
	}
	return out
}

// plainSubjects are the tests that need no extension.
func plainSubjects() []subject {
	var out []subject
	for _, option := range []string{"-s", "-d", "-i", "-o", "-f"} {
		out = append(out, subject{option, weightOf(option), func(g *Gen) {
			g.feature(func(r *rule) bool {
				g.drawPlain(r)
				return slices.Contains(r.words, option)
			})
		}})
	}
	return out
}

// feature tries rules at the head of base chains until draw takes one; nil if it
// takes none.
func (g *Gen) feature(draw func(*rule) bool) *rule {
	for range 200 {
		r := &rule{chain: g.featureChain()}
		if g.chance(50) {
			r.proto = one[uint8](g, 6, 6, 17, 17, 1, 132, 136, 50, 51, 33, 108)
			r.say(func(d *draft) { d.proto = r.proto }, "-p", protoName(r.proto))
		}
		if draw(r) {
			g.front(r)
			return r
		}
	}
	return nil
}

// front puts a rule at the head of its chain, and has packets bent to it.
func (g *Gen) front(r *rule) {
	r.chain.rules = append([]*rule{r}, r.chain.rules...)
	g.host.features = append(g.host.features, r)
}

// featureChain draws a base chain, of a table that may be new.
func (g *Gen) featureChain() *chain {
	name := one(g, "raw", "mangle", "mangle", "mangle", "filter", "nat")
	return pick(g, g.tableOf(name).chains[:len(places()[name])])
}

// tableOf is a table of the host, which is drawn where there is none.
func (g *Gen) tableOf(name string) *table {
	t := g.host.table(name)
	if t == nil {
		t = g.drawTable(name)
		g.host.tables = append(g.host.tables, t)
	}
	return t
}

func (g *Gen) featureMatch(m match) {
	r := g.feature(func(r *rule) bool {
		if r.table == "nat" || m.fits != nil && !m.fits(g, r) {
			return false
		}
		m.add(g, r)
		return true
	})
	if r != nil {
		g.prepare(r, m.name)
	}
}

// prepare has other rules do, before a match, what it looks at.
func (g *Gen) prepare(r *rule, name string) {
	before := func(text string) {
		early := &rule{chain: r.chain}
		early.say(nil, text)
		r.chain.rules = append([]*rule{early}, r.chain.rules...)
	}
	switch name {
	case "mark":
		before("-p udp " + addMARK(g, r))
	case "connmark":
		before("-p udp -j CONNMARK --set-xmark " + g.markMask())
	case "helper":
		g.helped(r)
	}
}

// helped has TFTP followed, so that there are connections that a helper expected.
func (g *Gen) helped(r *rule) {
	t := g.tableOf("raw")
	for _, c := range t.chains[:2] {
		ct := &rule{chain: c}
		ct.say(nil, "-p udp -m udp --dport 69 -j CT --helper tftp")
		c.rules = append([]*rule{ct}, c.rules...)
	}
	r.bend = append(r.bend, func(d *draft) {
		d.proto, d.dport, d.payload = 17, tftp, "\x00\x01file\x00octet\x00"
	})
}

const tftp = 69

// featureTarget places a rule with a target that few packets come to. Of NAT, form
// is what the target's options must hold.
func (g *Gen) featureTarget(t target, form string) {
	g.feature(func(r *rule) bool {
		if t.fits != nil && !t.fits(g, r) {
			return false
		}
		g.narrow(r)
		if r.table == "nat" {
			r.say(g.newFlow) // only a connection's first packet is asked about
		}
		text := t.add(g, r)
		for range 100 {
			if form == "" || slices.Contains(NATForms(strings.Fields(text)), form) {
				r.target = t.name
				r.say(nil, text)
				return true
			}
			text = t.add(g, r)
		}
		return false
	})
}

// newFlow makes a packet of a connection that there was not yet.
func (g *Gen) newFlow(d *draft) {
	d.sport, d.id = uint16(g.between(2000, 65000)), uint16(g.between(10, 65000))
}

// narrow draws a test that some packets pass and others do not.
func (g *Gen) narrow(r *rule) {
	if r.proto == 6 || r.proto == 17 {
		g.addPort(r, "--dport")
		return
	}
	p := g.prefixAt(r.hook, true)
	r.say(func(d *draft) { g.wantAddr(d, true, p.String()) }, "-s", p)
}

func protoName(n uint8) string {
	for _, p := range protocols() {
		if p.number == n && p.name != "" {
			return p.name
		}
	}
	return fmt.Sprint(n)
}
