package kernel

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// rich is a host with some of everything that is laid out.
func rich() Host {
	return router(strings.Replace(natRules, "COMMIT",
		"-A PREROUTING -m set --match-set s src -j ACCEPT\nCOMMIT", 1), map[string]string{
		"ipset-save": "create s hash:ip family inet\nadd s 10.9.0.1\n",
		"ip-addr.json": strings.Replace(testAddrs, `"addr_info":[`, `"addr_info":[
			{"family":"inet","local":"10.7.0.1","prefixlen":25,"scope":"link","label":"eth0:1"},
			{"family":"inet","local":"10.7.0.3","prefixlen":25,"scope":"link","label":"eth0"},
			{"family":"inet","local":"10.8.0.1","address":"10.8.0.2","prefixlen":32,
			 "scope":"global","label":"eth0","noprefixroute":true},`, 1),
		"ip-neigh-proxy.json": `[{"dst":"10.0.0.44","dev":"eth0","proxy":null}]`,
		"ip-nexthop.json": `[{"id":5,"gateway":"10.0.0.9","dev":"eth0","scope":"link","flags":[]},
			{"id":6,"gateway":"10.0.1.9","dev":"eth1","scope":"link","flags":[]},
			{"id":8,"blackhole":null,"flags":[]},
			{"id":7,"group":[{"id":5,"weight":3},{"id":6}],"flags":[]}]`,
		"ip-route": `unicast default via 10.0.0.9 dev eth0 table main proto boot scope global metric 7
unicast 10.0.0.0/24 dev eth0 table main proto kernel scope link src 10.0.0.1
unicast 10.0.1.0/24 dev eth1 table main proto kernel scope link src 10.0.1.1
unicast 1.1.0.0/16 nhid 7 table main proto static scope global
throw 3.3.3.0/24 table 7 proto boot scope global
unreachable 3.3.4.0/24 table 7 proto boot scope global metric 9
unicast 1.2.5.0/24 table 7 proto boot scope global \	nexthop via 10.0.0.9 dev eth0 weight 3 \	nexthop via 10.0.1.77 dev eth1 weight 1 onlink
unicast 5.5.0.0/16 tos 0x10 via 10.0.0.9 dev eth0 table main proto boot scope global realm 5 mtu lock 1200
unicast 5.6.0.0/16 dev eth1 table main proto boot scope link src 10.0.0.1
local 10.0.0.1 dev eth0 table local proto kernel scope host src 10.0.0.1
broadcast 10.0.0.255 dev eth0 table local proto kernel scope link src 10.0.0.1
local 10.0.1.1 dev eth1 table local proto kernel scope host src 10.0.1.1
local 127.0.0.0/8 dev lo table local proto kernel scope host src 127.0.0.1
local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1
`,
		"ip-rule.json": `[{"priority":0,"src":"all","table":"local"},
			{"priority":5,"not":null,"src":"1.1.1.1","iif":"eth0","goto":32766},
			{"priority":6,"src":"2.0.0.0","srclen":8,"tos":"0x10","fwmark":"0x1","fwmask":"0xff",
			 "uid_start":1,"uid_end":5,"ipproto":"tcp","sport":9,"dport_start":5,"dport_end":7,
			 "table":"7","suppress_prefixlen":0,"suppress_ifgroup":"9"},
			{"priority":7,"src":"all","dst":"9.9.9.0","dstlen":24,"action":"blackhole"},
			{"priority":8,"src":"all","nop":null},
			{"priority":32766,"src":"all","table":"main"}]`,
		"conntrack": "ipv4 2 udp 17 30 src=10.0.0.9 dst=10.0.0.1 sport=9 dport=8 [UNREPLIED] " +
			"src=10.0.0.1 dst=10.0.0.9 sport=8 dport=9 mark=4 use=1\n",
		"sockets": "tcp LISTEN 0 128 10.0.0.1:80 0.0.0.0:*\n",
		"sysctl": "net.ipv4.ip_forward = 1\nnet.ipv4.conf.eth1.rp_filter = 2\n" +
			"net.ipv4.conf.eth0.forwarding = 0\n",
	})
}

// steady drops what differs from one reading to the next: ages, inodes,
// handles, and the order of a hash table.
func steady(t testing.TB, files map[string]string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, text := range files {
		switch name {
		case "meta.json", "nft.json", "ip-neigh.json":
			continue
		}
		var keep []string
		for line := range strings.Lines(text) {
			switch {
			case name == "sockets":
				line, _, _ = strings.Cut(line, "users:")
			case name == "conntrack":
				f, err := parseListed(line)
				if err != nil {
					t.Error(err)
				}
				line = f.String()
			case line[0] == '#', strings.Contains(line, "nf_conntrack_count"):
				line = ""
			}
			keep = append(keep, line)
		}
		out[name] = strings.Join(keep, "")
	}
	return out
}

// TestCollect: what is collected lays out the same host again.
func TestCollect(t *testing.T) {
	for _, backend := range []Backend{Legacy, NFT} {
		r := openRun(t, Scenario{Hosts: []Host{rich()}, Backend: backend})
		first, err := r.Collect("r")
		if err != nil {
			t.Fatal(err)
		}
		again := openRun(t, Scenario{Hosts: []Host{{Name: "r", Files: first}}})
		second, err := again.Collect("r")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(steady(t, first), steady(t, second)); d != "" {
			t.Errorf("%s: first and second reading differ:\n%s", backend, d)
		}
		for _, line := range strings.Split(rich().Files["ip-route"], "\n") {
			if !strings.Contains(line, "nhid") && !strings.Contains(first["ip-route"], line) {
				t.Errorf("route %q is not there:\n%s", line, first["ip-route"])
			}
		}
	}
}
