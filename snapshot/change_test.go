package snapshot

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/xtables"
)

// changes are commands, each typed on a host that the ones before it have changed.
var changes = []string{
	"ip addr add 10.1.0.1/24 brd + dev a",
	"ip addr add 10.1.0.2/24 dev a", // a secondary
	"ip addr add 10.2.0.1/32 dev b",
	"ip addr add 10.3.0.1 peer 10.3.0.2/32 dev b",
	"ip addr add 10.4.0.1/24 dev b noprefixroute",
	"ip route add default via 10.1.0.254",
	"ip route replace default via 10.1.0.253 dev a",
	"ip route add default via 10.1.0.252 metric 5",
	"ip route append default via 10.1.0.251",
	"ip route add 10.9.0.0/16 dev b src 10.2.0.1",
	"ip route add unreachable 10.10.0.0/16",
	"ip route add 10.11.0.0/16 via 10.1.0.250 table 77",
	"ip route add 10.12.0.0/16 nexthop via 10.1.0.250 weight 2 nexthop dev b",
	"ip route add local 10.13.0.1 dev b",
	"ip route del 10.9.0.0/16",
	"ip rule add fwmark 0x1/0xff lookup 77",
	"ip rule add from 10.1.0.0/24 table 77 pref 100",
	"ip rule add to 10.5.0.0/16 iif a blackhole",
	"ip rule add pref 100 from 10.6.0.0/16 lookup main",
	"ip rule del fwmark 0x1/0xff table 77",
	"ip rule del pref 100",
	"ip addr del 10.4.0.1/24 dev b",
	"ip addr add 10.7.0.1/24 dev b; ip route add 10.8.0.0/16 via 10.7.0.9",
	"ip route add 10.20.0.0/16 dev a src 10.7.0.1; ip route add 10.12.0.0/16 via 10.7.0.9 table 88",
	"ip addr add 10.11.0.1/24 dev b; ip addr add 10.11.0.2/24 dev b; ip addr add 10.15.0.1/24 dev b",
	"ip addr del 10.11.0.1/24 dev b", // its secondaries go too
	"ip addr del 10.15.0.1/24 dev b", // others stay
	"ip route add 10.14.0.0/16 dev b table 88",
	"ip addr add 10.30.0.1/32 dev lo; ip route add 10.31.0.0/16 via 10.30.0.1", // by lo
	"ip route add 10.32.0.0/16 via 10.1.0.1",                                   // by the interface that has it
	"ip addr del 10.7.0.1/24 dev b",                                            // the last one takes all routes of the interface along
}

// TestChangesKernel types commands in a namespace and on a snapshot of it: afterwards a
// new snapshot of the namespace says the same as the changed one.
func TestChangesKernel(t *testing.T) {
	needRoot(t)
	inNamespace(t, func(ns *namespace) {
		for _, dev := range []string{"a", "b"} {
			ns.run("", "ip", "link", "add", "name", dev, "type", "veth", "peer", "name", dev+"0")
			ns.run("", "ip", "link", "set", dev+"0", "up")
			ns.run("", "ip", "link", "set", "dev", dev, "up")
		}
		ns.run("", "ip", "link", "set", "lo", "up")
		first := snapshotOf(ns)
		for i, cmd := range changes {
			for _, one := range strings.Split(cmd, "; ") {
				ns.run("", strings.Fields(one)...)
			}
			got, want := ipText(t, first, changes[:i+1]), ipText(t, snapshotOf(ns), nil)
			if got != want {
				t.Fatalf("%s: only here:\n%s\nonly in the kernel:\n%s", cmd, without(got, want),
					without(want, got))
			}
		}
	})
}

// without are the lines of a that b does not have.
func without(a, b string) string {
	lines := strings.Split(b, "\n")
	return strings.Join(slices.DeleteFunc(strings.Split(a, "\n"), func(s string) bool {
		return slices.Contains(lines, s)
	}), "\n")
}

func snapshotOf(ns *namespace) *Dir {
	return dirOf(map[string]string{
		"ip-link.json": ns.run("", "ip", "-d", "-j", "link"),
		"ip-addr.json": ns.run("", "ip", "-d", "-j", "addr"),
		"ip-rule.json": ns.run("", "ip", "-4", "-d", "-j", "rule"),
		"ip-route":     ns.run("", "ip", "-4", "-d", "-o", "route", "show", "table", "all"),
	})
}

// ipText is rules, routes and addresses of a changed snapshot, routes sorted.
func ipText(t *testing.T, d *Dir, changes []string) string {
	t.Helper()
	c, err := d.Config(Options{Changes: changes})
	if err != nil {
		t.Fatal(err)
	}
	var out, routes []string
	for _, a := range c.Links.Addrs {
		if a.Local.Is4() {
			a.Label = "" // the interface's name, where none was given
			out = append(out, fmt.Sprintf("%+v", a))
		}
	}
	for _, r := range c.Routes.Rules {
		out = append(out, fmt.Sprintf("%+v", r))
	}
	for _, r := range c.Routes.Routes {
		routes = append(routes, fmt.Sprintf("%+v", r))
	}
	slices.Sort(out[:len(out)-len(c.Routes.Rules)])
	slices.Sort(routes)
	return strings.Join(append(out, routes...), "\n")
}

// iptablesChanges are commands of iptables.
var iptablesChanges = []string{
	"iptables -A FORWARD -p tcp --dport 80 -j ACCEPT",
	"iptables -I FORWARD -i a -j DROP",
	"iptables -I FORWARD 2 -s 10.0.0.0/8,10.1.0.0/16 -j ACCEPT",
	"iptables -t nat -A POSTROUTING -o a -j MASQUERADE",
	"iptables -N USER",
	"iptables -A USER -j RETURN",
	"iptables -A INPUT -m comment --comment \"two words; one rule\" -g USER",
	"iptables -R FORWARD 1 -i b -j DROP",
	"iptables -D FORWARD -p tcp --dport 80 -j ACCEPT",
	"iptables -D FORWARD 1",
	"iptables -P FORWARD DROP",
	"iptables -D INPUT 1",
	"iptables -F USER",
	"iptables -X USER",
	"iptables -F",
}

// TestRuleChangesKernel does the same with iptables commands, legacy and nft.
func TestRuleChangesKernel(t *testing.T) {
	needRoot(t)
	for _, backend := range []string{"legacy", "nft"} {
		if _, err := exec.LookPath("iptables-" + backend); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip("SKIP:", err)
		}
		inNamespace(t, func(ns *namespace) {
			tool := "iptables-" + backend
			ns.run("", tool, "-t", "filter", "-S")
			ns.run("", tool, "-t", "nat", "-S")
			first := ns.run("", tool+"-save")
			for i, cmd := range iptablesChanges {
				ns.run("", "sh", "-c", strings.Replace(cmd, "iptables", tool, 1))
				got := savedRules(t, first, iptablesChanges[:i+1])
				if want := savedRules(t, ns.run("", tool+"-save"), nil); got != want {
					t.Fatalf("%s %s: got\n%s\nwant\n%s", backend, cmd, got, want)
				}
			}
		})
	}
}

// savedRules is the rules of a changed save file, tables by name.
func savedRules(t *testing.T, save string, changes []string) string {
	t.Helper()
	c, err := dirOf(map[string]string{"iptables-save": save}).Config(Options{Changes: changes})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Rules) == 0 {
		return ""
	}
	var out []string
	for _, tab := range c.Rules[0].Tables {
		for _, ch := range tab.Chains { // chains without rules may or may not be hooked
			ch.Counters = xtables.Counters{}
		}
	}
	for _, line := range strings.Split(string(xtables.Append(nil, c.Rules[0], false)), "\n") {
		if !strings.HasSuffix(line, " ACCEPT [0:0]") && line != "COMMIT" && line != "*nat" &&
			line != "*filter" {
			out = append(out, line)
		}
	}
	slices.SortStableFunc(out, func(a, b string) int { return strings.Compare(chainOf(a), chainOf(b)) })
	return strings.Join(out, "\n")
}

func chainOf(line string) string {
	f := strings.Fields(line + " - -")
	return f[0] + f[1]
}

// TestChange looks at what a command does to the rest of a host.
func TestChange(t *testing.T) {
	d := dirOf(map[string]string{
		"ip-addr": "2: eth0: <BROADCAST,UP,LOWER_UP> mtu 1500\n    link/ether 02:00:00:00:00:01\n" +
			"    inet 10.0.0.1/24 scope global eth0\n",
		"sysctl": "net.ipv4.ip_forward = 0\n",
		"conntrack": "udp 17 29 src=10.0.0.2 dst=10.0.0.1 sport=1 dport=2 src=10.0.0.1 dst=10.0.0.2 " +
			"sport=2 dport=1 mark=0 use=1\n",
	})
	d.Files["ip-addr.json"] = d.Files["ip-addr"]
	delete(d.Files, "ip-addr")
	for _, c := range []struct {
		cmd  string
		look func(*walk.Config) string
		want string
	}{
		{"sysctl -w net.ipv4.ip_forward=1",
			func(c *walk.Config) string { return c.Routes.Sysctl["net.ipv4.conf.eth0.forwarding"] }, "1"},
		{"sysctl -w net.ipv4.conf.all.forwarding=1",
			func(c *walk.Config) string { return c.Sysctl["net.ipv4.conf.all.accept_redirects"] }, "0"},
		{"sysctl -w net/ipv4/conf/eth0/rp_filter=2",
			func(c *walk.Config) string { return c.Links.Sysctl["net.ipv4.conf.eth0.rp_filter"] }, "2"},
		{"conntrack -D -p udp -s 10.0.0.2 --dport 2",
			func(c *walk.Config) string { return fmt.Sprint(len(c.Flows)) }, "0"},
		{"ip rule add from 10.0.0.0/8 lookup main",
			func(c *walk.Config) string {
				return fmt.Sprint(len(c.Routes.Rules), c.Routes.Rules[1].Priority)
			}, "4 32765"},
		{"ip addr add 10.5.0.1/24 dev eth0", // the local table is made from the addresses
			func(c *walk.Config) string { return fmt.Sprint(len(c.Links.Addrs), len(c.Routes.Routes)) },
			"2 0"},
		{"iptables -t nat -A POSTROUTING -j MASQUERADE",
			func(c *walk.Config) string { return fmt.Sprint(len(c.Rules), " ", c.Rules[0].Tables[0].Name) },
			"1 nat"},
	} {
		cfg, err := d.Config(Options{Changes: []string{c.cmd}})
		if err != nil {
			t.Errorf("%s: %v", c.cmd, err)
			continue
		}
		if got := c.look(&cfg); got != c.want {
			t.Errorf("%s: got %s, want %s", c.cmd, got, c.want)
		}
		if _, _, err := walk.Build(cfg); err != nil {
			t.Errorf("%s: build: %v", c.cmd, err)
		}
	}
}

// TestChangeErrors lists commands that are refused, and by which words.
func TestChangeErrors(t *testing.T) {
	d := dirOf(map[string]string{
		"iptables-save": "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j ACCEPT\nCOMMIT\n",
		"ip-route":      "10.0.0.0/24 dev eth0\n",
	})
	for cmd, want := range map[string]string{
		"reboot":                                   "not understood",
		"ip link set eth0 down":                    "not understood",
		"ip route add 1.0.0.0/8":                   "neither via nor dev",
		"ip route add 1.0.0.0/8 via 9.9.9.9":       "on no link",
		"ip route add 1.0.0.0/8 dev eth9":          "no interface",
		"ip route add 10.0.0.0/24 dev eth0":        "already",
		"ip route del 1.0.0.0/8":                   "no such route",
		"ip route show":                            "understood",
		"ip rule del pref 7":                       "no such rule",
		"ip rule add from":                         "from",
		"ip addr add 1.2.3.4/24":                   "dev",
		"sysctl -w vm.swappiness=1":                "no part",
		"sysctl -w net.ipv4.ip_forward":            "NAME=VALUE",
		"sysctl -w net.ipv4.conf.default.x=1":      "default",
		"sysctl -w net.ipv4.conf.eth7.rp_filter=1": "no interface",
		"conntrack -L":                             "neither",
		"conntrack -D -s 1.2.3.4":                  "no such connection",
		"conntrack -D --foo":                       "not understood",
		"iptables -D FORWARD 2":                    "beyond the end",
		"iptables -D FORWARD -j DROP":              "no such rule",
		"iptables -A NONE -j DROP":                 "does not exist",
		"iptables -A FORWARD -j NONE":              "no target",
		"iptables -t foo -A FORWARD -j DROP":       "unknown table",
		"iptables FORWARD":                         "does not begin",
		"iptables -A FORWARD -p tcp --dport x":     "--dport",
		"iptables -X FORWARD":                      "built in",
		"iptables -N FORWARD":                      "exists",
	} {
		_, err := d.Config(Options{Changes: []string{cmd}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", cmd, err, want)
		}
	}
}

// FuzzChange types anything on a host: an error or a host, never a panic.
func FuzzChange(f *testing.F) {
	for _, c := range append(slices.Clone(changes), iptablesChanges...) {
		f.Add(c)
	}
	f.Add("sysctl -w net.ipv4.ip_forward=1")
	f.Add("conntrack -D -p udp --orig-src 1.2.3.4")
	d := dirOf(map[string]string{
		"ip-addr.json":  "2: a: <UP> mtu 1500\n    inet 10.0.0.1/24 scope global a\n",
		"ip-route":      "10.0.0.0/24 dev a\n",
		"iptables-save": "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j ACCEPT\nCOMMIT\n",
	})
	f.Fuzz(func(t *testing.T, cmd string) {
		c, err := d.Config(Options{Changes: []string{cmd}})
		if err == nil {
			_, _, _ = walk.Build(c)
		}
	})
}
