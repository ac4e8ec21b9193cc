package gen

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// iface is a drawn interface; its networks are 10.k.x.0, its neighbours' MACs
// 02:00:00:00:k:n.
type iface struct {
	k      int
	name   string
	index  int
	mtu    int
	group  int
	addrs  []address
	neighs []netip.Addr
	ports  []string // of a bridge; a card has none
}

// port is the device that frames of a neighbour arrive by.
func (f *iface) port(from netip.Addr) string {
	if len(f.ports) == 0 || !from.IsValid() {
		return f.name
	}
	return f.ports[from.As4()[3]%2]
}

type address struct {
	local netip.Addr
	peer  netip.Addr // zero if there is none
	bits  int
	scope string
}

// host is what was drawn for a machine.
type host struct {
	ifaces   []*iface
	lo       []address // besides 127.0.0.1
	routes   []string
	nexthops []map[string]any
	rules    []map[string]any
	sysctls  []string
	sockets  []service
	sets     []ipset
	tables   []*table
	marks    []uint32 // that rules and policy know
	tos      []uint8
	remotes  []netip.Prefix // that routes lead to
	acct     bool
	features []*rule // that most packets are bent to
	pref     int     // of the last ip rule that the focus added
}

// service is a socket of the host.
type service struct {
	proto       string
	addr        netip.AddrPort
	dev         string
	uid         int
	transparent bool
	mark        uint32
}

func addr(a, b, c, d int) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(a), byte(b), byte(c), byte(d)})
}

func (g *Gen) drawHost() *host {
	h := &host{marks: []uint32{1, 2, 0x10, 0x4000}, tos: []uint8{0x10, 0x08, 0x04}}
	g.host = h
	for k := 1; k <= g.between(2, 4); k++ {
		h.ifaces = append(h.ifaces, g.drawIface(k))
	}
	if g.Bridge && g.chance(60) {
		f := h.ifaces[len(h.ifaces)-1]
		f.name, f.ports = "br0", []string{"port0", "port1"}
	}
	if g.chance(40) {
		h.lo = append(h.lo, address{local: addr(203, 0, 113, 1), bits: 32, scope: "global"})
	}
	g.drawRoutes(h)
	g.drawPolicy(h)
	g.drawSysctls(h)
	g.drawServices(h)
	g.drawSets(h)
	g.drawTables(h)
	g.placeFocus()
	if h.acct {
		h.sysctls = append(h.sysctls, "net.netfilter.nf_conntrack_acct = 1")
	}
	return h
}

func (g *Gen) drawIface(k int) *iface {
	f := &iface{k: k, name: fmt.Sprintf("eth%d", k-1), index: 2*k + g.IntN(2),
		mtu: one(g, 1500, 1500, 1500, 1400, 1280), group: one(g, 0, 0, 1, 2)}
	add := func(p int, c, d, bits int, scope string) {
		if g.chance(p) {
			f.addrs = append(f.addrs, address{local: addr(10, k, c, d), bits: bits, scope: scope})
		}
	}
	add(10, 3, 1, 24, "link")
	add(100, 0, 1, 24, "global")
	add(40, 0, 2, 24, "global")
	add(20, 8, 1, 25, "global")
	add(10, 0, 129, 25, "global")
	add(10, 4, 1, 32, "host")
	if g.chance(15) {
		f.addrs = append(f.addrs, address{local: addr(10, k, 9, 1), peer: addr(10, k, 9, 2),
			bits: 32, scope: "global"})
	}
	for _, d := range []int{9, 10, 11} {
		f.neighs = append(f.neighs, addr(10, k, 0, d))
	}
	f.neighs = append(f.neighs, addr(10, k, 8, 9), addr(10, k, 9, 2), addr(10, k, 0, 130))
	return f
}

// mac is the address of the interface itself.
func (f *iface) mac() [6]byte { return [6]byte{2, 0, 0, 0, byte(f.k), 1} }

// neighMAC is the address of a neighbour.
func (f *iface) neighMAC(a netip.Addr) [6]byte {
	b := a.As4()
	return [6]byte{2, 0, 0, b[2], byte(f.k), b[3]}
}

func macText(m [6]byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// broadcast is the directed broadcast of the address's network.
func (a address) broadcast() netip.Addr {
	b := a.local.As4()
	for i := a.bits; i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// own are all addresses of the host.
func (h *host) own() []netip.Addr {
	var out []netip.Addr
	for _, f := range h.ifaces {
		for _, a := range f.addrs {
			out = append(out, a.local)
		}
	}
	for _, a := range h.lo {
		out = append(out, a.local)
	}
	return out
}

func (h *host) iface(name string) *iface {
	for _, f := range h.ifaces {
		if f.name == name {
			return f
		}
	}
	return nil
}

// files is the host as a snapshot. Routes are only those that the kernel does
// not make itself.
func (h *host) files() map[string]string {
	files := map[string]string{
		"ip-link.json":  h.linkFile(),
		"ip-addr.json":  h.addrFile(),
		"ip-neigh.json": h.neighFile(),
		"ip-rule.json":  jsonFile(h.rules),
		"ip-route":      strings.Join(h.routes, "\n") + "\n",
		"sysctl":        strings.Join(h.sysctls, "\n") + "\n",
		"iptables-save": h.rulesFile(),
	}
	if len(h.nexthops) > 0 {
		files["ip-nexthop.json"] = jsonFile(h.nexthops)
	}
	if len(h.sets) > 0 {
		files["ipset-save"] = h.setsFile()
	}
	if len(h.sockets) > 0 {
		files["sockets"] = h.socketsFile()
	}
	return files
}

func jsonFile(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only literals of ours
	}
	return string(b)
}

func (h *host) linkFile() string {
	all := []map[string]any{{"ifindex": 1, "ifname": "lo", "flags": []string{"LOOPBACK", "UP"},
		"mtu": 65536, "link_type": "loopback", "address": "00:00:00:00:00:00"}}
	for _, f := range h.ifaces {
		link := cardLink(f.index, f.name, f.mac(), f.mtu)
		link["group"] = fmt.Sprint(f.group)
		if len(f.ports) > 0 {
			link["linkinfo"] = map[string]any{"info_kind": "bridge",
				"info_data": map[string]any{}}
		}
		all = append(all, link)
		for i, name := range f.ports {
			port := cardLink(20+i, name, [6]byte{2, 0, 0, 9, byte(i), 1}, f.mtu)
			port["master"] = f.name
			all = append(all, port)
		}
	}
	return jsonFile(all)
}

func cardLink(index int, name string, mac [6]byte, mtu int) map[string]any {
	return map[string]any{"ifindex": index, "ifname": name, "mtu": mtu, "group": "default",
		"flags":     []string{"BROADCAST", "MULTICAST", "UP"},
		"link_type": "ether", "address": macText(mac)}
}

func (h *host) addrFile() string {
	all := []map[string]any{{"ifname": "lo", "addr_info": infos("lo", h.lo)}}
	for _, f := range h.ifaces {
		all = append(all, map[string]any{"ifname": f.name, "addr_info": infos(f.name, f.addrs)})
	}
	return jsonFile(all)
}

func infos(dev string, addrs []address) []map[string]any {
	out := []map[string]any{}
	for _, a := range addrs {
		m := map[string]any{"family": "inet", "local": a.local.String(),
			"prefixlen": a.bits, "scope": a.scope, "label": dev}
		switch {
		case a.peer.IsValid():
			m["address"] = a.peer.String()
		case a.bits < 31:
			m["broadcast"] = a.broadcast().String()
		}
		out = append(out, m)
	}
	return out
}

func (h *host) neighFile() string {
	all := []map[string]any{}
	for _, f := range h.ifaces {
		for _, n := range f.neighs {
			all = append(all, map[string]any{"dst": n.String(), "dev": f.name,
				"lladdr": macText(f.neighMAC(n)), "state": []string{"PERMANENT"}})
		}
	}
	return jsonFile(all)
}

func (h *host) socketsFile() string {
	var b strings.Builder
	for _, s := range h.sockets {
		state := "LISTEN"
		if s.proto == "udp" {
			state = "UNCONN"
		}
		local := s.addr.Addr().String()
		if s.dev != "" {
			local += "%" + s.dev
		}
		fmt.Fprintf(&b, "%s %s 0 0 %s:%d 0.0.0.0:* uid:%d ino:1 sk:1 fwmark:0x%x <->\n",
			s.proto, state, local, s.addr.Port(), s.uid, s.mark)
		if s.transparent {
			b.WriteString("\tinet-sockopt: ( transparent)\n")
		}
	}
	return b.String()
}

// ports are those that services, rules and policy name.
func ports() []uint16 { return []uint16{21, 22, 53, 80, 443, 1024, 5060, 8080, 30080} }

func (g *Gen) drawServices(h *host) {
	seen := map[string]bool{}
	for range g.between(slices.Index(g.Focus, "-m socket")+1, 5) {
		s := service{proto: one(g, "tcp", "udp"), uid: one(g, 0, 0, 33, 1000)}
		a := one(g, netip.IPv4Unspecified(), pick(g, h.own()), addr(127, 0, 0, 1))
		s.addr = netip.AddrPortFrom(a, pick(g, ports()))
		s.transparent = g.chance(15)
		s.mark = one(g, 0, pick(g, h.marks))
		if g.chance(40) && a.IsUnspecified() {
			s.dev = pick(g, h.ifaces).name
		}
		key := fmt.Sprint(s.proto, s.addr.Port())
		if !seen[key] {
			h.sockets = append(h.sockets, s)
		}
		seen[key] = true
	}
}

func (g *Gen) drawSysctls(h *host) {
	set := func(p int, key string, values ...any) {
		if g.chance(p) {
			h.sysctls = append(h.sysctls, fmt.Sprint("net.", key, " = ", pick(g, values)))
		}
	}
	set(100, "ipv4.ip_forward", 1, 1, 1, 1, 1, 1, 1, 0)
	for _, dev := range append([]string{"all"}, h.names()...) {
		conf := "ipv4.conf." + dev + "."
		set(30, conf+"rp_filter", 0, 1, 2)
		set(15, conf+"src_valid_mark", 1)
		set(10, conf+"accept_local", 1)
		set(10, conf+"route_localnet", 1)
		set(5, conf+"arp_ignore", 1, 2, 8)
		set(4, conf+"log_martians", 1)
	}
	for _, dev := range h.names() {
		set(7, "ipv4.conf."+dev+".forwarding", 0, 1)
	}
	set(10, "netfilter.nf_conntrack_tcp_loose", 0)
	set(10, "netfilter.nf_conntrack_tcp_be_liberal", 1)
	set(10, "netfilter.nf_conntrack_checksum", 0)
	set(10, "ipv4.ip_default_ttl", 60, 255)
	set(5, "ipv4.icmp_echo_ignore_all", 1)
	set(40, "ipv4.conf.all.accept_redirects", 1)
	set(15, "ipv4.ip_forward_use_pmtu", 1)
	set(10, "ipv4.route.min_pmtu", 1000)
	set(10, "ipv4.ip_no_pmtu_disc", 1, 2)
	set(20, "ipv4.icmp_echo_ignore_broadcasts", 0)
	set(10, "ipv4.icmp_errors_use_inbound_ifaddr", 1)
	set(15, "ipv4.fwmark_reflect", 1)
	set(10, "ipv4.ip_nonlocal_bind", 1)
	set(20, "ipv4.fib_multipath_hash_policy", 1)
	if slices.ContainsFunc(h.ifaces, func(f *iface) bool { return len(f.ports) > 0 }) {
		set(100, "bridge.bridge-nf-call-iptables", 1, 1, 0)
	}
	set(60, "ipv4.fib_multipath_hash_seed", 12345)
}

func (h *host) names() []string {
	var out []string
	for _, f := range h.ifaces {
		out = append(out, f.name)
	}
	return out
}
