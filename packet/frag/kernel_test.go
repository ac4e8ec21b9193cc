package frag_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/packet/frag"
)

const (
	links = `[
{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP"],"mtu":65536,"link_type":"loopback",
 "address":"00:00:00:00:00:00"},
{"ifindex":7,"ifname":"eth0","flags":["BROADCAST","MULTICAST","UP"],"mtu":1500,
 "link_type":"ether","address":"02:00:00:00:00:01"},
{"ifindex":9,"ifname":"eth1","flags":["BROADCAST","MULTICAST","UP"],"mtu":MTU,
 "link_type":"ether","address":"02:00:00:00:01:01"}]`
	addrs = `[
{"ifname":"eth0","addr_info":[{"family":"inet","local":"10.0.0.1","prefixlen":24,
 "broadcast":"10.0.0.255","scope":"global","label":"eth0"}]},
{"ifname":"eth1","addr_info":[{"family":"inet","local":"10.0.1.1","prefixlen":24,
 "broadcast":"10.0.1.255","scope":"global","label":"eth1"}]}]`
	neighs = `[
{"dst":"10.0.0.9","dev":"eth0","lladdr":"02:00:00:00:00:09","state":["PERMANENT"]},
{"dst":"10.0.1.9","dev":"eth1","lladdr":"02:00:00:00:01:09","state":["PERMANENT"]}]`
	tracking = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n" +
		"-A FORWARD -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n"
	without = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
)

// TestAgainstKernel sends random fragments through this machine's kernel, which
// forwards them: each answer has the same frames, byte by byte.
func TestAgainstKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("SKIP: needs root for network namespaces")
	}
	sent := 0
	for seed := range uint64(12) {
		mtu := []int{1500, 576, 100, 68}[seed%4]
		t.Run(fmt.Sprintf("seed=%d/mtu=%d", seed, mtu), func(t *testing.T) {
			sent += against(t, rand.New(rand.NewPCG(seed, 1)), mtu, seed%3 != 0)
		})
	}
	t.Logf("%d packets", sent)
}

func against(t *testing.T, r *rand.Rand, mtu int, track bool) (sent int) {
	rules := without
	if track {
		rules = tracking
	}
	run, err := kernel.Open(context.Background(), kernel.Scenario{Backend: kernel.Legacy,
		Hosts: []kernel.Host{{Name: "r", Files: map[string]string{
			"ip-link.json": strings.Replace(links, "MTU", fmt.Sprint(mtu), 1), "ip-addr.json": addrs,
			"ip-neigh.json": neighs, "iptables-save": rules,
			"sysctl": "net.ipv4.ip_forward = 1\n"}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	run.NoFlows = true
	h := router{memory: newMemory(), collector: frag.New(settings{}), mtu: mtu, track: track}
	for id := range uint16(60) {
		for _, s := range draw(r, id+1) {
			sent++
			eth := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0}
			a, err := run.Ask(kernel.Question{In: "eth0", Seq: "s", Frame: append(eth, s.bytes()...)})
			if err != nil || a.Err != "" {
				t.Fatal(err, a.Err)
			}
			if got, want := h.forward(s.packet()), outside(a); got != want {
				t.Fatalf("id %d, %v opts %q tos %d:\n got %s\nwant %s", id, s, s.opts, s.tos, got, want)
			}
		}
	}
	return sent
}

// router is as much of a host as forwards a fragment.
type router struct {
	*memory
	collector *frag.Collector
	mtu       int
	track     bool
}

func (h *router) forward(p *packet.Packet) string {
	if h.track && p.IsFragment() {
		if p, _ = h.add(h.collector, p, 0); p == nil {
			return ""
		}
	}
	if frag.Exceeds(p, h.mtu) {
		if p.FragOff() != 0 {
			return "" // no error is sent about a later fragment
		}
		return fmt.Sprintf("too big for %d", h.mtu)
	}
	p.SetTTL(p.TTL() - 1)
	ps := []*packet.Packet{p}
	if frag.Needed(p, h.mtu) {
		var o frag.Outcome
		if ps, o = frag.Fragment(p, h.mtu, p.FragMax != 0); o == frag.TooBig {
			return fmt.Sprintf("too big for %d", h.mtu)
		}
	}
	var out []string
	for _, p := range ps {
		out = append(out, hex.EncodeToString(p.IP()))
	}
	return strings.Join(out, "\n     ")
}

// outside is what the kernel sent: IP packets, or that it said how large one may be.
func outside(a kernel.Answer) string {
	var out []string
	for _, f := range a.Out {
		ip := f.Bytes[14:]
		if f.Dev == "eth0" && ip[9] == packet.ICMP {
			icmp := ip[int(ip[0]&15)*4:] // the error echoes the option that records a route
			return fmt.Sprintf("too big for %d", int(icmp[6])<<8|int(icmp[7]))
		}
		out = append(out, hex.EncodeToString(ip))
	}
	return strings.Join(out, "\n     ")
}

// draw makes the fragments of one datagram: cut anywhere, often out of order, with
// pieces that come twice, are missing or overlap.
func draw(r *rand.Rand, id uint16) []spec {
	size := 1 + r.IntN(2600)
	options := ""
	if r.IntN(5) == 0 {
		options = []string{"\x01\x01\x01\x00", "\x07\x07\x08\x00\x00\x00\x00\x00",
			"\x9e\x04\x00\x00\x5e\x08\x01\x02\x03\x04\x05\x06"}[r.IntN(3)]
	}
	var out []spec
	for off := 0; off < size; {
		n := min(8*(1+r.IntN(170)), size-off)
		if r.IntN(3) == 0 {
			n = min(8*(1+r.IntN(3)), size-off)
		}
		out = append(out, spec{off: off, end: off + n, more: off+n < size, id: id, opts: options})
		off += n
	}
	for i := range out {
		s := &out[i]
		s.df = r.IntN(4) == 0
		if r.IntN(8) == 0 {
			s.tos = uint8(r.IntN(4))
		}
		switch r.IntN(40) {
		case 0:
			s.off += 8 * (r.IntN(3) - 1)
			s.off = max(s.off, 0)
			s.end = max(s.end, s.off)
		case 1:
			s.end += r.IntN(20)
		case 2:
			s.more = !s.more
		}
		s.end = min(s.end, s.off+1480-len(s.opts))
	}
	for range r.IntN(3) {
		if n := len(out); r.IntN(3) == 0 {
			out = append(out, out[r.IntN(n)])
		}
	}
	if r.IntN(2) == 0 {
		r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	}
	return out
}
