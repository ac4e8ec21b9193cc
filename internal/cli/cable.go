package cli

import (
	"fmt"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// infer finds the host that a frame must be for, where no meta.json names the cable:
// the one that has the frame's MAC address, or owns the next hop.
func (j *journey) infer(n *node, t *trace.Trace, o *trace.Outcome) (hop, bool) {
	if !j.l.infer || len(j.l.nodes) < 2 || len(o.Frame) < packet.EthernetLen {
		return hop{}, false
	}
	dst := packet.MAC(o.Frame[:6])
	next := nextHop(t, o)
	for _, other := range j.l.nodes {
		if other == n {
			continue
		}
		l := other.takes(dst, next)
		if l == nil {
			continue
		}
		frame := append([]byte(nil), o.Frame...)
		if dst == (packet.MAC{}) { // the next hop's address was open
			copy(frame, l.MAC[:])
		}
		j.inferred = append(j.inferred, fmt.Sprintf("cable %s:%s - %s:%s (%s is there)", n.Name,
			n.Links.Name(o.Dev), other.Name, l.Name, next))
		return hop{n: other, dev: l.Index, frame: frame, skb: o.SKB}, true
	}
	return hop{}, false
}

// takes is the interface that takes a frame to a MAC address; where that is open,
// the one that owns the next hop.
func (n *node) takes(mac packet.MAC, next packet.Addr) *link.Link {
	for i := range n.Links.All() {
		l := &n.Links.All()[i]
		if mac != (packet.MAC{}) && l.MAC == mac && !l.Is(link.LoopbackFlag) {
			return l
		}
	}
	if mac != (packet.MAC{}) || next.IsZero() {
		return nil
	}
	dev, ok := n.Links.Owner(next)
	if !ok || dev == link.Loopback {
		return nil
	}
	return n.Links.ByIndex(dev)
}

// nextHop is the address that a packet was sent to on its last link.
func nextHop(t *trace.Trace, o *trace.Outcome) packet.Addr {
	var next packet.Addr
	for _, e := range t.Events {
		if n, ok := e.(*trace.Neigh); ok && n.SKB == o.SKB {
			next = n.Addr
		}
	}
	return next
}
