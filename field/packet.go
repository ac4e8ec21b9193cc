package field

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/packet"
)

// OfPacket returns a field that lies in a packet's bytes or beside them (skb). For
// any other field the answer is Absent.
func OfPacket(p *packet.Packet, id ID) (Value, Status) {
	switch {
	case id <= PktType:
		return ofLink(p, id)
	case id >= Src && id <= IPOpts:
		return ofNetwork(p, id)
	case id >= L4 && id <= DCCPType:
		return ofTransport(p, id)
	}
	switch id {
	case Mark:
		return U(uint64(p.Mark)), Known
	case Priority:
		return U(uint64(p.Priority)), Known
	case Realm:
		return U(uint64(p.Realm)), Known
	case HasSock:
		return Bool(p.Socket != 0), Known
	}
	return Value{}, Absent
}

func ofLink(p *packet.Packet, id ID) (Value, Status) {
	switch id {
	case In:
		return U(uint64(p.In)), Known
	case Out:
		return U(uint64(p.Out)), Known
	case PhysIn:
		return U(uint64(p.PhysIn)), Known
	case PhysOut:
		return U(uint64(p.PhysOut)), Known
	case EtherType:
		return U(uint64(p.EtherType())), Known
	case PktType:
		return U(uint64(p.Type)), Known
	case MACSrc:
		return macValue(p.LinkSrc())
	case MACDst:
		return macValue(p.LinkDst())
	}
	return Value{}, Absent
}

func macValue(m packet.MAC, ok bool) (Value, Status) {
	if !ok {
		return Value{}, Absent
	}
	return U(MACNumber(m)), Known
}

// MACNumber is the 48 bits of a MAC address as a number.
func MACNumber(m packet.MAC) uint64 {
	return uint64(binary.BigEndian.Uint16(m[:]))<<32 | uint64(binary.BigEndian.Uint32(m[2:]))
}

func ofNetwork(p *packet.Packet, id ID) (Value, Status) {
	if !p.Is4() {
		return Value{}, Absent
	}
	switch id {
	case Src:
		return AddrValue(p.Src()), Known
	case Dst:
		return AddrValue(p.Dst()), Known
	case Proto:
		return U(uint64(p.Protocol())), Known
	case TOS:
		return U(uint64(p.TOS())), Known
	case TTL:
		return U(uint64(p.TTL())), Known
	case Len:
		return U(uint64(p.Len())), Known
	case FragOff:
		return U(uint64(p.FragOff())), Known
	case FragMF:
		return Bool(p.IP()[6]&0x20 != 0), Known
	case DontFrag:
		return Bool(p.IP()[6]&0x40 != 0), Known
	case IPOpts:
		return ipOptions(p), Known
	}
	return Value{}, Absent
}

// ipOptions is the set of option numbers in the header: bit n for number n.
func ipOptions(p *packet.Packet) Value {
	var v Value
	ip := p.IP()
	opts := ip[20 : int(ip[0]&0xf)*4]
	for i := 0; i < len(opts) && opts[i] != 0; {
		v.Lo |= 1 << (opts[i] & 0x1f)
		if opts[i] == 1 {
			i++
			continue
		}
		if i+1 >= len(opts) || opts[i+1] < 2 {
			break
		}
		i += int(opts[i+1])
	}
	return v
}

// fixedLen is the length of the fixed part of a transport header, zero for
// protocols that no match looks into.
func fixedLen(proto uint8) int {
	switch proto {
	case packet.TCP:
		return 20
	case packet.UDP, packet.UDPLite, packet.ESP, packet.ICMP, packet.ICMPv6:
		return 8
	case packet.SCTP, packet.DCCP, packet.AH:
		return 12
	}
	return 0
}

// ofTransport reads the transport header. Later fragments have none; a header that
// is cut short makes the matches drop the packet, as does a fragment that would
// overwrite TCP's flags (offset 8).
func ofTransport(p *packet.Packet, id ID) (Value, Status) {
	proto, l4 := p.Protocol(), p.L4()
	if off := p.FragOff(); off != 0 {
		if off == 8 && proto == packet.TCP && id == L4 {
			return Value{}, HotDrop
		}
		return Value{}, Absent
	}
	switch id {
	case L4:
		if len(l4) < fixedLen(proto) {
			return Value{}, HotDrop
		}
		return U(1), Known
	case SrcPort, DstPort:
		return port(p, id, proto, l4)
	}
	if len(l4) < fixedLen(proto) {
		return Value{}, HotDrop
	}
	return inHeader(id, proto, l4)
}

// SoftOfPacket returns a field of the transport header from the bytes that stand where
// the header would be, also in later fragments.
//
// Kernel: net/netfilter/nf_tables_core.c, nft_payload_fast_eval.
func SoftOfPacket(p *packet.Packet, id ID) (Value, bool) {
	l4 := p.L4()
	switch {
	case id == SrcPort && len(l4) >= 2:
		return U(uint64(binary.BigEndian.Uint16(l4))), true
	case id == DstPort && len(l4) >= 4:
		return U(uint64(binary.BigEndian.Uint16(l4[2:]))), true
	case id == TCPFlags && len(l4) > 13:
		return U(uint64(l4[13])), true
	}
	return Value{}, false
}

func port(p *packet.Packet, id ID, proto uint8, l4 []byte) (Value, Status) {
	free := p.Free&packet.FreeSrcPort != 0
	if id == DstPort {
		free = p.Free&packet.FreeDstPort != 0
	}
	switch {
	case free:
		return Value{}, Unknown
	case !packet.HasPorts(proto):
		return Value{}, Absent
	case len(l4) < 4:
		return Value{}, HotDrop
	case id == SrcPort:
		return U(uint64(binary.BigEndian.Uint16(l4))), Known
	}
	return U(uint64(binary.BigEndian.Uint16(l4[2:]))), Known
}

func inHeader(id ID, proto uint8, l4 []byte) (Value, Status) {
	isICMP := proto == packet.ICMP || proto == packet.ICMPv6
	switch {
	case id == TCPFlags && proto == packet.TCP:
		return U(uint64(l4[13])), Known
	case id == TCPMSS && proto == packet.TCP:
		return mss(l4)
	case id == ICMPType && isICMP:
		return U(uint64(l4[0])), Known
	case id == ICMPCode && isICMP:
		return U(uint64(l4[1])), Known
	case id == ICMPID && isICMP:
		return U(uint64(binary.BigEndian.Uint16(l4[4:]))), Known
	case id == SPI && proto == packet.AH:
		return U(uint64(binary.BigEndian.Uint32(l4[4:]))), Known
	case id == SPI && proto == packet.ESP:
		return U(uint64(binary.BigEndian.Uint32(l4))), Known
	case id == DCCPType && proto == packet.DCCP:
		return U(uint64(l4[8] >> 1 & 0xf)), Known
	}
	return Value{}, Absent
}

// mss is the value of TCP's option 2.
//
// Kernel: net/netfilter/xt_tcpmss.c, tcpmss_mt.
func mss(l4 []byte) (Value, Status) {
	n := int(l4[12]>>4) * 4
	if n < 20 || n == 20 {
		return Value{}, Absent
	}
	if len(l4) < n {
		return Value{}, HotDrop
	}
	opts := l4[20:n]
	for i := 0; i < len(opts); {
		if opts[i] == 2 && len(opts)-i >= 4 && opts[i+1] == 4 {
			return U(uint64(binary.BigEndian.Uint16(opts[i+2:]))), Known
		}
		if opts[i] < 2 || i+1 >= len(opts) || opts[i+1] == 0 {
			i++
			continue
		}
		i += int(opts[i+1])
	}
	return Value{}, Absent
}
