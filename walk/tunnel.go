package walk

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// decapsulate takes the packet out of an IPIP one, as received by a tunnel's device. It is
// false where no device takes it.
//
// Kernel: net/ipv4/ipip.c, ipip_rcv; net/ipv4/ip_tunnel.c, ip_tunnel_rcv.
func (k *Walk) decapsulate() bool {
	outer := k.p
	dev := k.Links.Tunnel(outer.Src(), outer.Dst())
	if dev == nil {
		return false
	}
	inner, ok := packet.FromIP(append([]byte(nil), outer.L4()...))
	if !ok || !inner.Is4() {
		k.drop("NOT_SPECIFIED", "header-truncated")
		return true
	}
	if !decapsulateECN(outer.TOS(), inner) {
		k.drop("NOT_SPECIFIED", "tunnel-congestion")
		return true
	}
	if k.Trace != nil {
		k.Trace.Add(outer, &trace.Decap{Method: "ipip", Dev: dev.Index})
	}
	inner.Mark, inner.Priority, inner.IPVS = outer.Mark, outer.Priority, outer.IPVS
	inner.PushLink(packet.MAC{}, packet.MAC{})
	k.number(inner)
	k.queue = append(k.queue, queued{dev: dev.Index, p: inner, view: k.view, parent: outer.SKB})
	k.end(&trace.Outcome{Result: trace.Absorbed, Why: "decapsulated"})
	return true
}

// decapsulateECN copies congestion from the outer header. It is false where the inner one
// can't carry it.
//
// Kernel: include/net/inet_ecn.h, INET_ECN_decapsulate.
func decapsulateECN(outer uint8, inner *packet.Packet) bool {
	const mask, ce = 3, 3
	if outer&mask != ce {
		return true
	}
	if inner.TOS()&mask == 0 {
		return false
	}
	inner.SetTOS(inner.TOS() | ce)
	return true
}
