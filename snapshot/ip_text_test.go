package snapshot

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/socket"
	"github.com/hookpath/hookpath/trace"
)

// zoo is a configuration with one of each thing that iproute2 prints.
const zoo = `link set lo up
link add d0 type veth peer name p0
link add d1 type veth peer name p1
link set d0 up group 5
link set p0 up
link set d1 up
link set p1 up
link property add dev d0 altname longer
addr add 10.0.0.1/24 brd + dev d0
addr add 10.0.0.2/24 dev d0
addr add 10.9.0.1 peer 10.9.0.2/32 dev d0
addr add 10.8.0.1/24 dev d1 scope link noprefixroute metric 7
neigh add 10.0.0.9 lladdr 02:00:00:00:00:01 dev d0 nud permanent
neigh add 10.0.0.8 dev d0 nud failed
neigh add proxy 10.0.0.77 dev d0
rule add pref 10 not from 10.0.0.0/8 to 11.0.0.0/24 tos 0x10 fwmark 0x1/0xff iif d0 oif d1 uidrange 5-10 ipproto tcp sport 10-20 dport 80 lookup 100 suppress_prefixlength 0
rule add pref 11 from 10.1.0.1 iif absent lookup main suppress_ifgroup 5 realms 1/2
rule add pref 12 goto 32766
rule add pref 13 goto 99
rule add pref 14 nop
rule add pref 15 blackhole
rule add pref 16 prohibit
rule add pref 17 unreachable
rule add pref 18 l3mdev
rule add pref 19 ipproto icmp lookup 5000 protocol static realms 7
rule add pref 20 from 0/0 fwmark 3 table default
rule add pref 21 tos 0x08 suppress_ifgroup default table 7
nexthop add id 1 via 10.0.0.9 dev d0
nexthop add id 2 dev d1 proto static
nexthop add id 3 via 10.77.0.9 dev d0 onlink
nexthop add id 4 group 1,3/3,1
nexthop add id 5 blackhole
nexthop add id 6 group 1/2,2 type resilient buckets 8
route add 1.0.0.0/8 nhid 1
route add 2.0.0.0/8 nhid 4
route add 3.0.0.0/8 nhid 5
route add 3.1.0.0/16 nhid 6
route add 4.0.0.0/8 nexthop via 10.0.0.5 weight 3 nexthop via 10.0.0.6 dev d0 weight 1 realm 5
route add 5.0.0.0/8 via 10.0.0.5 mtu lock 1400 advmss 1300 rtt 100ms window 5 features ecn quickack 1 congctl reno initcwnd 10 src 10.0.0.1 metric 7 tos 0x10 realms 3/4
route add unreachable 6.0.0.0/8
route add blackhole 7.0.0.0/8 metric 9
route add prohibit default table 100
route add throw 8.0.0.0/8 table 100
route add 9.0.0.0/8 via 99.0.0.1 dev d1 onlink
route add default via 10.0.0.1 dev d0
route append default via 10.0.0.7 proto bgp
route add local 13.0.0.0/8 dev lo
route add multicast 224.1.0.0/16 dev d0
route add anycast 16.0.0.0/8 dev d0
route add 14.0.0.0/8 dev d0 tos 0x1c scope host
route add 15.0.0.0/8 dev d0 scope 77 table 77777
`

// dump runs ip and fails when it does.
func dump(ns *namespace, args string) []byte {
	return []byte(ns.run("", strings.Fields("ip "+args)...))
}

// must reads a dump.
func must[T any](t testing.TB, what string) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return v
	}
}

// TestTextKernel reads what the tools print of one configuration: each form must
// say the same, and our print must be theirs.
func TestTextKernel(t *testing.T) {
	needRoot(t)
	inNamespace(t, func(ns *namespace) {
		ns.run(zoo, "ip", "-batch", "-")
		compareRoutes(t, ns)
		compareRules(t, ns)
		compareLinks(t, ns)
		compareNexthops(t, ns)
	})
}

// lines joins the continuation lines of a dump.
func lines(b []byte) []string {
	var out []string
	for line := range strings.Lines(string(b)) {
		s := strings.Join(strings.Fields(strings.ReplaceAll(line, `\`, " ")), " ")
		switch {
		case s == "":
		case line[0] == '\t' && len(out) > 0:
			out[len(out)-1] += " " + s
		default:
			out = append(out, s)
		}
	}
	return out
}

func compareRoutes(t *testing.T, ns *namespace) {
	text := dump(ns, "-4 route show table all")
	parse := must[[]route.Route](t, "ip route")
	plain := parse(parseIPRoute("ip-route", text, nil, false))
	want := lines(text)
	for i := range plain {
		if got := plain[i].Text(nil); i >= len(want) || got != want[i] {
			t.Errorf("route %d: print\n got  %s\n want %s", i, got, want[i])
		}
	}
	oneLine := parse(parseIPRoute("ip-route", dump(ns, "-4 -d -o route show table all"), nil,
		false))
	compareAll(t, "ip -d -o route", oneLine, plain)
	asJSON := parse(parseIPRoute("ip-route.json", dump(ns, "-4 -d -j route show table all"), nil,
		false))
	for i := range asJSON { // JSON does not tell locks
		if i < len(plain) {
			asJSON[i].MTULock = plain[i].MTULock
			asJSON[i].Metrics = plain[i].Metrics
		}
	}
	compareAll(t, "ip -d -j route", asJSON, plain)
}

func compareAll[T any](t *testing.T, what string, got, want []T) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d entries, want %d", what, len(got), len(want))
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("%s: entry %d\n got  %+v\n want %+v", what, i, got[i], want[i])
		}
	}
}

func compareRules(t *testing.T, ns *namespace) {
	text := dump(ns, "-4 rule")
	parse := must[[]route.Rule](t, "ip rule")
	plain := parse(parseIPRule("ip-rule", text, nil))
	for i, want := range lines(text) {
		_, want, _ = strings.Cut(want, ": ")
		if got := plain[i].Text(nil); got != want {
			t.Errorf("rule %d: print\n got  %s\n want %s", i, got, want)
		}
	}
	asJSON := parse(parseIPRule("ip-rule.json", dump(ns, "-4 -d -j rule"), nil))
	for i := range asJSON { // the plain form does not show who made the first three
		asJSON[i].Protocol = plain[i].Protocol
	}
	compareAll(t, "ip -d -j rule", asJSON, plain)
}

func compareLinks(t *testing.T, ns *namespace) {
	asJSON := must[[]link.Link](t, "ip -d -j link")(parseIPLink("ip-link.json", dump(ns,
		"-d -j link")))
	plain := must[[]link.Link](t, "ip link")(parseIPLink("ip-link", dump(ns, "-d link")))
	compareAll(t, "ip -d link", plain, asJSON)
	addrs, links, err := parseIPAddr("ip-addr.json", dump(ns, "-d -j addr"))
	if err != nil {
		t.Error(err)
	}
	compareAll(t, "links of ip addr", links, asJSON)
	v4 := only4(addrs)
	for _, args := range []string{"addr", "-o addr"} {
		got, _, err := parseIPAddr("ip-addr", dump(ns, args))
		if err != nil {
			t.Error(err)
		}
		compareAll(t, "ip "+args, only4(got), v4)
	}
	find := finder(asJSON)
	for _, args := range []string{"neigh", "neigh show proxy"} {
		n1, p1, err1 := parseIPNeigh("ip-neigh.json", dump(ns, "-d -j "+args), find)
		n2, p2, err2 := parseIPNeigh("ip-neigh", dump(ns, args), find)
		if err1 != nil || err2 != nil || len(n1)+len(p1) == 0 {
			t.Errorf("ip %s: %v, %v, %d entries", args, err1, err2, len(n1)+len(p1))
		}
		compareAll(t, "ip "+args, n2, n1)
		compareAll(t, "ip "+args, p2, p1)
	}
	m1 := must[[]link.Membership](t, "ip maddr")(parseIPMaddr("ip-maddr", dump(ns, "maddr")))
	m2 := must[[]link.Membership](t, "ip -j maddr")(parseIPMaddr("ip-maddr", dump(ns, "-j maddr")))
	compareAll(t, "ip maddr", m1, m2)
}

func only4(as []link.Addr) (out []link.Addr) {
	for _, a := range as {
		if a.Local.Is4() {
			out = append(out, a)
		}
	}
	return out
}

func compareNexthops(t *testing.T, ns *namespace) {
	parse := must[[]route.Nexthop](t, "ip nexthop")
	plain := parse(parseIPNexthop("ip-nexthop", dump(ns, "-d nexthop"), nil))
	asJSON := parse(parseIPNexthop("ip-nexthop.json", dump(ns, "-d -j nexthop"), nil))
	compareAll(t, "ip -d -j nexthop", asJSON, plain)
	for _, args := range []string{"nexthop bucket", "-j nexthop bucket"} {
		n := parse(parseIPNexthop("ip-nexthop", dump(ns, "-d nexthop"), nil))
		if err := parseIPNexthopBucket("ip-nexthop-bucket", dump(ns, args), n); err != nil {
			t.Error(err)
		}
		for i := range n {
			if n[i].Resilient && (len(n[i].Buckets) != 2 || n[i].Buckets[0]+n[i].Buckets[1] != 8) {
				t.Errorf("ip %s: buckets %v, want 8 in all", args, n[i].Buckets)
			}
		}
	}
}

// TestParseErrors wants each error to name the file, the line and the word.
func TestParseErrors(t *testing.T) {
	dev := func(string) packet.Dev { return 0 }
	for _, c := range []struct{ what, in, want string }{
		{"route", "default via 10.0.0.300 dev eth0", `ip-route:1: via: "10.0.0.300" is not an address`},
		{"route", "10.0.0.0/8 dev eth0\n10/33 dev eth0", `ip-route:2: "10/33" is not a destination`},
		{"route", "10.0.0.0/8 dev eth0 frobnicate", `ip-route:1: route option "frobnicate" is not supported`},
		{"route", "10.0.0.0/8 encap ip id 5 dev d",
			"ip-route:1: route option encap is not supported: " +
				"lightweight tunnels are not walked"},
		{"route", "10.0.0.0/8 dev d table red", `ip-route:1: table: "red" is not known: rt_tables is ` +
			"missing or does not have it"},
		{"route", "nat 1.2.3.4 via 4.5.6.7", "ip-route:1: route type nat is not supported"},
		{"route", "\tnexthop via 10.0.0.1", `ip-route:1: "nexthop" stands before the first route`},
		{"route", "default dev", "ip-route:1: dev: value is missing"},
		{"route", `[{"dst":"default","zz":1}]`, `ip-route:1: attribute "zz" is not supported: it is not ` +
			"known what it does"},
		{"rule", "x: from all lookup main", `ip-rule:1: "x" is not a rule's priority`},
		{"rule", "1: from all\n2: from all lookup red", `ip-rule:2: lookup: table "red" is not known: ` +
			"rt_tables is missing or does not have it"},
		{"rule", "1: from all fwmark zz lookup main", `ip-rule:1: fwmark: "zz" is not a number`},
		{"rule", "1: from all sport 9-8 lookup main", `ip-rule:1: sport: "9-8" is not a port or range`},
		{"rule", "1: from all tun_id 5 lookup main", "ip-rule:1: ip rule tun_id is not supported"},
		{"link", "2: d0: <UP,WARP> mtu 1500", `ip-link:1: link d0: flag "WARP" is not supported`},
		{"link", "    link/ether 02:00:00:00:00:01", `ip-link:1: "link/ether" stands before the first interface`},
		{"link", `[{"ifname":"d0"}]`, "ip-link:1: a link needs ifindex and ifname"},
		{"addr", "2: d0    inet 10.0.0.1/40 scope global d0", "ip-addr:1: inet: not an address"},
		{"neigh", "10.0.0.1 dev d0 lladdr 02:00:00:00:00:01 REACHABLE",
			`ip-neigh:1: neighbour 10.0.0.1: device "d0" does not exist`},
		{"nexthop", "id 5 group 1,x", `ip-nexthop:1: group: "1,x" is not id[,weight]`},
		{"sysctl", "net.ipv4.ip_forward 1", `sysctl:1: "net.ipv4.ip_forward 1" is not name = value`},
		{"tables", "1 2 3", `rt_tables:1: "1 2 3" is not a number and a name`},
		{"sockets", "tcp LISTEN 0 128 10.0.0.1 0.0.0.0:*",
			`sockets:1: "10.0.0.1" is not a socket's local end`},
	} {
		_, err := parseAny(c.what, []byte(c.in), dev)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s %q:\n got  %v\n want %s", c.what, c.in, err, c.want)
		}
	}
}

// parseAny calls the parser of a format.
func parseAny(what string, in []byte, dev devFinder) (any, error) {
	switch what {
	case "route":
		return parseIPRoute("ip-route", in, nil, false)
	case "rule":
		return parseIPRule("ip-rule", in, nil)
	case "link":
		return parseIPLink("ip-link", in)
	case "addr":
		a, _, err := parseIPAddr("ip-addr", in)
		return a, err
	case "neigh":
		n, _, err := parseIPNeigh("ip-neigh", in, dev)
		return n, err
	case "nexthop":
		n, err := parseIPNexthop("ip-nexthop", in, nil)
		if err == nil {
			err = parseIPNexthopBucket("ip-nexthop-bucket", in, n)
		}
		return n, err
	case "maddr":
		return parseIPMaddr("ip-maddr", in)
	case "sysctl":
		return parseSysctl("sysctl", in)
	case "tables":
		return parseRTTables("rt_tables", in)
	}
	return parseSockets("sockets", in)
}

// formats are the formats that this file tests.
var formats = []string{"route", "rule", "link", "addr", "neigh", "nexthop", "maddr", "sysctl",
	"tables", "sockets"}

// FuzzParse holds that no input makes a parser panic, and that what was read can
// be made into tables.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"default via 10.0.0.1 dev eth0 proto dhcp metric 100",
		"1:\tfrom all fwmark 0x1/0x1 lookup 100", "1: lo: <LOOPBACK,UP> mtu 65536\n    inet 127.0.0.1/8 scope host lo",
		"10.0.0.9 dev v0 lladdr 02:00:00:00:00:01 PERMANENT", "id 4 group 1,3/7", "[{}]",
		`[{"ifindex":1,"ifname":"lo","flags":["UP"],"addr_info":[{"family":"inet","local":"1.2.3.4","prefixlen":8,"scope":"host"}]}]`,
		`udp UNCONN 0 0 0.0.0.0%v0:53 0.0.0.0:* users:(("x",pid=1,fd=4)) uid:7`, "4.0.0.0/8 \\\tnexthop via 1.2.3.4 weight 3",
		"net.ipv4.ip_forward = 1", "1:\tlo\n\tinet  224.0.0.1"} {
		f.Add(s)
	}
	dev := func(string) packet.Dev { return 1 }
	f.Fuzz(func(t *testing.T, s string) {
		for _, what := range formats {
			got, err := parseAny(what, []byte(s), dev)
			if err != nil {
				continue
			}
			if rs, ok := got.([]route.Route); ok {
				for i := range rs {
					_ = rs[i].Text(nil)
				}
				lt, _ := link.New(link.Config{Links: link.Invent([]string{"eth0"})})
				_, _ = route.New(route.Config{Routes: rs, Links: lt})
			}
			if rs, ok := got.([]route.Rule); ok {
				lt, _ := link.New(link.Config{})
				_, _ = route.New(route.Config{Rules: rs, Links: lt})
			}
			if ss, ok := got.([]socket.Socket); ok {
				_, _ = socket.New(nil, ss)
			}
		}
	})
}

// TestCorpusIPRoute reads what other people's hosts print.
func TestCorpusIPRoute(t *testing.T) {
	dir := os.Getenv("HOOKPATH_CORPUS")
	if dir == "" {
		t.Skip("HOOKPATH_CORPUS is not set: nothing real was read")
	}
	names, err := parseRTTables("rt_tables", []byte("100 istio\n101 in\n"))
	if err != nil {
		t.Fatal(err)
	}
	for glob, read := range map[string]func(string, []byte) error{
		"iproute/*route-table*":        routeReaderFor(names, false),
		"iproute/diekmann/*.ip-route":  routeReaderFor(names, false),
		"iproute/diekmann/*.ip6-route": routeReaderFor(names, true),
		"iproute/*ip-rule*": func(f string, b []byte) error {
			_,
				e := parseIPRule(f, b, names)
			return e
		},
		"snapshots/openstack-2node/ifaces-*": func(f string, b []byte) error {
			_, _,
				e := parseIPAddr(f, b)
			return e
		},
	} {
		files, _ := filepath.Glob(filepath.Join(dir, glob))
		if len(files) == 0 {
			t.Errorf("%s: no file", glob)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if err := read(f, b); err != nil {
				t.Errorf("%v", err)
			}
		}
	}
}

func routeReaderFor(names *route.Names, v6 bool) func(string, []byte) error {
	return func(f string, b []byte) error {
		rs, err := parseIPRoute(f, b, names, v6)
		for i := range rs {
			if rs[i].Kind == trace.Unspec {
				return err
			}
		}
		return err
	}
}

// TestSockets reads ss.
func TestSockets(t *testing.T) {
	const in = `Netid State  Recv-Q Send-Q Local Address:Port Peer Address:Port Process
raw UNCONN 0      0         0.0.0.0:1      0.0.0.0:*     users:(("python3",pid=13799,fd=6))
udp UNCONN 0      0      0.0.0.0%v0:53     0.0.0.0:*     users:(("dns",pid=9,fd=4)) uid:101 ino:54492 sk:1 cgroup:/ <->
	inet-sockopt: ( mc_loop mc_all)
udp ESTAB  0      0        10.0.0.1:54    10.0.0.1:99    ino:54493 sk:2 cgroup:/ <->
tcp LISTEN 1      128      10.0.0.1:80     0.0.0.0:*     users:(("web",pid=3,fd=3)) ino:54491 sk:3 cgroup:/ <->
	inet-sockopt: ( is_icsk mc_loop transparent mc_all)
tcp ESTAB  0      0        10.0.0.1:80    10.0.0.1:55164 ino:0 sk:4 cgroup:/ <->
tcp LISTEN 0      128             *:81           *:*     ino:54495 sk:6 cgroup:/ v6only:0 <->
tcp LISTEN 0      128          [::]:82        [::]:*     ino:54496 sk:7 cgroup:/ v6only:1 <->
`
	a := packet.MustParseAddr("10.0.0.1")
	want := []socket.Socket{
		{Raw: true, Proto: 1, Process: "python3", PID: 13799},
		{Proto: 17, DevName: "v0", LPort: 53, Process: "dns", PID: 9, UID: 101, Inode: 54492},
		{Proto: 17, State: socket.Connected, Local: a, LPort: 54, Peer: a, PPort: 99, Inode: 54493},
		{Proto: 6, State: socket.Listen, Local: a, LPort: 80, Process: "web", PID: 3, Inode: 54491,
			Transparent: true},
		{Proto: 6, State: socket.Connected, Local: a, LPort: 80, Peer: a, PPort: 55164},
		{Proto: 6, State: socket.Listen, LPort: 81, V6: true, Inode: 54495},
		{Proto: 6, State: socket.Listen, LPort: 82, V6: true, V6Only: true, Inode: 54496},
	}
	got, err := parseSockets("sockets", []byte(in))
	if err != nil {
		t.Fatal(err)
	}
	compareAll(t, "ss", got, want)
}
