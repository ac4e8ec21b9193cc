package walk

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/trace"
)

const (
	ipHeaderLen  = 20
	udpHeaderLen = 8
	gueHeaderLen = 4
)

// greHeaderLen is the length of a GRE header of version 0 with or without checksum.
func greHeaderLen(sum bool) int {
	if sum {
		return 8
	}
	return 4
}

// tunnelRoom is how much of an MTU a tunnel's headers take.
//
// Kernel: net/netfilter/ipvs/ip_vs_xmit.c, __ip_vs_get_out_rt.
func (k *Walk) tunnelRoom(v *ipvs.View, mode int) int {
	if mode&modeTunnel == 0 {
		return 0
	}
	switch v.Encap {
	case ipvs.GUE:
		return ipHeaderLen + udpHeaderLen + gueHeaderLen
	case ipvs.GRE:
		return ipHeaderLen + greHeaderLen(v.EncapFlags&ipvs.EncapCsum != 0)
	}
	return ipHeaderLen
}

// ipvsTunnel puts the packet into another one to the real server.
//
// Kernel: net/netfilter/ipvs/ip_vs_xmit.c, ip_vs_tunnel_xmit.
func (k *Walk) ipvsTunnel(v *ipvs.View) trace.Verdict {
	local, ok := k.ipvsRoute(v, v.Real, modeLocal|modeRemote|modeConnect|modeTunnel)
	if !ok {
		return gone
	}
	if local {
		k.ipvsMark(v)
		return trace.Accept
	}
	inner := k.p
	if inner.In != 0 {
		inner.Socket = 0
	}
	outer, ok := packet.FromIP(k.wrap(v))
	if !ok {
		k.drop("NOT_SPECIFIED", "mtu")
		return gone
	}
	if v.Tracked && k.confirm(nil) != trace.Accept {
		return trace.DropIt
	}
	k.Conntrack.Release(k.World, inner)
	inner.CT = packet.CT{}
	outer.Mark, outer.Priority, outer.Socket = inner.Mark, inner.Priority, inner.Socket
	outer.IPVS, outer.IgnoreDF, outer.Type = true, true, inner.Type
	if v.Encap == ipvs.GUE && binary.BigEndian.Uint16(outer.L4()) == 0 {
		outer.Free |= packet.FreeSrcPort
	}
	k.number(outer)
	if k.Trace != nil {
		k.Trace.Add(inner, &trace.Encap{Method: v.Encap.String(), From: k.dst.Source, To: v.Real})
	}
	k.end(&trace.Outcome{Result: trace.Absorbed, Why: "encapsulated"})
	k.p = outer
	in := inner.In
	outer.In, outer.Out = 0, k.dst.Out
	if k.Trace != nil {
		k.Trace.Changed(outer, &trace.LocalOut{Frame: clone(outer.IP()), Parent: inner.SKB})
	}
	if k.runHook(trace.Output) != trace.Accept {
		return gone
	}
	k.p.In = in
	k.postrouting()
	return gone
}

// wrap is the present packet in its tunnel: headers of IP and of what the tunnel speaks.
func (k *Walk) wrap(v *ipvs.View) []byte {
	ip := k.p.IP()
	if v.Encap == ipvs.GRE && v.EncapFlags&ipvs.EncapCsum == 0 || v.Encap == ipvs.IPIP {
		packet.FixIP4(ip)
	}
	room := k.tunnelRoom(v, modeTunnel)
	b := make([]byte, room, room+len(ip))
	b = append(b, ip...)
	proto := byte(packet.IPIP)
	switch v.Encap {
	case ipvs.GUE:
		proto = packet.UDP
		k.wrapGUE(v, b[ipHeaderLen:])
	case ipvs.GRE:
		proto = packet.GRE
		wrapGRE(v, b[ipHeaderLen:])
	}
	const dontFragment = 0x40
	b[0], b[1], b[8], b[9] = 0x45, encapsulateECN(ip[1]), ip[8], proto
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	if k.IPVS.DiscoversPMTU() {
		b[6] = ip[6] & dontFragment
	}
	copy(b[12:16], k.dst.Source.Bytes())
	copy(b[16:20], v.Real.Bytes())
	packet.FixIP4(b)
	return b
}

// encapsulateECN is the TOS of an outer header: what the inner one says of congestion, but
// that it happened.
//
// Kernel: include/net/inet_ecn.h, INET_ECN_encapsulate.
func encapsulateECN(tos byte) byte {
	const mask, ect0, ce = 3, 2, 3
	if tos&mask == ce {
		return tos&^mask | ect0
	}
	return tos
}

// wrapGUE writes the headers of UDP and GUE. The source port is a hash with a seed that
// nobody knows: it stays open, unless a kernel is known to have drawn it.
//
// Kernel: net/netfilter/ipvs/ip_vs_xmit.c, ipvs_gue_encap; include/net/udp.h,
// udp_flow_src_port.
func (k *Walk) wrapGUE(v *ipvs.View, b []byte) {
	if port, ok := k.World.Dice.NextDrawn(1, 65535); ok {
		binary.BigEndian.PutUint16(b, port)
	}
	binary.BigEndian.PutUint16(b[2:], v.EncapPort)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	b[udpHeaderLen+1] = packet.IPIP
	if v.EncapFlags == 0 {
		return
	}
	sum := packet.PseudoSum(k.dst.Source, v.Real, packet.UDP, len(b))
	n := packet.Fold(packet.Sum16(b, sum))
	if n == 0 {
		n = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], n)
}

// Kernel: net/netfilter/ipvs/ip_vs_xmit.c, ipvs_gre_encap.
func wrapGRE(v *ipvs.View, b []byte) {
	binary.BigEndian.PutUint16(b[2:], packet.EtherIPv4)
	if v.EncapFlags&ipvs.EncapCsum != 0 {
		b[0] = 0x80
		binary.BigEndian.PutUint16(b[4:], packet.Fold(packet.Sum16(b, 0)))
	}
}

// ipvsTunnelled looks whether an ICMP error is about a tunnel to a real server, and goes on
// to the client's packet in it. outer is the length of the tunnel's headers.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, ip_vs_in_icmp, ipvs_udp_decap, ipvs_gre_decap.
func (k *Walk) ipvsTunnelled(q *quotedPacket) (outer int, tunnel, ok bool) {
	ip := q.ip
	if len(ip) < ipHeaderLen || ip[0]>>4 != 4 || ip[0]&0xf < 5 {
		return 0, false, false
	}
	n, real := int(ip[0]&0xf)*4, packet.AddrFrom4(ip[16:])
	later := binary.BigEndian.Uint16(ip[6:])&0x1fff != 0
	switch {
	case ip[9] == packet.IPIP:
		d := k.IPVS.FindTunnel(real, 0)
		if later || !k.dst.Local || d == nil || d.Encap != ipvs.IPIP {
			return 0, false, false
		}
	case (ip[9] == packet.UDP || ip[9] == packet.GRE) && k.dst.Local:
		if later {
			return 0, false, false
		}
		more := k.unwrapped(ip[9], real, ip[min(n, len(ip)):])
		if more == 0 {
			return 0, false, true
		}
		n += more
	default:
		return 0, false, true
	}
	if n > len(ip) {
		return 0, false, false
	}
	q.at, q.ip = q.at+n, ip[n:]
	return n, true, true
}

// unwrapped is the length of GUE's or GRE's headers, zero where they are of no tunnel.
func (k *Walk) unwrapped(proto byte, real packet.Addr, l4 []byte) int {
	const version0 = 0x80 // GRE's flags: a checksum, no more
	switch {
	case proto == packet.UDP && len(l4) >= udpHeaderLen+gueHeaderLen:
		d, gue := k.IPVS.FindTunnel(real, binary.BigEndian.Uint16(l4[2:])), l4[udpHeaderLen:]
		if d != nil && d.Encap == ipvs.GUE && gue[0]&0xe0 == 0 && gue[1] == packet.IPIP {
			return udpHeaderLen + gueHeaderLen + int(gue[0]&0x1f)*4
		}
	case proto == packet.GRE && len(l4) >= 4:
		d := k.IPVS.FindTunnel(real, 0)
		if d != nil && d.Encap == ipvs.GRE && l4[0]&^version0 == 0 && l4[1] == 0 &&
			binary.BigEndian.Uint16(l4[2:]) == packet.EtherIPv4 {
			return greHeaderLen(l4[0] != 0)
		}
	}
	return 0
}

// ipvsTunnelError tells a client of an error on the way of its packet's tunnel.
func (k *Walk) ipvsTunnelError(q *quotedPacket, outer int) {
	const unreachable, fragNeeded, dontFragment = 3, 4, 0x40
	l4 := k.p.L4()
	typ, code, info := l4[0], l4[1], binary.BigEndian.Uint32(l4[4:])
	if typ == unreachable && code == fragNeeded {
		mtu := k.learnTunnel(k.p.IP()[q.at-outer:], int(binary.BigEndian.Uint16(l4[6:])))
		if q.ip[6]&dontFragment == 0 {
			return
		}
		if room := outer; mtu > 68+room {
			mtu -= room
		}
		info = uint32(mtu)
	}
	inner, ok := packet.FromIP(append([]byte(nil), q.ip...))
	if !ok {
		return
	}
	k.nested(func() {
		to := k.p
		inner.Meta = to.Meta
		k.p = inner
		k.sendICMP(typ, code, info)
		k.p = to
	})
}

// learnTunnel has the host remember what fits on the way of a tunnel's packet, and returns
// what does now.
//
// Kernel: net/ipv4/route.c, ipv4_update_pmtu.
func (k *Walk) learnTunnel(outer []byte, mtu int) int {
	e := lesson{mtu: mtu, quoted: outer}
	real := packet.AddrFrom4(outer[16:])
	k.learn(&e, &route.Flow{Src: packet.AddrFrom4(outer[12:]), Dst: real, TOS: outer[1]})
	if d := k.ipvsLookup(real, modeConnect); d.Err == 0 {
		return k.mtuOf(&d)
	}
	return mtu
}
