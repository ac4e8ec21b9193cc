package walk

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// receiveARP answers an ARP packet and learns from it.
//
// Kernel: net/ipv4/arp.c, arp_rcv.
func (k *Walk) receiveARP(l *link.Link) {
	a, ok := link.ParseARP(k.p.IP())
	if !ok {
		k.drop("NOT_SPECIFIED", "bad-arp")
		return
	}
	ans := k.Links.ARP(k.World, k.Routes, l.Index, k.p.Type, a)
	why := ans.Why
	if why == "" {
		why = "arp"
	}
	k.end(&trace.Outcome{Result: trace.Absorbed, Dev: l.Index, Why: why})
	k.answered(ans.Learnt, k.p.SKB)
	if ans.Replies {
		k.nested(func() { k.sendARP(l, ans.Reply, ans.Reply.TargetMAC, k.p.SKB) })
	}
}

// solicit asks for the next hop of the present packet, which waits.
//
// Kernel: net/core/neighbour.c, __neigh_event_send.
func (k *Walk) solicit(out *link.Link, hop packet.Addr) {
	a, ok := k.Links.Solicit(k.World, k.Routes, out.Index, hop, k.p.Src())
	if !ok {
		return
	}
	everyone := packet.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	k.nested(func() { k.sendARP(out, a, everyone, k.p.SKB) })
}

// sendARP puts an ARP packet on the wire. It replaces the present packet: call it
// nested.
func (k *Walk) sendARP(out *link.Link, a link.ARP, to packet.MAC, parent int) {
	frame := make([]byte, packet.EthernetLen, packet.EthernetLen+28)
	copy(frame, to[:])
	copy(frame[6:], out.MAC[:])
	binary.BigEndian.PutUint16(frame[12:], packet.EtherARP)
	k.p, _ = packet.FromFrame(append(frame, a.Bytes()...))
	k.number(k.p)
	k.p.Out = out.Index
	k.transmitted(parent)
}
