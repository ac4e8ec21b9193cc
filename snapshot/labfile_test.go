package snapshot

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// TestParseLab sees that what is wrong in a lab.yaml is named.
func TestParseLab(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"", "hosts: a lab needs at least one"},
		{"hosts: {}", "hosts: a lab needs at least one"},
		{"hosts: [a]", "f: cannot unmarshal array into"},
		{"hosts: {a: {adresses: {}}}", `unknown field "adresses"`},
		{"hosts: {a: {}, a: {}}", `key "a" already set in map`},
		{"hosts: {-a: {}}", `hosts: "-a" can't be the name of a host`},
		{"hosts: {a: {devices: {t0: gre}}}", "hosts: a: devices: t0: gre is not one of dummy, ipip"},
		{"hosts: {a: }\nlinks: [[a:eth0]]", "links 1: expected at least 2 of HOST:INTERFACE"},
		{"hosts: {a: }\nlinks: [[a:eth0, eth1]]", `links 1: "eth1" is not HOST:INTERFACE`},
		{"hosts: {a: }\nswitches: {s: [a:eth0]}\noutside: [a:eth0]",
			"outside: a:eth0 is on switches s already"},
		{"hosts: {a: {commands: [" + strings.Repeat("x,", 2001) + "]}}", "more than 2000: make it a snapshot"},
		{strings.Repeat("#", 2<<20), "more than 1048576 bytes"},
		{"\t", "found character that cannot start any token"},
	} {
		_, err := ParseLab("f", []byte(c.yaml))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "f: ") {
			t.Errorf("%q: %v, want %q", c.yaml, err, c.want)
		}
	}
}

// TestLabHost reads the hosts of a lab: what they would print, and their cables.
func TestLabHost(t *testing.T) {
	const yaml = `
kernel: "6.1"
hosts:
  a: {addresses: {eth0: 10.0.0.1/24 10.0.0.7/24, d0: 10.9.9.9/32}, devices: {d0: dummy}}
  b: {kernel: "6.18", listen: [tcp 0.0.0.0:80, udp 0.0.0.0:53]}
links: [[a:eth0, b:eth0]]
`
	dirs, err := ReadFS(fstest.MapFS{LabFile: {Data: []byte(yaml)}}, "test")
	if err != nil || len(dirs) != 2 {
		t.Fatal(len(dirs), err)
	}
	a, err := dirs[0].Config(Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := dirs[1].Config(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Links.Links) != 3 || len(a.Links.Addrs) != 4 || a.Kernel.Minor != 1 {
		t.Errorf("a: %d links, %d addresses, kernel %v", len(a.Links.Links), len(a.Links.Addrs), a.Kernel)
	}
	if p := a.Cables["eth0"]; len(p) != 1 || p[0].Host != "b" || p[0].Dev != "eth0" {
		t.Errorf("a's cable: %v", p)
	}
	if len(b.Sockets) != 2 || b.Kernel.Minor != 18 {
		t.Errorf("b: sockets %v, kernel %v", b.Sockets, b.Kernel)
	}
	if a.OpenRoutes || a.Links.OpenNeighs || len(a.Assumed) != 0 {
		t.Errorf("a is taken for incomplete: %q", a.Assumed)
	}
}

// TestLabBuild lists the commands that make a lab real.
func TestLabBuild(t *testing.T) {
	const yaml = `
hosts:
  a: {addresses: {eth0: 10.0.0.1/24}, devices: {t0: ipip},
      commands: ['iptables -A INPUT -m comment --comment "a; b" -j ACCEPT; ip route add default via 10.0.0.2']}
  b: {listen: [tcp 0.0.0.0:80]}
  c: {}
switches: {lan: [a:eth0, b:eth0]}
links: [[b:eth1, c:eth0]]
outside: [c:eth1]
`
	l, err := ParseLab("f", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Build("x-")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, c := range b.Up {
		lines = append(lines, strings.Join(c, "|"))
	}
	for _, want := range []string{
		"ip|netns|add|x-_switches",
		"ip|-n|x-b|link|add|eth1|type|veth|peer|name|eth0|netns|x-c",
		"ip|-n|x-c|link|add|eth1|type|dummy",
		"ip|-n|x-a|link|add|t0|type|ipip",
		"ip|netns|exec|x-a|iptables|-A|INPUT|-m|comment|--comment|a; b|-j|ACCEPT",
		"ip|netns|exec|x-a|ip|route|add|default|via|10.0.0.2",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no command %q in\n%s", want, strings.Join(lines, "\n"))
		}
	}
	if len(b.Spaces) != 4 || len(b.Down) != 4 || len(b.Notes) != 1 {
		t.Errorf("namespaces %q, removed by %q, notes %q", b.Spaces, b.Down, b.Notes)
	}
	for _, bad := range []string{"rm -rf /", "sysctl -w kernel.panic=1", `iptables -A "x`} {
		l := &Lab{Hosts: map[string]*LabHost{"a": {Commands: []string{bad}}}}
		if _, err := l.Build("x-"); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// FuzzParseLab reads what it is given without a panic, and a lab that is read can be built
// and walked.
func FuzzParseLab(f *testing.F) {
	f.Add([]byte("hosts: {a: {addresses: {eth0: 10.0.0.1/24}}}\noutside: [a:eth0]"))
	f.Add([]byte("hosts:\n  a: {listen: [tcp 0.0.0.0:80], commands: [sysctl -w net.ipv4.ip_forward=1]}\n" +
		"  b: {devices: {d0: dummy}}\nlinks: [[a:e0, b:e0]]\nswitches: {s: [a:e1]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			return
		}
		if _, err := ParseLab("f", data); err != nil {
			return
		}
		dirs, err := ReadFS(fstest.MapFS{LabFile: {Data: data}}, "f")
		if err != nil {
			return
		}
		for _, d := range dirs {
			_, _ = d.Config(Options{})
		}
	})
}
