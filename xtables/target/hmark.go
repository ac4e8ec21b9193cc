package target

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// hmark sets the packet's mark to a hash of addresses and ports, the same for both
// directions.
//
// Kernel: net/netfilter/xt_HMARK.c, hmark_tg_v4.
type hmark struct {
	Src, Dst            bitLen
	SportMask, SportSet xtables.Number
	DportMask, DportSet xtables.Number
	SPIMask, SPISet     xtables.Number
	ProtoMask           xtables.Number
	Rnd, Mod, Offset    xtables.Number
	Tuple               hmarkTuple
}

func newHMARK() xtables.Target {
	port := xtables.Number{Max: 65535, Digits: 4}
	spi := xtables.Number{Digits: 8}
	return &hmark{SportMask: port, SportSet: port, DportMask: port, DportSet: port,
		SPIMask: spi, SPISet: spi, ProtoMask: xtables.Number{Max: 65535, Digits: 2}, Rnd: spi,
		Mod: xtables.Number{Min: 1}}
}

// Options implements xtables.Target.
func (t *hmark) Options(s *xtables.Spec) {
	s.Var("hmark-src-prefix", &t.Src)
	s.Var("hmark-dst-prefix", &t.Dst)
	s.Var("hmark-sport-mask", &t.SportMask)
	s.Var("hmark-dport-mask", &t.DportMask)
	s.Var("hmark-spi-mask", &t.SPIMask)
	s.Var("hmark-sport", &t.SportSet)
	s.Var("hmark-dport", &t.DportSet)
	s.Var("hmark-spi", &t.SPISet)
	s.Var("hmark-proto-mask", &t.ProtoMask)
	s.Var("hmark-rnd", &t.Rnd)
	s.Var("hmark-mod", &t.Mod).Required()
	s.Var("hmark-offset", &t.Offset)
	s.Var("hmark-tuple", &t.Tuple)
	s.Check(t.check)
}

// check takes apart what --hmark-tuple stands for and refuses what does not go
// together.
//
// Kernel: hmark_tg_check. iptables: extensions/libxt_HMARK.c, HMARK_check.
func (t *hmark) check(c *xtables.Context) error {
	t.expand(c.Family)
	ports := t.SportMask.Given || t.DportMask.Given
	switch {
	case !t.Rnd.Given:
		return fmt.Errorf("option --hmark-rnd is missing")
	case !t.Src.given && !t.Dst.given && !ports && !t.SPIMask.Given && !t.ProtoMask.Given &&
		!t.SportSet.Given && !t.DportSet.Given && !t.SPISet.Given && !t.Tuple.has("ct"):
		return fmt.Errorf("one of the options that say what is hashed is missing")
	case t.SPIMask.Given && ports,
		t.SPISet.Given && (t.SportSet.Given || t.DportSet.Given):
		return fmt.Errorf("spi and ports exclude each other")
	}
	return nil
}

func (t *hmark) expand(f trace.Family) {
	full := hostBits(f)
	for _, w := range t.Tuple.words {
		switch w {
		case "src":
			t.Src = bitLen{full, true}
		case "dst":
			t.Dst = bitLen{full, true}
		case "sport":
			t.SportMask.N, t.SportMask.Given = 0xffff, true
		case "dport":
			t.DportMask.N, t.DportMask.Given = 0xffff, true
		case "spi":
			t.SPIMask.N, t.SPIMask.Given = 0xffffffff, true
		case "proto":
			t.ProtoMask.N, t.ProtoMask.Given = 0xffff, true
		}
	}
}

// Effects implements xtables.Target.
func (t *hmark) Effects() []field.Effect {
	return []field.Effect{{Op: field.Forget, ID: field.Mark}}
}

// tuple is what is hashed.
type tuple struct {
	src, dst packet.Addr
	ports    uint32 // as the words stand in the packet
	proto    uint8
}

// Do implements xtables.Target.
func (t *hmark) Do(e *xtables.Env) trace.Verdict {
	tu, ok := t.ofPacket(e)
	if t.Tuple.has("ct") {
		tu, ok = t.ofFlow(e)
	}
	if ok {
		e.Packet.Mark = t.hash(&tu)
	}
	return trace.Continue
}

func (t *hmark) ofFlow(e *xtables.Env) (tu tuple, ok bool) {
	f := e.Conntrack.Get(e.World, e.Packet.CT.Flow)
	for _, id := range [...]field.ID{field.CtOrigSrc, field.CtReplSrc, field.CtOrigSPort,
		field.CtReplSPort, field.CtProto} {
		e.Deps().Note(id, field.Ones(id.Bits()))
	}
	if f == nil {
		return tu, false
	}
	orig, repl := &f.Tuples[conntrack.Original], &f.Tuples[conntrack.Reply]
	tu = tuple{src: orig.Src, dst: repl.Src, proto: orig.Proto}
	if tu.proto != packet.ICMP {
		tu.ports = t.swap(uint32(orig.SPort)<<16 | uint32(repl.SPort))
	}
	return tu, true
}

// ofPacket reads the packet, or what an ICMP error quotes.
//
// Kernel: hmark_pkt_set_htuple_ipv4.
func (t *hmark) ofPacket(e *xtables.Env) (tu tuple, ok bool) {
	for _, id := range [...]field.ID{field.Src, field.Dst, field.Proto, field.FragOff, field.FragMF,
		field.SrcPort, field.DstPort, field.SPI, field.ICMPType} {
		e.Deps().Note(id, field.Ones(id.Bits()))
	}
	if !e.Packet.Is4() {
		return tu, false
	}
	ip := e.Packet.IP()
	if l4 := e.Packet.L4(); ip[9] == packet.ICMP && len(l4) >= 8 && isError(l4[0]) {
		e.Deps().Note(field.Bytes, field.U(1))
		if ip = l4[8:]; len(ip) < 20 {
			return tu, false
		}
	}
	tu = tuple{src: packet.AddrFrom4(ip[12:]), dst: packet.AddrFrom4(ip[16:]), proto: ip[9]}
	if tu.proto == packet.ICMP || be16(ip[6:])&0x3fff != 0 {
		return tu, true
	}
	at := int(ip[0]&0xf)*4 + portsAt(tu.proto)
	if portsAt(tu.proto) >= 0 && at+4 <= len(ip) {
		tu.ports = t.swap(binary.BigEndian.Uint32(ip[at:]))
	}
	return tu, true
}

// portsAt is where a transport header has its ports or SPI, -1 for nowhere.
//
// Kernel: include/linux/in.h, proto_ports_offset.
func portsAt(proto uint8) int {
	switch proto {
	case packet.TCP, packet.UDP, packet.DCCP, packet.ESP, packet.SCTP, packet.UDPLite:
		return 0
	case packet.AH:
		return 4
	}
	return -1
}

func isError(typ uint8) bool {
	return typ >= 3 && typ <= 5 || typ == 11 || typ == 12
}

// swap masks the ports and puts the greater one first. An SPI shares their place.
//
// Kernel: hmark_swap_ports.
func (t *hmark) swap(ports uint32) uint32 {
	mask := uint32(t.SportMask.N)<<16 | uint32(t.DportMask.N) | uint32(t.SPIMask.N)
	set := uint32(t.SportSet.N)<<16 | uint32(t.DportSet.N) | uint32(t.SPISet.N)
	ports = ports&mask | set
	if src, dst := ports>>16, ports&0xffff; dst > src {
		return dst<<16 | src
	}
	return ports
}

// hash is endian-independent, so that all machines of a cluster agree.
//
// Kernel: hmark_hash.
func (t *hmark) hash(tu *tuple) uint32 {
	src, dst := t.Src.mask(tu.src), t.Dst.mask(tu.dst)
	if dst < src {
		src, dst = dst, src
	}
	h := jhash3(src, dst, tu.ports, uint32(t.Rnd.N)) ^ uint32(tu.proto)&uint32(t.ProtoMask.N)
	return uint32(uint64(h)*t.Mod.N>>32) + uint32(t.Offset.N)
}

// jhash3 hashes three words.
//
// Kernel: include/linux/jhash.h, jhash_3words.
func jhash3(a, b, c, seed uint32) uint32 {
	seed += 0xdeadbeef + 3<<2
	a, b, c = a+seed, b+seed, c+seed
	rol := func(x uint32, n uint) uint32 { return x<<n | x>>(32-n) }
	c = (c ^ b) - rol(b, 14)
	a = (a ^ c) - rol(c, 11)
	b = (b ^ a) - rol(a, 25)
	c = (c ^ b) - rol(b, 16)
	a = (a ^ c) - rol(c, 4)
	b = (b ^ a) - rol(a, 14)
	return (c ^ b) - rol(b, 24)
}

// bitLen is the length of a prefix of an address.
type bitLen struct {
	n     int
	given bool
}

// Parse implements xtables.Value.
func (v *bitLen) Parse(a *xtables.Args) error {
	n, err := xtables.ParseUint(a.Word, uint64(hostBits(a.Family)))
	v.n, v.given = int(n), true
	return err
}

// Append implements xtables.Value.
func (v *bitLen) Append(b []byte, _ trace.Family) []byte {
	return strconv.AppendInt(b, int64(v.n), 10)
}

// Unset implements xtables.Value.
func (v *bitLen) Unset() bool { return !v.given }

func (v *bitLen) mask(a packet.Addr) uint32 {
	if !v.given {
		return 0
	}
	return a.Uint32() & uint32(uint64(0xffffffff)<<(32-v.n))
}

// hmarkTuple is the list of --hmark-tuple. What can be said by other options is
// printed by them.
type hmarkTuple struct {
	words []string
}

func (v *hmarkTuple) has(word string) bool {
	for _, w := range v.words {
		if w == word {
			return true
		}
	}
	return false
}

// Parse implements xtables.Value.
func (v *hmarkTuple) Parse(a *xtables.Args) error {
	v.words = strings.Split(a.Word, ",")
	for _, w := range v.words {
		switch w {
		case "src", "dst", "sport", "dport", "spi", "proto", "ct":
		default:
			return fmt.Errorf("%q: %q is none of src, dst, sport, dport, spi, proto, ct", a.Word, w)
		}
	}
	return nil
}

// Append implements xtables.Value.
func (v *hmarkTuple) Append(b []byte, _ trace.Family) []byte { return append(b, "ct"...) }

// Unset implements xtables.Value.
func (v *hmarkTuple) Unset() bool { return !v.has("ct") }
