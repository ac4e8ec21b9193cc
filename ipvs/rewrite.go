package ipvs

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// Rewrite gives an IPv4 packet another source (src) or destination. Checksums follow; one
// of UDP that was left out is computed.
//
// Kernel: net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_snat_handler and tcp_dnat_handler, and
// those of UDP and SCTP.
func Rewrite(p *packet.Packet, src bool, addr packet.Addr, port uint16) {
	ip, l4 := p.IP(), p.L4()
	at, pt := ip[16:20], l4[2:4]
	if src {
		at, pt = ip[12:16], l4[0:2]
	}
	old := append(append([]byte(nil), at...), pt...)
	copy(at, addr[12:])
	binary.BigEndian.PutUint16(pt, port)
	packet.FixIP4(ip)
	now := append(append([]byte(nil), at...), pt...)
	switch p.Protocol() {
	case packet.TCP:
		packet.Replace(l4[16:18], old, now)
	case packet.UDP:
		rewriteUDP(p, l4, old, now)
	case packet.SCTP:
		if binary.BigEndian.Uint16(old[4:]) != port {
			clear(l4[8:12])
			sum := crc32.Checksum(l4, crc32.MakeTable(crc32.Castagnoli))
			binary.LittleEndian.PutUint32(l4[8:], sum)
		}
	}
}

func rewriteUDP(p *packet.Packet, l4, old, now []byte) {
	const ones = 0xffff
	if l4[6]|l4[7] != 0 {
		packet.Replace(l4[6:8], old, now)
	} else {
		sum := packet.PseudoSum(p.Src(), p.Dst(), packet.UDP, len(l4))
		binary.BigEndian.PutUint16(l4[6:], packet.Fold(packet.Sum16(l4, sum)))
	}
	if l4[6]|l4[7] == 0 {
		binary.BigEndian.PutUint16(l4[6:], ones)
	}
}

// Track tells conntrack where the answers to a packet will come from: the real server, or,
// for a packet of the server, where they will go.
//
// Kernel: net/netfilter/ipvs/ip_vs_nfct.c, ip_vs_update_conntrack.
func (t *Table) Track(w *world.World, p *packet.Packet, id ConnID, request bool) {
	c := t.conn(w, id)
	f := t.tracker.Get(w, p.CT.Flow)
	if f == nil || f.Any(conntrack.Confirmed|conntrack.Dying) || c.method != Masq ||
		c.is(onePacket) || conntrack.DirOf(p.CT.Info) != conntrack.Original {
		return
	}
	reply, ports := f.Tuples[conntrack.Reply], f.Proto() != packet.ICMP
	if request {
		reply.Src = c.real
		if ports {
			reply.SPort = c.rport
		}
	} else {
		reply.Dst = c.virtual
		if ports {
			reply.DPort = c.vport
		}
	}
	t.tracker.AlterReply(w, p.CT.Flow, reply)
}

// RewriteICMP gives an ICMP error and the packet in it the addresses that the other side
// knows: the virtual service's in a server's error (src), the server's in a client's.
// quoted is where the quoted packet stands in the IP packet. Only the checksums of both IP
// headers and of ICMP follow.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, ip_vs_nat_icmp.
func RewriteICMP(p *packet.Packet, quoted int, v *View, src bool) {
	ip := p.IP()
	inner := ip[quoted:]
	ports := inner[int(inner[0]&0xf)*4:]
	if src {
		copy(ip[12:16], v.Virtual[12:])
		copy(inner[16:20], v.Virtual[12:])
		binary.BigEndian.PutUint16(ports[2:], v.VPort)
	} else {
		copy(ip[16:20], v.Real[12:])
		copy(inner[12:16], v.Real[12:])
		binary.BigEndian.PutUint16(ports, v.RPort)
	}
	packet.FixIP4(ip)
	packet.FixIP4(inner)
	l4 := p.L4()
	l4[2], l4[3] = 0, 0
	binary.BigEndian.PutUint16(l4[2:], packet.Fold(packet.Sum16(l4, 0)))
}
