package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/internal/kernel/compare"
)

// needKernel skips where the kernel cannot be asked; in CI that is a failure.
func needKernel(t *testing.T) {
	t.Helper()
	if err := kernel.Usable(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("SKIP: ", err)
	}
}

// verifyDemo runs verify and returns what it prints, and its status.
func verifyDemo(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	e := &Env{Out: &out, Err: &errs, Now: time.Now, Width: 100}
	status = Run(e, append([]string{"verify"}, args...))
	return out.String(), errs.String(), status
}

// demoPackets are questions about the demos besides each one's own.
var demoPackets = map[string][]string{
	"broken-conntrack": {
		"udp 198.51.100.31:514 to 192.0.2.70:5514 in eth0",
		"icmp echo 198.51.100.30 to 192.0.2.70 in eth0",
		"tcp 198.51.100.30 to 192.0.2.70:22 in eth0",
		"tcp 172.17.0.3:5000 to 198.51.100.30:99 in docker0 ct established",
		"tcp 192.0.2.70 to 198.51.100.30:80 out",
		"udp 192.0.2.70 to 192.0.2.70:53 out",
	},
	"broken-goto": {
		"tcp 10.30.2.15 to 203.0.113.80:443 in lan0",
		"tcp 10.30.1.15 to 203.0.113.80:80 in lan0",
		"icmp echo 203.0.113.80 to 10.30.1.15 in wan0",
		"udp 10.30.1.15 to 203.0.113.80:53 in lan0 ttl 1",
	},
	"broken-mark": {
		"tcp 192.168.7.41 to 203.0.113.80:443 in lan0",
		"tcp 192.168.7.40 to 203.0.113.80:443 in lan0 ct established",
		"udp 192.168.7.40 to 203.0.113.80:53 in lan0",
		"tcp 192.168.7.1 to 203.0.113.80:443 out mark 0x66",
	},
	"broken-masquerade": {
		"udp 10.20.0.5 to 203.0.113.80:53 in lan0",
		"tcp 10.20.0.1 to 203.0.113.80:443 out",
		"icmp echo 10.20.0.5 to 203.0.113.80 in lan0",
		"tcp 10.20.0.5 to 10.20.0.1:22 in lan0",
	},
	"broken-rpfilter": {
		"tcp 203.0.113.9 to 192.0.2.60:443 in wan0",
		"tcp 203.0.113.9 to 192.0.2.60:22 in wan1",
		"udp 203.0.113.9 to 192.0.2.60:443 in wan1",
	},
	"docker-host": {
		"tcp 203.0.113.7 to 192.0.2.20:8080 in eth0",
		"tcp 198.51.100.7 to 192.0.2.20:9090 in eth0",
		"tcp 198.51.100.7 to 192.0.2.20:22 in eth0",
		"tcp 172.17.0.2 to 203.0.113.80:443 in docker0",
		"tcp 127.0.0.1 to 127.0.0.1:8080 out",
		"tcp 192.0.2.20 to 192.0.2.20:8080 out",
	},
	"home-router": {
		"tcp 192.168.1.10 to 203.0.113.80:25 in lan0",
		"udp 192.168.1.23 to 192.168.1.1:53 in lan0",
		"tcp 203.0.113.80:443 to 192.0.2.1:999 in wan0 flags SA",
		"icmp echo 192.168.1.23 to 203.0.113.80 in lan0",
		"udp 192.168.1.23 to 203.0.113.80:123 in lan0 ttl 1",
		"udp 192.168.1.1 to 192.168.1.255:53 out",
	},
	"kube-node": {
		"tcp 203.0.113.7 to 192.0.2.10:30081 in eth0",
		"tcp 10.244.1.5 to 10.96.0.1:443 in cali4a9dc208529",
		"tcp 192.0.2.10 to 10.96.140.21:5432 out",
		"tcp 192.0.2.11 to 192.0.2.10:10250 in eth0",
		"icmp echo 192.0.2.11 to 10.244.1.5 in eth0",
	},
}

// TestVerifyDemos asks the kernel about every demo, each with its own packet and
// several more.
func TestVerifyDemos(t *testing.T) {
	needKernel(t)
	for name, packets := range demoPackets {
		d, err := readDemo(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range append([]string{d.Packet}, packets...) {
			out, errs, status := verifyDemo(t, "-s", demoPrefix+name, p)
			if status != exitOK || !strings.HasPrefix(out, "AGREES   the packet: ") {
				t.Errorf("%s: %s: status %d\n%s%s", name, p, status, out, errs)
			}
		}
	}
}

// TestVerifyJSON reads what programs get.
func TestVerifyJSON(t *testing.T) {
	needKernel(t)
	out, errs, status := verifyDemo(t, "--json", "-s", "demo:home-router",
		"tcp 192.168.1.23 to 203.0.113.80:443 in lan0")
	var v verdict
	if err := json.Unmarshal([]byte(out), &v); err != nil || status != exitOK || errs != "" {
		t.Fatalf("status %d, %v: %s%s", status, err, out, errs)
	}
	if !v.Agrees || len(v.Legs) != 2 || v.Legs[0].Frames != 1 || v.Legs[0].Connections != 1 ||
		v.Schema != "hookpath.verify/v1" {
		t.Errorf("got %+v", v)
	}
}

// TestVerifyRefuses sees that what cannot be asked is said, with status 2.
func TestVerifyRefuses(t *testing.T) {
	needKernel(t)
	for _, tt := range []struct{ packet, want string }{
		{"tcp 1.2.3.4 to 192.0.2.70:80 in veth83b1d60", "is a port of bridge docker0"},
		{"tcp 1.2.3.4 to 192.0.2.70:80 in eth9", `no interface "eth9"`},
		{"tcp 1.2.3.4 to", "an address is missing"},
	} {
		out, errs, status := verifyDemo(t, "-s", "demo:broken-conntrack", tt.packet)
		if status != exitUsage || !strings.Contains(errs, tt.want) || out != "" {
			t.Errorf("%s: status %d, %s%s; want %q", tt.packet, status, out, errs, tt.want)
		}
	}
}

// TestDifference prints a disagreement.
func TestDifference(t *testing.T) {
	v := &verification{verifier: nil}
	for _, tt := range []struct {
		diff compare.Diff
		want []string
	}{
		{compare.Diff{What: "connections", Line: 1, Kernel: "udp 17 src=10.0.0.1"},
			[]string{"WHERE    connections, line 1\n", "engine   (nothing)\n",
				"kernel   udp 17 src=10.0.0.1\n"}},
		{compare.Diff{What: "frames", Line: 1, Engine: "eth1 0200000000020200000000010800" +
			"45000014000000003f060000" + "0a000001" + "0a000002"},
			[]string{"protocol 6 10.0.0.1 > 10.0.0.2 ttl 63\n"}},
	} {
		var b strings.Builder
		v.difference(&b, &tt.diff)
		for _, want := range tt.want {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%+v: got\n%s\nwant %q", tt.diff, b.String(), want)
			}
		}
	}
}
