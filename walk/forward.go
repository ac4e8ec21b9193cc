package walk

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/packet/frag"
	"github.com/hookpath/hookpath/trace"
)

// forward takes a packet for somebody else through FORWARD.
//
// Kernel: net/ipv4/ip_forward.c, ip_forward.
func (k *Walk) forward() {
	k.needs(field.TTL)
	switch {
	case k.p.Type != packet.Host:
		k.drop("NOT_SPECIFIED", "other-host")
		return
	case k.p.Socket != 0: // TPROXY gave it to a program, and then DNAT to another host
		k.drop("NOT_SPECIFIED", "has-socket")
		return
	case k.p.TTL() <= 1:
		k.nested(func() { k.sendICMP(11, 0, 0) })
		k.drop("IP_INHDR", "ttl")
		return
	}
	if k.p.Options.Strict && !k.dst.Gateway.IsZero() {
		const sourceRouteFailed = 5
		k.nested(func() { k.sendICMP(3, sourceRouteFailed, 0) })
		k.drop("NOT_SPECIFIED", "source-route-failed")
		return
	}
	k.p.Flags |= packet.Forwarded
	room := k.roomAhead()
	k.needsRoom(room)
	if frag.Exceeds(k.p, room) {
		k.nested(func() { k.sendICMP(3, 4, uint32(room)) })
		k.drop("PKT_TOO_BIG", "mtu")
		return
	}
	k.p.SetTTL(k.p.TTL() - 1)
	if k.dst.DoRedirect && k.p.Options.SourceRoute == 0 {
		k.nested(k.sendRedirect)
	}
	k.p.Priority = priorityOfTOS(k.p.TOS())
	k.p.Out = k.dst.Out
	if k.runHook(trace.Forward) != trace.Accept {
		return
	}
	k.forwardOptions()
	k.postrouting()
}

// priorityOfTOS is skb->priority of a forwarded packet.
//
// Kernel: include/net/route.h, rt_tos2priority; net/ipv4/route.c, ip_tos2prio.
func priorityOfTOS(tos uint8) uint32 {
	const (
		bestEffort      = 0
		filler          = 1
		bulk            = 2
		interactiveBulk = 4
		interactive     = 6
	)
	table := [16]uint32{bestEffort, filler, bestEffort, bestEffort, bulk, bulk, bulk, bulk,
		interactive, interactive, interactive, interactive, interactiveBulk, interactiveBulk,
		interactiveBulk, interactiveBulk}
	return table[tos&0x1e>>1]
}
