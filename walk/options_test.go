package walk_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
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

// pair is a host in the kernel and in the engine, on whose memories questions act
// alike.
type pair struct {
	t     *testing.T
	run   *kernel.Run
	host  *walk.Host
	state *world.State
	// clock is set where the packets carry the time of day, which is written as one.
	clock bool
	// ordered is set where frames are compared in the order in which they left.
	ordered bool
	sent    int // frames that left in all: a case without any proves nothing
}

// needRoot skips where no namespaces can be made.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root")
	}
	t.Skip("SKIPPED: needs root for network namespaces")
}

// newPair lays out the host with two wires of the other tests, and more files.
func newPair(t *testing.T, files map[string]string) *pair {
	t.Helper()
	needRoot(t)
	all := map[string]string{"ip-link.json": teeLinks, "ip-addr.json": teeAddrs,
		"ip-neigh.json": teeNeighs}
	for name, text := range files {
		all[name] = text
	}
	run, err := kernel.Open(context.Background(), kernel.Scenario{Backend: kernel.Legacy,
		Hosts: []kernel.Host{{Name: "r", Files: all}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { run.Close() })
	host := collected(t, run)
	return &pair{t: t, run: run, host: host, state: host.Memory().Fork()}
}

// agree puts a question to both and compares what left and what was delivered.
func (p *pair) agree(q kernel.Question) (trace.Trace, bool) {
	p.t.Helper()
	q.Seq = "s"
	a, err := p.run.Ask(q)
	if err != nil || a.Err != "" {
		p.t.Fatal(err, a.Err)
	}
	p.sent += len(a.Out)
	var tr trace.Trace
	w := p.host.NewWorld(p.state)
	w.Now = world.Instant(a.At.UnixNano())
	k := p.host.NewWalk(w, &tr)
	if q.Out {
		p.host.Send(k, walk.Local{IP: q.Packet, Socket: q.Socket, Mark: q.Mark, UID: q.UID,
			GID: q.GID, Dev: p.dev(q.Dev), Transparent: q.Transparent})
	} else {
		p.host.Receive(k, p.dev(q.In), q.Frame)
	}
	if k.Err != nil {
		p.t.Errorf("%x: %v", q.Frame, k.Err)
		return tr, false
	}
	got, want := p.engine(&tr, a.At, q.Socket), p.kernel(&a, q.Socket)
	if got != want {
		p.t.Errorf("question %x%x %s (send: %s):\n got %s\nwant %s", q.Frame, q.Packet, q.Socket,
			a.Send, got, want)
	}
	return tr, got == want
}

func (p *pair) dev(name string) packet.Dev {
	if l := p.host.Links.ByName(name); l != nil {
		return l.Index
	}
	return 0
}

func (p *pair) engine(tr *trace.Trace, at time.Time, sock string) string {
	var out []string
	for _, e := range tr.Events {
		switch e := e.(type) {
		case *trace.Transmit:
			if e.Dev != 1 {
				out = append(out, p.host.Links.Name(e.Dev)+" "+
					p.plain(e.Frame, packet.EthernetLen, at, sock))
			}
		case *trace.Deliver:
			out = append(out, "deliver "+p.plain(e.Frame, 0, at, sock))
		}
	}
	if !p.ordered {
		sort.Strings(out)
	}
	return strings.Join(out, "\n     ")
}

func (p *pair) kernel(a *kernel.Answer, sock string) string {
	var out []string
	for _, f := range a.Out {
		out = append(out, f.Dev+" "+p.plain(f.Bytes, packet.EthernetLen, a.At, sock))
	}
	for _, d := range a.Delivered {
		out = append(out, "deliver "+p.plain(d, 0, a.At, sock))
	}
	if !p.ordered {
		sort.Strings(out)
	}
	return strings.Join(out, "\n     ")
}

// plain writes a packet without what the kernel draws: the identification of ICMP and
// of what sockets send, and the time of day.
func (p *pair) plain(frame []byte, at int, now time.Time, sock string) string {
	b := append([]byte(nil), frame...)
	if len(b) < at+20 || at > 0 && b[12] != 8 || b[at]>>4 != 4 || at > 0 && b[13] == 6 {
		return hex.EncodeToString(b)
	}
	ip := b[at:]
	own := sock != "" && sock != "raw"
	n := int(ip[0]&0xf) * 4
	timed := p.clock && maskTime(ip, now)
	if ip[9] == packet.ICMP || own {
		good := packet.Fold(packet.Sum16(ip[:n], 0)) == 0
		ip[4], ip[5] = 0, 0
		if good || timed {
			packet.FixIP4(ip)
		}
	}
	if timed {
		packet.FixIP4(ip)
		if ip[9] == packet.ICMP {
			ip[n+2], ip[n+3] = 0, 0
		}
	}
	return hex.EncodeToString(b)
}

// maskTime replaces words that are about the time of day, and tells whether there
// were any.
func maskTime(b []byte, now time.Time) (found bool) {
	ms := uint32(now.UTC().UnixNano() / 1e6 % 86400000)
	for i := 20; i+4 <= len(b); i++ {
		if d := binary.BigEndian.Uint32(b[i:]) - ms; d+5 < 2000 {
			copy(b[i:], "TIME")
			found = true
		}
	}
	return found
}

// optionPacket is a packet of 10.0.0.9 with IP options.
func optionPacket(dst string, proto uint8, opts, l4 []byte) []byte {
	for len(opts)%4 != 0 {
		opts = append(opts, 0)
	}
	h := append(make([]byte, 20), opts...)
	h[0], h[8], h[9] = 0x40|byte(len(h)/4), 9, proto
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(l4)))
	to := packet.MustParseAddr(dst)
	copy(h[12:], []byte{10, 0, 0, 9})
	copy(h[16:], to.Bytes())
	packet.FixIP4(h)
	return append(h, l4...)
}

func onWire(ip []byte) []byte {
	return append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0}, ip...)
}

// TestOptionsAgainstKernel sends random IP options, good and bad, to be forwarded,
// delivered and answered.
func TestOptionsAgainstKernel(t *testing.T) {
	accept := "net.ipv4.conf.all.accept_source_route = 1\n" +
		"net.ipv4.conf.eth0.accept_source_route = 1\n"
	redirect := "net.ipv4.conf.all.send_redirects = 1\nnet.ipv4.conf.eth0.send_redirects = 1\n"
	for i, tt := range []struct{ name, sysctl, rules string }{
		{"no source routes", "net.ipv4.conf.all.accept_source_route = 0\n", ""},
		{"source routes", accept, ""},
		{"source routes and redirects", accept + redirect, ""},
		{"rejected", accept, "*filter\n-A FORWARD -j REJECT\nCOMMIT\n"},
		{"rejected at home", accept, "*filter\n-A INPUT -j REJECT\nCOMMIT\n"},
		{"translated", accept, "*nat\n-A PREROUTING -p udp -j DNAT --to 10.0.1.9\n" +
			"-A POSTROUTING -j MASQUERADE\nCOMMIT\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := map[string]string{"sysctl": "net.ipv4.ip_forward = 1\n" + tt.sysctl,
				"ip-route": optionRoutes}
			if tt.rules != "" {
				files["iptables-save"] = tt.rules
			}
			p := newPair(t, files)
			p.clock = true
			d := optionDraw{rand.New(rand.NewPCG(uint64(i), 11))}
			for n := 0; n < 400; n++ {
				ip := d.packet()
				if _, ok := p.agree(kernel.Question{In: "eth0", Frame: onWire(ip)}); !ok {
					break
				}
			}
			if p.sent < 40 {
				t.Errorf("only %d frames left", p.sent)
			}
		})
	}
}

// optionRoutes has a way by a gateway and one to a net by another address.
const optionRoutes = `10.9.0.0/16 via 10.0.1.9 dev eth1
10.8.0.0/16 via 10.0.0.5 dev eth0
`

type optionDraw struct{ *rand.Rand }

func (d optionDraw) addr() []byte {
	a := packet.MustParseAddr(d.dst())
	return a.Bytes()
}

func (d optionDraw) dst() string {
	all := []string{"10.0.1.9", "10.0.0.1", "10.0.1.1", "10.0.0.255", "10.9.0.1", "10.8.0.1",
		"10.0.0.9", "10.7.7.7", "10.0.0.5"}
	return all[min(d.IntN(len(all)+3), len(all)+2)%len(all)]
}

func (d optionDraw) packet() []byte {
	var o []byte
	for range 1 + d.IntN(3) {
		if next := d.option(); len(o)+len(next) <= 40 {
			o = append(o, next...)
		}
	}
	if d.IntN(10) == 0 && len(o) > 0 {
		o[d.IntN(len(o))] = byte(d.IntN(256))
	}
	for i := range o { // labels are refused by name
		if o[i] == 134 {
			o[i] = 1
		}
	}
	switch d.IntN(3) {
	case 0:
		m := []byte{8, 0, 0, 0, 0, 1, byte(d.IntN(256)), byte(d.IntN(256)), 1, 2, 3, 4}
		binary.BigEndian.PutUint16(m[2:], packet.Fold(packet.Sum16(m, 0)))
		return optionPacket(d.dst(), packet.ICMP, o, m)
	case 1:
		t := make([]byte, 20)
		t[0], t[1], t[3], t[12], t[13] = byte(d.IntN(256)), byte(d.IntN(256)), 9, 0x50, 2
		ip := optionPacket(d.dst(), packet.TCP, o, t)
		p, _ := packet.FromIP(ip)
		l4 := p.L4()
		sum := packet.PseudoSum(p.Src(), p.Dst(), packet.TCP, len(l4))
		binary.BigEndian.PutUint16(l4[16:], packet.Fold(packet.Sum16(l4, sum)))
		return p.IP()
	}
	return optionPacket(d.dst(), packet.UDP, o, []byte{byte(d.IntN(256)), byte(d.IntN(256)), 0, 9, 0, 12, 0, 0,
		1, 2, 3, 4})
}

// option is one option, mostly a good one with room.
func (d optionDraw) option() []byte {
	switch d.IntN(8) {
	case 0:
		return []byte{1}
	case 1:
		return []byte{148, 4, 0, byte(d.IntN(2))}
	case 2, 3:
		return d.list(7, 3, 4)
	case 4:
		o := d.list(68, 4, 4)
		o[2]++
		o[3] = byte(d.IntN(2) | d.IntN(3)<<4)
		return o
	case 5:
		o := d.list(68, 4, 8)
		o[2]++
		o[3] = []byte{0, 1, 3, 3, 2, 0xf1}[d.IntN(6)]
		return o
	case 6:
		return d.list([]byte{131, 137}[d.IntN(2)], 3, 4)
	}
	return []byte{byte(d.IntN(256)), byte(d.IntN(5)), 0, 0}
}

// list is an option with a pointer and some addresses.
func (d optionDraw) list(kind byte, head, size int) []byte {
	o := append(make([]byte, head, 40), make([]byte, 0)...)
	n := 1 + d.IntN(3)
	for range n {
		o = append(o, d.addr()...)
		o = append(o, make([]byte, size-4)...)
	}
	if d.IntN(12) == 0 {
		o = o[:len(o)-1]
	}
	o[0], o[1], o[2] = kind, byte(len(o)), byte(4+size*d.IntN(n+1))
	if d.IntN(12) == 0 {
		o[2] = byte(d.IntN(14))
	}
	return o
}

// FuzzOptions feeds any options: nothing panics, and answers are whole.
func FuzzOptions(f *testing.F) {
	f.Add([]byte{7, 7, 4, 0, 0, 0, 0, 0, 137, 11, 4, 10, 0, 0, 1, 10, 0, 0, 9, 0}, uint8(1))
	f.Add([]byte{68, 12, 5, 3, 10, 0, 0, 1, 0, 0, 0, 0}, uint8(17))
	host := bareHost(f)
	f.Fuzz(func(t *testing.T, opts []byte, proto uint8) {
		opts = opts[:min(len(opts), 40)]
		for _, dst := range []string{"10.0.0.1", "10.0.1.9"} {
			ip := optionPacket(dst, proto, append([]byte(nil), opts...), make([]byte, 20))
			k := host.NewWalk(host.NewWorld(host.Memory().Fork()), &trace.Trace{})
			host.Receive(k, 7, onWire(ip))
		}
	})
}

func bareHost(tb testing.TB) *walk.Host {
	tb.Helper()
	d := &snapshot.Dir{Name: "r", Files: map[string][]byte{"ip-link.json": []byte(teeLinks),
		"ip-addr.json": []byte(teeAddrs), "ip-neigh.json": []byte(teeNeighs),
		"sysctl": []byte("net.ipv4.ip_forward = 1\n" +
			"net.ipv4.conf.all.accept_source_route = 1\n")}}
	cfg, err := d.Config(snapshot.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	h, _, err := walk.Build(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}
