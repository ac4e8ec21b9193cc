package gen

import (
	"fmt"
	"maps"
	"slices"
)

// policySubjects are the selectors and actions of ip rules. What is drawn for them
// stands behind the rule for the local table.
func policySubjects() []subject {
	var out []subject
	for _, s := range selectors() {
		out = append(out, policySubject(s.name, func(g *Gen, r map[string]any) *rule {
			r["table"] = fmt.Sprint(one(g, "100", "101", "102", "main"))
			return g.select1(r, s)
		}))
	}
	out = append(out, policySubject("not", func(g *Gen, r map[string]any) *rule {
		r["not"], r["table"] = nil, "100"
		return g.selectAny(r)
	}))
	for _, a := range policyActions() {
		out = append(out, policySubject(a.name, func(g *Gen, r map[string]any) *rule {
			a.add(g, r)
			return g.selectAny(r)
		}))
	}
	return out
}

// policySubject is a subject that adds an ip rule, and what bends packets to it.
func policySubject(name string, add func(*Gen, map[string]any) *rule) subject {
	name = "ip rule " + name
	return subject{name, weightOf(name), func(g *Gen) {
		g.host.pref++
		r := map[string]any{"priority": g.host.pref, "src": "all"}
		wish := add(g, r)
		g.host.rules = append(g.host.rules, r)
		g.host.features = append(g.host.features, wish)
	}}
}

type policyAction struct {
	name string
	add  func(*Gen, map[string]any)
}

func policyActions() []policyAction {
	out := []policyAction{
		{"lookup", func(_ *Gen, r map[string]any) { r["table"] = "101" }},
		{"goto", func(_ *Gen, r map[string]any) { r["goto"] = 32766 }},
		{"nop", func(_ *Gen, r map[string]any) { r["nop"] = nil }},
		{"suppress_prefixlength", func(g *Gen, r map[string]any) {
			r["table"], r["suppress_prefixlen"] = "main", one(g, 0, 8, 24)
		}},
		{"suppress_ifgroup", func(g *Gen, r map[string]any) {
			r["table"], r["suppress_ifgroup"] = "main", fmt.Sprint(pick(g, g.host.ifaces).group)
		}},
	}
	for _, name := range []string{"blackhole", "unreachable", "prohibit"} {
		out = append(out, policyAction{name,
			func(_ *Gen, r map[string]any) { r["action"] = name }})
	}
	return out
}

// selectAny draws one selector of an ip rule.
func (g *Gen) selectAny(r map[string]any) *rule {
	return g.select1(r, pick(g, selectors()))
}

// select1 adds a selector to an ip rule; the answer has no words, but bends packets.
func (g *Gen) select1(r map[string]any, s selector) *rule {
	s.add(g, r)
	out := &rule{chain: &chain{hook: one(g, "FORWARD", "FORWARD", "OUTPUT")}}
	if s.name == "fwmark" {
		g.markEarly(fmt.Sprint(r["fwmark"]))
	}
	if s.name == "oif" || s.name == "uidrange" || r["iif"] == "lo" {
		out.hook = "OUTPUT"
	}
	out.bend = append(out.bend, func(d *draft) { g.select2(d, r) })
	return out
}

// select2 has a packet fit the selectors of an ip rule.
func (g *Gen) select2(d *draft, r map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(r)) { // dice are rolled in order
		v := r[key]
		switch key {
		case "src", "dst":
			if n, ok := r[key+"len"]; ok {
				g.wantAddr(d, key == "src", fmt.Sprint(v, "/", n))
			}
		case "iif":
			d.wantIn(fmt.Sprint(v))
		case "oif":
			d.dev = fmt.Sprint(v)
		case "fwmark":
			fmt.Sscanf(fmt.Sprint(v), "0x%x", &d.mark)
		case "tos":
			fmt.Sscanf(fmt.Sprint(v), "0x%x", &d.tos)
		case "ipproto":
			d.proto = protoNumber(fmt.Sprint(v))
		case "sport":
			d.proto, d.sport = one[uint8](g, 6, 17), v.(uint16)
		case "dport":
			d.proto, d.dport = one[uint8](g, 6, 17), v.(uint16)
		case "dport_start":
			d.proto, d.dport = one[uint8](g, 6, 17), 53
		case "uid_start":
			d.uid = uint32(v.(int))
		}
	}
}

// markEarly has what arrives as UDP get a mark before it is routed.
func (g *Gen) markEarly(mark string) {
	t := g.host.table("mangle")
	if t == nil {
		t = g.drawTable("mangle")
		g.host.tables = append(g.host.tables, t)
	}
	r := &rule{chain: t.chains[0]}
	r.say(nil, "-p udp -j MARK --set-xmark", mark+"/0xffffffff")
	r.chain.rules = append([]*rule{r}, r.chain.rules...)
}
