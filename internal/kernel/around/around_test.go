package around

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/field"
)

// TestDeclare completes parts of rules.
func TestDeclare(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"whole", "*filter\n:INPUT ACCEPT [0:0]\n:A - [0:0]\n-A INPUT -j A\nCOMMIT\n",
			"*filter\n:INPUT ACCEPT [0:0]\n:A - [0:0]\n-A INPUT -j A\nCOMMIT\n"},
		{"a chain is missing", "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j A\n-A A -j DROP\nCOMMIT\n",
			"*filter\n:INPUT ACCEPT [0:0]\n:A - [0:0]\n-A INPUT -j A\n-A A -j DROP\nCOMMIT\n"},
		{"nothing enters it", "*filter\n:ufw-input - [0:0]\n-A ufw-input -j ufw-skip\nCOMMIT\n",
			"*filter\n:ufw-input - [0:0]\n:ufw-skip - [0:0]\n-A ufw-input -j ufw-skip\n" +
				"-A INPUT -j ufw-input\nCOMMIT\n"},
	} {
		if got := declare(tt.in); got != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, got, tt.want)
		}
	}
}

// TestNew gives the host what its rules name.
func TestNew(t *testing.T) {
	h, err := New("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:A - [0:0]\n" +
		"-A INPUT -i lan+ -d 10.1.2.3 -j DROP\n-A FORWARD -o wan -j A\n" +
		"-A A -d 10.9.0.0/16 -m set --match-set S src -j DROP\nCOMMIT\n")
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"ip-link.json": `"ifname":"lan7"`,
		"ip-addr.json": `"local":"10.1.2.3"`,
		"ip-route":     "10.9.0.9 via 100.64.1.2 dev wan\n",
		"ipset-save":   "create S hash:net\nadd S ",
	} {
		if !strings.Contains(h.Files[file], want) {
			t.Errorf("%s: got\n%s\nwant %q", file, h.Files[file], want)
		}
	}
}

// TestSolve draws values that all wishes agree with.
func TestSolve(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	port := func(lo, hi uint64) field.Pred { return field.Is(field.DstPort, field.Between(lo, hi)) }
	net := field.AddrPrefix(field.Value{Lo: 0xffff<<32 | 0x0a090000}.Addr(), 96+16)
	for n := range 100 {
		w := wishes{}
		for _, p := range []field.Pred{port(100, 200), field.Not(port(100, 150)),
			field.Not(field.Or(port(190, 200), port(151, 152))), field.Is(field.Dst, net)} {
			w.add(r, &p, false)
		}
		if v := w.solve(r, field.DstPort, field.U(80)); v.Lo < 153 || v.Lo > 189 {
			t.Fatalf("draw %d: port %d", n, v.Lo)
		}
		v := w.solve(r, field.Dst, field.U(0))
		if a := address(v); !netip.MustParsePrefix("10.9.0.0/16").Contains(a) || !net.Holds(v) {
			t.Fatalf("draw %d: address %s", n, a)
		}
	}
}
