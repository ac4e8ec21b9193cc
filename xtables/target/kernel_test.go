package target_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

const (
	kernelLinks = `[
{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP"],"mtu":65536,"link_type":"loopback",
 "address":"00:00:00:00:00:00"},
{"ifindex":7,"ifname":"eth0","flags":["BROADCAST","MULTICAST","UP"],"mtu":1500,
 "link_type":"ether","address":"02:00:00:00:00:01"},
{"ifindex":9,"ifname":"eth1","flags":["BROADCAST","MULTICAST","UP"],"mtu":1400,
 "link_type":"ether","address":"02:00:00:00:01:01"}]`
	kernelAddrs = `[
{"ifname":"eth0","addr_info":[{"family":"inet","local":"10.0.0.1","prefixlen":24,
 "broadcast":"10.0.0.255","scope":"global","label":"eth0"}]},
{"ifname":"eth1","addr_info":[{"family":"inet","local":"10.0.1.1","prefixlen":24,
 "broadcast":"10.0.1.255","scope":"global","label":"eth1"}]}]`
	kernelNeighs = `[
{"dst":"10.0.0.9","dev":"eth0","lladdr":"02:00:00:00:00:09","state":["PERMANENT"]},
{"dst":"10.0.1.9","dev":"eth1","lladdr":"02:00:00:00:01:09","state":["PERMANENT"]}]`
)

// openKernel lays the rig's host out in this machine's kernel.
func openKernel(t *testing.T, table, chain, rule string) *kernel.Run {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("SKIPPED: needs root for network namespaces")
	}
	save := "*" + table + "\n-A " + chain + " " + rule + "\nCOMMIT\n"
	run, err := kernel.Open(context.Background(), kernel.Scenario{Backend: kernel.Legacy,
		Hosts: []kernel.Host{{Name: "r", Files: map[string]string{"ip-link.json": kernelLinks,
			"ip-addr.json": kernelAddrs, "ip-neigh.json": kernelNeighs, "iptables-save": save,
			"sysctl": "net.ipv4.ip_forward = 1\n"}}}})
	if err != nil {
		t.Fatalf("%s: %v", rule, err)
	}
	t.Cleanup(func() { run.Close() })
	run.NoFlows = true
	return run
}

func ask(t *testing.T, run *kernel.Run, ip []byte) kernel.Answer {
	t.Helper()
	eth := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0}
	a, err := run.Ask(kernel.Question{In: "eth0", Seq: "s", Frame: append(eth, ip...)})
	if err != nil || a.Err != "" {
		t.Fatal(err, a.Err)
	}
	return a
}

// rewriting are rules whose target changes bytes.
var rewriting = []string{
	"-j TOS --set-tos 0x10/0x3f", "-j TOS --xor-tos 0xff", "-j TOS --and-tos 0x1c",
	"-j DSCP --set-dscp 0x2a", "-j DSCP --set-dscp-class BE", "-j TTL --ttl-set 7",
	"-j TTL --ttl-inc 200", "-j TTL --ttl-dec 100", "-p tcp -j ECN --ecn-tcp-remove",
	"-p tcp -j ECN --ecn-tcp-ece 1", "-p tcp -j ECN --ecn-tcp-cwr 1 --ecn-ip-ect 2",
	"-j ECN --ecn-ip-ect 1", "-j CHECKSUM --checksum-fill",
	"-p tcp -m tcp --tcp-flags SYN SYN -j TCPMSS --set-mss 500",
	"-p tcp -m tcp --tcp-flags SYN SYN -j TCPMSS --set-mss 1200",
	"-p tcp -m tcp --tcp-flags SYN SYN -j TCPMSS --clamp-mss-to-pmtu",
	"-p tcp -j TCPOPTSTRIP --strip-options mss,timestamp",
	"-p tcp -j TCPOPTSTRIP --strip-options wscale,4,5,200", "-p tcp -j TCPOPTSTRIP",
	"-j CLASSIFY --set-class 1:5", "-j MARK --set-mark 5",
}

// TestRewriting sends random packets through this machine's kernel: what leaves has
// the same bytes.
func TestRewriting(t *testing.T) {
	n := 0
	for i, rule := range rewriting {
		t.Run(rule, func(t *testing.T) {
			run := openKernel(t, "mangle", "FORWARD", rule)
			r := newRig(t, "mangle", "FORWARD", rule)
			d := draw{rand.New(rand.NewPCG(uint64(i), 3))}
			for range 500 {
				n++
				ip := d.packet("10.0.1.9")
				if got, want := r.forward(ip), left(ask(t, run, ip)); got != want {
					t.Fatalf("packet %x:\n got %s\nwant %s", ip, got, want)
				}
			}
		})
	}
	t.Logf("%d packets", n)
}

// forward takes a packet through the rule as ip_forward does.
func (r *rig) forward(ip []byte) string {
	p, _ := packet.FromIP(ip)
	p.In, p.Out = eth0, eth1
	p.SetTTL(p.TTL() - 1)
	if r.matches(trace.Forward, p) == trace.DropIt {
		return "dropped"
	}
	return hex.EncodeToString(p.IP())
}

// matches runs the rule's table.
func (r *rig) matches(hook trace.Hook, p *packet.Packet) trace.Verdict {
	return r.program.Run(r.env(hook, p))
}

// left is what left the kernel by eth1.
func left(a kernel.Answer) string {
	for _, f := range a.Out {
		if f.Dev == "eth1" {
			return hex.EncodeToString(f.Bytes[14:])
		}
	}
	return "dropped"
}

// marking are rules whose target sets the mark of what arrives.
var marking = []string{
	"-j HMARK --hmark-tuple src,dst,sport,dport,proto --hmark-mod 1000 --hmark-rnd 0xfeedcafe",
	"-j HMARK --hmark-tuple src,dst --hmark-mod 1000000 --hmark-rnd 1 --hmark-offset 77",
	"-j HMARK --hmark-tuple src,spi --hmark-mod 4294967295 --hmark-rnd 1",
	"-j HMARK --hmark-tuple proto --hmark-mod 255 --hmark-rnd 1",
	"-j HMARK --hmark-src-prefix 25 --hmark-sport-mask 0xff0 --hmark-dport 0x1234 " +
		"--hmark-mod 4294967295 --hmark-rnd 9",
	"-j HMARK --hmark-spi-mask 0xff00ff --hmark-spi 0x12345678 --hmark-mod 4294967295 --hmark-rnd 9",
	"-j MARK --set-xmark 0xf0f0/0xff", "-j MARK --or-mark 0x81000000",
}

// TestMarking sends random packets to this machine's kernel: they arrive with the
// same mark.
func TestMarking(t *testing.T) {
	for i, rule := range marking {
		t.Run(rule, func(t *testing.T) {
			run := openKernel(t, "mangle", "PREROUTING", rule)
			r := newRig(t, "mangle", "PREROUTING", rule)
			d := draw{rand.New(rand.NewPCG(uint64(i), 4))}
			arrived := 0
			for range 120 {
				ip := d.packet("10.0.0.1")
				p, _ := packet.FromIP(ip)
				p.In = eth0
				r.matches(trace.Prerouting, p)
				a := ask(t, run, ip)
				if len(a.Inputs) == 0 {
					continue // waits for other fragments
				}
				arrived++
				if got, want := p.Mark, a.Inputs[0].Mark; got != want {
					t.Fatalf("packet %x: got %s, want %s", ip, fmt.Sprint(got), fmt.Sprint(want))
				}
			}
			if arrived < 60 {
				t.Errorf("only %d packets arrived", arrived)
			}
		})
	}
}
