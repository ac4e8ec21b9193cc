package gen

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/hookpath/hookpath/snapshot"
)

// Lab draws a lab of two to five hosts: networks in a row, routers between them, and on them
// clients, servers and a director.
type Lab struct {
	*rand.Rand
	Balance bool // the kernel has IPVS
	hosts   []*labHost
	nets    [][]labPort
	targets []labTarget // what conversations go to
	asked   int
}

// labHost is a host in the making.
type labHost struct {
	snapshot.LabHost
	name string
	devs []labPort
}

// labPort is an interface of a host on a network.
type labPort struct {
	host *labHost
	dev  string
	net  int
	addr string
}

// labTarget is an address that clients know.
type labTarget struct {
	addr  string
	ports []int
	heavy int // how often it is drawn
}

// Conversation is who says what to whom.
type Conversation struct {
	Host, Sentence string
	// Socket is what sends it: tcp, udp, icmp or raw.
	Socket string
	// Then are the flags of segments that follow over the connection.
	Then []uint8
}

// NewLab draws from a seed.
func NewLab(seed uint64, balance bool) *Lab {
	l := &Lab{Rand: rand.New(rand.NewPCG(seed, 0x6c616273)), Balance: balance}
	l.layOut()
	l.routes()
	if l.Balance && l.chance(70) {
		l.director()
	}
	for _, h := range l.hosts {
		l.settings(h)
		l.rules(h)
	}
	return l
}

func (l *Lab) chance(n int) bool { return l.IntN(100) < n }

func oneOf[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// YAML is the text of lab.yaml.
func (l *Lab) YAML() []byte {
	lab := snapshot.Lab{Hosts: map[string]*snapshot.LabHost{}, Switches: map[string][]string{}}
	for _, h := range l.hosts {
		lab.Hosts[h.name] = &h.LabHost
		slices.SortStableFunc(h.Commands, func(a, b string) int { // quicker: see package kernel
			return strings.Compare(toolOf(a), toolOf(b))
		})
	}
	for n, ports := range l.nets {
		var names []string
		for _, p := range ports {
			names = append(names, p.host.name+":"+p.dev)
		}
		lab.Switches[fmt.Sprintf("lan%d", n)] = names
	}
	text, err := yaml.Marshal(lab)
	if err != nil {
		panic(err)
	}
	return text
}

func toolOf(command string) string {
	name, _, _ := strings.Cut(command, " ")
	return name
}

// layOut draws hosts and networks. Router i stands between the networks i and i+1.
func (l *Lab) layOut() {
	n := 2 + l.IntN(4)
	nets := min(1+l.IntN(3), n-1)
	l.nets = make([][]labPort, nets)
	for i := range n {
		h := &labHost{name: fmt.Sprintf("h%d", i+1)}
		h.Addresses = map[string]string{}
		h.Listen = []string{"tcp 0.0.0.0:80", "udp 0.0.0.0:53"}
		l.hosts = append(l.hosts, h)
		switch {
		case i < nets-1:
			l.plug(h, i)
			l.plug(h, i+1)
			h.types("sysctl -w net.ipv4.ip_forward=1")
		case i == nets-1: // the first network has somebody
			l.plug(h, 0)
		case i == nets: // and the last one
			l.plug(h, nets-1)
		default:
			l.plug(h, l.IntN(nets))
		}
		if l.chance(12) {
			l.plug(h, l.IntN(nets))
		}
	}
	for _, h := range l.hosts {
		for _, p := range h.devs {
			l.targets = append(l.targets, labTarget{p.addr, []int{80, 53, 81}, 1})
		}
	}
}

func (h *labHost) types(format string, v ...any) {
	h.Commands = append(h.Commands, fmt.Sprintf(format, v...))
}

func (l *Lab) plug(h *labHost, net int) {
	p := labPort{h, fmt.Sprintf("eth%d", len(h.devs)), net,
		fmt.Sprintf("10.0.%d.%d", net, len(l.nets[net])+1)}
	h.devs = append(h.devs, p)
	h.Addresses[p.dev] = p.addr + "/24"
	l.nets[net] = append(l.nets[net], p)
}

// router is the address, on a network, of the host that leads from there to another one.
func (l *Lab) router(from, to int) string {
	r := from
	if to < from {
		r = from - 1
	}
	for _, p := range l.hosts[r].devs {
		if p.net == from {
			return p.addr
		}
	}
	return ""
}

// on tells whether a host has an interface on a network.
func (h *labHost) on(net int) bool {
	return slices.ContainsFunc(h.devs, func(p labPort) bool { return p.net == net })
}

// routes draws each host's: to every network by the right router, or to all by one.
func (l *Lab) routes() {
	for i, h := range l.hosts {
		net := h.devs[0].net
		single := i >= len(l.nets)-1 && l.chance(60)
		if single && len(l.nets) > 1 {
			to := oneOf(l.Rand, net+1, net-1)
			if to < 0 || to >= len(l.nets) { // there is one on the other side alone
				to = 2*net - to
			}
			h.types("ip route add default via %s", l.router(net, to))
			continue
		}
		for to := range l.nets {
			if h.on(to) || l.chance(4) {
				continue
			}
			from := h.near(to)
			h.types("ip route add 10.0.%d.0/24 via %s", to, l.router(from, to))
		}
	}
}

// near is the network of a host that is nearest to another one.
func (h *labHost) near(to int) int {
	best := h.devs[0].net
	for _, p := range h.devs {
		if abs(p.net-to) < abs(best-to) {
			best = p.net
		}
	}
	return best
}

func abs(n int) int { return max(n, -n) }

// settings draws what sysctl sets.
func (l *Lab) settings(h *labHost) {
	for _, key := range []string{"rp_filter", "arp_ignore", "arp_announce", "arp_filter", "proxy_arp",
		"accept_local", "send_redirects", "src_valid_mark", "shared_media"} {
		if !l.chance(7) || l.Balance && key == "send_redirects" { // see package compare
			continue
		}
		most := map[string]int{"rp_filter": 2, "arp_ignore": 2, "arp_announce": 2}[key]
		where := oneOf(l.Rand, "all", h.devs[l.IntN(len(h.devs))].dev)
		h.types("sysctl -w net.ipv4.conf.%s.%s=%d", where, key, l.IntN(max(most, 1)+1))
	}
	if l.chance(10) {
		h.types("sysctl -w net.ipv4.ip_forward=%d", l.IntN(2))
	}
	if l.chance(10) {
		h.types("sysctl -w net.ipv4.ip_default_ttl=%d", 1+l.IntN(64))
	}
}

// rules draws what iptables and ip rule say.
func (l *Lab) rules(h *labHost) {
	if l.chance(45) {
		return
	}
	dev := func() string { return h.devs[l.IntN(len(h.devs))].dev }
	own := h.devs[l.IntN(len(h.devs))].addr
	server := l.hosts[l.IntN(len(l.hosts))]
	far := server.devs[l.IntN(len(server.devs))].addr
	for range 1 + l.IntN(4) {
		switch l.IntN(12) {
		case 0:
			h.types("iptables -t nat -A POSTROUTING -o %s -j MASQUERADE", dev())
		case 1:
			h.types("iptables -t nat -A POSTROUTING -s 10.0.%d.0/24 -j SNAT --to-source %s", l.IntN(len(l.nets)), own)
		case 2, 3:
			h.types("iptables -t nat -A PREROUTING -d %s -p tcp --dport 8080 -j DNAT --to-destination %s:80", own, far)
			l.targets = append(l.targets, labTarget{own, []int{8080}, 6})
		case 4:
			h.types("iptables -t nat -A OUTPUT -d %s -p tcp --dport 81 -j DNAT --to-destination %s:80", own, far)
		case 5:
			h.types("iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP")
		case 6:
			h.types("iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")
			h.types("iptables -A FORWARD -i %s -p %s -j %s", dev(), oneOf(l.Rand, "tcp", "udp", "icmp"),
				oneOf(l.Rand, "DROP", "REJECT", "REJECT --reject-with icmp-admin-prohibited"))
		case 7:
			h.types("iptables -A INPUT -p tcp --dport 80 -s 10.0.%d.0/24 -j %s", l.IntN(len(l.nets)),
				oneOf(l.Rand, "ACCEPT", "DROP", "REJECT --reject-with tcp-reset"))
		case 8:
			h.types("iptables -t nat -A PREROUTING -p tcp --dport 81 -j REDIRECT --to-ports 80")
		case 9:
			h.types("iptables -t mangle -A %s -p %s -j MARK --set-mark 1", oneOf(l.Rand, "PREROUTING", "OUTPUT"),
				oneOf(l.Rand, "tcp", "udp", "icmp"))
			h.types("ip rule add fwmark 1 lookup 100")
			h.types("ip route replace %s via %s table 100", oneOf(l.Rand, "default", "10.0.0.0/16"), l.neighbour(h))
		case 10:
			h.types("iptables -t mangle -A FORWARD -j TTL --ttl-%s %d", oneOf(l.Rand, "inc", "dec"), 1+l.IntN(3))
		case 11:
			h.types("iptables -A OUTPUT -p %s -d %s -j %s", oneOf(l.Rand, "tcp", "udp", "icmp"), far,
				oneOf(l.Rand, "DROP", "REJECT", "ACCEPT"))
		}
	}
}

// neighbour is the address of somebody on one of the host's networks.
func (l *Lab) neighbour(h *labHost) string {
	ports := l.nets[h.devs[l.IntN(len(h.devs))].net]
	for range 8 {
		if p := ports[l.IntN(len(ports))]; p.host != h {
			return p.addr
		}
	}
	return ports[0].addr
}

// director makes one host a load balancer, others its servers.
func (l *Lab) director() {
	d := l.hosts[l.IntN(len(l.hosts))]
	vip, foreign := d.devs[l.IntN(len(d.devs))].addr, false
	switch l.IntN(4) {
	case 0:
		vip = "10.9.9.9"
		d.Addresses["lo"] = vip + "/32"
		foreign = true
	case 1: // nobody has it
		vip, foreign = "10.9.9.9", true
	case 2:
		p := d.devs[l.IntN(len(d.devs))]
		vip = fmt.Sprintf("10.0.%d.200", p.net)
		d.Addresses[p.dev] += " " + vip + "/24"
	}
	for _, h := range l.hosts {
		if foreign && h != d {
			l.routeTo(h, d, vip)
		}
	}
	l.targets = append(l.targets, labTarget{vip, []int{80, 53}, 12})
	for _, key := range []string{"conntrack", "snat_reroute", "nat_icmp_send", "sloppy_tcp",
		"ignore_tunneled", "schedule_icmp", "pmtu_disc"} {
		if l.chance(30) {
			d.types("sysctl -w net.ipv4.vs.%s=%d", key, l.IntN(2))
		}
	}
	if l.chance(85) {
		d.types("sysctl -w net.ipv4.ip_forward=1")
	}
	l.service(d, "-t", vip, 80)
	if l.chance(60) {
		l.service(d, "-u", vip, 53)
	}
}

// routeTo adds a host's route to an address that is not of its networks.
func (l *Lab) routeTo(h, d *labHost, addr string) {
	to := d.devs[0].net
	for _, p := range d.devs {
		if h.on(p.net) {
			h.types("ip route add %s/32 via %s", addr, p.addr)
			return
		}
	}
	h.types("ip route add %s/32 via %s", addr, l.router(h.near(to), to))
}

func (l *Lab) service(d *labHost, option, vip string, port int) {
	name := fmt.Sprintf("%s %s:%d", option, vip, port)
	line := "ipvsadm -A " + name + " -s " + oneOf(l.Rand, "rr", "wrr", "lc", "wlc", "sh", "dh", "sed", "nq",
		"fo", "mh")
	if l.chance(25) {
		line += " -p 300"
	}
	d.types("%s", line)
	method := oneOf(l.Rand, "-m", "-m", "-g", "-i")
	for _, i := range l.Perm(len(l.hosts))[:1+l.IntN(2)] {
		s := l.hosts[i]
		if s == d && !l.chance(30) {
			continue
		}
		real := port
		if method == "-m" && option == "-t" && l.chance(30) {
			real = 8081
			s.Listen = addTo(s.Listen, "tcp 0.0.0.0:8081")
		}
		d.types("ipvsadm -a %s -r %s:%d %s -w %d", name, s.devs[l.IntN(len(s.devs))].addr, real, method,
			1+l.IntN(3))
		if s != d {
			l.server(s, d, vip, method)
		}
	}
}

func addTo(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// server gives a real server what its method needs, most of the time.
func (l *Lab) server(s, d *labHost, vip, method string) {
	if method == "-m" {
		if l.chance(50) {
			for _, p := range d.devs {
				if s.on(p.net) {
					s.types("ip route replace default via %s", p.addr)
					return
				}
			}
		}
		return
	}
	dev := "lo"
	if method == "-i" {
		if s.Devices["tunl0"] == "" {
			s.Devices = map[string]string{"tunl0": "ipip"}
			if l.chance(70) {
				s.types("sysctl -w net.ipv4.conf.tunl0.rp_filter=%d", l.IntN(3))
			}
		}
		dev = oneOf(l.Rand, "tunl0", "lo")
	}
	if l.chance(10) || strings.Contains(strings.Join(mapValues(s.Addresses), " "), vip+"/") ||
		strings.Contains(strings.Join(s.Commands, "\n")+"\n", "via "+vip+"\n") { // see docs/kernel/open.md
		return
	}
	s.Addresses[dev] = strings.TrimSpace(s.Addresses[dev] + " " + vip + "/32")
	if l.chance(60) {
		s.types("sysctl -w net.ipv4.conf.all.arp_ignore=1")
		s.types("sysctl -w net.ipv4.conf.all.arp_announce=2")
	}
}

func mapValues(m map[string]string) []string {
	var out []string
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// Next draws a conversation.
func (l *Lab) Next() Conversation {
	l.asked++
	h := l.hosts[l.IntN(len(l.hosts))]
	t := l.target()
	for range 4 {
		if !slices.ContainsFunc(h.devs, func(p labPort) bool { return p.addr == t.addr }) {
			break
		}
		t = l.target()
	}
	src := h.devs[l.IntN(len(h.devs))].addr
	if l.chance(30) {
		src = "0.0.0.0"
	}
	port := t.ports[l.IntN(len(t.ports))]
	c := Conversation{Host: h.name}
	ends := fmt.Sprintf("%s:%d to %s:%d", src, 20000+l.asked, t.addr, port)
	kind := map[int]string{53: "udp"}[port]
	if l.chance(12) {
		kind = "icmp"
	}
	switch kind {
	case "icmp":
		c.Socket, c.Sentence = "icmp", fmt.Sprintf("icmp echo %s to %s id %d", src, t.addr, l.asked)
	case "udp":
		c.Socket, c.Sentence = "udp", "udp "+ends
	default:
		c.Socket, c.Sentence = "tcp", "tcp "+ends
		for range l.IntN(3) {
			c.Then = append(c.Then, oneOf[uint8](l.Rand, 0x10, 0x18, 0x11, 0x04, 0x02))
		}
	}
	if l.chance(10) && src != "0.0.0.0" {
		c.Socket = "raw"
		c.Sentence += fmt.Sprintf(" ttl %d", 1+l.IntN(4))
	}
	c.Sentence += " out"
	return c
}

func (l *Lab) target() labTarget {
	total := 0
	for _, t := range l.targets {
		total += t.heavy
	}
	n := l.IntN(total)
	for _, t := range l.targets {
		if n -= t.heavy; n < 0 {
			return t
		}
	}
	return l.targets[0]
}
