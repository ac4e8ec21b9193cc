package demos_test

import (
	"encoding/json"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/demos"
	"github.com/hookpath/hookpath/packet"
)

// needed are the files without which a demo would rest on assumptions.
var needed = []string{"meta.json", "iptables-save", "ip-link.json", "ip-addr.json",
	"ip-neigh.json", "ip-rule.json", "ip-route", "conntrack", "sysctl", "sockets"}

// tests say where each demo's packet gets to: the last rule that matches, and what
// leaves. Where the remedy is a change of one file, the packet is asked once more.
var tests = []struct {
	name, want      string
	file, old, mend string // the remedy that demo.json names
	mended          string
}{
	{name: "broken-conntrack", want: "filter DOCKER 1; docker0: arp 172.17.0.2",
		file: "conntrack", old: "(?m)^.*src=198.51.100.30 .*\n", mend: "",
		mended: "filter DOCKER 1; docker0: udp 198.51.100.30 > 172.17.0.3:514"},

	{name: "broken-goto", want: "filter FORWARD 3",
		file: "iptables-save", old: "-g STAFF", mend: "-j STAFF",
		mended: "nat POSTROUTING 1; wan0: tcp 198.51.100.60 > 203.0.113.80:443"},

	{name: "broken-mark", want: "filter FORWARD 2; lan0: icmp 192.168.7.1 > 192.168.7.40",
		file: "iptables-save", old: "-A PREROUTING -j CONNMARK --restore-mark",
		mend:   "-A PREROUTING -m connmark ! --mark 0x0 -j CONNMARK --restore-mark",
		mended: "nat POSTROUTING 2; vpn0: tcp 10.66.0.2 > 203.0.113.80:443"},

	{name: "broken-masquerade", want: "nat POSTROUTING 1; wan0: tcp 172.17.0.1 > 203.0.113.80:443",
		file: "iptables-save", old: "-j MASQUERADE", mend: "-j SNAT --to-source 203.0.113.9",
		mended: "nat POSTROUTING 1; wan0: tcp 203.0.113.9 > 203.0.113.80:443"},

	{name: "broken-rpfilter", want: "nat PREROUTING 2",
		file: "sysctl", old: "wan1.src_valid_mark = 0", mend: "wan1.src_valid_mark = 1",
		mended: "filter FORWARD 2; lan0: tcp 203.0.113.9 > 10.0.0.20:8443"},
	{name: "broken-rpfilter", want: "nat PREROUTING 2",
		file: "sysctl", old: "wan1.rp_filter = 1", mend: "wan1.rp_filter = 2",
		mended: "filter FORWARD 2; lan0: tcp 203.0.113.9 > 10.0.0.20:8443"},

	{name: "docker-host",
		want: "filter DOCKER 2; br-3f1c0a9d52e7: tcp 198.51.100.7 > 172.20.0.2:80"},
	{name: "home-router",
		want: "nat POSTROUTING 1; wan0: tcp 198.51.100.20 > 203.0.113.80:443"},
	{name: "kube-node", // either of the two pods
		want: "nat KUBE-POSTROUTING 3; cali3dd2e75ef03: tcp 192.0.2.10 > 10.244.1.5:8080 or " +
			"nat KUBE-POSTROUTING 3; eth0: tcp 192.0.2.10 > 10.244.2.9:8080"},
}

// compare holds what ask finds against the rows, as the demos stand and after their
// remedies.
func compare(t *testing.T, ask func(t *testing.T, name string, files map[string]string) string) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := hostFiles(t, tt.name)
			if got := ask(t, tt.name, files); !slices.Contains(strings.Split(tt.want, " or "), got) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if tt.file == "" {
				return
			}
			re := regexp.MustCompile(tt.old)
			if n := len(re.FindAllString(files[tt.file], -1)); n != 1 {
				t.Fatalf("%s: %q stands there %d times", tt.file, tt.old, n)
			}
			files[tt.file] = re.ReplaceAllString(files[tt.file], tt.mend)
			if got := ask(t, tt.name, files); got != tt.mended {
				t.Errorf("mended: got %q, want %q", got, tt.mended)
			}
		})
	}
}

// TestList: each demo is whole and has a row above.
func TestList(t *testing.T) {
	rows := map[string]bool{}
	for _, tt := range tests {
		rows[tt.name] = true
	}
	if got, want := demos.List(), slices.Sorted(maps.Keys(rows)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, name := range demos.List() {
		files := hostFiles(t, name)
		for _, f := range needed {
			if _, ok := files[f]; !ok {
				t.Errorf("%s: %s is not there", name, f)
			}
		}
		d := about(t, files)
		if d.Title == "" || d.About == "" {
			t.Errorf("%s: demo.json: title or about is empty", name)
		}
	}
}

func TestNoSuchDemo(t *testing.T) {
	for _, name := range []string{"", "no-such", "../demos", "kube-node/sysctl", "demos.go"} {
		if _, err := demos.FS(name); err == nil {
			t.Errorf("%q: no error", name)
		}
	}
}

// hostFiles reads the files of a demo.
func hostFiles(t *testing.T, name string) map[string]string {
	t.Helper()
	fsys, err := demos.FS(name)
	if err != nil {
		t.Fatal(err)
	}
	names, err := fs.Glob(fsys, "*")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, n := range names {
		b, err := fs.ReadFile(fsys, n)
		if err != nil {
			t.Fatal(err)
		}
		files[n] = string(b)
	}
	return files
}

type demo struct{ Title, Packet, About string }

func about(t *testing.T, files map[string]string) (d demo) {
	t.Helper()
	if err := json.Unmarshal([]byte(files["demo.json"]), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// frame is the frame that a demo's sentence is about, addressed to the interface.
func frame(t *testing.T, files map[string]string) (dev string, b []byte) {
	t.Helper()
	s, err := packet.ParseSentence(about(t, files).Packet)
	if err != nil {
		t.Fatal(err)
	}
	s.Complete()
	ip, err := s.Packet()
	if err != nil {
		t.Fatal(err)
	}
	p, _ := packet.FromIP(ip)
	p.PushLink(macOf(t, files, s.In), packet.MAC{2, 0, 0, 0, 9, 9})
	return s.In, p.Frame()
}

func macOf(t *testing.T, files map[string]string, dev string) packet.MAC {
	t.Helper()
	var links []struct{ IfName, Address string }
	if err := json.Unmarshal([]byte(files["ip-link.json"]), &links); err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		mac, err := packet.ParseMAC(l.Address)
		if l.IfName == dev && err == nil {
			return mac
		}
	}
	t.Fatalf("there is no interface %q with a MAC address", dev)
	return packet.MAC{}
}

// frameText is a frame that left, without its source port, which may be random.
func frameText(dev string, b []byte) string {
	p, ok := packet.FromFrame(b)
	if !ok {
		return dev + ": cut"
	}
	if p.EtherType() == packet.EtherARP && len(b) >= 42 {
		return dev + ": arp " + packet.AddrFrom4(b[38:]).String()
	}
	proto := map[uint8]string{packet.TCP: "tcp", packet.UDP: "udp", packet.ICMP: "icmp"}[p.Protocol()]
	text := dev + ": " + proto + " " + p.Src().String() + " > " + p.Dst().String()
	if _, dport, ok := p.Ports(); ok {
		text += ":" + strconv.Itoa(int(dport))
	}
	return text
}
