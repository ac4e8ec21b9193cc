package compare

import (
	"context"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/demos"
	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/snapshot"
)

// demoDir reads a demo's snapshot.
func demoDir(t *testing.T, name string) *snapshot.Dir {
	t.Helper()
	fsys, err := demos.FS(name)
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := snapshot.ReadFS(fsys, name)
	if err != nil || len(dirs) != 1 {
		t.Fatalf("%d snapshots, %v", len(dirs), err)
	}
	return dirs[0]
}

// sentenceQuestion is a sentence's packet that arrives on a device of the layout.
func sentenceQuestion(t *testing.T, v *Verifier, dev, text string) kernel.Question {
	t.Helper()
	s, err := packet.ParseSentence(text)
	if err != nil {
		t.Fatal(err)
	}
	s.Complete()
	ip, err := s.Packet()
	if err != nil {
		t.Fatal(err)
	}
	l := v.pair.host.Links.ByName(dev)
	return kernel.Question{In: dev, Frame: packet.Frame(l.MAC, packet.MAC{2, 0, 0, 0, 0, 1}, ip)}
}

// TestVerifierTells lays something else out in the kernel than the engine reads: each
// kind of difference is told, and none where nothing was changed.
func TestVerifierTells(t *testing.T) {
	needRoot(t)
	for _, tt := range []struct{ name, file, old, new, want string }{
		{name: "as it is"},
		{name: "a rule less", file: "iptables-save", new: "", want: "rules",
			old: "[0:0] -A FORWARD -i lan0 -o wan0 -j ACCEPT\n"},
		{name: "another next hop", file: "ip-neigh.json", old: "52:54:00:fe:00:01",
			new: "52:54:00:fe:00:09", want: "frames"},
		{name: "no connection's mark", file: "iptables-save", old: "--save-mark",
			new: "--restore-mark", want: "connections"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := NewLayout(demoDir(t, "home-router"))
			if err != nil {
				t.Fatal(err)
			}
			text := l.Kernel.Files[tt.file]
			if !strings.Contains(text, tt.old) {
				t.Fatalf("%s has no %q", tt.file, tt.old)
			}
			l.Kernel.Files[tt.file] = strings.ReplaceAll(text, tt.old, tt.new)
			v, err := NewVerifier(t.Context(), l)
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			r, err := v.Ask(sentenceQuestion(t, v, "lan0",
				"tcp 192.168.1.23 to 203.0.113.80:443 in lan0"))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if r.Diff != nil {
				got = r.Diff.What
			}
			if got != tt.want {
				t.Errorf("differs in %q, want %q\n%v", got, tt.want, r.Diff)
			}
		})
	}
}

// TestVerifierStops sees that a run that was interrupted says so.
func TestVerifierStops(t *testing.T) {
	needRoot(t)
	l, err := NewLayout(demoDir(t, "home-router"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if v, err := NewVerifier(ctx, l); err == nil {
		v.Close()
		t.Error("a run that was interrupted went on")
	}
}

// TestLayout makes snapshots ready.
func TestLayout(t *testing.T) {
	base := map[string]string{
		"ip-addr.json": `[{"ifindex":1,"ifname":"lo","link_type":"loopback"},` +
			`{"ifindex":2,"ifname":"e","link_type":"ether","address":"02:00:00:00:00:02"}]`,
		"ip-route": "default via 10.0.0.1 dev e table fibre proto static\n",
	}
	for _, tt := range []struct {
		name, file, text string
		want             string // of the kernel's file, or of the error after "error "
	}{
		{"tables by number", "rt_tables", "77 fibre\n", "ip-route default via 10.0.0.1 dev e table 77 "},
		{"rules too", "ip-rule.json", `[{"priority":9,"src":"all","table":"fibre"}]`,
			`ip-rule.json "table":"77"`},
		{"a bridge is a card", "ip-link.json", `[{"ifindex":2,"ifname":"e","link_type":"ether",` +
			`"address":"02:00:00:00:00:02","linkinfo":{"info_kind":"bridge"}}]`, `ip-link.json ` +
			`[{"address":"02:00:00:00:00:02","ifindex":2,"ifname":"e","link_type":"ether"}]`},
		{"settings of what is gone", "sysctl", "net.ipv4.conf.gone.rp_filter = 1\n" +
			"net.ipv4.conf.e.rp_filter = 2\nkernel.core_pattern = x\n",
			"sysctl net.ipv4.conf.e.rp_filter = 2\n#"},
		{"connections of /proc", "conntrack", "udp 17 9 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 " +
			"src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 mark=0 use=1\n", "conntrack ipv4 2 udp 17 9 "},
		{"two sets of rules", "iptables-nft-save", "*filter\nCOMMIT\n", "error both legacy and nf"},
		{"routes in JSON", "ip-route", `[{"dst":"default","dev":"e"}]`, "error not its JSON"},
		{"no routes", "ip-route", "", "error no ip-route"},
	} {
		d := &snapshot.Dir{Name: "r", Files: map[string][]byte{"rt_tables": []byte("77 fibre\n")}}
		for name, text := range base {
			d.Files[name] = []byte(text)
		}
		d.Files[tt.file] = []byte(tt.text)
		if tt.text == "" {
			delete(d.Files, tt.file)
		}
		if tt.file == "iptables-nft-save" {
			d.Files["iptables-legacy-save"] = []byte(tt.text)
		}
		l, err := NewLayout(d)
		kind, want, _ := strings.Cut(tt.want, " ")
		got := ""
		switch {
		case kind == "error" && err != nil:
			got = err.Error()
		case err != nil:
			t.Errorf("%s: %v", tt.name, err)
			continue
		case kind != "error":
			got = l.Kernel.Files[kind]
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, want)
		}
	}
}

// TestHookedOnly keeps declarations of chains that nft has, and of user chains.
func TestHookedOnly(t *testing.T) {
	in := "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:MINE - [0:0]\n-A FORWARD -j MINE\nCOMMIT\n"
	want := "*filter\n:FORWARD ACCEPT [0:0]\n:MINE - [0:0]\n-A FORWARD -j MINE\nCOMMIT\n"
	if got := hookedOnly(in, map[string]bool{"filter/FORWARD": true}); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
