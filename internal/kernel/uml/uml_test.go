package uml

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// boot boots a machine that ends with the test.
func boot(t testing.TB, o Options) *Machine {
	t.Helper()
	if err := Usable(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("SKIP:", err)
	}
	start := time.Now()
	m, err := Boot(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("booted in %v", time.Since(start))
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestExec(t *testing.T) {
	m := boot(t, Options{})
	long := strings.Repeat("0123456789abcde\n", 20000)
	for _, tt := range []struct {
		command, stdin, want string
	}{
		{"uname -r", "", "6.1."},
		{"cat", long, long},
		{"ip -br link", "", "lo "},
		{"ipvsadm -Sn", "", ""},
		{"ipvsadm -R", "-A -t 10.0.0.1:80 -s rr\n", ""},
		{"ipvsadm -Sn", "", "-A -t 10.0.0.1:80 -s rr"},
		{"ipset create a hash:ip", "", ""},
		{"iptables-legacy -t nat -S", "", "-P PREROUTING ACCEPT"},
	} {
		out, err := m.Exec(t.Context(), tt.stdin, strings.Fields(tt.command)...)
		if err != nil || !strings.Contains(out, tt.want) {
			t.Errorf("%s: got %.200q, error %v, want %.200q", tt.command, out, err, tt.want)
		}
	}
}
