package gen

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
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
	r := &rule{chain: g.tableOf("mangle").chains[0]}
	r.say(nil, "-p udp -j MARK --set-xmark", mark+"/0xffffffff")
	r.chain.rules = append([]*rule{r}, r.chain.rules...)
}

// routeSubjects are the kinds and forms of routes that packets seldom take.
func routeSubjects() []subject {
	hops := func(g *Gen) string { return "unicast PREFIX nexthop " + g.hop() + " nexthop " + g.hop() }
	forms := []struct {
		name string
		line func(*Gen) string
	}{
		{"blackhole", func(*Gen) string { return "blackhole PREFIX" }},
		{"unreachable", func(*Gen) string { return "unreachable PREFIX" }},
		{"prohibit", func(*Gen) string { return "prohibit PREFIX" }},
		{"multipath", hops},
		{"tos", func(g *Gen) string { return "unicast PREFIX tos 0x10 " + g.hop() }},
		{"mtu", func(g *Gen) string { return "unicast PREFIX " + g.hop() + " mtu 1300" }},
		{"realm", func(g *Gen) string { return "unicast PREFIX " + g.hop() + " realm 3" }},
		{"nhid", func(g *Gen) string {
			f := pick(g, g.host.ifaces)
			id := 20 + g.host.pref
			g.host.nexthops = append(g.host.nexthops, map[string]any{"id": id,
				"gateway": g.gateway(f), "dev": f.name})
			return fmt.Sprint("unicast PREFIX nhid ", id)
		}},
		{"onlink", func(g *Gen) string {
			f := pick(g, g.host.ifaces)
			return fmt.Sprintf("unicast PREFIX via 10.%d.77.1 dev %s onlink", f.k, f.name)
		}},
	}
	out := []subject{{"route broadcast", weightOf("route broadcast"), func(g *Gen) {
		g.featureFlow("INPUT", func(d *draft) { d.dst = g.broadcast() })
	}}}
	for _, form := range forms {
		name := "route " + form.name
		out = append(out, subject{name, weightOf(name), func(g *Gen) {
			g.host.pref++
			p := netip.PrefixFrom(addr(198, 18, g.host.pref, 0), 24)
			g.host.routes = append(g.host.routes,
				strings.Replace(form.line(g), "PREFIX", p.String(), 1))
			g.featureFlow(one(g, "FORWARD", "OUTPUT"), func(d *draft) {
				d.dst, d.tos = g.within(p), one[uint8](g, 0x10, 0x10, 0)
			})
		}})
	}
	return out
}

// featureFlow has many packets of a hook be such as a wish says.
func (g *Gen) featureFlow(hook string, wish func(*draft)) {
	r := &rule{chain: &chain{hook: hook}, bend: []func(*draft){wish}}
	g.host.features = append(g.host.features, r)
}
