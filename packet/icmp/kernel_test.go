package icmp_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/packet/icmp"
)

const (
	links = `[
{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP"],"mtu":65536,"link_type":"loopback",
 "address":"00:00:00:00:00:00"},
{"ifindex":7,"ifname":"eth0","flags":["BROADCAST","MULTICAST","UP"],"mtu":%d,
 "link_type":"ether","address":"02:00:00:00:00:01"},
{"ifindex":9,"ifname":"eth1","flags":["BROADCAST","MULTICAST","UP"],"mtu":1400,
 "link_type":"ether","address":"02:00:00:00:01:01"}]`
	addrs = `[
{"ifname":"eth0","addr_info":[{"family":"inet","local":"10.0.0.1","prefixlen":24,
 "broadcast":"10.0.0.255","scope":"global","label":"eth0"}]},
{"ifname":"eth1","addr_info":[{"family":"inet","local":"10.0.1.1","prefixlen":24,
 "broadcast":"10.0.1.255","scope":"global","label":"eth1"}]}]`
	neighs = `[
{"dst":"10.0.0.9","dev":"eth0","lladdr":"02:00:00:00:00:09","state":["PERMANENT"]},
{"dst":"10.0.1.9","dev":"eth1","lladdr":"02:00:00:00:01:09","state":["PERMANENT"]}]`
	ttl = 77
)

func openKernel(t *testing.T, rule string, mtu int) *kernel.Run {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("SKIPPED: needs root for network namespaces")
	}
	run, err := kernel.Open(context.Background(), kernel.Scenario{Backend: kernel.Legacy,
		Hosts: []kernel.Host{{Name: "r", Files: map[string]string{
			"ip-link.json": fmt.Sprintf(links, mtu), "ip-addr.json": addrs, "ip-neigh.json": neighs,
			"iptables-save": "*filter\n" + rule + "\nCOMMIT\n",
			"sysctl": fmt.Sprintf("net.ipv4.ip_forward = 1\nnet.ipv4.ip_default_ttl = %d\n", ttl) +
				"net.ipv4.conf.all.accept_source_route = 1\nnet.ipv4.conf.eth0.accept_source_route = 1\n"}}}})
	if err != nil {
		t.Fatalf("%s: %v", rule, err)
	}
	t.Cleanup(func() { run.Close() })
	run.NoFlows = true
	return run
}

func ask(t *testing.T, run *kernel.Run, ip []byte) []byte {
	t.Helper()
	eth := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0}
	a, err := run.Ask(kernel.Question{In: "eth0", Seq: "s", Frame: append(eth, ip...)})
	if err != nil || a.Err != "" {
		t.Fatal(err, a.Err)
	}
	for _, f := range a.Out {
		if f.Dev == "eth0" && f.Bytes[12] == 8 && f.Bytes[13] == 0 {
			return f.Bytes[14:]
		}
	}
	return nil
}

// TestRejectAgainstKernel rejects random packets on their way through the kernel.
func TestRejectAgainstKernel(t *testing.T) {
	n, answered := 0, 0
	for i, tt := range []struct {
		with      string
		typ, code uint8
		mtu       int
	}{
		{"icmp-port-unreachable", 3, 3, 1500}, {"icmp-admin-prohibited", 3, 13, 1500},
		{"icmp-host-unreachable", 3, 1, 200}, {"icmp-net-unreachable", 3, 0, 576},
	} {
		t.Run(fmt.Sprintf("%s/%d", tt.with, tt.mtu), func(t *testing.T) {
			run := openKernel(t, "-A FORWARD -j REJECT --reject-with "+tt.with, tt.mtu)
			d := draw{rand.New(rand.NewPCG(uint64(i), 5))}
			for range 400 {
				n++
				in := d.packet("10.0.1.9")
				got, want := unreachable(in, tt.typ, tt.code, tt.mtu), ask(t, run, in)
				if want != nil {
					answered++
				}
				compare(t, in, got, want)
			}
		})
	}
	t.Logf("%d packets, %d answers", n, answered)
}

// unreachable is what ip_forward and REJECT make of a packet.
func unreachable(in []byte, typ, code uint8, mtu int) []byte {
	p, _ := packet.FromIP(append([]byte(nil), in...))
	p.CompileOptions(us{})
	p.SetTTL(p.TTL() - 1)
	if p.FragOff() != 0 || !icmp.RejectSumOK(p, true) || !icmp.MayAnswer(p, typ) {
		return nil
	}
	a := answer(p, mtu)
	return a.Error(p.IP(), icmp.Message{Type: typ, Code: code})
}

// us is the host as options ask it.
type us struct{}

func (us) SpecDst() packet.Addr         { return packet.MustParseAddr("10.0.0.1") }
func (us) IsUnicast(a packet.Addr) bool { return a != us{}.SpecDst() }
func (us) Milliseconds() uint32         { return 0 }

// answer is what 10.0.0.1 answers a packet with.
func answer(p *packet.Packet, mtu int) icmp.Answer {
	echo, _ := p.Echo(us{}.IsUnicast)
	return icmp.Answer{Src: us{}.SpecDst(), TTL: ttl, MTU: mtu, Options: echo}
}

// TestResetAgainstKernel rejects with resets.
func TestResetAgainstKernel(t *testing.T) {
	run := openKernel(t, "-A FORWARD -p tcp -j REJECT --reject-with tcp-reset", 1500)
	d := draw{rand.New(rand.NewPCG(1, 6))}
	answered := 0
	for range 600 {
		in := d.header(packet.TCP, "10.0.1.9", d.tcp())
		p, _ := packet.FromIP(append([]byte(nil), in...))
		p.CompileOptions(us{})
		var got []byte
		if p.FragOff() == 0 && len(p.L4()) >= 20 && icmp.RejectSumOK(p, true) {
			got, _ = icmp.Reset(p.IP(), ttl)
		}
		want := ask(t, run, in)
		if want != nil {
			answered++
		}
		compare(t, in, got, want)
	}
	t.Logf("%d answers", answered)
}

// TestStackAgainstKernel sends what no socket waits for, and echo requests.
func TestStackAgainstKernel(t *testing.T) {
	run := openKernel(t, "-A FORWARD -j ACCEPT", 1500)
	d := draw{rand.New(rand.NewPCG(1, 7))}
	kinds := map[string]int{}
	const dst = "10.0.0.1"
	for range 600 {
		in := d.whole(dst)
		want := ask(t, run, in)
		p, _ := packet.FromIP(append([]byte(nil), in...))
		p.CompileOptions(us{})
		var got []byte
		kind, a := "icmp", answer(p, 1500)
		switch p.Protocol() {
		case packet.TCP:
			kind = "tcp"
			got, _ = a.SocketReset(p.IP(), true)
		case packet.UDP:
			kind = "udp"
			got = a.Error(p.IP(), icmp.Message{Type: 3, Code: 3})
		default:
			got = a.EchoReply(p.IP())
		}
		if want != nil {
			kinds[kind]++
		}
		compare(t, in, got, want)
	}
	t.Log(kinds)
}

// compare holds an answer against the kernel's. The identification of an ICMP packet
// is drawn by the kernel, so it does not count.
func compare(t *testing.T, in, got, want []byte) {
	t.Helper()
	if got != nil && want != nil && got[9] == packet.ICMP {
		copy(got[4:6], want[4:6])
		packet.FixIP4(got)
	}
	if hex.EncodeToString(got) != hex.EncodeToString(want) {
		t.Fatalf("about %x:\n got %x\nwant %x", in, got, want)
	}
}

// draw makes packets, many of them odd.
type draw struct{ *rand.Rand }

func (d draw) one(n int) bool { return d.IntN(n) == 0 }

func (d draw) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(d.Uint32())
	}
	return b
}

// options are IP options; an answer echoes some of them.
func (d draw) options() []byte {
	all := [][]byte{
		{1, 1, 1, 0}, {7, 7, 8, 0, 0, 0, 0, 0}, {7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		{0x94, 4, 0, 0}, {0x88, 4, 1, 2}, {0x9e, 4, 9, 9},
	}
	return all[d.IntN(len(all))]
}

// header puts an IPv4 header and a transport checksum to a payload.
func (d draw) header(proto uint8, dst string, l4 []byte) []byte {
	h := make([]byte, 20)
	h[0], h[1], h[8], h[9] = 0x45, byte(d.Uint32()), byte(2+d.IntN(254)), proto
	if d.one(6) {
		o := d.options()
		h = append(h, o...)
		h[0] = byte(0x40 | len(h)/4)
	}
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(l4)))
	binary.BigEndian.PutUint16(h[4:], uint16(d.Uint32()))
	switch d.IntN(14) {
	case 0:
		binary.BigEndian.PutUint16(h[6:], uint16(1+d.IntN(100)))
	case 1:
		h[6] = 0x20
	case 2:
		h[6] = 0x40
	}
	a, b := packet.MustParseAddr("10.0.0.9"), packet.MustParseAddr(dst)
	copy(h[12:], a.Bytes())
	copy(h[16:], b.Bytes())
	packet.FixIP4(h)
	return d.sum(append(h, l4...), len(h))
}

// sum writes the transport checksum, mostly a right one.
func (d draw) sum(p []byte, at int) []byte {
	off := map[uint8]int{packet.TCP: 16, packet.UDP: 6, packet.ICMP: 2, packet.IGMP: 2}[p[9]]
	l4 := p[at:]
	if off == 0 || len(l4) < off+2 || d.one(8) || p[9] == packet.UDP && d.one(5) {
		if p[9] == packet.UDP && len(l4) >= 8 && d.one(2) {
			l4[6], l4[7] = 0, 0
		}
		return p
	}
	l4[off], l4[off+1] = 0, 0
	var s uint32
	if p[9] == packet.TCP || p[9] == packet.UDP {
		s = packet.PseudoSum(packet.AddrFrom4(p[12:]), packet.AddrFrom4(p[16:]), p[9], len(l4))
	}
	binary.BigEndian.PutUint16(l4[off:], packet.Fold(packet.Sum16(l4, s)))
	return p
}

func (d draw) packet(dst string) []byte {
	switch d.IntN(6) {
	case 0, 1:
		return d.header(packet.TCP, dst, d.tcp())
	case 2:
		return d.header(packet.UDP, dst, d.cut(d.udp()))
	case 3:
		return d.header(packet.ICMP, dst, d.cut(d.icmp()))
	case 4:
		return d.header(packet.IGMP, dst, d.bytes(8+d.IntN(9)))
	}
	others := []uint8{packet.GRE, packet.ESP, packet.AH, packet.SCTP, packet.UDPLite, packet.DCCP,
		packet.IPIP, 99, 253}
	b := d.bytes(d.IntN(700))
	if d.one(3) {
		b = make([]byte, len(b))
	}
	return d.header(others[d.IntN(len(others))], dst, b)
}

// whole is a good packet that the host itself answers.
func (d draw) whole(dst string) []byte {
	for {
		var p []byte
		switch d.IntN(3) {
		case 0:
			p = d.header(packet.TCP, dst, d.tcp())
		case 1:
			p = d.header(packet.UDP, dst, d.udp())
		default:
			l4 := append([]byte{8, 0, 0, 0}, d.bytes(4+d.IntN(900))...)
			p = d.header(packet.ICMP, dst, l4)
		}
		q, _ := packet.FromIP(p)
		if l4 := q.L4(); !q.IsFragment() && icmp.RejectSumOK(q, true) && (q.Protocol() != packet.TCP ||
			len(l4) >= 20 && l4[12]>>4 >= 5 && int(l4[12]>>4)*4 <= len(l4)) {
			return p
		}
	}
}

func (d draw) cut(b []byte) []byte {
	if d.one(6) {
		return b[:d.IntN(len(b))]
	}
	return b
}

func (d draw) udp() []byte {
	b := append(d.bytes(8), d.bytes(d.IntN(900))...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[2:], 9)
	return b
}

func (d draw) icmp() []byte {
	b := append([]byte{8, 0, 0, 0}, d.bytes(4+d.IntN(700))...)
	b[0] = []byte{0, 3, 4, 5, 8, 8, 11, 12, 13, 14, 17, 18, 19, 40}[d.IntN(14)]
	return b
}

func (d draw) tcp() []byte {
	b := append(d.bytes(20), d.bytes(4*d.IntN(6))...)
	b[12] = byte(len(b)/4) << 4
	if d.one(20) {
		b[12] = byte(d.Uint32())
	}
	b[13] = []byte{2, 2, 0x12, 0x10, 0x11, 1, 4, 0x14, byte(d.Uint32())}[d.IntN(9)]
	binary.BigEndian.PutUint16(b[2:], 9)
	if d.one(3) {
		b = append(b, d.bytes(d.IntN(700))...)
	}
	return d.cut(b)
}
