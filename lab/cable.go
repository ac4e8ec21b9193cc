package lab

import (
	"fmt"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// port is an interface of a host, by the host's place in the lab.
type port struct {
	host int
	dev  packet.Dev
}

// hop is a frame on its way into a host.
type hop struct {
	port
	frame []byte
	skb   int
	leg   Way
}

// carry puts a transmitted frame on the cable at its device. It is false where none is:
// the frame leaves the lab.
func (j *Journey) carry(leg *Leg, o *trace.Outcome) bool {
	ends, named := j.ends(leg, o)
	if !named && j.lab.Infer {
		ends = j.infer(leg, o)
	}
	for i, e := range ends {
		h := hop{port: e, frame: append([]byte(nil), o.Frame...), skb: o.SKB, leg: leg.Way}
		if i > 0 { // a switch's copies
			j.skbs++
			h.skb = j.skbs
		}
		if unknown(h.frame) {
			mac := j.lab.Hosts[e.host].Links.ByIndex(e.dev).MAC
			copy(h.frame, mac[:])
		}
		j.queue = append(j.queue, h)
	}
	return len(ends) > 0
}

// ends are the far ends of the cable or switch that a configuration names; named tells
// whether one does.
func (j *Journey) ends(leg *Leg, o *trace.Outcome) (ends []port, named bool) {
	h := leg.Host
	peers := h.Config().Cables[h.Links.Name(o.Dev)]
	for _, p := range peers {
		i := j.lab.index(p.Host)
		if i < 0 {
			continue
		}
		if l := j.lab.Hosts[i].Links.ByName(p.Dev); l != nil {
			ends = append(ends, port{i, l.Index})
		}
	}
	return j.switched(ends, leg, o), len(ends) > 0
}

// switched narrows the ports of a switch to the one that a frame is for. A switch that
// knows none sends to all, as it does with what is for many.
func (j *Journey) switched(ends []port, leg *Leg, o *trace.Outcome) []port {
	if len(ends) < 2 || len(o.Frame) < packet.EthernetLen {
		return ends
	}
	dst := packet.MAC(o.Frame[:6])
	if dst[0]&1 != 0 {
		return ends
	}
	next := nextHop(leg.Trace, o)
	for _, e := range ends {
		links := j.lab.Hosts[e.host].Links
		l := links.ByIndex(e.dev)
		dev, owned := links.Owner(next)
		if l.MAC == dst || unknown(o.Frame) && owned && dev == e.dev {
			return []port{e}
		}
	}
	return ends
}

// unknown tells that the next hop's address was open when the frame was built.
func unknown(frame []byte) bool {
	return len(frame) >= packet.EthernetLen && packet.MAC(frame[:6]) == packet.MAC{}
}

// infer finds the host that a frame must be for, where nothing names the cable: the one
// that has the frame's MAC address, or owns the next hop.
func (j *Journey) infer(leg *Leg, o *trace.Outcome) []port {
	if len(o.Frame) < packet.EthernetLen {
		return nil
	}
	next := nextHop(leg.Trace, o)
	for i, other := range j.lab.Hosts {
		if other == leg.Host {
			continue
		}
		l := takes(other.Links, packet.MAC(o.Frame[:6]), next)
		if l == nil {
			continue
		}
		j.Inferred = append(j.Inferred, fmt.Sprintf("cable %s:%s - %s:%s (%s is there)",
			leg.Host.Name, leg.Host.Links.Name(o.Dev), other.Name, l.Name, next))
		return []port{{i, l.Index}}
	}
	return nil
}

// takes is the interface that takes a frame to a MAC address; where that is open, or
// everyone's, the one that owns the next hop.
func takes(links *link.Table, mac packet.MAC, next packet.Addr) *link.Link {
	everyone := packet.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	open := mac == (packet.MAC{}) || mac == everyone
	for i := range links.All() {
		l := &links.All()[i]
		if !open && l.MAC == mac && !l.Is(link.LoopbackFlag) {
			return l
		}
	}
	if !open || next.IsZero() {
		return nil
	}
	dev, ok := links.Owner(next)
	if !ok || dev == link.Loopback {
		return nil
	}
	return links.ByIndex(dev)
}

// nextHop is the address that a frame was sent to on its link: who an ARP request asks
// for, else the neighbour that the packet was handed to.
func nextHop(t *trace.Trace, o *trace.Outcome) packet.Addr {
	if a, ok := arpOf(o.Frame); ok {
		return a.Target
	}
	var next packet.Addr
	for _, e := range t.Events {
		if n, ok := e.(*trace.Neigh); ok && n.SKB == o.SKB {
			next = n.Addr
		}
	}
	return next
}
