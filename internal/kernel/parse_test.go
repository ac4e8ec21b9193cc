package kernel

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func TestRuleText(t *testing.T) {
	for _, c := range []struct{ json, want string }{
		{`{"priority":0,"src":"all","table":"local","protocol":"kernel"}`,
			" from all pref 0 protocol kernel lookup local"},
		{`{"priority":5,"not":null,"src":"1.1.1.1","iif":"t1","goto":32766,"protocol":"unspec"}`,
			"not from 1.1.1.1 pref 5 iif t1 goto 32766"},
		{`{"priority":6,"src":"all","tos":"0x10","fwmark":"0x1","fwmask":"0xff","uid_start":1,` +
			`"uid_end":5,"ipproto":"tcp","sport":9,"dport_start":5,"dport_end":7,"table":"7",` +
			`"suppress_prefixlen":0,"suppress_ifgroup":"9"}`,
			" from all pref 6 fwmark 0x1/0xff uidrange 1-5 sport 9 dport 5-7 tos 0x10 ipproto tcp" +
				" suppress_ifgroup 9 suppress_prefixlength 0 lookup 7"},
		{`{"priority":7,"src":"all","dst":"9.9.9.0","dstlen":24,"action":"blackhole"}`,
			" from all to 9.9.9.0/24 pref 7 blackhole"},
		{`{"priority":8,"src":"all","nop":null}`, " from all pref 8 nop"},
		{`{"priority":9,"src":"all","colour":"red"}`, `error: unknown key "colour"`},
	} {
		var r map[string]any
		if err := json.Unmarshal([]byte(c.json), &r); err != nil {
			t.Fatal(err)
		}
		got, err := ruleText(r)
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != c.want {
			t.Errorf("%s:\ngot  %q\nwant %q", c.json, got, c.want)
		}
	}
}

func TestRoutes(t *testing.T) {
	for _, c := range []struct {
		line, want string
		rank       int
	}{
		{"unicast 10.0.0.0/24 dev t1 table main proto kernel scope link src 10.0.0.1 linkdown ",
			"unicast 10.0.0.0/24 dev t1 table main proto kernel scope link src 10.0.0.1", rankLink},
		{`unicast 1.2.5.0/24 scope global linkdown \	nexthop via 10.0.0.4 dev t1 weight 3 dead ` +
			`\	nexthop via 10.0.0.5 dev t1 weight 1 onlink`,
			"unicast 1.2.5.0/24 scope global nexthop via 10.0.0.4 dev t1 weight 3 " +
				"nexthop via 10.0.0.5 dev t1 weight 1 onlink", rankVia},
		{"unicast 1.2.3.0/24 nhid 5 via 10.0.0.9 dev v0 proto boot scope global",
			"unicast 1.2.3.0/24 nhid 5 proto boot scope global", rankVia},
		{"blackhole 1.2.9.0/24 nhid 8 dev lo metric 7", "1.2.9.0/24 nhid 8 metric 7", rankVia},
		{"local 10.0.0.1 dev t1 table local scope host", "local 10.0.0.1 dev t1 table local scope host",
			rankOwn},
		{"local 127.0.0.0/8 dev lo table local", "local 127.0.0.0/8 dev lo table local", rankLocal},
		{"throw 3.3.3.0/24 table 7", "throw 3.3.3.0/24 table 7", rankLink},
	} {
		words := routeWords(c.line)
		if got := strings.Join(words, " "); got != c.want {
			t.Errorf("%q:\ngot  %q\nwant %q", c.line, got, c.want)
		}
		if got := routeRank(words); got != c.rank {
			t.Errorf("%q: rank: got %d, want %d", c.line, got, c.rank)
		}
	}
}

func TestLegacyStep(t *testing.T) {
	book := rulebook{chains: map[chainKey]*chain{}}
	book.read("ip", forwardRules)
	for _, c := range []struct {
		prefix string
		want   Step
	}{
		{"TRACE: filter:FORWARD:rule:2 ",
			Step{Kind: "rule", N: 2, Chain: "FORWARD", Verdict: "JUMP web"}},
		{"TRACE: filter:FORWARD:rule:3 ",
			Step{Kind: "rule", N: 3, Chain: "FORWARD", Verdict: "GOTO log"}},
		{"TRACE: filter:FORWARD:policy:4 ",
			Step{Kind: "policy", N: 4, Chain: "FORWARD", Verdict: "DROP"}},
		{"TRACE: filter:log:return:1 ", Step{Kind: "rule", N: 1, Chain: "log", Verdict: "RETURN"}},
		{"TRACE: filter:log:return:2 ", Step{Kind: "return", N: 2, Chain: "log", Verdict: "RETURN"}},
		{"TRACE: filter:web:rule:3 ", Step{Kind: "rule", N: 3, Chain: "web", Verdict: "CONTINUE"}},
	} {
		got, ok := book.legacyStep("ip", c.prefix)
		c.want.Family, c.want.Table = "ip", "filter"
		if !ok || got != c.want {
			t.Errorf("%q:\ngot  %+v %v\nwant %+v", c.prefix, got, ok, c.want)
		}
	}
	if _, ok := book.legacyStep("ip", "seen "); ok {
		t.Error("a LOG line was taken for a TRACE line")
	}
}

// TestListedFlow: the line of conntrack -L, the attributes made of it and the
// canonical line say the same.
func TestListedFlow(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.9 dst=10.0.0.1 sport=1024 dport=80 " +
			"packets=1 bytes=60 src=10.0.1.9 dst=10.0.1.1 sport=8080 dport=33 packets=1 bytes=60 " +
			"[ASSURED] mark=3 zone=2 use=1 id=77",
			"ipv4 2 tcp 6 ESTABLISHED src=10.0.0.9 dst=10.0.0.1 sport=1024 dport=80 " +
				"src=10.0.1.9 dst=10.0.1.1 sport=8080 dport=33 [ASSURED] mark=3 zone=2"},
		{"ipv4 2 icmp 1 29 src=1.1.1.1 dst=2.2.2.2 type=8 code=0 id=7 [UNREPLIED] " +
			"src=2.2.2.2 dst=1.1.1.1 type=0 code=0 id=7 mark=0 use=1 id=12345",
			"ipv4 2 icmp 1 src=1.1.1.1 dst=2.2.2.2 type=8 code=0 id=7 [UNREPLIED] " +
				"src=2.2.2.2 dst=1.1.1.1 type=0 code=0 id=7 mark=0"},
	} {
		f, err := parseListed(c.line)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.String(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
	if _, err := parseListed("ipv4 2 tcp 6 9 NEVER src=1.1.1.1"); err == nil {
		t.Error("an unknown word was read")
	}
}

// TestTuple: a tuple's attributes read back as the tuple.
func TestTuple(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		addr := rapid.Custom(func(t *rapid.T) netip.Addr {
			return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "addr")))
		})
		want := tuple{src: addr.Draw(t, "src"), dst: addr.Draw(t, "dst"),
			proto: rapid.SampledFrom([]uint8{1, 6, 17, 132}).Draw(t, "proto")}
		if want.proto == unix.IPPROTO_ICMP {
			want.typ, want.id = rapid.Byte().Draw(t, "type"), rapid.Uint16().Draw(t, "id")
		} else {
			want.hasPort = true
			want.sport, want.dport = rapid.Uint16().Draw(t, "sport"), rapid.Uint16().Draw(t, "dport")
		}
		if got := parseTuple(want.attrs()); got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	})
}

func TestSocketList(t *testing.T) {
	got, err := parseSockets("r", `udp UNCONN 0 0 10.0.0.1%eth0:53 0.0.0.0:* uid:5 ino:1 sk:1 <->
	inet-sockopt: ( transparent mc_loop)
tcp LISTEN 0 128 *:80 *:* ino:2
tcp ESTAB 0 0 127.0.0.1:9 127.0.0.1:10 ino:2
tcp TIME-WAIT 0 0 127.0.0.1:9 127.0.0.1:11
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []listing{
		{proto: "udp", state: "UNCONN", local: netip.MustParseAddrPort("10.0.0.1:53"),
			peer: netip.MustParseAddrPort("0.0.0.0:0"), dev: "eth0", uid: 5, transparent: true},
		{proto: "tcp", state: "ESTAB", local: netip.MustParseAddrPort("127.0.0.1:9"),
			peer: netip.MustParseAddrPort("127.0.0.1:10")},
	}
	opts := cmp.Options{cmp.AllowUnexported(listing{}), cmp.Comparer(
		func(a, b netip.AddrPort) bool { return a == b })}
	if d := cmp.Diff(got, want, opts); d != "" {
		t.Error(d)
	}
}

func TestSysctlOrder(t *testing.T) {
	got, err := parseSysctl("net.ipv4.conf.eth0/1.rp_filter = 1\n# x\n" +
		"net.ipv4.conf.default.rp_filter = 2\nnet.ipv4.conf.all.rp_filter=0\nnet.ipv4.ip_forward = 1\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []setting{{"net/ipv4/ip_forward", "1"}, {"net/ipv4/conf/all/rp_filter", "0"},
		{"net/ipv4/conf/default/rp_filter", "2"}, {"net/ipv4/conf/eth0.1/rp_filter", "1"}}
	if d := cmp.Diff(got, want, cmp.AllowUnexported(setting{})); d != "" {
		t.Error(d)
	}
	if _, err := parseSysctl("net.ipv4.ip_forward"); err == nil {
		t.Error("a line without = was read")
	}
}

// TestUnsupported: what cannot be laid out says so, with host, file and thing.
func TestUnsupported(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		file, text, want string
	}{
		{"ip-link.json", `[{"ifindex":5,"ifname":"g0","link_type":"gre","linkinfo":{"info_kind":"gre"}}]`,
			`r/ip-link.json: g0: cannot make a device of kind "gre"`},
		{"ebtables-save", "*filter\n", "r/ebtables-save: the file: not laid out"},
		{"iptables-save", "*filter\n-A FORWARD -m nonsense\nCOMMIT\n",
			"r/iptables-save: iptables-legacy-restore"},
		{"ip-route", "unicast default via 9.9.9.9\n", `"route append unicast default via 9.9.9.9"`},
		{"sockets", "tcp SYN-SENT 0 0 10.0.0.1:1 10.0.0.9:2\n", "r/sockets: tcp SYN-SENT"},
		{"conntrack", "nonsense\n", "r/conntrack:1:"},
		{"sysctl", "net.ipv4.conf.eth9.rp_filter = 1\n", "net/ipv4/conf/eth9/rp_filter"},
	} {
		h := router("", map[string]string{c.file: c.text})
		r, err := Open(t.Context(), Scenario{Hosts: []Host{h}})
		if err == nil {
			r.Close()
			t.Errorf("%s %q was laid out", c.file, c.text)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

// FuzzAttributes: no message of whatever bytes makes a parser panic.
func FuzzAttributes(f *testing.F) {
	f.Add(flow{orig: tuple{src: netip.MustParseAddr("1.1.1.1"), dst: netip.MustParseAddr("2.2.2.2"),
		proto: 6}}.attrs())
	f.Fuzz(func(t *testing.T, b []byte) {
		book := rulebook{}
		_ = parseFlow(b).String()
		_ = parseLogged(message{attrs: b})
		_, _ = book.nftStep(message{attrs: b})
		for len(b) >= unix.NLMSG_HDRLEN {
			body, kind, _, rest := cut(b)
			_, _ = parseMessage(kind, body)
			b = rest
		}
	})
}

// FuzzText: no listing makes a parser panic, and a flow's line reads back.
func FuzzText(f *testing.F) {
	f.Add("ipv4 2 tcp 6 9 CLOSE src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1")
	f.Add("tcp LISTEN 0 128 0.0.0.0%eth0:80 [::]:* uid:1")
	f.Add("TRACE: a:b:rule:1 ")
	f.Fuzz(func(t *testing.T, s string) {
		book := rulebook{chains: map[chainKey]*chain{}}
		book.read("ip", s)
		_, _ = book.legacyStep("ip", s)
		_, _ = parseSockets("r", s)
		_, _ = parseSysctl(s)
		_ = new(batch).routes(s, nil)
		if fl, err := parseListed(s); err == nil {
			_ = fl.String()
		}
	})
}

// TestHostileFiles sees that a snapshot reaches nothing but the network: what would be
// another command, or a setting of the machine, is refused.
func TestHostileFiles(t *testing.T) {
	for _, text := range []string{
		"kernel.core_pattern = |/bin/sh\n",
		"net.ipv4.//.//.kernel.core_pattern = |/bin/sh\n",
		"net.//.kernel.panic = 1\n",
	} {
		if _, err := parseSysctl(text); err == nil {
			t.Errorf("sysctl %q was taken", text)
		}
	}
	for _, name := range []string{`e\nnetns exec x sh`, `e\u000anetns exec x sh`, `e\r`} {
		h := &Host{Name: "r", Files: map[string]string{"ip-link.json": `[{"ifname":"` + name + `"}]`}}
		if _, err := decode[ipLink](h, "ip-link.json"); err == nil {
			t.Errorf("interface %q was taken", name)
		}
	}
}

// TestPrinted tells what iptables-save printed from what somebody wrote.
func TestPrinted(t *testing.T) {
	for text, want := range map[string]bool{
		"# x\n*filter\n:INPUT ACCEPT [0:0]\n[1:2] -A INPUT -j DROP\nCOMMIT\n": true,
		"*filter\n:INPUT ACCEPT [0:0]\n-I INPUT -j DROP\nCOMMIT\n":            false,
		"*filter\n-A INPUT -j DROP\nCOMMIT\n":                                 false,
		"*nat\n:INPUT ACCEPT\n*filter\n-A INPUT -j DROP\nCOMMIT\n":            false,
		"": true,
	} {
		if got := printed(text); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}
