package gen

import (
	"fmt"
	"strings"
)

// ipset is a drawn set.
type ipset struct {
	name    string
	create  string
	members []string
	// dims says what the set looks at, in the words of its type.
	dims []string
}

// setType is a type of set that this kernel has, and how a member is drawn.
type setType struct {
	name   string
	create string
	member func(*Gen) string
}

func setTypes() []setType {
	host := func(g *Gen) string { return g.anyAddr().String() }
	port := func(g *Gen) string { return one(g, "tcp", "udp") + ":" + fmt.Sprint(pick(g, ports())) }
	low := func(g *Gen) string { return fmt.Sprintf("10.1.0.%d", g.IntN(256)) }
	return []setType{
		{"hash:ip", "hash:ip family inet", host},
		{"hash:net", "hash:net family inet", func(g *Gen) string { return g.netMember() }},
		{"hash:ip,port", "hash:ip,port family inet",
			func(g *Gen) string { return host(g) + "," + port(g) }},
		{"hash:net,port", "hash:net,port family inet",
			func(g *Gen) string { return g.netMember() + "," + port(g) }},
		{"hash:net,iface", "hash:net,iface family inet",
			func(g *Gen) string { return g.netMember() + "," + g.dev() }},
		{"hash:ip,port,ip", "hash:ip,port,ip family inet",
			func(g *Gen) string { return host(g) + "," + port(g) + "," + host(g) }},
		{"hash:ip,port,net", "hash:ip,port,net family inet",
			func(g *Gen) string { return host(g) + "," + port(g) + "," + g.netMember() }},
		{"bitmap:ip", "bitmap:ip range 10.1.0.0-10.1.0.255", low},
		{"bitmap:ip,mac", "bitmap:ip,mac range 10.1.0.0-10.1.0.255", func(g *Gen) string {
			n := pick(g, g.host.ifaces[0].neighs[:3])
			return n.String() + "," + strings.ToUpper(macText(g.host.ifaces[0].neighMAC(n)))
		}},
		{"bitmap:port", "bitmap:port range 0-40000",
			func(g *Gen) string { return fmt.Sprint(pick(g, ports())) }},
	}
}

// netMember draws a network; the whole world is no member of a set.
func (g *Gen) netMember() string {
	p := g.prefix()
	if p.Addr().IsUnspecified() {
		return "10.0.0.0/8"
	}
	return p.String()
}

func (g *Gen) drawSets(h *host) {
	if !g.chance(60) {
		return
	}
	for i := range g.between(1, 4) {
		t := pick(g, setTypes())
		s := ipset{name: fmt.Sprintf("s%d", i), create: t.create, dims: dims(t.name)}
		for range g.between(1, 6) {
			m := t.member(g)
			if strings.HasPrefix(t.name, "hash:") && g.chance(10) && strings.Contains(t.name, "net") {
				m += " nomatch"
			}
			s.members = append(s.members, m)
		}
		h.sets = append(h.sets, s)
	}
	if len(h.sets) > 1 && g.chance(30) && len(h.sets[0].dims) == len(h.sets[1].dims) {
		h.sets = append(h.sets, ipset{name: "l0", create: "list:set size 8",
			members: []string{h.sets[0].name, h.sets[1].name}, dims: h.sets[0].dims})
	}
}

func dims(typ string) []string {
	_, list, _ := strings.Cut(typ, ":")
	return strings.Split(list, ",")
}

func (h *host) setsFile() string {
	var b strings.Builder
	for _, s := range h.sets {
		fmt.Fprintf(&b, "create %s %s\n", s.name, s.create)
		seen := map[string]bool{}
		for _, m := range s.members {
			key, _, _ := strings.Cut(m, " ")
			key = strings.TrimSuffix(key, "/32")
			if strings.HasPrefix(s.create, "bitmap:ip,mac") {
				key, _, _ = strings.Cut(key, ",")
			}
			if !seen[key] {
				fmt.Fprintf(&b, "add %s %s -exist\n", s.name, m)
			}
			seen[key] = true
		}
	}
	return b.String()
}

// flags draws the src and dst words for a set.
func (g *Gen) flags(s ipset) string {
	words := make([]string, len(s.dims))
	for i := range words {
		words[i] = one(g, "src", "dst")
	}
	return strings.Join(words, ",")
}

// bendToSet has a packet fit a member of the set, as far as one can see.
func (g *Gen) bendToSet(d *draft, s ipset, flags string) {
	if len(s.members) == 0 {
		return
	}
	m, _, _ := strings.Cut(pick(g, s.members), " ")
	if t := g.host.set(m); t != nil {
		g.bendToSet(d, *t, flags)
		return
	}
	parts, words := strings.Split(m, ","), strings.Split(flags, ",")
	for i, p := range parts {
		if i < len(words) && i < len(s.dims) {
			g.bendPart(d, s.dims[i], words[i] == "src", p)
		}
	}
}

func (h *host) set(name string) *ipset {
	for i := range h.sets {
		if h.sets[i].name == name {
			return &h.sets[i]
		}
	}
	return nil
}

func (g *Gen) bendPart(d *draft, dim string, src bool, text string) {
	switch dim {
	case "ip", "net":
		g.wantAddr(d, src, text)
	case "port":
		proto, port, ok := strings.Cut(text, ":")
		if !ok {
			proto, port = one(g, "tcp", "udp"), text
		}
		d.proto = protoNumber(proto)
		var n uint16
		fmt.Sscan(port, &n)
		if src {
			d.sport = n
		} else {
			d.dport = n
		}
	case "iface":
		if src {
			d.in = text
		}
	}
}
