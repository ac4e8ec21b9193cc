package compare

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/internal/kernel/uml"
	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
)

// director draws a load balancer between the two networks of cases/base.txtar, and what
// clients and real servers say to it.
type director struct {
	*rand.Rand
	services []service
	talks    [][]byte // packets that left the director for a server
	backs    [][]byte // and for a client
	n        int
}

type service struct {
	proto uint8
	port  uint16
	mark  bool
}

const vip = "10.0.0.1"

func one[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func newDirector(seed uint64) *director {
	return &director{Rand: rand.New(rand.NewPCG(seed, 0x69707673))}
}

// save draws services as ipvsadm -S prints them.
func (d *director) save() string {
	var b strings.Builder
	for i, port := range []uint16{80, 53, 443, 5060}[:3+d.IntN(2)] {
		s := service{proto: packet.TCP, port: port}
		option := "-t"
		switch i {
		case 1:
			s.proto, option = packet.UDP, "-u"
		case 3:
			s.proto, option = packet.SCTP, "--sctp-service"
		}
		name := fmt.Sprintf("%s %s:%d", option, vip, port)
		if i == 2 && d.IntN(2) == 0 {
			s.mark, name = true, "-f 7"
		}
		d.services = append(d.services, s)
		scheduler := one(d.Rand, balanceSchedulers...)
		line := "-A " + name + " -s " + scheduler
		if d.IntN(3) == 0 || s.mark {
			line += " -p " + one(d.Rand, "300", "600") + one(d.Rand, "", " -M 255.255.255.0")
		}
		if s.proto == packet.UDP && d.IntN(3) == 0 {
			line += " -o"
		}
		if scheduler == "sh" || scheduler == "mh" {
			line += strings.ReplaceAll(one(d.Rand, "", " -b S-port", " -b S-fallback",
				" -b S-fallback,S-port"), "S-", scheduler+"-")
		}
		b.WriteString(line + "\n")
		own := d.IntN(6) == 0 // the director is one of its servers
		for _, host := range d.Perm(3)[:1+d.IntN(3)] {
			method := one(d.Rand, "-m", "-m", "-m", "-g", "-i", "-i --tun-type gre",
				"-i --tun-type gue --tun-port 6080")
			rport := port
			if method == "-m" && d.IntN(2) == 0 && !s.mark {
				rport += 8000
			}
			real := fmt.Sprintf("10.1.0.%d", 9+host)
			if own && method == "-m" {
				real, own = "10.1.0.1", false
			}
			line := fmt.Sprintf("-a %s -r %s:%d %s -w %d", name, real, rport, method, d.IntN(4))
			if d.IntN(4) == 0 {
				line += fmt.Sprintf(" -x %d -y %d", 2+d.IntN(2), 1)
			}
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// files are a snapshot of the director.
func (d *director) files(t *testing.T) map[string]string {
	base, err := txtar.ParseFile(casesDir + "/base.txtar")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range base.Files {
		files[f.Name] = string(f.Data)
	}
	files["ip-neigh.json"] = strings.TrimSuffix(strings.TrimSpace(files["ip-neigh.json"]), "]") +
		`,{"dst":"10.1.0.11","dev":"eth1","lladdr":"02:00:00:00:03:0b","state":["PERMANENT"]}]`
	files["ipvsadm-save"] = d.save()
	for _, v := range balanceSettings {
		files["sysctl"] += fmt.Sprintf("net.ipv4.vs.%s = %d\n", v, d.IntN(2))
	}
	files["sysctl"] += fmt.Sprintf("net.ipv4.vs.conn_reuse_mode = %d\n", d.IntN(3))
	files["iptables-save"] = d.rules()
	files["meta.json"] = `{"kernel":"6.1","hz":100}`
	return files
}

// balanceSettings are those of net.ipv4.vs that are drawn, on or off.
var balanceSettings = []string{"conntrack", "sloppy_tcp", "expire_nodest_conn", "nat_icmp_send",
	"expire_quiescent_template", "schedule_icmp", "snat_reroute", "pmtu_disc", "sloppy_sctp",
	"ignore_tunneled", "cache_bypass"}

// rules draws tables around the load balancer.
func (d *director) rules() string {
	head := func(table string, hooks ...string) string {
		s := "*" + table + "\n"
		for _, h := range hooks {
			s += ":" + h + " ACCEPT [0:0]\n"
		}
		return s
	}
	var b strings.Builder
	b.WriteString(head("mangle", "PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING") +
		"-A PREROUTING -p tcp -d " + vip + " --dport 443 -j MARK --set-mark 7\n" +
		"-A OUTPUT -m ipvs --ipvs\n-A POSTROUTING -m ipvs --vport 80\nCOMMIT\n")
	b.WriteString(head("filter", "INPUT", "FORWARD", "OUTPUT") +
		one(d.Rand, "", "-A FORWARD -m conntrack --ctstate NEW\n", "-A FORWARD -s 10.1.0.10 -j DROP\n") +
		one(d.Rand, "", "-A OUTPUT -o eth1 -p udp -j ACCEPT\n") + "COMMIT\n")
	if d.IntN(2) == 0 {
		b.WriteString(head("nat", "PREROUTING", "INPUT", "OUTPUT", "POSTROUTING") +
			one(d.Rand, "", "-A POSTROUTING -o eth1 -m ipvs --vaddr "+vip+" -j MASQUERADE\n") + "COMMIT\n")
	}
	return b.String()
}

// Learn keeps what left for a real server.
func (d *director) Learn(a kernel.Answer) {
	for _, f := range a.Out {
		if len(f.Bytes) <= packet.EthernetLen+28 {
			continue
		}
		ip := f.Bytes[packet.EthernetLen:]
		if f.Dev == "eth1" {
			d.talks = append(d.talks, ip)
		} else {
			d.backs = append(d.backs, ip)
		}
	}
}

// next is a question: a client's packet, or a server's answer to one.
func (d *director) next() kernel.Question {
	d.n++
	q := kernel.Question{ID: fmt.Sprint(d.n), Host: "r", Seq: "s", In: "eth0"}
	if len(d.talks) > 0 && d.IntN(2) == 0 {
		if ip := d.answer(d.talks[d.IntN(len(d.talks))]); ip != nil {
			q.In = "eth1"
			q.Frame = packet.Frame(packet.MAC{2, 0, 0, 0, 3, 1}, packet.MAC{2, 0, 0, 0, 3, 9}, ip)
			return q
		}
	}
	ip := d.request()
	switch d.IntN(16) {
	case 0: // a program on the director
		copy(ip[12:16], vipBytes)
		packet.FixIP4(ip)
		q.In, q.Out, q.Socket, q.Packet = "", true, "raw", fixTransport(ip)
		return q
	case 1: // a client's error about an answer
		if len(d.backs) > 0 {
			if p, ok := packet.FromIP(append([]byte(nil), d.backs[d.IntN(len(d.backs))]...)); ok && p.Is4() {
				ip = unreachable(p)
			}
		}
	}
	q.Frame = packet.Frame(packet.MAC{2, 0, 0, 0, 2, 1}, packet.MAC{2, 0, 0, 0, 2, 9}, ip)
	return q
}

var vipBytes = []byte{10, 0, 0, 1}

// fixTransport writes the checksum of a TCP or UDP packet whose addresses changed.
func fixTransport(b []byte) []byte {
	at := map[uint8]int{packet.TCP: 36, packet.UDP: 26}[b[9]]
	if at == 0 || len(b) < at+2 {
		return b
	}
	b[at], b[at+1] = 0, 0
	sum := packet.PseudoSum(packet.AddrFrom4(b[12:]), packet.AddrFrom4(b[16:]), b[9], len(b)-20)
	binary.BigEndian.PutUint16(b[at:], packet.Fold(packet.Sum16(b[20:], sum)))
	return b
}

// sctp is a packet of one chunk.
func sctp(src, dst []byte, sport, dport uint16, chunk byte) []byte {
	b := make([]byte, 20+12+20)
	b[0], b[5], b[8], b[9] = 0x45, 1, 64, packet.SCTP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:16], src)
	copy(b[16:20], dst)
	binary.BigEndian.PutUint16(b[20:], sport)
	binary.BigEndian.PutUint16(b[22:], dport)
	if chunk != 1 { // an INIT has no tag yet
		b[27] = 7
	}
	b[32], b[35], b[39] = chunk, 20, 9
	b[45], b[47] = 1, 1
	binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[20:], crc32.MakeTable(crc32.Castagnoli)))
	packet.FixIP4(b)
	return b
}

func (d *director) request() []byte {
	s := &packet.Sentence{Src: packet.MustParseAddr(one(d.Rand, "10.0.0.9", "10.0.0.10", "192.0.2.9", "192.0.2.77")),
		Dst: packet.MustParseAddr(vip), SPort: uint16(1000 + d.IntN(6)), TTL: one[uint8](d.Rand, 64, 64, 64, 2, 1)}
	v := d.services[d.IntN(len(d.services))]
	s.Proto, s.DPort = v.proto, v.port
	if d.IntN(12) == 0 {
		s.DPort = 8080
	}
	switch s.Proto {
	case packet.TCP:
		s.Flags = one[uint8](d.Rand, 2, 2, 2, 0x10, 0x10, 0x18, 0x11, 4)
	case packet.UDP:
		s.Len, s.Given = one(d.Rand, 28, 28, 28, 1400, 1480, 1500), s.Given|packet.GivenLen
	case packet.SCTP:
		return sctp(s.Src.Bytes(), vipBytes, s.SPort, s.DPort, one[byte](d.Rand, 1, 1, 10, 0, 7, 14, 6, 3))
	}
	b, err := s.Packet()
	if err != nil {
		panic(err)
	}
	return b
}

// answer is what a real server says to a packet that it got.
func (d *director) answer(ip []byte) []byte {
	p, ok := packet.FromIP(append([]byte(nil), ip...))
	if !ok || p.Protocol() != packet.TCP && p.Protocol() != packet.UDP && p.Protocol() != packet.SCTP {
		return nil
	}
	if d.IntN(6) == 0 {
		return unreachable(p)
	}
	s := &packet.Sentence{Proto: p.Protocol(), Src: p.Dst(), Dst: p.Src(), TTL: 64}
	s.DPort, s.SPort, _ = p.Ports()
	if s.Proto == packet.SCTP {
		return sctp(p.IP()[16:20], p.IP()[12:16], s.SPort, s.DPort, one[byte](d.Rand, 2, 2, 11, 0, 8, 6, 3))
	}
	if s.Proto == packet.TCP {
		s.Flags = one[uint8](d.Rand, 0x12, 0x12, 0x10, 0x18, 0x11, 0x14)
	}
	b, err := s.Packet()
	if err != nil {
		panic(err)
	}
	return b
}

// unreachable is a real server's ICMP error about a packet.
func unreachable(p *packet.Packet) []byte {
	quote := p.IP()[:min(p.Len(), 28)]
	b := make([]byte, 28, 28+len(quote))
	b = append(b, quote...)
	b[0], b[8], b[9] = 0x45, 64, packet.ICMP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:16], p.IP()[16:20])
	copy(b[16:20], p.IP()[12:16])
	b[20], b[21] = 3, 3
	binary.BigEndian.PutUint16(b[22:], packet.Fold(packet.Sum16(b[20:], 0)))
	packet.FixIP4(b)
	return b
}

// TestIPVS holds the load balancer against a user-mode-linux kernel, which has one.
// HOOKPATH_SEED repeats a run, HOOKPATH_SEEDS says how many hosts, HOOKPATH_PACKETS stops as in
// TestAgreement. With HOOKPATH_SOAK all that balanceCover wants must be covered.
func TestIPVS(t *testing.T) {
	machines := lasting{boot: bootSecond, m: machine(t)}
	seed := number(t, "HOOKPATH_SEED", uint64(rand.Uint32()))
	n := number(t, "HOOKPATH_SEEDS", min(number(t, "HOOKPATH_SOAK", 4), 1250))
	fmt.Printf("HOOKPATH_SEED=%d HOOKPATH_SEEDS=%d\n", seed, n)
	most := number(t, "HOOKPATH_PACKETS", 0)
	cover := balanceCover{}
	tally := Tally{Keep: os.Getenv("HOOKPATH_KEEP"), Watch: cover.count}
	for s := seed; s < seed+n; s++ {
		balance(t, machines.next(t), &tally, s)
		if tally.enoughFor(t, s, most) {
			break
		}
	}
	cover.print(t)
	for _, diff := range tally.Diffs {
		t.Log(diff)
	}
	bound(t, &tally, 0)
	for key, times := range tally.Unsupported {
		t.Logf("unsupported %d times: %s", times, key)
	}
	t.Logf("%d scenarios, %d packets, %d packets agreed with the kernel", tally.Scenarios,
		tally.Packets, tally.Agreed)
}

// balanceCover counts decisions by what took part in them.
type balanceCover map[string]int

func (c balanceCover) count(h *walk.Host, tr *trace.Trace) {
	for _, e := range tr.Events {
		if w, ok := e.(*trace.Encap); ok {
			c["tunnel "+w.Method]++
		}
		b, ok := e.(*trace.IPVS)
		if !ok || b.Service < 0 {
			continue
		}
		s := h.IPVS.Service(b.Service)
		if b.New || b.Index < 0 {
			c["scheduler "+s.Scheduler]++
			if s.Timeout != 0 {
				c["flag persistent"]++
			}
			for _, f := range balanceFlags {
				if s.Flags&f.flag != 0 {
					c["flag "+f.name]++
				}
			}
		}
		c["protocol "+map[uint8]string{packet.TCP: "tcp", packet.UDP: "udp", packet.SCTP: "sctp"}[s.Proto]]++
		if s.Mark != 0 {
			c["by mark"]++
		}
		if !b.Client.Addr.IsZero() {
			c["method "+ipvs.Method(b.Method).String()]++
			if _, own := h.Links.Owner(b.Real.Addr); own && b.Index >= 0 {
				c["server on the director"]++
			}
		}
		c[fmt.Sprintf("conn_reuse_mode=%d", h.Sysctl.Int("net.ipv4.vs.conn_reuse_mode", 1))]++
		for _, v := range balanceSettings {
			c[fmt.Sprintf("%s=%d", v, h.Sysctl.Int("net.ipv4.vs."+v, 0))]++
		}
	}
}

var balanceFlags = []struct {
	name string
	flag ipvs.Flags
}{{"one-packet", ipvs.OnePacket}, {"sched-1", ipvs.Sched1},
	{"sched-2", ipvs.Sched2}}

func (c balanceCover) print(t *testing.T) {
	t.Helper()
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&b, "  %-36s %6d\n", k, c[k])
	}
	t.Logf("decisions:\n%s", &b)
	if os.Getenv("HOOKPATH_SOAK") == "" {
		return
	}
	for _, k := range c.wanted() {
		if c[k] < enoughDecisions {
			t.Errorf("not covered: %s: %d of %d decisions", k, c[k], enoughDecisions)
		}
	}
}

// enoughDecisions is how often a soak wants each thing to take part.
const enoughDecisions = 200

// wanted are the things that a soak covers. twos is not built into that kernel.
func (c balanceCover) wanted() []string {
	var out []string
	for _, s := range balanceSchedulers {
		out = append(out, "scheduler "+s)
	}
	for _, m := range []ipvs.Method{ipvs.Masq, ipvs.Tunnel, ipvs.Direct} {
		out = append(out, "method "+m.String())
	}
	for _, e := range []ipvs.Encap{ipvs.IPIP, ipvs.GUE, ipvs.GRE} {
		out = append(out, "tunnel "+e.String())
	}
	for _, f := range balanceFlags {
		out = append(out, "flag "+f.name)
	}
	for _, v := range balanceSettings {
		out = append(out, v+"=0", v+"=1")
	}
	for n := range 3 {
		out = append(out, fmt.Sprintf("conn_reuse_mode=%d", n))
	}
	return append(out, "server on the director", "flag persistent", "protocol tcp", "protocol udp",
		"protocol sctp", "by mark")
}

var balanceSchedulers = []string{"rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "dh", "sh", "lblc",
	"lblcr", "mh"}

// balance compares one director.
func balance(t *testing.T, m *uml.Machine, tally *Tally, seed uint64) {
	t.Helper()
	d := newDirector(seed)
	run, err := m.Open(t.Context(), kernel.Scenario{Backend: kernel.Legacy,
		Hosts: []kernel.Host{{Name: "r", Files: d.files(t)}}})
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	defer run.Close()
	p := &pair{seed: seed, backend: kernel.Legacy, run: run}
	if err := p.build(); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	tally.Scenarios++
	for range questions {
		more, err := tally.ask(p, d, d.next())
		if err != nil {
			t.Error(err)
		}
		if err != nil || !more {
			return
		}
	}
}
