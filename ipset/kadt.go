package ipset

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
)

// element is what the packet is for a hash set. Its prefixes are those that the
// caller gives. It is false for packets that can't be in such a set.
//
// Kernel: hash_*_kadt.
func (a *ask) element(l *live, cidr [2]uint8) (r rec, ok bool) {
	r.cidr = cidr
	ips := 0
	for i, p := range l.kind.parts {
		src := a.q.src(i)
		switch p {
		case partIP, partNet:
			r.ip[ips] = a.addr(l, src)
			ips++
			ok = true
		case partPort:
			r.port, r.proto, ok = a.port(src)
		case partIface:
			r.iface, ok = a.iface(src)
		case partMAC:
			r.mac, ok = a.mac(src)
		case partMark:
			a.at.Deps.Note(field.Mark, field.U(uint64(l.MarkMask)))
			r.mark, ok = a.p.Mark&l.MarkMask, true
		}
		if !ok {
			return r, false
		}
	}
	for i := range l.kind.nets() {
		n := l.kind.netIndex(i)
		r.ip[n] = maskAddr(r.ip[n], cidr[i], l.Family)
	}
	return r, a.storable(l, &r)
}

// storable: some types have no element of address zero.
func (a *ask) storable(l *live, r *rec) bool {
	switch l.kind.name {
	case "hash:ip":
		return !r.ip[0].IsAny()
	case "hash:ip,port":
		return !r.ip[0].IsAny() || a.sets.before(6, 2)
	}
	return true
}

// before tells whether the kernel is older than a version.
func (s *Sets) before(major, minor int) bool {
	return s.kernel[0] < major || s.kernel[0] == major && s.kernel[1] < minor
}

func (a *ask) addr(l *live, src bool) packet.Addr {
	id, ip := field.Dst, a.p.Dst()
	if src {
		id, ip = field.Src, a.p.Src()
	}
	if l.Bitmask == (packet.Addr{}) {
		a.at.Deps.Note(id, field.Ones(id.Bits()))
		return ip
	}
	v := field.AddrValue(l.Bitmask)
	a.at.Deps.Note(id, v.Or(field.PrefixMask(128, 128-int(l.Family.hostBits()))))
	return andAddr(ip, l.Bitmask, l.Family)
}

// port is protocol and port; for ICMP the port is type and code, and protocols
// without ports have port 0.
//
// Kernel: net/netfilter/ipset/ip_set_getport.c, ip_set_get_ip4_port.
func (a *ask) port(src bool) (port uint16, proto uint8, ok bool) {
	a.at.Deps.Note(field.Proto, field.Ones(8))
	proto = a.p.Protocol()
	if proto == 0 {
		return 0, 0, false
	}
	need := portHeader(proto)
	if need == 0 {
		return 0, proto, true
	}
	a.at.Deps.Note(field.FragOff, field.Ones(16))
	if a.p.FragOff() != 0 {
		return 0, proto, proto == packet.ICMPv6 && a.p.Is4()
	}
	l4 := a.p.L4()
	a.at.Deps.Note(field.L4, field.Ones(1))
	if len(l4) < need {
		return 0, 0, false
	}
	return a.portAt(l4, proto, src), proto, true
}

func (a *ask) portAt(l4 []byte, proto uint8, src bool) uint16 {
	switch {
	case proto == packet.ICMP || proto == packet.ICMPv6:
		a.at.Deps.Note(field.ICMPType, field.Ones(8))
		a.at.Deps.Note(field.ICMPCode, field.Ones(8))
		return binary.BigEndian.Uint16(l4)
	case src:
		a.at.Deps.Note(field.SrcPort, field.Ones(16))
		if a.at.Ports&packet.FreeSrcPort != 0 {
			return a.at.SPort
		}
		return binary.BigEndian.Uint16(l4)
	}
	a.at.Deps.Note(field.DstPort, field.Ones(16))
	if a.at.Ports&packet.FreeDstPort != 0 {
		return a.at.DPort
	}
	return binary.BigEndian.Uint16(l4[2:])
}

// portHeader is how much of a transport header must be there; zero for protocols
// that have nothing like a port.
func portHeader(proto uint8) int {
	switch proto {
	case packet.TCP:
		return 20
	case packet.SCTP:
		return 12
	case packet.UDP, packet.UDPLite, packet.ICMP, packet.ICMPv6:
		return 8
	}
	return 0
}

// iface is the name of the device in or out.
func (a *ask) iface(in bool) (name [16]byte, ok bool) {
	id, dev := field.Out, a.p.Out
	if in {
		id, dev = field.In, a.p.In
	}
	a.at.Deps.Note(id, field.Ones(32))
	l := a.at.Links.ByIndex(dev)
	if l == nil || l.Name == "" {
		return name, false
	}
	copy(name[:15], l.Name)
	return name, true
}

// mac is an address of the Ethernet header, where the device has such headers.
func (a *ask) mac(src bool) (m packet.MAC, ok bool) {
	a.at.Deps.Note(field.In, field.Ones(32))
	a.at.Deps.Note(field.Out, field.Ones(32))
	l := a.at.Links.ByIndex(a.at.Dev)
	if l == nil || l.Is(link.LoopbackFlag) || l.NoHeader {
		return m, false
	}
	if src && a.at.HasSource {
		return a.at.Source, a.at.Source != packet.MAC{}
	}
	if src {
		a.at.Deps.Note(field.MACSrc, field.Ones(48))
		m, ok = a.p.LinkSrc()
	} else {
		a.at.Deps.Note(field.MACDst, field.Ones(48))
		m, ok = a.p.LinkDst()
	}
	return m, ok && m != packet.MAC{}
}
