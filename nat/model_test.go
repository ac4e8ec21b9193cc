package nat_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/nat"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// natRule is a rule that the kernel and the model both understand.
type natRule struct {
	hook     trace.Hook
	proto    uint8        // 0 any
	src, dst netip.Prefix // invalid: any
	lo, hi   uint16       // destination ports, where proto has them
	target   string
	text     string // the target's options
	r        nat.Range
	hits     int
}

func protoWord(p uint8) string {
	return map[uint8]string{packet.TCP: "tcp", packet.UDP: "udp", packet.ICMP: "icmp",
		packet.SCTP: "sctp"}[p]
}

func (r *natRule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "-A %v", r.hook)
	if r.src.IsValid() {
		fmt.Fprintf(&b, " -s %v", r.src)
	}
	if r.dst.IsValid() {
		fmt.Fprintf(&b, " -d %v", r.dst)
	}
	if r.proto != 0 {
		fmt.Fprintf(&b, " -p %s", protoWord(r.proto))
		if r.hi != 0 {
			fmt.Fprintf(&b, " --dport %d:%d", r.lo, r.hi)
		}
	}
	fmt.Fprintf(&b, " -j %s %s", r.target, r.text)
	return b.String()
}

func (r *natRule) matches(p *packet.Packet) bool {
	if r.proto != 0 && p.Protocol() != r.proto {
		return false
	}
	if r.src.IsValid() && !p.Src().In(r.src) || r.dst.IsValid() && !p.Dst().In(r.dst) {
		return false
	}
	if r.hi == 0 {
		return true
	}
	_, d, ok := p.Ports()
	return ok && d >= r.lo && d <= r.hi
}

// zoneRule gives packets from a wire and source a zone.
type zoneRule struct {
	dev    int
	src    netip.Prefix
	zone   conntrack.Zone
	proto  uint8 // with a helper
	dport  uint16
	helper conntrack.Helper
	tmpl   uint32
}

func (z *zoneRule) matches(side int, p *packet.Packet) bool {
	if z.dev != side || !p.Src().In(z.src) {
		return false
	}
	_, d, _ := p.Ports()
	return z.helper == conntrack.NoHelper || p.Protocol() == z.proto && d == z.dport
}

func (z *zoneRule) String() string {
	if z.helper != conntrack.NoHelper {
		return fmt.Sprintf("-A PREROUTING -i %c0 -s %v -p %s --dport %d -j CT --helper %v", 'a'+z.dev,
			z.src, protoWord(z.proto), z.dport, z.helper)
	}
	opt := map[conntrack.ZoneDir]string{conntrack.ZoneBoth: "--zone",
		conntrack.ZoneOrig: "--zone-orig", conntrack.ZoneReply: "--zone-reply"}[z.zone.Dir]
	return fmt.Sprintf("-A PREROUTING -i %c0 -s %v -j CT %s %d", 'a'+z.dev, z.src, opt, z.zone.ID)
}

// model is the router as this package and conntrack see it.
type model struct {
	schema world.Schema
	t      *conntrack.Tracker
	n      *nat.NAT
	w      world.World
	rules  []natRule
	zones  []zoneRule
	sys    link.Sysctl
}

// newModel makes a router with random rules, or without any for seed zero.
func newModel(seed uint64) *model {
	m := &model{sys: randomSysctl(rand.New(rand.NewPCG(seed, 3)), seed != 0)}
	m.t = conntrack.New(&m.schema, conntrack.Config{Sysctl: m.sys})
	a := func(dev packet.Dev, s string, bits int, sec bool) link.Addr {
		return link.Addr{Dev: dev, Local: packet.MustParseAddr(s), PrefixLen: bits, Secondary: sec}
	}
	up := link.Link{MTU: 1500}
	la, lb := up, up
	la.Index, la.Name, lb.Index, lb.Name = 100, "a0", 101, "b0"
	links, err := link.New(link.Config{Links: []link.Link{la, lb}, Addrs: []link.Addr{
		a(100, "10.0.1.1", 24, false), a(100, "10.0.1.7", 24, true),
		a(101, "10.0.2.1", 24, false), a(101, "198.51.100.1", 28, false),
		a(101, "10.0.2.9", 24, true)}})
	if err != nil {
		panic(err)
	}
	m.n = nat.New(m.t, links)
	if seed != 0 {
		rng := rand.New(rand.NewPCG(seed, 1))
		m.rules = randomRules(rng)
		m.setZones(randomZones(rng))
	}
	m.w = world.World{State: m.schema.NewState(), Dice: &world.Dice{}, HZ: 250}
	return m
}

func (m *model) setZones(zones []zoneRule) {
	m.zones = zones
	for i := range zones {
		zones[i].tmpl = m.t.Template(conntrack.Template{Zone: zones[i].zone, Helper: zones[i].helper})
	}
}

// zone is the zone that a packet is given.
func (m *model) zone(side int, ip []byte) conntrack.Zone {
	p, _ := packet.FromIP(ip)
	for i := range m.zones {
		if m.zones[i].matches(side, p) {
			return m.zones[i].zone
		}
	}
	return conntrack.Zone{}
}

// save is the ruleset for iptables-restore.
func (m *model) save() string {
	var b strings.Builder
	b.WriteString("*raw\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n-A OUTPUT -j DROP\n")
	for i := range m.zones {
		fmt.Fprintln(&b, m.zones[i].String())
	}
	b.WriteString("COMMIT\n*filter\n:FORWARD ACCEPT\n-A FORWARD -m conntrack --ctstate NEW\n" +
		"COMMIT\n*nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n" +
		":POSTROUTING ACCEPT\n")
	for i := range m.rules {
		fmt.Fprintln(&b, m.rules[i].String())
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

func (m *model) hook(p *packet.Packet, tr *trace.Trace, h trace.Hook) trace.Verdict {
	return m.n.Hook(&m.w, tr, p, h, func() trace.Verdict {
		for i := range m.rules {
			if r := &m.rules[i]; r.hook == h && r.matches(p) {
				r.hits++
				return m.apply(r, p, tr)
			}
		}
		return trace.Accept
	})
}

func (m *model) apply(r *natRule, p *packet.Packet, tr *trace.Trace) trace.Verdict {
	switch r.target {
	case "MASQUERADE":
		hop := p.Dst()
		if _, direct := m.route(hop); !direct {
			hop = packet.MustParseAddr("10.0.2.254")
		}
		return m.n.Masquerade(&m.w, tr, p, hop, r.r)
	case "REDIRECT":
		return m.n.Redirect(&m.w, p, r.hook, r.r)
	case "NETMAP":
		return m.n.Netmap(&m.w, p, r.hook, r.r)
	}
	return m.n.Setup(&m.w, p.CT.Flow, r.r, nat.ManipOf(r.hook))
}

// route is the way out: wire 0 or 1, or -1 for the host itself.
func (m *model) route(dst packet.Addr) (wire int, direct bool) {
	for _, s := range []string{"10.0.1.1", "10.0.1.7", "10.0.2.1", "10.0.2.9", "198.51.100.1"} {
		if dst == packet.MustParseAddr(s) {
			return -1, true
		}
	}
	switch {
	case dst.In(netip.MustParsePrefix("10.0.1.0/24")):
		return 0, true
	case dst.In(netip.MustParsePrefix("10.0.2.0/24")),
		dst.In(netip.MustParsePrefix("198.51.100.0/28")):
		return 1, true
	}
	return 1, false
}

// send takes a packet through the router.
func (m *model) send(side int, ip []byte, tr *trace.Trace) (wire int, outIP []byte) {
	p, _ := packet.FromIP(ip)
	p.In = packet.Dev(100 + side)
	for i := range m.zones {
		if z := &m.zones[i]; z.matches(side, p) {
			m.t.Attach(p, z.tmpl)
		}
	}
	if m.t.In(&m.w, tr, p, trace.Prerouting) != trace.Accept ||
		m.hook(p, tr, trace.Prerouting) != trace.Accept {
		m.t.Release(&m.w, p)
		return -1, nil
	}
	wire, _ = m.route(p.Dst())
	if wire < 0 {
		if m.hook(p, tr, trace.Input) != trace.Accept ||
			m.t.Confirm(&m.w, tr, p) != trace.Accept {
			m.t.Release(&m.w, p)
		}
		return -1, nil
	}
	p.Out = packet.Dev(100 + wire)
	p.SetTTL(p.TTL() - 1)
	if m.hook(p, tr, trace.Postrouting) != trace.Accept ||
		m.t.Confirm(&m.w, tr, p) != trace.Accept {
		m.t.Release(&m.w, p)
		return -1, nil
	}
	return wire, p.IP()
}

// randomSysctl draws settings; all are named, since the kernel keeps the last scenario's.
func randomSysctl(rng *rand.Rand, vary bool) link.Sysctl {
	const p = "net.netfilter.nf_conntrack_"
	s := link.Sysctl{p + "acct": "1", p + "tcp_loose": "1", p + "tcp_be_liberal": "0",
		p + "tcp_ignore_invalid_rst": "0", p + "checksum": "1", p + "tcp_max_retrans": "3",
		p + "tcp_timeout_unacknowledged": "300", p + "tcp_timeout_max_retrans": "300"}
	if !vary {
		return s
	}
	s[p+"tcp_loose"] = pick(rng, "0", "1", "1", "1")
	s[p+"tcp_be_liberal"] = pick(rng, "0", "0", "0", "1")
	s[p+"tcp_ignore_invalid_rst"] = pick(rng, "0", "0", "1")
	s[p+"checksum"] = pick(rng, "0", "1", "1")
	s[p+"tcp_max_retrans"] = pick(rng, "3", "1", "2")
	s[p+"tcp_timeout_unacknowledged"] = pick(rng, "300", "70", "1000")
	s[p+"tcp_timeout_max_retrans"] = pick(rng, "300", "50")
	return s
}

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// randomZones makes a few rules that give zones.
func randomZones(rng *rand.Rand) []zoneRule {
	var out []zoneRule
	for range max(0, rng.IntN(5)-2) {
		out = append(out, zoneRule{dev: rng.IntN(2),
			src: pick(rng, netip.MustParsePrefix("10.0.1.10/31"), netip.MustParsePrefix("10.0.2.20/31"),
				netip.MustParsePrefix("0.0.0.0/0")),
			zone: conntrack.Zone{ID: uint16(1 + rng.IntN(2)), Dir: conntrack.ZoneDir(rng.IntN(3))}})
	}
	return out
}

// randomRules makes rules whose outcome does not hang on a roll of the dice, or only on
// ports that can be read from what comes out.
func randomRules(rng *rand.Rand) []natRule {
	out := make([]natRule, rng.IntN(9))
	for i := range out {
		out[i] = randomRule(rng)
	}
	return out
}

func randomRule(rng *rand.Rand) natRule {
	r := natRule{hook: pick(rng, trace.Prerouting, trace.Prerouting, trace.Postrouting,
		trace.Postrouting, trace.Input)}
	r.proto = pick[uint8](rng, 0, packet.TCP, packet.TCP, packet.UDP, packet.UDP, packet.ICMP,
		packet.SCTP)
	if packet.HasPorts(r.proto) && rng.IntN(2) == 0 {
		r.lo = uint16(pick(rng, 1, 80, 400, 1000))
		r.hi = r.lo + uint16(rng.IntN(600))
	}
	if rng.IntN(2) == 0 {
		r.src = pick(rng, netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("10.0.1.10/31"),
			netip.MustParsePrefix("10.0.2.0/24"))
	}
	if rng.IntN(3) == 0 {
		r.dst = pick(rng, netip.MustParsePrefix("10.0.2.20/31"), netip.MustParsePrefix("192.0.2.0/29"),
			netip.MustParsePrefix("10.0.1.1/32"), netip.MustParsePrefix("10.0.2.0/24"))
	}
	r.chooseTarget(rng)
	return r
}

// chooseTarget picks a target that the hook allows.
func (r *natRule) chooseTarget(rng *rand.Rand) {
	dst := r.hook == trace.Prerouting
	switch {
	case dst && rng.IntN(5) == 0:
		r.target = "REDIRECT"
		r.ports(rng, "--to-ports ", true)
	case r.hook == trace.Postrouting && rng.IntN(3) == 0:
		r.target = "MASQUERADE"
		r.ports(rng, "--to-ports ", false)
	case rng.IntN(6) == 0:
		r.target = "NETMAP"
		p := pick(rng, netip.MustParsePrefix("10.0.1.64/28"), netip.MustParsePrefix("10.0.2.64/26"))
		r.text = "--to " + p.String()
		r.r.Flags = nat.MapIPs
		r.r.MinAddr = packet.AddrFrom(p.Addr())
		r.r.MaxAddr = packet.V4(r.r.MinAddr.Uint32() | (1<<(32-p.Bits()) - 1))
	default:
		r.addresses(rng, dst)
	}
}

// addresses makes SNAT and DNAT.
func (r *natRule) addresses(rng *rand.Rand, dst bool) {
	r.target, r.text = "SNAT", "--to-source "
	base := pick[uint32](rng, 0x0a000207, 0x0a000240, 0x0a000130, 0xc6336401)
	if dst {
		r.target, r.text = "DNAT", "--to-destination "
		base = pick[uint32](rng, 0x0a000214, 0x0a00010a, 0x0a000201, 0xc0000205)
	}
	n := uint32(pick(rng, 0, 0, 0, 1, 3, 6))
	r.r.Flags |= nat.MapIPs
	r.r.MinAddr, r.r.MaxAddr = packet.V4(base), packet.V4(base+n)
	r.text += r.r.MinAddr.String()
	if n > 0 {
		r.text += "-" + r.r.MaxAddr.String()
	}
	r.ports(rng, ":", dst)
	if rng.IntN(4) == 0 {
		r.text += " --persistent"
		r.r.Flags |= nat.Persistent
	}
}

// ports adds a range of ports.
func (r *natRule) ports(rng *rand.Rand, sep string, dst bool) {
	if r.proto != packet.TCP && r.proto != packet.UDP && r.proto != packet.SCTP || rng.IntN(2) == 0 {
		return
	}
	lo := uint16(pick(rng, 80, 1000, 40000))
	n := uint16(pick(rng, 0, 0, 1, 5, 40, 300))
	r.r.Flags |= nat.ProtoSpecified
	r.r.MinPort, r.r.MaxPort = lo, lo+n
	r.text += fmt.Sprintf("%s%d", sep, lo)
	if n > 0 {
		r.text += fmt.Sprintf("-%d", lo+n)
	}
	if r.target == "DNAT" && n > 0 && rng.IntN(3) == 0 {
		r.r.BasePort = uint16(pick(rng, 80, 400))
		r.r.Flags |= nat.ProtoOffset
		r.text += fmt.Sprintf("/%d", r.r.BasePort)
		return
	}
	if rng.IntN(5) == 0 {
		r.text += " --random"
		r.r.Flags |= nat.ProtoRandom
	}
}

// header builds an IPv4 packet.
func header(src, dst packet.Addr, proto uint8, l4 []byte) []byte {
	b := make([]byte, 20, 20+len(l4))
	b[0], b[8], b[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(l4)))
	copy(b[12:], src.Bytes())
	copy(b[16:], dst.Bytes())
	packet.FixIP4(b)
	return append(b, l4...)
}

// sum sets a transport checksum at an offset.
func sum(src, dst packet.Addr, proto uint8, l4 []byte, off int) {
	l4[off], l4[off+1] = 0, 0
	var start uint32
	if proto != packet.ICMP {
		start = packet.PseudoSum(src, dst, proto, len(l4))
	}
	binary.BigEndian.PutUint16(l4[off:], packet.Fold(packet.Sum16(l4, start)))
}
