package around

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/xtables"
)

// Drafter draws packets from the tests of rules.
type Drafter struct {
	*rand.Rand
	host  *Host
	walk  *walk.Host
	rules []target
}

// target is a rule to draw a packet for.
type target struct {
	prog *xtables.Program
	path path
}

// NewDrafter draws for the rules of a host that was built around them.
func NewDrafter(seed uint64, h *Host, w *walk.Host) *Drafter {
	d := &Drafter{Rand: rand.New(rand.NewPCG(seed, 0x61726f75)), host: h, walk: w}
	for _, prog := range w.Programs() {
		all := paths(prog.Source)
		for i, c := range prog.Source.Chains {
			for n := range c.Rules {
				if p, ok := all[ref{i, n}]; ok {
					d.rules = append(d.rules, target{prog, p})
				}
			}
		}
	}
	return d
}

// Rules is how many rules can be reached.
func (d *Drafter) Rules() int { return len(d.rules) }

// Rule is the reference of a rule by its number among those that can be reached.
func (d *Drafter) Rule(n int) trace.RuleRef {
	t := &d.rules[n]
	last := t.path.rules[len(t.path.rules)-1]
	return trace.RuleRef{Table: t.prog.Number, Chain: last.chain, Rule: last.rule + 1}
}

// draft is a packet in the making.
type draft struct {
	wishes
	hook    trace.Hook
	local   bool
	in, out string
	src     netip.Addr
	dst     netip.Addr
	text    string // of the rules on the way
}

// Draft draws a packet for a rule. Reply asks for one of a connection that there is:
// the first question of two then makes the connection.
func (d *Drafter) Draft(n int) []kernel.Question {
	x := &draft{wishes: wishes{}}
	if len(d.rules) > 0 {
		t := &d.rules[n]
		x.hook = t.path.hook
		for _, r := range t.path.rules {
			at := trace.RuleRef{Table: t.prog.Number, Chain: r.chain, Rule: r.rule + 1}
			x.add(d.Rand, t.prog.Pred(at), false)
			x.text += t.prog.Text(at) + "\n"
		}
	}
	d.place(x)
	s := d.sentence(x)
	var first []kernel.Question
	if !x.holds(field.CtState, field.U(field.CtNew)) && !x.local && d.IntN(5) > 0 {
		first = d.opening(x, s)
	}
	ip, err := s.Packet()
	if err != nil {
		return nil
	}
	if len(first) > 0 && s.Proto == packet.TCP {
		acknowledge(ip)
	}
	return append(first, d.question(x, s, ip))
}

// acknowledge has a TCP segment answer the first one of a Sentence.
func acknowledge(ip []byte) {
	l4 := ip[20:]
	binary.BigEndian.PutUint32(l4[8:], firstSequence+1)
	l4[16], l4[17] = 0, 0
	sum := packet.PseudoSum(packet.AddrFrom4(ip[12:]), packet.AddrFrom4(ip[16:]), packet.TCP, len(l4))
	binary.BigEndian.PutUint16(l4[16:], packet.Fold(packet.Sum16(l4, sum)))
}

// firstSequence is the sequence number of a Sentence's segment.
const firstSequence = 1000

// place chooses devices and addresses, so that the packet passes the rule's hook.
func (d *Drafter) place(x *draft) {
	x.local = x.hook == trace.Output || x.hook == trace.Postrouting && d.IntN(3) == 0
	x.in = d.device(x, field.In)
	x.out = d.device(x, field.Out)
	own := devAddr(d.host.index(x.in), ourHost)
	if len(d.host.own) > 0 && d.IntN(3) == 0 {
		own = d.host.own[d.IntN(len(d.host.own))]
	}
	src, dst := devAddr(d.host.index(x.in), gatewayHost), devAddr(d.host.index(x.out), gatewayHost)
	if d.IntN(3) == 0 {
		src = memberAddr(d.IntN(3))
	}
	switch {
	case x.local:
		src = devAddr(d.host.index(x.out), ourHost)
	case x.hook == trace.Input, x.hook == trace.Prerouting && d.IntN(2) == 0:
		dst = own
	}
	x.src = address(x.solve(d.Rand, field.Src, value(src)))
	x.dst = d.target(x, dst)
}

// device draws an interface that the wishes for a field allow, rarely any.
func (d *Drafter) device(x *draft, id field.ID) string {
	var fit []string
	for i := range d.walk.Links.All() {
		l := &d.walk.Links.All()[i]
		if l.Name != "lo" && x.holds(id, field.U(uint64(l.Index))) {
			fit = append(fit, l.Name)
		}
	}
	if len(fit) == 0 {
		fit = d.host.devs
	}
	return fit[d.IntN(len(fit))]
}

// target draws the destination: one that is routed to the device that the rules ask
// for, where there is one.
func (d *Drafter) target(x *draft, def netip.Addr) netip.Addr {
	if x.hook == trace.Forward || x.hook == trace.Postrouting || x.local {
		var fit []netip.Addr
		for key, a := range d.host.picks {
			if key.dev == x.out && len(x.wishes[field.Dst]) > 0 && x.holds(field.Dst, value(a)) {
				fit = append(fit, a)
			}
		}
		if len(fit) > 0 && d.IntN(4) > 0 {
			slices.SortFunc(fit, netip.Addr.Compare) // a map has no order
			return fit[d.IntN(len(fit))]
		}
	}
	for _, own := range d.host.own {
		if x.hook == trace.Input && len(x.wishes[field.Dst]) > 0 && x.holds(field.Dst, value(own)) {
			return own
		}
	}
	if !x.holds(field.DstType, field.U(1<<uint(trace.Local))) && d.IntN(2) == 0 {
		def = devAddr(d.host.index(x.in), 255)
	} else if len(x.wishes[field.DstType]) > 0 && !x.local {
		def = devAddr(d.host.index(x.in), ourHost)
	}
	return address(x.solve(d.Rand, field.Dst, value(def)))
}

func value(a netip.Addr) field.Value { return field.AddrValue(packet.AddrFrom(a)) }

func address(v field.Value) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(v.Lo))
	return netip.AddrFrom4(b)
}

// number draws the value of a field, def where nothing is asked.
func (d *Drafter) number(x *draft, id field.ID, def uint64) uint64 {
	return x.solve(d.Rand, id, field.U(def)).Lo
}

// protocols are those that packets have whose rules do not ask for one.
var protocols = []uint8{packet.TCP, packet.TCP, packet.UDP, packet.UDP, packet.ICMP}

func (d *Drafter) sentence(x *draft) *packet.Sentence {
	proto := protocols[d.IntN(len(protocols))]
	flags := []uint64{2, 2, 2, 0x10, 0x18, 0x11, 4}[d.IntN(7)]
	if len(x.wishes[field.TCPFlags]) > 0 {
		proto = packet.TCP
	}
	return &packet.Sentence{
		Proto: uint8(d.number(x, field.Proto, uint64(proto))),
		Src:   packet.AddrFrom(x.src), Dst: packet.AddrFrom(x.dst),
		SPort:    uint16(d.number(x, field.SrcPort, uint64(40000+d.IntN(4)))),
		DPort:    uint16(d.number(x, field.DstPort, uint64(memberPorts[d.IntN(len(memberPorts))]))),
		Flags:    uint8(d.number(x, field.TCPFlags, flags)),
		ICMPType: uint8(d.number(x, field.ICMPType, 8)),
		ICMPCode: uint8(d.number(x, field.ICMPCode, 0)), ICMPID: uint16(1 + d.IntN(3)),
		TTL:   uint8(d.number(x, field.TTL, []uint64{64, 64, 64, 64, 63, 1}[d.IntN(6)])),
		TOS:   uint8(d.number(x, field.TOS, 0)),
		Mark:  uint32(d.number(x, field.Mark, 0)),
		UID:   uint32(d.number(x, field.UID, 0)),
		GID:   uint32(d.number(x, field.GID, 0)),
		Local: x.local, Given: packet.GivenICMP | packet.GivenFlags,
	}
}

func (d *Drafter) question(x *draft, s *packet.Sentence, ip []byte) kernel.Question {
	if x.local {
		return kernel.Question{Out: true, Packet: ip, Socket: "raw", Mark: s.Mark, UID: s.UID,
			GID: s.GID}
	}
	i := d.host.index(x.in)
	to, from := devMAC(i), gatewayMAC(i)
	from = macOf(d.number(x, field.MACSrc, field.MACNumber(from)))
	switch {
	case x.dst.IsMulticast():
		b := x.dst.As4()
		to = packet.MAC{1, 0, 0x5e, b[1] & 0x7f, b[2], b[3]}
	case x.dst == devAddr(i, 255), x.dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		to = packet.MAC{255, 255, 255, 255, 255, 255}
	}
	return kernel.Question{In: x.in, Frame: packet.Frame(to, from, ip)}
}

// macOf is the inverse of field.MACNumber.
func macOf(n uint64) packet.MAC {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	return packet.MAC(b[2:])
}

// opening is the packet of the other end that makes a packet one of a connection.
func (d *Drafter) opening(x *draft, s *packet.Sentence) []kernel.Question {
	o := *s
	o.Src, o.Dst, o.SPort, o.DPort, o.Flags = s.Dst, s.Src, s.DPort, s.SPort, 2
	switch {
	case s.Proto == packet.TCP:
		s.Flags = 0x12
	case s.Proto == packet.ICMP && s.ICMPType == 0:
		o.ICMPType = 8
	}
	ip, err := o.Packet()
	if err != nil {
		return nil
	}
	if x.hook == trace.Input {
		return []kernel.Question{{Out: true, Packet: ip, Socket: "raw"}}
	}
	y := *x
	y.dst, y.in, y.wishes = x.src, x.out, wishes{}
	return []kernel.Question{d.question(&y, &o, ip)}
}
