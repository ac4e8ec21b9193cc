package schedule

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/internal/kernel/uml"
	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// seed is HOOKPATH_SEED, where the drawing begins.
func seed() uint64 {
	n, err := strconv.ParseUint(os.Getenv("HOOKPATH_SEED"), 10, 64)
	if err != nil {
		return uint64(rand.Uint32())
	}
	return n
}

// short is how many services of a scheduler are drawn without HOOKPATH_SOAK.
const short = 3

// trialsEach are the services of one job.
const trialsEach = 40

// trial is a service with the packets that clients send to it.
type trial struct {
	service ipvs.Service
	packets []sent
}

// draw makes a trial: number n is the service's address, or its mark.
func draw(r *rand.Rand, scheduler string, n, servers, packets int) trial {
	t := trial{service: ipvs.Service{Family: trace.IPv4, Proto: packet.TCP, Scheduler: scheduler,
		Addr: packet.V4(0xac100000 + uint32(n)), Port: uint16(1 + r.IntN(65535))}}
	if scheduler == "sh" || scheduler == "mh" {
		t.service.Flags = ipvs.Flags(r.IntN(4))
	}
	if r.IntN(2) == 0 || scheduler[0] == 'l' || scheduler == "dh" {
		t.service.Mark = uint32(n) + 1
	}
	if t.service.Mark != 0 {
		t.service.Proto, t.service.Addr, t.service.Port = 0, packet.Addr{}, 0
	}
	drawServers(r, &t.service, servers)
	for range packets {
		t.packets = append(t.packets, t.next(r))
	}
	return t
}

// drawServers gives a service up to so many servers: of alike or very different weights,
// some with none, some that become overloaded soon.
func drawServers(r *rand.Rand, s *ipvs.Service, most int) {
	weights := [][]int{{1}, {0, 1, 2, 3}, {1, 1, 1, 0}, {10, 20, 30, 50}, {0, 1, 100, 65535}}
	choice := weights[r.IntN(len(weights))]
	limits := r.IntN(3) == 0
	seen := map[packet.Addr]bool{}
	for range r.IntN(most + 1) {
		d := ipvs.Dest{Addr: packet.V4(0xc0a80000 + r.Uint32N(1<<16)), Port: s.Port,
			Method: ipvs.Direct, Weight: choice[r.IntN(len(choice))]}
		if s.Mark == 0 && r.IntN(2) == 0 {
			d.Method, d.Port = ipvs.Masq, uint16(r.IntN(65536))
		}
		if limits && r.IntN(2) == 0 {
			d.Upper = 1 + r.Uint32N(6)
			d.Lower = r.Uint32N(d.Upper + 1)
		}
		if !seen[d.Addr] {
			s.Dests = append(s.Dests, d)
		}
		seen[d.Addr] = true
	}
}

// next draws a packet: of a new client, or of one that came before.
func (t *trial) next(r *rand.Rand) sent {
	const syn, ack, fin, rst = 2, 16, 17, 4
	if n := len(t.packets); n > 0 && r.IntN(4) == 0 {
		p := t.packets[r.IntN(n)]
		p.Bytes = slices.Clone(p.Bytes)
		p.Bytes[33] = []byte{ack, ack, ack, fin, rst}[r.IntN(5)]
		return p
	}
	p := sent{Bytes: make([]byte, 40), Mark: int(t.service.Mark)}
	copy(p.Bytes, []byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, packet.TCP})
	binary.BigEndian.PutUint32(p.Bytes[12:], 0x0b000000+r.Uint32N(1<<24))
	dst, port := t.service.Addr.Uint32(), t.service.Port
	if t.service.Mark != 0 {
		dst, port = 0xac180000+256*t.service.Mark+r.Uint32N(5), uint16(1+r.IntN(3))
	}
	binary.BigEndian.PutUint32(p.Bytes[16:], dst)
	binary.BigEndian.PutUint16(p.Bytes[20:], uint16(1024+r.IntN(60000)))
	binary.BigEndian.PutUint16(p.Bytes[22:], port)
	p.Bytes[32], p.Bytes[33] = 5<<4, syn
	return p
}

// commands are the service as ipvsadm is told: the servers from the last in the list on.
func (t *trial) commands() string {
	var out strings.Builder
	s := &t.service
	name := fmt.Sprintf("-t %s:%d", s.Addr, s.Port)
	if s.Mark != 0 {
		name = fmt.Sprintf("-f %d", s.Mark)
	}
	fmt.Fprintf(&out, "-A %s -s %s", name, s.Scheduler)
	var flags []string
	for i, f := range []string{"fallback", "port"} {
		if s.Flags>>i&1 != 0 {
			flags = append(flags, s.Scheduler+"-"+f)
		}
	}
	if flags != nil {
		fmt.Fprintf(&out, " -b %s", strings.Join(flags, ","))
	}
	out.WriteByte('\n')
	for _, d := range slices.Backward(s.Dests) {
		fmt.Fprintf(&out, "-a %s -r %s:%d %s -w %d -x %d -y %d\n", name, d.Addr, d.Port,
			map[ipvs.Method]string{ipvs.Masq: "-m", ipvs.Direct: "-g"}[d.Method],
			d.Weight, d.Upper, d.Lower)
	}
	return out.String()
}

// ends are a connection's client and virtual end, as ip_vs_conn writes them.
func ends(b []byte) string {
	u32, u16 := binary.BigEndian.Uint32, binary.BigEndian.Uint16
	return fmt.Sprintf("%08X %04X %08X %04X", u32(b[12:]), u16(b[20:]), u32(b[16:]), u16(b[22:]))
}

// connections reads a kernel's connections: the real end and state by the other ends.
func connections(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) >= 9 && f[0] == "TCP" {
			out[strings.Join(f[1:5], " ")] = strings.Join(f[5:8], " ")
		}
	}
	return out
}

// walk gives the packets of some trials to the engine and returns its connections. Where
// dice decide, it takes what the kernel took.
func walk(t *testing.T, trials []trial, kernel map[string]string) map[string]string {
	t.Helper()
	var services []ipvs.Service
	for i := range trials {
		services = append(services, trials[i].service)
	}
	var schema world.Schema
	table, err := ipvs.New(ipvs.Config{Schema: &schema, Services: services})
	if err != nil {
		t.Fatal(err)
	}
	var now string // ends of the packet at hand
	w := world.World{State: schema.NewState(), Now: 1000 * world.Second, HZ: 100,
		Dice: &world.Dice{}}
	w.Dice.Oracle = func(c *world.Choice) (int, bool) { return taken(c, kernel[now]) }
	ids := map[string]ipvs.ConnID{}
	for i := range trials {
		for _, p := range trials[i].packets {
			now = ends(p.Bytes)
			if id := pass(table, &w, p); id != 0 {
				ids[now] = id
			}
		}
	}
	out := map[string]string{}
	for k, id := range ids {
		v := table.View(&w, id)
		out[k] = fmt.Sprintf("%08X %04X %s", v.Real.Uint32(), v.RPort, v.State)
	}
	return out
}

// taken finds the alternative that a kernel's connection is with.
func taken(c *world.Choice, real string) (int, bool) {
	for i := range c.N {
		var a, b, x, y, port int
		fmt.Sscanf(c.Values(i), "%d.%d.%d.%d:%d", &a, &b, &x, &y, &port)
		addr := a<<24 | b<<16 | x<<8 | y
		if strings.HasPrefix(real, fmt.Sprintf("%08X ", addr)) {
			return i, true
		}
	}
	return 0, false
}

// pass gives one packet to the engine.
func pass(table *ipvs.Table, w *world.World, p sent) ipvs.ConnID {
	h := ipvs.Header{Family: trace.IPv4, Proto: packet.TCP, L4: p.Bytes[20:], Mark: uint32(p.Mark),
		Src: packet.V4(binary.BigEndian.Uint32(p.Bytes[12:])), Loopback: true,
		Dst:     packet.V4(binary.BigEndian.Uint32(p.Bytes[16:])),
		Unicast: func() bool { return true }}
	d := table.In(w, &h)
	if d.Action != ipvs.Forward {
		return 0
	}
	table.Enter(w, d.Conn, h.L4)
	table.Leave(w, d.Conn)
	return d.Conn
}

// boot boots a machine that ends with the test, of so many MiB; zero is the usual size.
func boot(t *testing.T, memory int) *uml.Machine {
	t.Helper()
	if err := uml.Usable(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("SKIP:", err)
	}
	m, err := uml.Boot(t.Context(), uml.Options{Memory: memory})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// ask lets the machine do jobs: its init is this program, whatever its path is there.
func ask(t *testing.T, m *uml.Machine, jobs []job) []result {
	t.Helper()
	in, err := json.Marshal(jobs)
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.Exec(t.Context(), string(in), "env", guestVariable+"=1", "/proc/1/exe")
	if err != nil {
		t.Fatal(err)
	}
	var results []result
	if err := json.Unmarshal([]byte(out), &results); err != nil {
		t.Fatal(err)
	}
	return results
}

// packetsEach is how many packets each trial has.
const packetsEach = 100

// TestAgreement gives random services and packets to the engine and to the kernel, and
// compares the connections that both have then: who has which server, in which state. Debian
// builds this kernel without twos.
func TestAgreement(t *testing.T) {
	m := boot(t, 0)
	seed := seed()
	fmt.Printf("HOOKPATH_SEED=%d\n", seed)
	for _, c := range []struct {
		scheduler string
		trials    int
		servers   int
	}{
		{"dh", 40, 12}, {"fo", 40, 12}, {"lblc", 40, 8}, {"lblcr", 40, 8}, {"lc", 40, 12},
		{"mh", 1000, 40}, {"nq", 40, 12}, {"ovf", 40, 12}, {"rr", 40, 12}, {"sed", 40, 12},
		{"sh", 1000, 40}, {"wlc", 40, 12}, {"wrr", 40, 12},
	} {
		t.Run(c.scheduler, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			var tally tally
			if os.Getenv("HOOKPATH_SOAK") == "" {
				c.trials = short
			}
			for n := c.trials; n > 0; n -= trialsEach {
				var trials []trial
				for i := range min(n, trialsEach) {
					trials = append(trials, draw(r, c.scheduler, i, c.servers, packetsEach))
				}
				tally.compare(t, m, trials)
			}
			t.Logf("%d services, %d decisions, %d with a server", c.trials, tally.decisions,
				tally.served)
		})
	}
}

// tally counts decisions: first packets of connections, and those that got a server.
type tally struct{ decisions, served int }

// compare asks both, and reports the first few disagreements.
func (y *tally) compare(t *testing.T, m *uml.Machine, trials []trial) {
	t.Helper()
	var j job
	owner := map[string]int{}
	for i := range trials {
		j.Services += trials[i].commands()
		for _, p := range trials[i].packets {
			owner[ends(p.Bytes)] = i
		}
		j.Packets = append(j.Packets, trials[i].packets...)
	}
	want := connections(ask(t, m, []job{j})[0].Conns)
	got := walk(t, trials, want)
	bad := 0
	for k, i := range owner {
		if got[k] == want[k] {
			continue
		}
		if bad++; bad <= 3 {
			t.Errorf("%s: %q, the kernel has %q; service\n%s", k, got[k], want[k],
				trials[i].commands())
		}
	}
	if bad > 0 || len(want) > len(owner) {
		t.Errorf("%d disagreements; %d connections of %d clients", bad, len(want), len(owner))
	}
	y.decisions += len(owner)
	y.served += len(got)
}

// TestManyConnections fills one wlc service with connections that last: all are where the
// kernel has them, so that its counts are the same. With HOOKPATH_SOAK there are 100,000.
func TestManyConnections(t *testing.T) {
	const flags, ack = 33, 16
	m := boot(t, 2048)
	seed, n := seed(), 1000
	if os.Getenv("HOOKPATH_SOAK") != "" {
		n = 100_000
	}
	fmt.Printf("HOOKPATH_SEED=%d\n", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	service := draw(r, "wlc", 0, 12, 0)
	for range n {
		fresh := trial{service: service.service}
		syn := fresh.next(r)
		established := syn
		established.Bytes = slices.Clone(syn.Bytes)
		established.Bytes[flags] = ack
		service.packets = append(service.packets, syn, established)
	}
	var y tally
	y.compare(t, m, []trial{service})
	t.Logf("%d connections, %d with a server", y.decisions, y.served)
}
