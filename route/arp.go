package route

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// ARPRoute routes an ARP request as if it were a packet, which ARP goes by to
// tell own addresses from those it may stand for. It implements link.Router.
//
// Kernel: net/ipv4/arp.c, arp_process, its call of ip_route_input_noref.
func (f *FIB) ARPRoute(w *world.World, sender, target packet.Addr,
	in packet.Dev) (trace.RouteKind, packet.Dev, bool) {
	var d Decision
	f.arrive(record{w: w}, &Arrival{Src: sender, Dst: target, In: in, ARP: true}, &d)
	if d.Kind == trace.Unreachable {
		return d.Kind, 0, true // a route that tells errors is a route
	}
	return d.Kind, d.Out, d.Err == 0
}

// DeviceTo is the device by which a packet leaves. It implements link.Router.
//
// Kernel: net/ipv4/arp.c, arp_filter.
func (f *FIB) DeviceTo(w *world.World, dst, src packet.Addr, vrf packet.Dev) (packet.Dev, bool) {
	d := f.Output(w, nil, &Flow{Dst: dst, Src: src, Out: vrf})
	return d.Out, d.Err == 0
}
