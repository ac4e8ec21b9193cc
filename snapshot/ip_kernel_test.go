package snapshot

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// needRoot skips a test that makes network namespaces; in CI that is a failure.
func needRoot(t testing.TB) {
	t.Helper()
	_, err := exec.LookPath("ip")
	if os.Getuid() == 0 && err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root and iproute2")
	}
	t.Skip("needs root and iproute2: nothing was compared with the kernel")
}

// inNamespace runs f in a new network namespace, which ends with it.
func inNamespace(t testing.TB, f func(ns *namespace)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("new network namespace: %v", err)
			return
		}
		ns := &namespace{t: t}
		defer ns.close()
		f(ns)
	}()
	<-done
}

// namespace is a network namespace that the calling thread is in.
type namespace struct {
	t  testing.TB
	fd int
}

func (n *namespace) close() {
	if n.fd > 0 {
		unix.Close(n.fd)
	}
}

// run runs a program and returns what it prints.
func (n *namespace) run(stdin string, args ...string) string {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil && stdin == "" {
		n.t.Errorf("%v: %v: %s", args, err, errs.String())
	}
	return string(out)
}

func (n *namespace) sysctl(name string, v int) {
	path := "/proc/sys/net/ipv4/" + name
	if err := os.WriteFile(path, []byte(fmt.Sprint(v)), 0); err != nil {
		n.t.Errorf("%s: %v", path, err)
	}
}

// question is one lookup.
type question struct {
	src, dst     packet.Addr
	in, out      packet.Dev
	tos, proto   uint8
	sport, dport uint16
	mark, uid    uint32
}

// String shows addresses as people write them.
func (a answer) String() string {
	if a.err != 0 {
		return a.err.String()
	}
	return fmt.Sprintf("%v table %d out %d via %v src %v realm %#x mtu %d redirect %v", a.kind,
		a.table,
		a.out, a.gw, a.src, a.realm, a.mtu, a.redirect)
}

func (q question) String() string {
	return fmt.Sprintf("%v > %v in %d out %d tos %#x proto %d ports %d %d mark %d uid %d", q.src,
		q.dst, q.in, q.out, q.tos, q.proto, q.sport, q.dport, q.mark, q.uid)
}

// answer is what comes of it.
type answer struct {
	err      route.Errno
	kind     trace.RouteKind
	table    uint32
	out      packet.Dev
	gw, src  packet.Addr
	realm    uint32
	mtu      uint32
	redirect bool
}

const (
	rtDst = iota + 1
	rtSrc
	rtIIF
	rtOIF
	rtGateway
	_
	rtPrefSrc
	rtMetrics
	rtFlow    = 11
	rtTable   = 15
	rtMark    = 16
	rtVia     = 18
	rtUID     = 25
	rtIPProto = 27
	rtSPort   = 28
	rtDPort   = 29
)

func attr(b []byte, typ uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&3)...)
}

func u32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
func b16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

// ask asks the kernel, as `ip route get` does.
func (n *namespace) ask(q question) answer {
	if n.fd == 0 {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
		if err != nil {
			n.t.Fatalf("netlink: %v", err)
		}
		n.fd = fd
	}
	msg := make([]byte, 16+12)
	rt := msg[16:]
	rt[0], rt[3] = unix.AF_INET, q.tos
	binary.NativeEndian.PutUint32(rt[8:], unix.RTM_F_LOOKUP_TABLE)
	if !q.dst.IsAny() {
		rt[1] = 32
		msg = attr(msg, rtDst, q.dst[12:])
	}
	if !q.src.IsAny() {
		msg[18] = 32
		msg = attr(msg, rtSrc, q.src[12:])
	}
	msg = attr(msg, rtMark, u32(q.mark))
	if q.in != 0 {
		msg = attr(msg, rtIIF, u32(uint32(q.in)))
	} else {
		msg = attr(msg, rtUID, u32(q.uid))
	}
	if q.out != 0 {
		msg = attr(msg, rtOIF, u32(uint32(q.out)))
	}
	msg = attr(msg, rtIPProto, []byte{q.proto})
	if q.proto != packet.ICMP {
		msg = attr(msg, rtSPort, b16(q.sport))
		msg = attr(msg, rtDPort, b16(q.dport))
	}
	binary.NativeEndian.PutUint32(msg, uint32(len(msg)))
	binary.NativeEndian.PutUint16(msg[4:], unix.RTM_GETROUTE)
	binary.NativeEndian.PutUint16(msg[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(n.fd, msg, 0,
		&unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		n.t.Fatalf("netlink: %v", err)
	}
	buf := make([]byte, 4096)
	m, _, err := unix.Recvfrom(n.fd, buf, 0)
	if err != nil {
		n.t.Fatalf("netlink: %v", err)
	}
	return parseAnswer(buf[:m])
}

func parseAnswer(b []byte) answer {
	if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
		return answer{err: route.Errno(-int32(binary.NativeEndian.Uint32(b[16:])))}
	}
	rt := b[16:]
	a := answer{kind: trace.RouteKind(rt[7])}
	a.redirect = binary.NativeEndian.Uint32(rt[8:])&0x01000000 != 0
	for b = rt[12:]; len(b) >= 4; {
		l, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		d := b[4:l]
		switch typ &^ unix.NLA_F_NESTED {
		case rtOIF:
			a.out = packet.Dev(binary.NativeEndian.Uint32(d))
		case rtGateway:
			a.gw = packet.AddrFrom4(d)
		case rtVia:
			a.gw = packet.AddrFromSlice(d[2:])
		case rtPrefSrc:
			a.src = packet.AddrFrom4(d)
		case rtFlow:
			a.realm = binary.NativeEndian.Uint32(d)
		case rtTable:
			a.table = binary.NativeEndian.Uint32(d)
		case rtMetrics:
			a.mtu = metricMTU(d)
		}
		b = b[min((l+3)&^3, len(b)):]
	}
	return a
}

func metricMTU(b []byte) uint32 {
	for len(b) >= 8 {
		l := int(binary.NativeEndian.Uint16(b))
		if binary.NativeEndian.Uint16(b[2:]) == 2 {
			return binary.NativeEndian.Uint32(b[4:])
		}
		b = b[min((l+3)&^3, len(b)):]
	}
	return 0
}

// host is what the parsers make of a namespace.
type host struct {
	links *link.Table
	fib   *route.FIB
	st    *world.State
	text  map[string]string
	// custom tells that the rules are not the first three any more.
	custom bool
}

// collect dumps a namespace with the tools and reads it back.
func collect(ns *namespace) *host {
	h := &host{text: map[string]string{}}
	for name, args := range map[string]string{
		"ip-link.json": "ip -d -j link", "ip-addr.json": "ip -d -j addr",
		"ip-neigh.json": "ip -d -j neigh", "ip-neigh-proxy.json": "ip -j neigh show proxy",
		"ip-rule.json": "ip -4 -d -j rule",
		"ip-route":     "ip -4 -d -o route show table all", "ip-nexthop.json": "ip -d -j nexthop",
		"ip-maddr.json": "ip -j maddr", "sysctl": "sysctl -a --pattern ^net\\.ipv4"} {
		h.text[name] = ns.run("", strings.Fields(args)...)
	}
	if err := h.build(); err != nil {
		ns.t.Fatalf("%v", err)
	}
	return h
}

func (h *host) build() error {
	c := link.Config{Schema: &world.Schema{}}
	rc := route.Config{}
	get := func(name string) (string, []byte) { return name, []byte(h.text[name]) }
	var err error
	step := func(f func() error) {
		if err == nil {
			err = f()
		}
	}
	step(func() (e error) { c.Links, e = parseIPLink(get("ip-link.json")); return })
	step(func() (e error) { c.Addrs, _, e = parseIPAddr(get("ip-addr.json")); return })
	step(func() (e error) {
		name, data := get("ip-neigh.json")
		c.Neighs, _, e = parseIPNeigh(name, data, finder(c.Links))
		return
	})
	step(func() (e error) {
		name, data := get("ip-neigh-proxy.json")
		_, c.Proxies, e = parseIPNeigh(name, data, finder(c.Links))
		return
	})
	step(func() (e error) { c.Memberships, e = parseIPMaddr(get("ip-maddr.json")); return })
	step(func() (e error) { c.Sysctl, e = parseSysctl(get("sysctl")); return })
	step(func() (e error) { h.links, e = link.New(c); return })
	step(func() (e error) {
		name, data := get("ip-rule.json")
		rc.Rules, e = parseIPRule(name, data, nil)
		return
	})
	step(func() (e error) {
		name, data := get("ip-route")
		rc.Routes, e = parseIPRoute(name, data, nil, false)
		return
	})
	step(func() (e error) {
		name, data := get("ip-nexthop.json")
		rc.Nexthops, e = parseIPNexthop(name, data, nil)
		return
	})
	step(func() (e error) {
		rc.Links, rc.Sysctl = h.links, c.Sysctl
		h.fib, e = route.New(rc)
		return
	})
	h.st = c.Schema.NewState()
	h.custom = len(rc.Rules) > 3
	return err
}

// ask asks the engine, forcing a choice where there is one.
func (h *host) ask(q question, choice int) answer {
	w := &world.World{State: h.st.Fork(), Dice: &world.Dice{Forced: []int{choice}}, HZ: 250}
	var d route.Decision
	tr := &trace.Trace{}
	if q.in != 0 {
		d = h.fib.Arrive(w, tr, &route.Arrival{Src: q.src, Dst: q.dst, TOS: q.tos, Proto: q.proto,
			IPProto: q.proto, SPort: q.sport, DPort: q.dport, Mark: q.mark, In: q.in})
	} else {
		d = h.fib.Output(w, tr, &route.Flow{Src: q.src, Dst: q.dst, TOS: q.tos, Proto: q.proto,
			SPort: q.sport, DPort: q.dport, Mark: q.mark, UID: q.uid, Out: q.out})
	}
	if d.Err != 0 {
		if q.in != 0 && !d.ICMP && d.Kind != trace.Unreachable {
			d.Err = route.EINVAL // what the kernel drops, it reports so
		}
		return answer{err: d.Err}
	}
	a := answer{kind: d.Kind, table: d.Table, out: d.Out, gw: d.Gateway, realm: d.Realm,
		redirect: d.DoRedirect}
	if l := h.links.ByIndex(d.Out); l != nil && d.MTU != 0 && d.MTU != min(l.MTU, 0xffff) {
		a.mtu = uint32(d.MTU)
	}
	if q.in == 0 && d.Source != q.src {
		a.src = d.Source
	}
	if a.src.IsAny() {
		a.src = packet.Addr{}
	}
	return a
}

// same compares an answer with the kernel's.
func (h *host) same(q question, want answer) (got answer, ok bool) {
	for i := range 6 {
		a := h.ask(q, i)
		if i == 0 {
			got = a
		}
		if !h.custom || want.err != 0 {
			a.table = want.table // until a rule is added, local is a part of main
		}
		if want.table != 0 && strings.Contains(h.text["ip-rule.json"], "flow_") {
			a.realm = want.realm // a cached route keeps the realms of its first packet
		}
		if strings.Contains(h.text["ip-route"], "nhid") {
			a.mtu = want.mtu // a nexthop caches the metrics of the first route through it
		}
		if a == want {
			return a, true
		}
	}
	return got, false
}

// story shows a configuration for a failure.
func (h *host) story(ns *namespace) string {
	return ns.run("", "ip", "-4", "addr") + ns.run("", "ip", "rule") + h.text["ip-route"] +
		ns.run("", "ip", "nexthop") + ns.run("", "ip", "neigh") + h.switched()
}

// switched are the settings that are not zero.
func (h *host) switched() string {
	var out []string
	for line := range strings.Lines(h.text["sysctl"]) {
		if strings.Contains(line, ".conf.") && !strings.HasSuffix(line, "= 0\n") &&
			!strings.Contains(line, ".conf.p") && !strings.Contains(line, "igmp") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// dice makes random configurations.
type dice struct{ *rand.Rand }

func (r dice) pick(s ...string) string { return s[r.IntN(len(s))] }
func (r dice) one(n int) bool          { return r.IntN(n) == 0 }

// host is a random address of a small world, so that questions hit.
func (r dice) addr() string {
	return fmt.Sprintf("10.%d.%d.%d", r.IntN(3), r.IntN(3), []int{0, 1, 2, 3, 5, 9, 77, 127, 128,
		129,
		200, 255}[r.IntN(12)])
}

func (r dice) prefix() string {
	n := []int{0, 8, 15, 16, 22, 24, 24, 25, 30, 31, 32}[r.IntN(11)]
	a := packet.MustParseAddr(r.addr()).Uint32()
	return fmt.Sprintf("%v/%d", packet.V4(a&uint32(uint64(0xffffffff)<<(32-n))), n)
}

func (r dice) dev() string { return fmt.Sprintf("d%d", r.IntN(4)) }

// topology makes devices and addresses.
func (r dice) topology() string {
	var b strings.Builder
	p := func(f string, args ...any) { fmt.Fprintf(&b, f+"\n", args...) }
	p("link set lo up")
	for i := range 4 {
		p("link add d%d type veth peer name p%d", i, i)
		p("link set d%d up group %d", i, i)
		if !r.one(5) {
			p("link set p%d up", i)
		}
		for range r.IntN(4) {
			scope := ""
			if r.one(4) {
				scope = " scope " + r.pick("link", "host", "site")
			}
			if peer := r.prefix(); r.one(5) && peer != "0.0.0.0/0" { // no dump shows a peer of 0.0.0.0
				p("addr add %s peer %s dev d%d%s", r.addr(), peer, i, scope)
				continue
			}
			p("addr add %s/%s dev d%d%s%s", r.addr(), r.pick("24", "24", "25", "16", "30", "32"), i,
				r.pick("", " brd +", ""), scope)
		}
	}
	if r.one(3) {
		p("addr add 192.0.2.1/32 dev lo")
	}
	return b.String()
}

func (r dice) rule() string {
	var w []string
	add := func(n int, s ...string) {
		if r.one(n) {
			w = append(w, strings.Join(s, " "))
		}
	}
	w = append(w, fmt.Sprintf("rule add pref %d", 1+r.IntN(6)*1000))
	add(5, "not")
	add(2, "from", r.prefix())
	add(3, "to", r.prefix())
	add(4, "iif", r.pick(r.dev(), "lo", "absent"))
	add(8, "oif", r.dev())
	add(4, "fwmark", r.pick("1", "2/2", "0/1", "3"))
	add(6, "tos", r.pick("0x10", "0x08"))
	add(6, "ipproto", r.pick("tcp", "udp", "icmp"))
	add(6, "sport", r.pick("1000", "1-2000"))
	add(6, "dport", r.pick("80", "50-100"))
	add(6, "uidrange", r.pick("0-0", "5-1000"))
	switch r.IntN(12) {
	case 0:
		return strings.Join(append(w, "goto", r.pick("3001", "5001", "4500", "32766")), " ")
	case 1:
		return strings.Join(append(w, r.pick("blackhole", "unreachable", "prohibit", "nop")), " ")
	}
	w = append(w, "lookup", r.pick("100", "101", "main", "102", "local", "default"))
	add(4, "suppress_prefixlength", r.pick("0", "16", "24"))
	add(8, "suppress_ifgroup", r.pick("0", "1"))
	add(8, "realms", r.pick("1/2", "3", "9/"))
	return strings.Join(w, " ")
}

func (r dice) hop() string {
	switch r.IntN(4) {
	case 0:
		return "dev " + r.dev()
	case 1:
		return "via " + r.addr() + " dev " + r.dev() + " onlink"
	case 2:
		return "via " + r.addr() + " dev " + r.dev()
	}
	return "via " + r.addr()
}

func (r dice) route() string {
	var w []string
	add := func(n int, s ...string) {
		if r.one(n) {
			w = append(w, strings.Join(s, " "))
		}
	}
	w = append(w, "route", r.pick("add", "append"))
	kind := r.pick("", "", "", "", "", "", "", "unreachable", "blackhole", "prohibit", "throw",
		"local", "broadcast", "multicast", "anycast")
	dst := r.prefix()
	if r.one(4) {
		dst = "default"
	}
	w = append(w, kind, dst)
	add(3, "table", r.pick("100", "101", "local", "default"))
	add(3, "metric", r.pick("5", "10", "20"))
	add(6, "tos", r.pick("0x10", "0x08", "0x04"))
	switch kind {
	case "unreachable", "blackhole", "prohibit", "throw":
		return strings.Join(w, " ")
	case "local", "broadcast", "anycast", "multicast":
		return strings.Join(append(w, "dev", r.pick("lo", r.dev())), " ")
	}
	add(8, "mtu", r.pick("1300", "lock 1200"))
	add(5, "src", r.addr())
	if r.one(5) {
		return strings.Join(append(w, "nhid", r.pick("1", "2", "3", "4", "5", "6")), " ")
	}
	if r.one(4) {
		for range 2 + r.IntN(2) {
			w = append(w, "nexthop", r.hop(), "weight", r.pick("1", "2", "7"))
		}
		return strings.Join(w, " ")
	}
	w = append(w, r.hop())
	add(8, "scope", r.pick("link", "host", "site"))
	add(8, "realms", r.pick("4", "5/6"))
	return strings.Join(w, " ")
}

var special = regexp.MustCompile("(add|append) (local|anycast|broadcast|multicast)")

func (r dice) config() string {
	var b strings.Builder
	for i := range 3 {
		fmt.Fprintf(&b, "nexthop add id %d %s\n", i+1, r.hop())
	}
	fmt.Fprintf(&b, "nexthop add id 4 group 1,3/2\nnexthop add id 5 blackhole\n")
	fmt.Fprintf(&b, "nexthop add id 6 group 2/3,5\n")
	if !r.one(4) {
		for range r.IntN(7) {
			b.WriteString(r.rule() + "\n")
		}
	}
	// What is delivered comes first: how far away a gateway is, the kernel finds
	// out when a route is made, and no dump shows it.
	var first, rest []string
	for range 4 + r.IntN(20) {
		if s := r.route(); special.MatchString(s) {
			first = append(first, s)
		} else {
			rest = append(rest, s)
		}
	}
	b.WriteString(strings.Join(append(first, rest...), "\n") + "\n")
	for range r.IntN(4) {
		fmt.Fprintf(&b, "neigh add %s dev %s %s\n", r.addr(), r.dev(),
			r.pick("lladdr 02:00:00:00:00:09 nud permanent", "nud failed"))
	}
	return b.String()
}

// switches writes random sysctls.
func (r dice) switches(ns *namespace) {
	for _, key := range []string{"rp_filter", "accept_local", "src_valid_mark", "route_localnet",
		"bc_forwarding", "ignore_routes_with_linkdown", "shared_media", "send_redirects"} {
		for _, dev := range []string{"all", "d0", "d1", "d2", "d3"} {
			if !r.one(3) {
				continue
			}
			v := r.IntN(2)
			if key == "rp_filter" {
				v = r.IntN(3)
			}
			ns.sysctl("conf/"+dev+"/"+key, v)
		}
	}
	ns.sysctl("ip_forward", min(1, r.IntN(8)))
	if r.one(3) {
		ns.sysctl("conf/"+r.dev()+"/forwarding", r.IntN(2))
	}
	ns.sysctl("fib_multipath_hash_policy", r.IntN(4))
	ns.sysctl("fib_multipath_use_neigh", r.IntN(2))
}

func (r dice) question(h *host) question {
	dst := r.addr()
	if r.one(8) {
		dst = r.pick("255.255.255.255", "224.0.0.1", "239.1.2.3", "127.0.0.1", "127.5.5.5",
			"0.0.0.0",
			"192.0.2.1", "8.8.8.8", "127.255.255.255", "0.1.2.3", "240.0.0.1")
	}
	src := r.addr()
	if r.one(8) {
		src = r.pick("0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1", "8.8.8.8")
	}
	q := question{dst: packet.MustParseAddr(dst), src: packet.MustParseAddr(src),
		tos:   []uint8{0, 0, 0, 0x10, 0x08, 0x04}[r.IntN(6)],
		proto: []uint8{packet.TCP, packet.UDP, packet.ICMP}[r.IntN(3)], mark: uint32(r.IntN(4)),
		uid: []uint32{0, 7}[r.IntN(2)]}
	if q.proto != packet.ICMP {
		q.sport, q.dport = []uint16{1000, 1500, 9}[r.IntN(3)], []uint16{80, 60, 443}[r.IntN(3)]
	}
	dev := h.links.ByName(r.dev()).Index
	switch r.IntN(4) {
	case 0, 1:
		q.in = dev
	case 2:
		if r.one(2) {
			q.src = packet.V4(0)
		}
		if r.one(3) {
			q.out = dev
		}
	case 3:
		q.src = r.ownAddr(h)
	}
	return q
}

// ownAddr is an address of the host, so that it may send from it.
func (r dice) ownAddr(h *host) packet.Addr {
	var own []packet.Addr
	for _, l := range h.links.All() {
		for _, a := range h.links.Addrs(l.Index) {
			if a.Local.Is4() {
				own = append(own, a.Local)
			}
		}
	}
	return own[r.IntN(len(own))]
}

// TestRouteKernel compares random lookups in random configurations with the
// kernel that the test runs on. SEED and ROUNDS repeat or lengthen a run.
func TestRouteKernel(t *testing.T) {
	needRoot(t)
	seed, rounds := envUint("SEED", 1), envUint("ROUNDS", 40)
	asked, failed := 0, 0
	for i := seed; i < seed+rounds && failed < 5; i++ {
		inNamespace(t, func(ns *namespace) {
			r := dice{rand.New(rand.NewPCG(i, 0))}
			ns.run(r.topology(), "ip", "-force", "-batch", "-")
			r.switches(ns)
			ns.run(r.config(), "ip", "-force", "-batch", "-")
			h := collect(ns)
			for range 150 {
				q := r.question(h)
				want := ns.ask(q)
				asked++
				if got, ok := h.same(q, want); !ok {
					failed++
					t.Errorf("seed %d: %v:\n got  %v\n want %v\n%s", i, q, got, want, h.story(ns))
					if failed >= 5 {
						return
					}
				}
			}
		})
	}
	t.Logf("%d lookups compared with the kernel", asked)
}

func envUint(name string, def uint64) uint64 {
	var n uint64
	if _, err := fmt.Sscan(os.Getenv(name), &n); err != nil {
		return def
	}
	return n
}
