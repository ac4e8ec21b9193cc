package walk_test

import (
	"context"
	"encoding/hex"
	"os"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

const (
	teeLinks = `[
{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP"],"mtu":65536,"link_type":"loopback",
 "address":"00:00:00:00:00:00"},
{"ifindex":7,"ifname":"eth0","flags":["BROADCAST","MULTICAST","UP"],"mtu":1500,
 "link_type":"ether","address":"02:00:00:00:00:01"},
{"ifindex":9,"ifname":"eth1","flags":["BROADCAST","MULTICAST","UP"],"mtu":1400,
 "link_type":"ether","address":"02:00:00:00:01:01"}]`
	teeAddrs = `[
{"ifname":"eth0","addr_info":[{"family":"inet","local":"10.0.0.1","prefixlen":24,
 "broadcast":"10.0.0.255","scope":"global","label":"eth0"}]},
{"ifname":"eth1","addr_info":[{"family":"inet","local":"10.0.1.1","prefixlen":24,
 "broadcast":"10.0.1.255","scope":"global","label":"eth1"}]}]`
	teeNeighs = `[
{"dst":"10.0.0.9","dev":"eth0","lladdr":"02:00:00:00:00:09","state":["PERMANENT"]},
{"dst":"10.0.0.5","dev":"eth0","lladdr":"02:00:00:00:00:05","state":["PERMANENT"]},
{"dst":"10.0.1.9","dev":"eth1","lladdr":"02:00:00:00:01:09","state":["PERMANENT"]}]`
)

// TestTeeAgainstKernel sends packets through rules that copy them: the kernel and the
// walk send the same frames.
func TestTeeAgainstKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("SKIPPED: needs root for network namespaces")
	}
	tests := []struct{ name, rules string }{
		{"forward", "*mangle\n-A FORWARD -j TEE --gateway 10.0.0.5\nCOMMIT\n"},
		{"forward, by eth1", "*mangle\n-A FORWARD -j TEE --gateway 10.0.1.9 --oif eth1\nCOMMIT\n"},
		{"forward, no such device", "*mangle\n-A FORWARD -j TEE --gateway 10.0.0.5 --oif eth5\nCOMMIT\n"},
		{"forward, no route", "*mangle\n-A FORWARD -j TEE --gateway 10.9.9.9\nCOMMIT\n"},
		{"prerouting", "*mangle\n-A PREROUTING -j TEE --gateway 10.0.0.5\nCOMMIT\n"},
		{"input", "*filter\n-A INPUT -j TEE --gateway 10.0.0.5\nCOMMIT\n"},
		{"the copy passes OUTPUT", "*mangle\n-A FORWARD -j TEE --gateway 10.0.0.5\n" +
			"-A OUTPUT -j TOS --set-tos 0x10\n-A OUTPUT -j TEE --gateway 10.0.1.9\nCOMMIT\n"},
		{"the copy is dropped", "*mangle\n-A FORWARD -j TEE --gateway 10.0.0.5\n" +
			"-A OUTPUT -j DROP\nCOMMIT\n"},
		{"the packet is dropped", "*mangle\n-A FORWARD -j TEE --gateway 10.0.0.5\n" +
			"-A FORWARD -j DROP\nCOMMIT\n"},
		{"the copy is untracked", "*mangle\n-A FORWARD -j TEE --gateway 10.0.0.5\n" +
			"-A OUTPUT -m conntrack --ctstate UNTRACKED -j TOS --set-tos 0x08\nCOMMIT\n" +
			"*nat\n-A POSTROUTING -j SNAT --to-source 10.7.7.7\nCOMMIT\n"},
		{"twice", "*mangle\n-A FORWARD -j TEE --gateway 10.0.0.5\n" +
			"-A FORWARD -j TTL --ttl-set 9\n-A FORWARD -j TEE --gateway 10.0.0.9\nCOMMIT\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { teeOnce(t, tt.rules) })
	}
}

func teeOnce(t *testing.T, rules string) {
	files := map[string]string{"ip-link.json": teeLinks, "ip-addr.json": teeAddrs,
		"ip-neigh.json": teeNeighs, "iptables-save": rules, "sysctl": "net.ipv4.ip_forward = 1\n"}
	run, err := kernel.Open(context.Background(), kernel.Scenario{Backend: kernel.Legacy,
		Hosts: []kernel.Host{{Name: "r", Files: files}}})
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	host := collected(t, run)
	state := host.Memory().Fork()
	for _, dst := range []string{"10.0.1.9", "10.0.0.1"} {
		for _, size := range []int{10, 1450} {
			frame := datagram(dst, size)
			a, err := run.Ask(kernel.Question{In: "eth0", Frame: frame, Seq: "s"})
			if err != nil || a.Err != "" {
				t.Fatal(err, a.Err)
			}
			got, want := walked(t, host, state, frame), left(a)
			if got != want {
				t.Errorf("to %s, %d bytes:\n got %s\nwant %s", dst, size, got, want)
			}
		}
	}
}

// collected builds the host from what the tools print.
func collected(t *testing.T, run *kernel.Run) *walk.Host {
	t.Helper()
	files, err := run.Collect("r")
	if err != nil {
		t.Fatal(err)
	}
	d := &snapshot.Dir{Name: "r", Files: map[string][]byte{}}
	for name, text := range files {
		d.Files[name] = []byte(text)
	}
	cfg, err := d.Config(snapshot.Options{Now: world.Instant(time.Now().UnixNano())})
	if err != nil {
		t.Fatal(err)
	}
	host, _, err := walk.Build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// datagram is a UDP packet of 10.0.0.9 with as much payload.
func datagram(dst string, size int) []byte {
	l4 := append([]byte{0x10, 0, 0, 9, byte((size + 8) >> 8), byte(size + 8), 0, 0},
		make([]byte, size)...)
	n := 20 + len(l4)
	to := packet.MustParseAddr(dst)
	h := []byte{0x45, 0, byte(n >> 8), byte(n), 0, 7, 0, 0, 64, packet.UDP, 0, 0, 10, 0, 0, 9}
	h = append(h, to.Bytes()...)
	packet.FixIP4(h)
	eth := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0}
	return append(append(eth, h...), l4...)
}

func walked(t *testing.T, h *walk.Host, state *world.State, frame []byte) string {
	t.Helper()
	var tr trace.Trace
	k := h.NewWalk(h.NewWorld(state), &tr)
	h.Receive(k, 7, frame)
	if k.Err != nil {
		t.Fatal(k.Err)
	}
	var out []string
	for _, e := range tr.Events {
		if x, ok := e.(*trace.Transmit); ok {
			out = append(out, say(map[packet.Dev]string{7: "eth0", 9: "eth1"}[x.Dev], x.Frame))
		}
	}
	return joined(out)
}

func left(a kernel.Answer) string {
	var out []string
	for _, f := range a.Out {
		out = append(out, say(f.Dev, f.Bytes))
	}
	return joined(out)
}

// say writes a frame. An ICMP packet's identification is the kernel's own.
func say(dev string, frame []byte) string {
	b := append([]byte(nil), frame...)
	if len(b) > 34 && b[12] == 8 && b[14+9] == packet.ICMP {
		b[18], b[19] = 0, 0
		packet.FixIP4(b[14:])
	}
	return dev + " " + hex.EncodeToString(b[:min(len(b), 70)])
}

// joined sorts what left by different devices at once.
func joined(out []string) string {
	sort.Strings(out)
	return strings.Join(out, "\n     ")
}
