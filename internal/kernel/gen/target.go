package gen

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// target is what a rule may end in.
type target struct {
	name   string
	weight int
	fits   func(*Gen, *rule) bool
	add    func(*Gen, *rule) string
}

func (t target) weigh() int { return t.weight }

func plain(text string) func(*Gen, *rule) string {
	return func(*Gen, *rule) string { return text }
}

// at fits rules of a table ("" is any), in some hooks (none is any).
func at(table string, hooks ...string) func(*Gen, *rule) bool {
	return func(_ *Gen, r *rule) bool {
		return (table == "" || r.table == table) && (len(hooks) == 0 || r.in(hooks...))
	}
}

// natPlace fits an extension of nat in some hooks, where ports may be given.
func natPlace(hooks ...string) func(*Gen, *rule) bool { return at("nat", hooks...) }

func targets() []target {
	return slices.Concat(verdicts(), natTargets(), changes(), logs())
}

func verdicts() []target {
	return []target{
		{"ACCEPT", 9, nil, plain("-j ACCEPT")},
		{"DROP", 4, func(_ *Gen, r *rule) bool { return r.table != "nat" }, plain("-j DROP")},
		{"RETURN", 7, nil, plain("-j RETURN")},
		{"none", 10, nil, plain("")},
		{"jump", 14, hasChild, func(g *Gen, r *rule) string { return g.toChild(r, "-j ") }},
		{"goto", 5, hasChild, func(g *Gen, r *rule) string { return g.toChild(r, "-g ") }},
		{"REJECT", 7, at("filter"), addReject},
		{"CT", 14, at("raw"), addCT},
		{"NOTRACK", 5, at("raw"), plain("-j NOTRACK")},
		{"TPROXY", 5, func(_ *Gen, r *rule) bool {
			return r.table == "mangle" && r.in("PREROUTING") && (r.proto == 6 || r.proto == 17)
		}, addTPROXY},
	}
}

func natTargets() []target {
	return []target{
		{"DNAT", 30, natPlace("PREROUTING", "OUTPUT"), addDNAT},
		{"REDIRECT", 10, natPlace("PREROUTING", "OUTPUT"), addRedirect},
		{"SNAT", 25, natPlace("POSTROUTING", "INPUT"), addSNAT},
		{"MASQUERADE", 20, natPlace("POSTROUTING"), addMasquerade},
		{"NETMAP", 9, natPlace(), addNetmap},
	}
}

func changes() []target {
	return []target{
		{"MARK", 8, nil, addMARK},
		{"CONNMARK", 5, nil, addCONNMARK},
		{"TOS", 6, at("mangle"), func(g *Gen, _ *rule) string {
			return "-j TOS " + one(g, "--set-tos 0x10/0x3f", "--set-tos 0x08",
				"--and-tos 0xf0", "--or-tos 0x04")
		}},
		{"DSCP", 4, at("mangle"), func(g *Gen, _ *rule) string {
			return fmt.Sprint("-j DSCP --set-dscp ", one(g, 0, 10, 46))
		}},
		{"ECN", 2, func(_ *Gen, r *rule) bool { return r.table == "mangle" && r.proto == 6 },
			plain("-j ECN --ecn-tcp-remove")},
		{"TTL", 4, at("mangle"), func(g *Gen, _ *rule) string {
			return "-j TTL " + one(g, "--ttl-set 64", "--ttl-inc 2", "--ttl-dec 1", "--ttl-set 1")
		}},
		{"TCPMSS", 8, func(_ *Gen, r *rule) bool {
			// iptables-nft-save 1.8.9 prints only the last of two -m tcp.
			return r.table == "mangle" && r.proto == 6 && r.in("FORWARD", "OUTPUT", "POSTROUTING") &&
				!r.has("-m tcp")
		}, func(g *Gen, r *rule) string {
			r.say(func(d *draft) { d.flags, d.mss = 2, 1460 }, "-m tcp --tcp-flags SYN,RST SYN")
			return "-j TCPMSS " + one(g, "--clamp-mss-to-pmtu", "--set-mss 1000")
		}},
		{"SET", 4, func(g *Gen, _ *rule) bool { return g.growing() != nil }, addSETTarget},
		{"CLASSIFY", 2, at("mangle", "FORWARD", "OUTPUT", "POSTROUTING"),
			plain("-j CLASSIFY --set-class 1:2")},
		{"CHECKSUM", 2, func(_ *Gen, r *rule) bool { return r.table == "mangle" && r.proto == 17 },
			plain("-j CHECKSUM --checksum-fill")},
		{"TCPOPTSTRIP", 2, func(_ *Gen, r *rule) bool { return r.table == "mangle" && r.proto == 6 },
			func(g *Gen, r *rule) string {
				r.say(func(d *draft) { d.flags, d.mss = 2, 1460 })
				return "-j TCPOPTSTRIP --strip-options " + one(g, "mss", "mss,timestamp", "wscale")
			}},
		{"HMARK", 2, at("mangle"), func(g *Gen, _ *rule) string {
			return "-j HMARK --hmark-tuple " + one(g, "src,dst", "src,dst,proto", "src,sport,dport") +
				" --hmark-mod 10 --hmark-rnd 0x0000cafe --hmark-offset 1"
		}},
		{"CONNSECMARK", 1, at("mangle"), plain("-j CONNSECMARK --save")},
	}
}

func logs() []target {
	return []target{
		{"LOG", 4, nil, plain(`-j LOG --log-prefix "seen "`)},
		{"NFLOG", 3, nil, plain("-j NFLOG --nflog-group 5 --nflog-prefix x")},
		{"TRACE", 1, at("raw"), plain("-j TRACE")},
		{"AUDIT", 1, nil, func(g *Gen, _ *rule) string {
			return "-j AUDIT --type " + one(g, "accept", "drop", "reject")
		}},
		{"RATEEST", 1, nil, func(g *Gen, _ *rule) string {
			return fmt.Sprintf("-j RATEEST --rateest-name e%d --rateest-interval 250ms "+
				"--rateest-ewmalog 500ms", g.IntN(3))
		}},
		{"IDLETIMER", 1, nil, func(g *Gen, _ *rule) string {
			return fmt.Sprintf("-j IDLETIMER --timeout 600 --label hookpath%d", g.IntN(3))
		}},
		{"NFQUEUE", 1, at(""), func(g *Gen, _ *rule) string {
			return fmt.Sprint("-j NFQUEUE --queue-num ", g.between(7, 9))
		}},
		{"TEE", 2, nil, func(g *Gen, _ *rule) string {
			return "-j TEE --gateway " + g.gateway(pick(g, g.host.ifaces))
		}},
	}
}

// drawTarget ends the rule.
func (g *Gen) drawTarget(r *rule) {
	var fit []target
	for _, t := range targets() {
		if t.fits != nil && !t.fits(g, r) || slices.Contains(g.Except, t.name) {
			continue
		}
		fit = append(fit, t)
	}
	t := draw(g, fit)
	r.target = t.name
	if text := t.add(g, r); text != "" {
		r.say(nil, text)
	}
}

func hasChild(g *Gen, r *rule) bool { return len(g.host.children(r.chain)) > 0 }

func (g *Gen) toChild(r *rule, option string) string {
	c := pick(g, g.host.children(r.chain))
	if c.parent == nil {
		c.parent = r
	}
	return option + c.name
}

func addReject(g *Gen, r *rule) string {
	kinds := []string{"icmp-net-unreachable", "icmp-host-unreachable", "icmp-port-unreachable",
		"icmp-proto-unreachable", "icmp-net-prohibited", "icmp-host-prohibited",
		"icmp-admin-prohibited"}
	if r.proto == 6 && g.chance(40) {
		return "-j REJECT --reject-with tcp-reset"
	}
	return "-j REJECT --reject-with " + pick(g, kinds)
}

func addCT(g *Gen, r *rule) string {
	switch {
	case r.proto == 6 && g.chance(20):
		return "-j CT --helper ftp"
	case r.proto == 17 && g.chance(20):
		return "-j CT --helper tftp"
	}
	return "-j CT " + one(g, "--zone 5", "--zone 5", "--notrack", "--zone-orig 6", "--zone-reply 7",
		"--zone mark")
}

func addTPROXY(g *Gen, _ *rule) string {
	s := fmt.Sprint("-j TPROXY --on-port ", one(g, 0, 8080, 80))
	if g.chance(40) {
		s += " --on-ip " + one(g, "127.0.0.1", pick(g, g.host.own()).String())
	}
	return s + " --tproxy-mark " + one(g, "0x1/0x1", "0x10/0xff")
}

// realPorts reports whether a mapping of this rule may name ports.
func realPorts(r *rule) bool { return slices.Contains([]uint8{6, 17, 132}, r.proto) }

// mapping draws "A", "A-B", with ports where the rule allows them.
func (g *Gen) mapping(r *rule, a netip.Addr) string {
	s := a.String()
	b := a.As4()
	if g.chance(15) && b[3] < 250 {
		s += "-" + addr(int(b[0]), int(b[1]), int(b[2]), int(b[3])+g.between(1, 3)).String()
	}
	if realPorts(r) && g.chance(50) {
		s += ":" + g.portMapping()
	}
	return s
}

func (g *Gen) portMapping() string {
	return one(g, "8080", "80", "5000-5003", "53")
}

// natFlags draws the flags of a mapping.
func (g *Gen) natFlags(persistent bool) string {
	s := ""
	if g.Random && g.chance(30) {
		s += one(g, " --random", " --random-fully")
	}
	if persistent && g.chance(12) {
		s += " --persistent"
	}
	return s
}

func addDNAT(g *Gen, r *rule) string {
	f := pick(g, g.host.ifaces)
	to := one(g, pick(g, f.neighs[:3]), pick(g, f.neighs[:3]), g.within(pick(g, remotes())),
		pick(g, g.host.own()))
	flags := strings.Replace(g.natFlags(true), "--random-fully", "--random", 1)
	return "-j DNAT --to-destination " + g.mapping(r, to) + flags
}

func addSNAT(g *Gen, r *rule) string {
	to := one(g, pick(g, g.host.own()), pick(g, g.host.own()), addr(10, 1, 0, 77), addr(192, 0, 2, 1))
	return "-j SNAT --to-source " + g.mapping(r, to) + g.natFlags(true)
}

func addRedirect(g *Gen, r *rule) string {
	s := "-j REDIRECT"
	if realPorts(r) && g.chance(70) {
		s += " --to-ports " + g.portMapping()
	}
	if g.Random && g.chance(30) {
		s += " --random"
	}
	return s
}

func addMasquerade(g *Gen, r *rule) string {
	s := "-j MASQUERADE"
	if realPorts(r) && g.chance(30) {
		s += " --to-ports " + one(g, "5000-5003", "40000-40100")
	}
	return s + g.natFlags(false)
}

func addNetmap(g *Gen, _ *rule) string {
	return "-j NETMAP --to " + one(g, "10.1.0.0/24", "10.2.0.0/24", "172.16.1.0/24", "192.0.2.0/28")
}

func addMARK(g *Gen, _ *rule) string {
	m := pick(g, g.host.marks)
	return "-j MARK " + one(g, fmt.Sprintf("--set-xmark 0x%x/0xffffffff", m),
		fmt.Sprintf("--set-xmark 0x%x/0xff", m), fmt.Sprintf("--or-mark 0x%x", m),
		fmt.Sprintf("--and-mark 0x%x", ^m), fmt.Sprintf("--xor-mark 0x%x", m))
}

func addCONNMARK(g *Gen, _ *rule) string {
	return "-j CONNMARK " + one(g, fmt.Sprintf("--set-xmark 0x%x/0xffffffff", pick(g, g.host.marks)),
		"--save-mark", "--restore-mark", "--save-mark --nfmask 0xff --ctmask 0xff",
		"--restore-mark --nfmask 0xff --ctmask 0xf0", "--or-mark 0x100")
}

// growing is a set that rules may add to, nil if there is none.
func (g *Gen) growing() *ipset {
	for i, s := range g.host.sets {
		if slices.Contains([]string{"ip", "ip,port"}, strings.Join(s.dims, ",")) && s.name != "l0" &&
			s.create[:4] == "hash" {
			return &g.host.sets[i]
		}
	}
	return nil
}

func addSETTarget(g *Gen, _ *rule) string {
	s := g.growing()
	return "-j SET " + one(g, "--add-set", "--add-set", "--del-set") + " " + s.name + " " + g.flags(*s)
}
