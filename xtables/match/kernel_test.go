package match_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// kernelRig is a network namespace with the interfaces of rig, of which in0 is the
// other end of eth0.
type kernelRig struct {
	t    *testing.T
	tool string // iptables-legacy or iptables-nft
	sock int
	to   unix.SockaddrLinklayer
}

const kernelSetup = `
set -e
ip link set lo up
ip link add eth0 index 2 address 02:00:00:00:00:01 type veth peer name in0 index 12
ip link add eth1 index 3 address 02:00:00:00:00:02 type veth peer name in1 index 13
for d in all default eth0 eth1 in0 in1; do echo 1 > /proc/sys/net/ipv6/conf/$d/disable_ipv6; done
ip link set eth0 group 7
for d in eth0 eth1 in0 in1; do ip link set $d up; done
ip addr add 10.0.0.1/24 brd 10.0.0.255 dev eth0
ip addr add 10.1.0.1/24 dev eth1
`

// inNamespace runs f on a thread of its own in a fresh network namespace, which goes
// away with the thread.
func inNamespace(t *testing.T, tool string, f func(k *kernelRig)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		k := &kernelRig{t: t, tool: tool}
		if k.run(kernelSetup) && k.open() {
			f(k)
			_ = unix.Close(k.sock)
		}
	}()
	<-done
}

func (k *kernelRig) run(script string) bool {
	out, err := exec.Command("sh", "-c", script).CombinedOutput()
	if err != nil {
		k.t.Errorf("%v: %s", err, out)
	}
	return err == nil
}

func (k *kernelRig) open() bool {
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		k.t.Errorf("packet socket: %v", err)
		return false
	}
	k.sock, k.to = s, unix.SockaddrLinklayer{Ifindex: 12}
	return true
}

// load puts the rules into raw PREROUTING, where no connection is known yet. The
// first one counts all, the last one ends the packets.
func (k *kernelRig) load(rules []string) bool {
	cmd := exec.Command(k.tool + "-restore")
	cmd.Stdin = strings.NewReader("*raw\n" + strings.Join(rules, "\n") + "\nCOMMIT\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		k.t.Errorf("%s-restore: %v: %s", k.tool, err, out)
	}
	return err == nil
}

// header is the first line of what is saved.
func (k *kernelRig) header() string {
	out, err := exec.Command(k.tool+"-save", "-t", "raw").Output()
	if err != nil {
		k.t.Fatal(err)
	}
	return string(out[:bytes.IndexByte(out, '\n')+1])
}

// counts reads the packet counters of the rules.
func (k *kernelRig) counts() []uint64 {
	out, err := exec.Command(k.tool+"-save", "-c", "-t", "raw").Output()
	if err != nil {
		k.t.Fatal(err)
	}
	var ns []uint64
	for _, line := range bytes.Split(out, []byte("\n")) {
		if len(line) == 0 || line[0] != '[' {
			continue
		}
		n, _ := strconv.ParseUint(string(line[1:bytes.IndexByte(line, ':')]), 10, 64)
		ns = append(ns, n)
	}
	return ns
}

// settled reads the counters once all packets were seen.
func (k *kernelRig) settled(sent uint64) []uint64 {
	for range 200 {
		ns := k.counts()
		if len(ns) > 0 && ns[0] == sent {
			return k.counts()
		}
		runtime.Gosched()
	}
	k.t.Fatalf("the kernel saw %v of %d packets", k.counts()[:1], sent)
	return nil
}

func (k *kernelRig) send(frame []byte) {
	if err := unix.Sendto(k.sock, frame, 0, &k.to); err != nil {
		k.t.Fatalf("send: %v", err)
	}
}

// draw makes random rules and packets that are bent to meet one another.
type draw struct{ *rand.Rand }

func pick[T any](d draw, xs ...T) T { return xs[d.IntN(len(xs))] }

func (d draw) not(option string) string { return pick(d, "", "", "! ") + option }

func (d draw) port() uint16 {
	return pick(d, 0, 1, 22, 53, 80, 81, 443, 1024, 65535, uint16(d.IntN(65536)))
}

func (d draw) span(max uint64, n func() uint64) string {
	a, b := n(), n()
	if a > b {
		a, b = b, a
	}
	return pick(d, fmt.Sprint(a), fmt.Sprintf("%d:%d", a, b), fmt.Sprintf(":%d", b), fmt.Sprintf("%d:", a),
		fmt.Sprintf("%d:%d", a, max))
}

func (d draw) ports() string { return d.span(65535, func() uint64 { return uint64(d.port()) }) }

func (d draw) list(words ...string) string {
	d.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
	return strings.Join(words[:1+d.IntN(len(words))], ",")
}

func (d draw) small(n int) func() uint64 { return func() uint64 { return uint64(d.IntN(n)) } }

// The words that rules draw from.
var (
	drawFlags  = []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG"}
	drawChunks = []string{"DATA", "INIT", "SACK", "ABORT", "DATA:Be", "ABORT:T", "DATA:u", "ASCONF"}
	drawTypes  = []string{"LOCAL", "UNICAST", "BROADCAST", "MULTICAST", "PROHIBIT", "ANYCAST"}
	drawDCCP   = []string{"REQUEST", "RESPONSE", "DATA", "ACK", "RESET", "SYNC", "INVALID"}
	drawAddrs  = []string{"10.0.0.1", "10.0.0.9", "10.0.0.8", "10.1.0.7", "172.16.0.1", "10.1.0.1"}
	drawDsts   = []string{"10.0.0.1", "10.1.0.1", "10.0.0.255", "224.0.0.1", "255.255.255.255", "10.9.9.9"}
	drawProtos = []uint8{tcp, tcp, tcp, udp, icmp, sctp, dccp, ah, esp, ipcomp, packet.UDPLite, 47}
)

func (d draw) flags() string {
	return d.list(append([]string(nil), drawFlags...)...)
}

func (d draw) u32Test() string {
	s := fmt.Sprintf("%d", d.IntN(60))
	for range d.IntN(4) {
		s += pick(d, fmt.Sprintf("&0x%x", d.Uint32()), fmt.Sprintf(">>%d", d.IntN(32)), "&0xff",
			fmt.Sprintf("<<%d", d.IntN(8)), fmt.Sprintf(">>22&0x3c@%d", d.IntN(24)))
	}
	a, b := d.Uint32()>>d.IntN(32), d.Uint32()
	return s + pick(d, fmt.Sprintf("=%d", a), fmt.Sprintf("=%d:%d", min(a, b), max(a, b)), "=0:0xffffff",
		fmt.Sprintf("=1,%d:0xffffffff", b))
}

// rule draws a rule without target. Rules with a connection are for their own run.
func (d draw) rule(conn bool) string {
	if conn && d.IntN(3) == 0 {
		return d.connRule()
	}
	switch d.IntN(29) {
	case 0:
		return "-p tcp " + pick(d, d.not("--sport "), d.not("--dport ")) + d.ports()
	case 1:
		return "-p tcp " + d.not("--tcp-flags ") + d.flags() + " " + pick(d, d.flags(), "NONE")
	case 2:
		return "-p tcp " + d.not("--tcp-option ") + fmt.Sprint(1+d.IntN(9))
	case 3:
		return "-p udp " + pick(d, d.not("--sport "), d.not("--dport ")) + d.ports()
	case 4:
		return "-p icmp -m icmp " + d.not("--icmp-type ") + pick(d, "any", fmt.Sprint(d.IntN(19)),
			fmt.Sprintf("%d/%d", d.IntN(13), d.IntN(4)))
	case 5:
		return "-p " + pick(d, "tcp", "udp", "sctp", "dccp", "udplite") + " -m multiport " +
			d.not(pick(d, "--ports ", "--sports ", "--dports ")) + "80,22," + fmt.Sprint(d.port())
	case 6:
		return "-p sctp --chunk-types " + pick(d, "any ", "all ", "only ") +
			pick(d, d.list(append([]string(nil), drawChunks...)...), "ALL", "NONE")
	case 7:
		return "-p sctp " + d.not("--dport ") + d.ports()
	case 8:
		return "-p dccp " + pick(d, d.not("--dccp-types ")+d.list(append([]string(nil), drawDCCP...)...),
			"--dccp-option "+fmt.Sprint(1+d.IntN(40)), d.not("--sport ")+d.ports())
	case 9:
		return pick(d, "-p ah -m ah "+d.not("--ahspi "), "-p esp -m esp "+d.not("--espspi "),
			"-p ipcomp -m ipcomp "+d.not("--ipcompspi ")) + d.span(1<<32-1, d.small(9))
	case 10:
		return "-m length " + d.not("--length ") + d.span(65535, d.small(120))
	case 11:
		return "-m ttl " + pick(d, d.not("--ttl-eq "), "--ttl-lt ", "--ttl-gt ") + fmt.Sprint(d.IntN(256))
	case 12:
		return "-m tos " + d.not("--tos ") + fmt.Sprintf("%d/%d", d.IntN(256), d.IntN(256))
	case 13:
		return "-m dscp " + d.not("--dscp ") + fmt.Sprint(d.IntN(64))
	case 14:
		return "-p tcp -m ecn " + pick(d, d.not("--ecn-tcp-ece "), d.not("--ecn-tcp-cwr ")) +
			pick(d, "", d.not("--ecn-ip-ect ")+fmt.Sprint(d.IntN(4)))
	case 15:
		return "-m iprange " + pick(d, d.not("--src-range "), d.not("--dst-range ")) + "10.0.0.1-" +
			pick(d, drawAddrs...)
	case 16:
		return "-p tcp -m tcpmss " + d.not("--mss ") + d.span(65535, d.small(2000))
	case 17:
		return `-m u32 ` + d.not("--u32 ") + `"` + d.u32Test() + pick(d, "", "&&"+d.u32Test()) + `"`
	case 18:
		from := d.IntN(50)
		return "-m string " + d.not("--hex-string ") + fmt.Sprintf(`"|%x|"`, d.bytes(1+d.IntN(3))) +
			" --algo " + pick(d, "bm", "kmp") + fmt.Sprintf(" --from %d --to %d", from, from+d.IntN(80)) +
			pick(d, "", " --icase")
	case 19:
		return "-m mac " + d.not("--mac-source ") + "02:00:00:00:00:0" + fmt.Sprint(8+d.IntN(2))
	case 20:
		return "-m pkttype " + d.not("--pkt-type ") + pick(d, "unicast", "broadcast", "multicast", "otherhost")
	case 21:
		return "-m physdev " + pick(d, d.not("--physdev-in eth0"), d.not("--physdev-is-in"),
			d.not("--physdev-is-bridged"), d.not("--physdev-out eth+"))
	case 22:
		return "-m devgroup " + d.not("--src-group ") + fmt.Sprintf("%d/%d", d.IntN(9), d.IntN(16))
	case 23:
		return "-m mark " + d.not("--mark ") + fmt.Sprintf("%d/%d", d.IntN(2), d.IntN(4))
	case 24:
		return "-m addrtype " + pick(d, d.not("--src-type "), d.not("--dst-type ")) +
			d.list(append([]string(nil), drawTypes...)...) + pick(d, "", " --limit-iface-in")
	case 25:
		return "-m rpfilter" + pick(d, "", " --loose") + pick(d, "", " --validmark") +
			pick(d, "", " --accept-local") + pick(d, "", " --invert")
	case 26:
		n := 1 + d.IntN(5)
		return "-m statistic --mode nth " + d.not("--every ") + fmt.Sprintf("%d --packet %d", n, d.IntN(n))
	case 27:
		return d.memoryRule()
	}
	return "-m time " + pick(d, "--weekdays "+d.list("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
		"! --monthdays "+d.list("1", "5", "13", "24", "31"), "--timestart 03:00 --timestop 02:00")
}

// memoryRule draws a rule whose memory does not hang on how fast packets come.
func (d draw) memoryRule() string {
	list := pick(d, "a", "b", "c")
	switch d.IntN(4) {
	case 0:
		return "-m recent " + d.not(pick(d, "--set", "--remove")) + " --name " + list + pick(d, "", " --rdest")
	case 1:
		return "-m recent " + d.not(pick(d, "--rcheck", "--update")) + " --name " + list +
			pick(d, "", " --rdest") + pick(d, "", " --seconds 36000") + pick(d, "", " --rttl") +
			pick(d, "", fmt.Sprint(" --hitcount ", 1+d.IntN(20)))
	case 2:
		n := 1 + d.IntN(90)
		if n == 38 || n == 75 { // these overflow so that the kernel refuses them
			n--
		}
		return "-m limit --limit 1/hour --limit-burst " + fmt.Sprint(n)
	}
	return fmt.Sprintf("-m hashlimit %s 1/hour --hashlimit-burst %d --hashlimit-mode %s --hashlimit-name h%d",
		pick(d, "--hashlimit-upto", "--hashlimit-above"), 1+d.IntN(9),
		d.list("srcip", "dstip", "srcport", "dstport"), d.IntN(1<<30)) +
		pick(d, "", fmt.Sprint(" --hashlimit-srcmask ", d.IntN(33)))
}

// connRule draws a rule that asks for a connection, which no packet in raw has.
func (d draw) connRule() string {
	return pick(d, "-m conntrack "+d.not("--ctstate ")+d.list("INVALID", "NEW", "UNTRACKED", "DNAT"),
		"-m conntrack --ctstate INVALID "+d.not("--ctproto 6"), "-m conntrack "+d.not("--ctorigdstport 80"),
		"-m conntrack "+d.not("--ctstatus NONE"), "-m connmark "+d.not("--mark 0"),
		"-m connlabel "+d.not("--label 5"), "-m connlabel "+d.not("--label 6 --set"),
		"-m helper "+d.not("--helper ftp"), "-m state "+d.not("--state NEW"),
		"-m connbytes "+d.not("--connbytes 0:5 --connbytes-mode bytes --connbytes-dir both"),
		"-m cluster --cluster-total-nodes 2 "+d.not("--cluster-local-node 1 --cluster-hash-seed 5"))
}

func (d draw) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = pick(d, 0, 1, 2, 3, 4, 'a', 'A', 0xe4, 0xc4, 0xff, byte(d.IntN(256)))
	}
	return b
}

// frame draws a frame whose IP header is good.
func (d draw) frame(fragments bool) []byte {
	proto := pick(d, drawProtos...)
	l4 := d.transport(proto)
	if d.IntN(8) == 0 {
		l4 = l4[:d.IntN(len(l4)+1)]
	}
	opts := d.bytes(4 * pick(d, 0, 0, 0, 0, d.IntN(11)))
	ip := make([]byte, 20, 120)
	ip[0] = 0x40 | byte(5+len(opts)/4)
	ip[1], ip[8], ip[9] = byte(d.IntN(256)), byte(d.IntN(256)), proto
	ip = append(append(ip, opts...), l4...)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	if fragments && d.IntN(5) == 0 {
		binary.BigEndian.PutUint16(ip[6:], pick[uint16](d, 0x2000, 1, 0x2001, 2, 185))
	}
	src, dst := packet.MustParseAddr(pick(d, drawAddrs...)), packet.MustParseAddr(pick(d, drawDsts...))
	copy(ip[12:], src.Bytes())
	copy(ip[16:], dst.Bytes())
	packet.FixIP4(ip)
	to := pick(d, "\x02\x00\x00\x00\x00\x01", "\xff\xff\xff\xff\xff\xff", "\x01\x00\x5e\x00\x00\x01")
	f := append([]byte(to+"\x02\x00\x00\x00\x00"+string([]byte{byte(8 + d.IntN(3))})+"\x08\x00"), ip...)
	return append(f, d.bytes(pick(d, 0, 0, d.IntN(9)))...) // padding
}

func (d draw) transport(proto uint8) []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, d.port()), d.port())
	switch proto {
	case tcp:
		opts := d.tcpOptions()
		b = append(append(b, d.bytes(16)...), opts...)
		b[12], b[13] = byte(5+len(opts)/4)<<4, byte(d.IntN(256))
		if d.IntN(10) == 0 {
			b[12] = byte(d.IntN(256))
		}
	case udp, packet.UDPLite:
		b = append(b, 0, 16, 0, 0)
	case icmp:
		b = []byte{byte(d.IntN(19)), byte(d.IntN(4)), 0, 0, 0, 1, 0, 1}
	case sctp:
		b = append(append(b, d.bytes(8)...), d.chunks()...)
	case dccp:
		b = append(b, byte(d.IntN(10)), 0, 0, 0, byte(d.IntN(24)), 0, 0, 0)
		b = append(b, d.bytes(24)...)
	case ah:
		b = []byte{6, 0, 0, 0, 0, 0, 0, byte(d.IntN(9)), 0, 0, 0, 1}
	case esp:
		b = []byte{0, 0, 0, byte(d.IntN(9)), 0, 0, 0, 1}
	case ipcomp:
		b = []byte{6, 0, 0, byte(d.IntN(9))}
	}
	return append(b, d.bytes(d.IntN(30))...)
}

func (d draw) tcpOptions() []byte {
	var b []byte
	for range d.IntN(4) {
		b = append(b, pick(d, "\x01", "\x02\x04\x05\xb4", "\x03\x03\x07", "\x04\x02", "\x02\x04\x00\x64", "\x05\x00",
			"\x08\x0a12345678", "\x07")...)
	}
	b = b[:min(len(b), 40)]
	for len(b)%4 != 0 {
		b = append(b, pick(d, byte(0), 1))
	}
	return b
}

func (d draw) chunks() []byte {
	var b []byte
	for range d.IntN(4) {
		n := pick(d, 4, 8, 5, 0, 3, 12)
		b = append(b, pick(d, byte(0), 1, 3, 6, 193, byte(d.IntN(256))), byte(d.IntN(16)), 0, byte(n))
		b = append(b, make([]byte, max(0, (n+3)&^3-4))...)
	}
	return b
}

// TestAgainstKernel puts random rules and packets to this machine's kernel: the
// counters of all rules must agree.
func TestAgainstKernel(t *testing.T) {
	needTools(t, "ip", "iptables-legacy-restore", "iptables-nft-restore")
	const rules, packets = 150, 300
	for seed := range uint64(6) {
		tool := []string{"iptables-legacy", "iptables-nft"}[seed/2%2]
		conn := seed%2 == 1
		t.Run(fmt.Sprintf("%s/connections=%v/seed=%d", tool, conn, seed), func(t *testing.T) {
			d := draw{rand.New(rand.NewPCG(seed, 7))}
			inNamespace(t, tool, func(k *kernelRig) { compare(k, d, conn, rules, packets) })
		})
	}
}

// compare sends packets one batch after another; where counters differ it says which.
func compare(k *kernelRig, d draw, conn bool, rules, packets int) {
	lines := []string{"-A PREROUTING"}
	for range rules {
		lines = append(lines, "-A PREROUTING "+d.rule(conn))
	}
	lines = append(lines, "-A PREROUTING -j DROP")
	if !k.load(lines) {
		return
	}
	r := &rig{t: k.t, table: "raw", now: world.Instant(time.Now().UnixNano()), header: k.header()}
	r.open(lines)
	const batch = 50
	for n := 0; n < packets; n += batch {
		frames := make([][]byte, batch)
		for i := range frames {
			frames[i] = d.frame(!conn)
			k.send(frames[i])
			r.receive(frames[i])
		}
		got, want := r.counts(len(lines)), k.settled(uint64(n+batch))
		for i := range lines {
			if got[i] != want[i] {
				k.t.Errorf("packets %d to %d: %s: counted %d, the kernel %d", n, n+batch, lines[i], got[i], want[i])
			}
		}
		if k.t.Failed() {
			return
		}
	}
}

// receive takes a frame to PREROUTING of eth0, as ip_rcv does.
func (r *rig) receive(frame []byte) {
	p, _ := packet.FromFrame(frame)
	p.Trim(int(binary.BigEndian.Uint16(p.IP()[2:])))
	p.In = 2
	switch to, _ := p.LinkDst(); {
	case to.IsBroadcast():
		p.Type = packet.Broadcast
	case to.IsMulticast():
		p.Type = packet.Multicast
	}
	r.world.Now = world.Instant(time.Now().UnixNano())
	r.askPacket(trace.Prerouting, p)
}

// counts reads the packet counters of the first n rules.
func (r *rig) counts(n int) []uint64 {
	ns := make([]uint64, n)
	cells := r.counters.In(r.world.State)
	for i := range ns {
		ns[i] = cells.Get(i).Packets
	}
	return ns
}
