package walk

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// quotedPacket is the packet in an ICMP error.
type quotedPacket struct {
	at     int // where its header stands in the IP packet
	ip     []byte
	header ipvs.Header
}

// ipvsQuoted finds what the present ICMP error quotes. Only three types are looked at.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, the beginnings of ip_vs_out_icmp and
// ip_vs_in_icmp.
func (k *Walk) ipvsQuoted() (q quotedPacket, related bool, v trace.Verdict) {
	const unreachable, quench, exceeded, header = 3, 4, 11, 8
	l4 := k.p.L4()
	switch {
	case len(l4) < header:
		return q, true, trace.DropIt
	case l4[0] != unreachable && l4[0] != quench && l4[0] != exceeded:
		return q, false, trace.Accept
	}
	q.at = k.p.Len() - len(l4) + header
	q.ip = k.p.IP()[q.at:]
	return q, true, trace.Accept
}

// parse reads the quoted header. It is false where there is none, of a fragment that is not
// the first, or of a protocol that is not balanced.
func (q *quotedPacket) parse(t *ipvs.Table, mark uint32, inverse bool) bool {
	ip := q.ip
	if len(ip) < 20 || ip[0]>>4 != 4 || ip[0]&0xf < 5 {
		return false
	}
	n := int(ip[0]&0xf) * 4
	q.header = ipvs.Header{Family: trace.IPv4, Proto: ip[9], Src: packet.AddrFrom4(ip[12:]),
		Dst: packet.AddrFrom4(ip[16:]), L4: ip[min(n, len(ip)):], Mark: mark, Quoted: true,
		Inverse: inverse}
	fragment := binary.BigEndian.Uint16(ip[6:])&0x1fff != 0
	return t.Speaks(ip[9]) && !fragment
}

// ipvsOutICMP looks whether an ICMP error of a real server is about a connection.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, ip_vs_out_icmp and handle_response_icmp.
func (k *Walk) ipvsOutICMP() (v trace.Verdict, related bool) {
	if v := k.ipvsWhole(); v != trace.Accept {
		return v, true
	}
	q, related, v := k.ipvsQuoted()
	if !related || v != trace.Accept {
		return v, related
	}
	if !q.parse(k.IPVS, k.p.Mark, true) {
		return trace.Accept, true
	}
	id := k.IPVS.Out(k.World, &q.header)
	if id == 0 {
		return trace.Accept, true
	}
	c := k.IPVS.View(k.World, id)
	if c.Method == ipvs.Masq {
		if packet.Fold(packet.Sum16(k.p.L4(), 0)) != 0 {
			k.why = "bad-checksum"
			return trace.DropIt, true
		}
		from := k.p.Src()
		ipvs.RewriteICMP(k.p, q.at, &c, true)
		k.ipvsTranslated(false, trace.Endpoint{Addr: from}, trace.Endpoint{Addr: c.Virtual})
		if !k.ipvsReroute() {
			k.why = "no-route"
			return trace.DropIt, true
		}
	}
	k.ipvsEvent(ipvs.Decision{Conn: id}, true)
	k.ipvsTrack(id, &c, false)
	return trace.Accept, true
}

// ipvsForwardICMP catches ICMP errors that go by to clients of services by mark.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, ip_vs_forward_icmp.
func (k *Walk) ipvsForwardICMP(*stage) trace.Verdict {
	if k.IPVS.BackupOnly() || k.p.Protocol() != packet.ICMP {
		return trace.Accept
	}
	k.ipvsNeeds()
	v, _ := k.ipvsInICMP()
	return v
}

// ipvsInICMP looks whether an ICMP error of a client, or of a router towards a tunnel's end,
// is about a connection.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, ip_vs_in_icmp.
func (k *Walk) ipvsInICMP() (v trace.Verdict, related bool) {
	if v := k.ipvsWhole(); v != trace.Accept {
		return v, true
	}
	q, related, v := k.ipvsQuoted()
	if !related || v != trace.Accept {
		return v, related
	}
	outer, tunnel, ok := k.ipvsTunnelled(&q)
	if !ok || !q.parse(k.IPVS, k.p.Mark, !tunnel) {
		return trace.Accept, true
	}
	id := k.IPVS.Known(k.World, &q.header)
	switch {
	case id != 0:
	case tunnel || !k.IPVS.SchedulesICMP():
		return trace.Accept, true
	default:
		d := k.IPVS.Schedule(k.World, &q.header)
		if d.Action != ipvs.Forward {
			return k.ipvsDo(d, nil), true
		}
		id = d.Conn
	}
	c := k.IPVS.View(k.World, id)
	if (c.Method == ipvs.Masq || tunnel) && packet.Fold(packet.Sum16(k.p.L4(), 0)) != 0 {
		k.why = "bad-checksum"
		return trace.DropIt, true
	}
	k.ipvsEvent(ipvs.Decision{Conn: id}, false)
	if tunnel {
		k.ipvsTunnelError(&q, outer)
		return trace.Stolen, true
	}
	v = k.ipvsSendICMP(id, &c, &q)
	return v, true
}

// ipvsSendICMP sends a client's ICMP error to the real server.
//
// Kernel: net/netfilter/ipvs/ip_vs_xmit.c, ip_vs_icmp_xmit.
func (k *Walk) ipvsSendICMP(id ipvs.ConnID, c *ipvs.View, q *quotedPacket) trace.Verdict {
	k.IPVS.Count(k.World, id)
	if c.Method != ipvs.Masq {
		return k.ipvsSend(id)
	}
	mode := modeRemote
	if k.hook != trace.Forward {
		mode |= modeLocal | modeRedirect
	}
	fromWorld := k.ipvsFromWorld()
	local, ok := k.ipvsRoute(c, c.Real, mode)
	if !ok {
		return gone
	}
	if local && fromWorld && isLoopback(c.Real) {
		k.drop("NOT_SPECIFIED", "dnat-to-loopback")
		return gone
	}
	ipvs.RewriteICMP(k.p, q.at, c, false)
	k.ipvsTranslated(true, trace.Endpoint{Addr: c.Virtual}, trace.Endpoint{Addr: c.Real})
	k.ipvsTrack(id, c, true)
	if local {
		return trace.Accept
	}
	k.ipvsTransmit()
	return gone
}
