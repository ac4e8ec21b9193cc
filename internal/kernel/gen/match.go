package gen

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// match is an extension that a rule may draw.
type match struct {
	name   string
	weight int
	fits   func(*Gen, *rule) bool // nil: everywhere
	add    func(*Gen, *rule)
}

func (m match) weigh() int { return m.weight }

func (r *rule) in(hooks ...string) bool { return slices.Contains(hooks, r.hook) }

// tracked reports whether a look at the connection makes sense there.
func tracked(_ *Gen, r *rule) bool { return r.table != "raw" }

// matches lists the extensions; those of protocols stand in protoMatch.
func matches() []match {
	return slices.Concat(packetMatches(), connMatches(), hostMatches(), memoryMatches())
}

// packetMatches look at the packet's bytes.
func packetMatches() []match {
	return []match{
		{"length", 5, nil, addLength},
		{"ttl", 5, nil, addTTL},
		{"tos", 4, nil, addTOS},
		{"dscp", 4, nil, addDSCP},
		{"ecn", 3, isProto(6), addECN},
		{"tcpmss", 3, isProto(6), func(g *Gen, r *rule) {
			g.not(r, func(d *draft) { d.flags, d.mss = 2, 1000 }, "-m tcpmss", "--mss", "900:1100")
		}},
		{"multiport", 10, isProto(6, 17, 132, 136), addMultiport},
		{"iprange", 6, nil, addIPRange},
		{"string", 3, nil, addString},
		{"u32", 4, nil, addU32},
		{"mac", 4, func(_ *Gen, r *rule) bool { return r.in("PREROUTING", "INPUT", "FORWARD") }, addMAC},
		{"ah", 20, isProto(51), func(g *Gen, r *rule) {
			g.not(r, nil, "-m ah", "--ahspi", "1:500")
		}},
		{"esp", 20, isProto(50), func(g *Gen, r *rule) {
			g.not(r, nil, "-m esp", "--espspi", "1:500")
		}},
		{"ipcomp", 20, isProto(108), func(g *Gen, r *rule) {
			g.not(r, nil, "-m ipcomp", "--ipcompspi", "1:500")
		}},
	}
}

// connMatches look at the connection.
func connMatches() []match {
	return []match{
		{"conntrack", 14, tracked, addConntrack},
		{"state", 8, tracked, addState},
		{"connmark", 5, tracked, func(g *Gen, r *rule) {
			g.not(r, nil, "-m connmark", "--mark", g.markMask())
		}},
		{"connbytes", 3, tracked, addConnbytes},
		{"helper", 2, tracked, func(g *Gen, r *rule) {
			g.not(r, nil, "-m helper", "--helper", one(g, "ftp", "tftp", "tftp"))
		}},
		{"connlimit", 3, tracked, func(g *Gen, r *rule) {
			r.say(nil, "-m connlimit", one(g, "--connlimit-upto", "--connlimit-above"),
				g.between(0, 3), "--connlimit-mask", one(g, 32, 24), one(g, "--connlimit-saddr",
					"--connlimit-daddr"))
		}},
		{"connlabel", 1, tracked, func(g *Gen, r *rule) {
			g.not(r, nil, "-m connlabel", "--label", g.between(0, 3))
			if g.chance(50) {
				r.say(nil, "--set")
			}
		}},
		{"cluster", 2, tracked, func(g *Gen, r *rule) {
			r.say(nil, "-m cluster --cluster-total-nodes", one(g, 2, 3))
			g.not(r, nil, "--cluster-local-node", one(g, 1, 2))
			r.say(nil, "--cluster-hash-seed 0xdeadbeef")
		}},
	}
}

// hostMatches look at the host: devices, marks, addresses, sockets, users.
func hostMatches() []match {
	return []match{
		{"comment", 4, nil, func(g *Gen, r *rule) {
			r.say(nil, "-m comment --comment", one(g, "plain", `"two words"`, `"-j DROP"`))
		}},
		{"addrtype", 10, nil, addAddrtype},
		{"mark", 9, nil, func(g *Gen, r *rule) {
			g.not(r, func(d *draft) {
				if d.out {
					d.mark = pick(g, g.host.marks)
				}
			}, "-m mark", "--mark", g.markMask())
		}},
		{"set", 9, func(g *Gen, _ *rule) bool { return len(g.host.sets) > 0 }, addSet},
		{"owner", 8, func(_ *Gen, r *rule) bool { return r.in("OUTPUT", "POSTROUTING") }, addOwner},
		{"pkttype", 4, nil, func(g *Gen, r *rule) {
			g.not(r, nil, "-m pkttype", "--pkt-type", one(g, "unicast", "broadcast", "multicast"))
		}},
		{"rpfilter", 8, func(_ *Gen, r *rule) bool {
			return r.in("PREROUTING") && (r.table == "raw" || r.table == "mangle")
		}, addRpfilter},
		{"realm", 3, func(_ *Gen, r *rule) bool { return !r.in("PREROUTING") },
			func(g *Gen, r *rule) { g.not(r, nil, "-m realm", "--realm", g.between(0, 5)) }},
		{"socket", 4, func(_ *Gen, r *rule) bool { return r.in("PREROUTING", "INPUT") }, addSocket},
		{"devgroup", 4, nil, addDevgroup},
		{"policy", 2, nil, addPolicyMatch},
		{"physdev", 4, func(_ *Gen, r *rule) bool { return !r.in("OUTPUT") }, addPhysdev},
		{"cpu", 1, nil, func(g *Gen, r *rule) { g.not(r, nil, "-m cpu", "--cpu", one(g, 0, 1, 900)) }},
		{"time", 3, nil, addTime},
	}
}

// memoryMatches remember. Rates are slow, so that a question's moment does not
// decide: the burst counts down, and nothing is refilled.
func memoryMatches() []match {
	return []match{
		{"statistic", 4, nil, addStatistic},
		{"recent", 5, nil, addRecent},
		{"limit", 3, nil, func(g *Gen, r *rule) {
			r.say(nil, "-m limit --limit 1/hour --limit-burst", g.between(1, 5))
		}},
		{"hashlimit", 3, nil, addHashlimit},
		{"quota", 1, nil, func(g *Gen, r *rule) {
			g.not(r, nil, "-m quota", "--quota", one(g, 100, 200, 1000))
		}},
	}
}

// isProto fits rules with one of the protocols.
func isProto(numbers ...uint8) func(*Gen, *rule) bool {
	return func(_ *Gen, r *rule) bool { return slices.Contains(numbers, r.proto) }
}

// drawMatch adds an extension that fits the rule and is not there yet.
func (g *Gen) drawMatch(r *rule) {
	var fit []match
	text := strings.Join(r.words, " ")
	diced := strings.Contains(text, "--mode random")
	for _, m := range matches() {
		if m.fits != nil && !m.fits(g, r) || strings.Contains(text, "-m "+m.name) ||
			slices.Contains(g.Except, m.name) || diced && remembers(m.name) {
			continue
		}
		fit = append(fit, m)
	}
	draw(g, fit).add(g, r)
}

// remembers tells the matches that count what they are asked. Behind dice the kernel's
// trace does not tell whether they were.
func remembers(name string) bool {
	return slices.Contains([]string{"connlimit", "hashlimit", "limit", "quota", "recent",
		"statistic"}, name)
}

// protoMatch draws the options of a protocol, nil if it has none.
func protoMatch(name string) func(*Gen, *rule) {
	return map[string]func(*Gen, *rule){
		"tcp": addTCP, "udp": addPorts("udp"), "sctp": addSCTP, "icmp": addICMP,
		"dccp": addDCCP,
	}[name]
}

// portRange draws "80", "53:80", ":1024", "1024:", with a port in it.
func (g *Gen) portRange() (string, uint16) {
	p := pick(g, ports())
	switch g.IntN(8) {
	case 0:
		return fmt.Sprintf("%d:%d", p, int(p)+g.between(1, 50)), p
	case 1:
		return fmt.Sprintf(":%d", p), p
	case 2:
		return fmt.Sprintf("%d:", p), p
	}
	return fmt.Sprint(p), p
}

func (g *Gen) addPort(r *rule, option string) {
	text, p := g.portRange()
	g.not(r, func(d *draft) {
		if option == "--sport" {
			d.sport = p
		} else {
			d.dport = p
		}
	}, option, text)
}

func addPorts(name string) func(*Gen, *rule) {
	return func(g *Gen, r *rule) {
		r.say(nil, "-m", name)
		if g.chance(25) {
			g.addPort(r, "--sport")
		}
		if g.chance(80) {
			g.addPort(r, "--dport")
		}
	}
}

func addTCP(g *Gen, r *rule) {
	addPorts("tcp")(g, r)
	switch g.IntN(8) {
	case 0:
		g.not(r, func(d *draft) { d.flags = 2 }, "--syn")
	case 1:
		f := one(g, "FIN,SYN,RST,ACK SYN", "ALL NONE", "SYN,FIN SYN,FIN", "RST RST", "ACK,FIN ACK")
		g.not(r, func(d *draft) { d.flags = tcpFlags(f) }, "--tcp-flags", f)
	case 2:
		g.not(r, func(d *draft) { d.mss = 1000 }, "--tcp-option", one(g, 2, 2, 8))
	}
}

// tcpFlags is a packet's flags that fit "mask comp".
func tcpFlags(text string) uint8 {
	_, comp, _ := strings.Cut(text, " ")
	var out uint8
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG"} {
		if slices.Contains(strings.Split(comp, ","), name) {
			out |= 1 << i
		}
	}
	return out
}

func addDCCP(g *Gen, r *rule) {
	addPorts("dccp")(g, r)
	if g.chance(40) {
		g.not(r, nil, "--dccp-types", one(g, "REQUEST", "DATA,ACK", "REQUEST,RESET"))
	}
}

func addSCTP(g *Gen, r *rule) {
	addPorts("sctp")(g, r)
	if g.chance(40) {
		g.not(r, nil, "--chunk-types", one(g, "any", "all", "only"),
			one(g, "INIT", "DATA,INIT", "DATA", "INIT_ACK"))
	}
}

func addICMP(g *Gen, r *rule) {
	t := one(g, "8", "8/0", "0", "3", "3/1", "3/3", "11", "any", "echo-request")
	g.not(r, func(d *draft) {
		d.icmpType, d.icmpCode = 8, 0
		fmt.Sscanf(t, "%d/%d", &d.icmpType, &d.icmpCode)
	}, "-m icmp", "--icmp-type", t)
}

func addLength(g *Gen, r *rule) {
	n := one(g, 28, 40, 60, 128, 600)
	text := one(g, fmt.Sprint(n), fmt.Sprintf("%d:%d", n, n+60), fmt.Sprintf("%d:", n))
	g.not(r, func(d *draft) { d.total = n }, "-m length", "--length", text)
}

func addTTL(g *Gen, r *rule) {
	n := one(g, 64, 63, 10, 1, 200)
	op := one(g, "--ttl-eq", "--ttl-lt", "--ttl-gt")
	wish := func(d *draft) {
		d.ttl = uint8(n + map[string]int{"--ttl-eq": 0, "--ttl-lt": -1, "--ttl-gt": 1}[op])
	}
	if op == "--ttl-eq" {
		g.not(r, wish, "-m ttl", op, n)
		return
	}
	r.say(wish, "-m ttl", op, n)
}

func addTOS(g *Gen, r *rule) {
	t := pick(g, g.host.tos)
	text := one(g, fmt.Sprintf("0x%02x", t), fmt.Sprintf("0x%02x/0x3f", t))
	g.not(r, func(d *draft) { d.tos = t }, "-m tos", "--tos", text)
}

func addDSCP(g *Gen, r *rule) {
	n := one(g, 0, 4, 10, 46)
	g.not(r, func(d *draft) { d.tos = uint8(n << 2) }, "-m dscp", "--dscp", n)
}

func addECN(g *Gen, r *rule) {
	if g.chance(50) {
		n := g.between(0, 3)
		g.not(r, func(d *draft) { d.tos = d.tos&^3 | uint8(n) }, "-m ecn", "--ecn-ip-ect", n)
		return
	}
	g.not(r, func(d *draft) { d.flags |= 0xc0 }, "-m ecn", one(g, "--ecn-tcp-cwr", "--ecn-tcp-ece"))
}

func addMultiport(g *Gen, r *rule) {
	a, p := g.portRange()
	a = strings.Trim(a, ":")
	b := pick(g, ports())
	op := one(g, "--sports", "--dports", "--ports")
	g.not(r, func(d *draft) {
		if op == "--sports" {
			d.sport = p
		} else {
			d.dport = p
		}
	}, "-m multiport", op, fmt.Sprintf("%s,%d,7000:7010", a, b))
}

func addIPRange(g *Gen, r *rule) {
	src := g.chance(50)
	a := g.prefixAt(r.hook, src).Addr()
	b := a.As4()
	high := addr(int(b[0]), int(b[1]), int(b[2]), min(255, int(b[3])+g.IntN(20)))
	g.not(r, func(d *draft) { g.wantAddr(d, src, a.String()) }, "-m iprange",
		map[bool]string{true: "--src-range", false: "--dst-range"}[src], fmt.Sprint(a, "-", high))
}

func addString(g *Gen, r *rule) {
	extra := one(g, "", "", " --icase", " --from 20", " --from 28 --to 60")
	g.not(r, func(d *draft) { d.payload = "--hookpath--" }, "-m string", "--string", "hookpath",
		"--algo", one(g, "bm", "kmp")+extra)
}

func addU32(g *Gen, r *rule) {
	text, wish := "6&0xff=0x6", func(d *draft) { d.proto = 6 }
	switch g.IntN(4) {
	case 0:
		text, wish = "5&0xff=0x20:0x50", func(d *draft) { d.ttl = 0x40 }
	case 1:
		text, wish = "0>>22&0x3c@0&0xffff=0x35,0x50,0x1bb", func(d *draft) { d.dport = 80 }
	case 2:
		text, wish = "4&0x3fff=0&&6&0xff=0x11", func(d *draft) { d.proto = 17 }
	}
	g.not(r, wish, "-m u32", "--u32", `"`+text+`"`)
}

func addMAC(g *Gen, r *rule) {
	f := pick(g, g.host.ifaces)
	n := pick(g, f.neighs[:3])
	g.not(r, func(d *draft) { d.in, d.from = f.name, n }, "-m mac", "--mac-source",
		strings.ToUpper(macText(f.neighMAC(n))))
}

// states are lists that conntrack's and state's options take.
func (g *Gen) states() string {
	return one(g, "NEW", "ESTABLISHED", "RELATED,ESTABLISHED", "INVALID", "NEW,ESTABLISHED",
		"RELATED", "INVALID,UNTRACKED", "UNTRACKED")
}

// wantState has a packet belong to what the state says, as far as the question
// decides that: an established one continues a talk.
func wantState(states string) func(*draft) {
	return func(d *draft) {
		d.reply = strings.Contains(states, "ESTABLISHED") && !strings.Contains(states, "NEW")
		if states == "INVALID" {
			d.proto, d.flags = 6, 0x14
		}
	}
}

func addState(g *Gen, r *rule) {
	s := g.states()
	g.not(r, wantState(s), "-m state", "--state", s)
}

func addConntrack(g *Gen, r *rule) {
	s := g.states()
	p, q := g.prefixAt(r.hook, true), g.prefixAt(r.hook, false)
	r.say(nil, "-m conntrack")
	switch g.IntN(14) {
	case 0:
		g.not(r, nil, "--ctstate", one(g, "SNAT", "DNAT", "NEW,DNAT", "ESTABLISHED,SNAT"))
	case 1:
		g.not(r, nil, "--ctproto", one(g, "tcp", "udp", "icmp"))
	case 2:
		g.not(r, func(d *draft) { g.wantAddr(d, true, p.String()) }, "--ctorigsrc", p)
	case 3:
		g.not(r, func(d *draft) { g.wantAddr(d, false, q.String()) }, "--ctorigdst", q)
	case 4:
		g.not(r, nil, "--ctreplsrc", p)
	case 5:
		g.not(r, nil, "--ctrepldst", p)
	case 6:
		g.not(r, nil, "--ctstatus", one(g, "NONE", "EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED",
			"SEEN_REPLY,ASSURED"))
	case 7:
		r.say(nil, "--ctdir", one(g, "ORIGINAL", "REPLY"))
	case 8:
		text, n := g.portRange()
		g.not(r, func(d *draft) { d.dport = n }, one(g, "--ctorigdstport", "--ctreplsrcport"),
			strings.Trim(text, ":"))
	default:
		g.not(r, wantState(s), "--ctstate", s)
	}
}

func addConnbytes(g *Gen, r *rule) {
	g.host.acct = true
	mode := one(g, "packets", "bytes", "avgpkt")
	g.not(r, func(d *draft) { d.reply = true }, "-m connbytes", "--connbytes",
		one(g, "1:3", "100:", "0:200", "2:"))
	r.say(nil, "--connbytes-dir", one(g, "original", "reply", "both"), "--connbytes-mode", mode)
}

func addAddrtype(g *Gen, r *rule) {
	types := []string{"LOCAL", "UNICAST", "BROADCAST", "MULTICAST", "LOCAL,BROADCAST", "UNSPEC"}
	r.say(nil, "-m addrtype")
	dst := g.chance(60)
	option := map[bool]string{true: "--dst-type", false: "--src-type"}[dst]
	t := pick(g, types)
	g.not(r, func(d *draft) {
		a := map[string]netip.Addr{"LOCAL": pick(g, g.host.own()), "BROADCAST": g.broadcast(),
			"LOCAL,BROADCAST": g.broadcast(), "MULTICAST": addr(224, 0, 0, 5)}[t]
		if a.IsValid() {
			g.wantAddr(d, !dst, a.String())
		}
	}, option, t)
	switch {
	case g.chance(15) && r.in("PREROUTING", "INPUT"):
		r.say(nil, "--limit-iface-in")
	case g.chance(15) && r.in("POSTROUTING", "OUTPUT"):
		r.say(nil, "--limit-iface-out")
	}
}

func (g *Gen) markMask() string {
	m := pick(g, g.host.marks)
	return one(g, fmt.Sprintf("0x%x", m), fmt.Sprintf("0x%x/0x%x", m, one(g, m, 0xff, 0xffff)))
}

func addSet(g *Gen, r *rule) {
	s := pick(g, g.host.sets)
	flags := g.flags(s)
	r.say(nil, "-m set")
	g.not(r, func(d *draft) { g.bendToSet(d, s, flags) }, "--match-set", s.name, flags)
	if g.chance(8) {
		r.say(nil, "--return-nomatch")
	}
}

func addOwner(g *Gen, r *rule) {
	r.say(nil, "-m owner")
	switch g.IntN(4) {
	case 0:
		g.not(r, func(d *draft) { d.out, d.gid = true, 33 }, "--gid-owner", one(g, "33", "1-99"))
	case 1:
		g.not(r, func(d *draft) { d.out = true }, "--socket-exists")
	default:
		n := one(g, 0, 33, 1000)
		g.not(r, func(d *draft) { d.out, d.uid = true, uint32(n) }, "--uid-owner",
			one(g, fmt.Sprint(n), fmt.Sprintf("%d-%d", n, n+5)))
	}
}

func addRpfilter(g *Gen, r *rule) {
	s := "-m rpfilter"
	for _, o := range []string{"--loose", "--validmark", "--accept-local", "--invert"} {
		if g.chance(30) {
			s += " " + o
		}
	}
	r.say(nil, s)
}

func addSocket(g *Gen, r *rule) {
	s := "-m socket"
	if g.chance(15) {
		s += " --transparent"
	}
	if g.chance(60) {
		s += " --nowildcard"
	}
	if g.chance(40) {
		s += " --restore-skmark"
	}
	r.say(g.toService, s)
}

// toService has a packet go to a socket of the host.
func (g *Gen) toService(d *draft) {
	if len(g.host.sockets) == 0 {
		return
	}
	s := pick(g, g.host.sockets)
	if s.addr.Addr().IsLoopback() {
		s = pick(g, g.host.sockets)
	}
	d.flags = 2
	d.proto, d.dport = protoNumber(s.proto), s.addr.Port()
	d.dst = s.addr.Addr()
	if d.dst.IsUnspecified() || d.dst.IsLoopback() {
		d.dst = pick(g, g.host.own())
	}
}

func addDevgroup(g *Gen, r *rule) {
	option := "--src-group"
	if r.in("OUTPUT", "POSTROUTING") || r.in("FORWARD") && g.chance(50) {
		option = "--dst-group"
	}
	n := g.IntN(3)
	g.not(r, func(d *draft) {
		for _, f := range g.host.ifaces {
			if f.group == n && option == "--src-group" {
				d.in = f.name
			}
		}
	}, "-m devgroup", option, fmt.Sprintf("0x%x", n))
}

func addPolicyMatch(g *Gen, r *rule) {
	dir := "in"
	if r.in("OUTPUT", "POSTROUTING") {
		dir = "out"
	}
	r.say(nil, "-m policy --dir", dir, "--pol", one(g, "none", "none", "ipsec"))
}

// addPhysdev draws options that the kernel takes in the rule's hook: what
// leaves by is known behind the bridge's decision only.
func addPhysdev(g *Gen, r *rule) {
	r.say(nil, "-m physdev")
	port := one(g, "port0", "port1", "port+")
	switch n := g.IntN(5); {
	case n == 0 && r.in("FORWARD", "POSTROUTING"):
		g.not(r, nil, "--physdev-out", port)
	case n == 1 && r.in("FORWARD", "POSTROUTING"):
		g.not(r, nil, one(g, "--physdev-is-out", "--physdev-is-bridged"))
	case n == 2:
		g.not(r, nil, "--physdev-is-in")
	default:
		g.not(r, nil, "--physdev-in", port)
	}
}

func addTime(g *Gen, r *rule) {
	r.say(nil, "-m time", one(g, "--datestart 2020-01-01", "--datestop 2020-01-01",
		"--timestart 00:00 --timestop 23:59:59", "--weekdays Mon,Tue,Wed,Thu,Fri,Sat,Sun",
		"--monthdays 1,2,15,16,30,31"))
}

func addStatistic(g *Gen, r *rule) {
	if g.Random && g.chance(50) {
		g.not(r, nil, "-m statistic --mode random", "--probability 0.5")
		return
	}
	every := g.between(1, 4)
	r.say(nil, "-m statistic --mode nth")
	g.not(r, nil, "--every", every)
	r.say(nil, "--packet", g.IntN(every))
}

func addRecent(g *Gen, r *rule) {
	r.say(nil, "-m recent")
	name := fmt.Sprint("--name r", g.IntN(2))
	side := one(g, "--rsource", "--rsource", "--rdest")
	switch g.IntN(5) {
	case 0, 1:
		g.not(r, nil, "--set", name, side)
	case 2:
		g.not(r, nil, "--rcheck", one(g, "", "--seconds 600", "--hitcount 1",
			"--seconds 600 --hitcount 2"), name, side)
	case 3:
		g.not(r, nil, "--update", one(g, "", "--hitcount 1", "--hitcount 2", "--rttl"), name, side)
	case 4:
		g.not(r, nil, "--remove", name, side)
	}
}

func addHashlimit(g *Gen, r *rule) {
	r.say(nil, "-m hashlimit", one(g, "--hashlimit-upto", "--hashlimit-above"), "1/hour",
		"--hashlimit-burst", g.between(1, 4), "--hashlimit-mode",
		one(g, "srcip", "dstip", "srcip,dstport", "srcip,dstip"),
		"--hashlimit-name", fmt.Sprintf("h%d", g.IntN(1000000)))
}
