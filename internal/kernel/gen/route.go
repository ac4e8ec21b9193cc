package gen

import (
	"fmt"
	"net/netip"
	"strings"
)

// tablesOfRoutes are the tables that routes and rules use, besides main.
func tablesOfRoutes() []int { return []int{100, 101, 102} }

// gateway draws a neighbour in the first network of an interface.
func (g *Gen) gateway(f *iface) string { return pick(g, f.neighs[:3]).String() }

// hop draws "via G dev D".
func (g *Gen) hop() string {
	f := pick(g, g.host.ifaces)
	return fmt.Sprintf("via %s dev %s", g.gateway(f), f.name)
}

// remotes are the networks beyond gateways.
func remotes() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("172.16.0.0/16"),
		netip.MustParsePrefix("172.16.1.0/24"),
		netip.MustParsePrefix("172.16.2.0/24"),
		netip.MustParsePrefix("172.16.2.128/25"),
		netip.MustParsePrefix("198.51.100.0/24"),
		netip.MustParsePrefix("198.51.100.7/32"),
		netip.MustParsePrefix("8.8.8.8/32"),
	}
}

// drawRoutes draws routes in some tables. What names the same prefix, tos and
// metric twice is left out: which of the two comes first would hang on how the
// kernel's listing is put back.
func (g *Gen) drawRoutes(h *host) {
	g.drawNexthops(h)
	seen := map[string]bool{}
	add := func(table int, prefix, rest string, metric int, tos uint8) {
		key := fmt.Sprint(table, prefix, metric, tos)
		if seen[key] {
			return
		}
		seen[key] = true
		words := strings.Fields(rest)
		line := words[0] + " " + prefix
		if tos != 0 {
			line += fmt.Sprintf(" tos 0x%02x", tos)
		}
		if table != 254 {
			line += fmt.Sprint(" table ", table)
		}
		if metric != 0 {
			line += fmt.Sprint(" metric ", metric)
		}
		line += " " + strings.Join(words[1:], " ") // nexthops stand last
		h.routes = append(h.routes, line)
	}
	if g.chance(85) {
		add(254, "default", "unicast "+g.hop(), 0, 0)
	}
	for range g.between(3, 12) {
		p := pick(g, remotes())
		table := one(g, 254, 254, 100, 101, 102)
		tos := uint8(0)
		if g.chance(10) {
			tos = pick(g, h.tos)
		}
		add(table, p.String(), g.routeBody(), one(g, 0, 0, 5, 10), tos)
		h.remotes = append(h.remotes, p)
	}
	for _, table := range tablesOfRoutes() {
		if g.chance(70) {
			add(table, "default", g.routeBody(), 0, 0)
		}
	}
}

// routeBody draws the kind of a route and where it leads.
func (g *Gen) routeBody() string {
	f := pick(g, g.host.ifaces)
	switch n := g.IntN(100); {
	case n < 38:
		return "unicast " + g.hop() + g.routeExtras()
	case n < 46:
		return "unicast dev " + f.name + " scope link"
	case n < 52:
		return fmt.Sprintf("unicast via 10.%d.77.%d dev %s onlink", f.k, g.between(1, 3), f.name)
	case n < 60:
		return "unicast nexthop " + g.hop() + fmt.Sprint(" weight ", g.between(1, 4)) +
			" nexthop " + g.hop() + fmt.Sprint(" weight ", g.between(1, 4))
	case n < 68 && len(g.host.nexthops) > 0:
		return fmt.Sprint("unicast nhid ", pick(g, g.host.nexthops)["id"])
	case n < 74:
		return "unicast " + g.hop() + " src " + pick(g, g.sources()).String()
	}
	return one(g, "blackhole", "unreachable", "prohibit", "throw", "unicast "+g.hop())
}

// sources are addresses that may be a preferred source.
func (g *Gen) sources() []netip.Addr { return g.host.own() }

func (g *Gen) routeExtras() string {
	s := ""
	if g.chance(15) {
		s += fmt.Sprint(" realm ", g.between(1, 5))
	}
	if g.chance(8) {
		s += one(g, " mtu 1300", " mtu lock 1200")
	}
	if g.chance(8) {
		s += " advmss 1000"
	}
	return s
}

func (g *Gen) drawNexthops(h *host) {
	if !g.chance(35) {
		return
	}
	for id := 1; id <= 3; id++ {
		f := pick(g, h.ifaces)
		h.nexthops = append(h.nexthops, map[string]any{"id": id,
			"gateway": g.gateway(f), "dev": f.name})
	}
	if g.chance(30) {
		h.nexthops = append(h.nexthops, map[string]any{"id": 4, "blackhole": nil})
	}
	h.nexthops = append(h.nexthops, map[string]any{"id": 9, "group": []map[string]any{
		{"id": 1, "weight": g.between(1, 4)}, {"id": 2, "weight": 1}}})
}

// drawPolicy draws ip rules of every selector and action.
func (g *Gen) drawPolicy(h *host) {
	h.rules = append(h.rules, map[string]any{"priority": 0, "src": "all", "table": "local"})
	if g.chance(50) {
		pref := 10
		for range g.between(1, 7) {
			pref += g.between(1, 10)
			h.rules = append(h.rules, g.policyRule(pref))
		}
	}
	h.rules = append(h.rules,
		map[string]any{"priority": 32766, "src": "all", "table": "main"},
		map[string]any{"priority": 32767, "src": "all", "table": "default"})
}

func (g *Gen) policyRule(pref int) map[string]any {
	r := map[string]any{"priority": pref, "src": "all"}
	for _, s := range selectors() {
		if g.chance(s.percent) {
			s.add(g, r)
		}
	}
	if g.chance(12) {
		r["not"] = nil
	}
	switch g.IntN(14) {
	case 0:
		r["action"] = one(g, "blackhole", "unreachable", "prohibit")
	case 1:
		r["nop"] = nil
	case 2:
		r["goto"] = one(g, pref+1+g.IntN(40), 32766)
	default:
		r["table"] = fmt.Sprint(one(g, "100", "101", "102", "main"))
		g.suppress(r)
	}
	return r
}

func (g *Gen) suppress(r map[string]any) {
	if g.chance(12) {
		r["suppress_prefixlen"] = one(g, 0, 8, 24)
	}
	if g.chance(8) {
		r["suppress_ifgroup"] = fmt.Sprint(g.between(1, 2))
	}
}

// selector is a test of an ip rule.
type selector struct {
	name    string
	percent int
	add     func(*Gen, map[string]any)
}

func selectors() []selector {
	return []selector{
		{"from", 25, func(g *Gen, r map[string]any) { prefix(r, "src", g.prefix()) }},
		{"to", 20, func(g *Gen, r map[string]any) { prefix(r, "dst", g.prefix()) }},
		{"iif", 15, func(g *Gen, r map[string]any) { r["iif"] = one(g, "lo", g.dev(), g.dev()) }},
		{"oif", 5, func(g *Gen, r map[string]any) { r["oif"] = g.dev() }},
		{"fwmark", 30, func(g *Gen, r map[string]any) {
			r["fwmark"] = fmt.Sprintf("0x%x", pick(g, g.host.marks))
			if g.chance(40) {
				r["fwmask"] = one(g, "0xff", "0x4000", "0xf")
			}
		}},
		{"tos", 8, func(g *Gen, r map[string]any) {
			r["tos"] = fmt.Sprintf("0x%02x", pick(g, g.host.tos))
		}},
		{"ipproto", 15, func(g *Gen, r map[string]any) { r["ipproto"] = one(g, "tcp", "udp", "icmp") }},
		{"sport", 6, func(g *Gen, r map[string]any) { r["sport"] = pick(g, ports()) }},
		{"dport", 10, func(g *Gen, r map[string]any) {
			if g.chance(50) {
				r["dport_start"], r["dport_end"] = 53, 80
				return
			}
			r["dport"] = pick(g, ports())
		}},
		{"uidrange", 6, func(g *Gen, r map[string]any) {
			r["uid_start"], r["uid_end"] = one(g, 0, 33), one(g, 33, 1000)
		}},
	}
}

func prefix(r map[string]any, key string, p netip.Prefix) {
	r[key], r[key+"len"] = p.Addr().String(), p.Bits()
}

// dev draws an interface's name.
func (g *Gen) dev() string { return pick(g, g.host.ifaces).name }

// prefix draws a network that packets come from or go to.
func (g *Gen) prefix() netip.Prefix {
	p := netip.PrefixFrom(g.anyAddr(), one(g, 32, 32, 24, 24, 16, 8, 25, 30))
	return p.Masked()
}

// prefixAt draws a network that packets of a hook come from (src) or go to.
func (g *Gen) prefixAt(hook string, src bool) netip.Prefix {
	if g.chance(20) {
		return g.prefix()
	}
	var a netip.Addr
	local := map[string]bool{"INPUT": !src, "OUTPUT": src, "PREROUTING": !src && g.chance(50),
		"POSTROUTING": src && g.chance(30)}[hook]
	switch {
	case local:
		a = pick(g, g.host.own())
	case g.chance(50):
		a = g.within(pick(g, remotes()))
	default:
		a = pick(g, pick(g, g.host.ifaces).neighs)
	}
	return netip.PrefixFrom(a, one(g, 32, 32, 24, 24, 24, 16, 8)).Masked()
}

// anyAddr draws an address, mostly one that something is known about.
func (g *Gen) anyAddr() netip.Addr {
	f := pick(g, g.host.ifaces)
	switch n := g.IntN(100); {
	case n < 30:
		return pick(g, g.host.own())
	case n < 60:
		return pick(g, f.neighs)
	case n < 88:
		return g.within(pick(g, remotes()))
	case n < 92:
		return addr(10, f.k, g.between(0, 9), g.between(0, 255))
	case n < 94:
		return addr(127, 0, 0, g.between(1, 2))
	case n < 96:
		return one(g, addr(224, 0, 0, 5), addr(239, 1, 2, 3), addr(255, 255, 255, 255))
	case n < 98:
		return pick(g, f.addrs).broadcast()
	}
	return addr(g.IntN(256), g.IntN(256), g.IntN(256), g.IntN(256))
}

// broadcast draws a broadcast address of the host's networks.
func (g *Gen) broadcast() netip.Addr {
	return pick(g, pick(g, g.host.ifaces).addrs).broadcast()
}

// within draws an address of a network.
func (g *Gen) within(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		if g.chance(30) {
			b[i/8] ^= 0x80 >> (i % 8)
		}
	}
	return netip.AddrFrom4(b)
}
