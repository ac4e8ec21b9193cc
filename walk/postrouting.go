package walk

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/packet/frag"
	"github.com/hookpath/hookpath/trace"
)

// postrouting takes a packet with a route through POSTROUTING to its device.
//
// Kernel: net/ipv4/ip_output.c, ip_output and ip_mc_output.
func (k *Walk) postrouting() {
	k.p.Out = k.dst.Out
	if k.loopsBack() {
		k.nested(k.copyToSelf)
		k.needs(field.TTL)
		if k.dst.Kind == trace.MulticastRoute && k.p.TTL() == 0 {
			k.drop("NOT_SPECIFIED", "ttl")
			return
		}
	}
	if k.runHook(trace.Postrouting) != trace.Accept {
		return
	}
	k.finishOutput()
}

// finishOutput cuts what does not fit and sends the pieces.
//
// Kernel: net/ipv4/ip_output.c, __ip_finish_output.
func (k *Walk) finishOutput() {
	mtu := k.roomAhead()
	k.needsRoom(mtu)
	if frag.Needed(k.p, mtu) {
		k.cut(mtu)
		return
	}
	k.transmit()
}

// transmit resolves the next hop and puts the frame on the wire.
//
// Kernel: net/ipv4/ip_output.c, ip_finish_output2.
func (k *Walk) transmit() {
	d := &k.dst
	out := k.Links.ByIndex(d.Out)
	hop := d.Nexthop(k.p.Dst())
	if out.Index == loopback {
		k.loop()
		return
	}
	if d.Gateway.IsZero() {
		k.needs(field.Dst)
	}
	mac, known := k.Routes.Resolve(k.World, d.Out, hop)
	if k.Trace != nil {
		k.Trace.Add(k.p, &trace.Neigh{Dev: d.Out, Addr: hop, MAC: mac, Found: known})
	}
	if !known {
		asked := k.Links.Asked(k.World, out.Index, hop)
		k.wait(out, hop, asked)
		k.end(&trace.Outcome{Result: trace.Absorbed, Dev: d.Out, Why: "no-neighbour"})
		if !asked {
			k.solicit(out, hop)
		}
		return
	}
	k.p.Partial = false
	k.p.PushLink(mac, out.MAC)
	k.transmitted(0)
}

// loopsBack tells whether the host gets a copy of what it sends to many.
//
// Kernel: net/ipv4/route.c, __mkroute_output, where it chooses ip_mc_output.
func (k *Walk) loopsBack() bool {
	d := &k.dst
	return d.Local && d.Out != loopback && toMany(d)
}

// copyToSelf takes the host's own copy through POSTROUTING and hands it back, as
// received by the device that the packet leaves by. It replaces the present packet:
// call it nested.
//
// Kernel: net/ipv4/ip_output.c, ip_mc_finish_output; net/core/dev.c, dev_loopback_xmit.
func (k *Walk) copyToSelf() {
	parent := k.p.SKB
	k.p = k.p.Clone()
	k.p.Socket = 0 // skb_clone
	k.number(k.p)
	k.Conntrack.Hold(k.World, k.p)
	if k.runHook(trace.Postrouting) != trace.Accept {
		return
	}
	k.p.DropLink()
	k.p.Type = packet.Loopback
	k.queue = append(k.queue, queued{dev: k.dst.Out, p: k.p, dst: k.dst, hasDst: true,
		view: k.view, parent: parent})
	k.softirq()
}

// transmitted ends the present frame on the wire of its out device. parent is the
// packet that an ARP frame is sent for, zero for none.
func (k *Walk) transmitted(parent int) {
	dev, frame := k.p.Out, k.p.Frame()
	if k.Trace != nil {
		frame = clone(frame)
		k.Trace.Changed(k.p, &trace.Transmit{Dev: dev, Frame: frame, Parent: parent})
	}
	k.end(&trace.Outcome{Result: trace.Transmitted, Dev: dev, Frame: frame})
}

const loopback packet.Dev = 1

// loop hands the packet back over lo. It keeps its connection and its route, but not
// its socket.
//
// Kernel: drivers/net/loopback.c, loopback_xmit.
func (k *Walk) loop() {
	k.p.Socket = 0 // skb_orphan
	k.p.PushLink(packet.MAC{}, packet.MAC{})
	if k.Trace != nil {
		k.Trace.Changed(k.p, &trace.Transmit{Dev: loopback, Frame: clone(k.p.Frame())})
	}
	k.queue = append(k.queue, queued{dev: loopback, p: k.p, dst: k.dst, hasDst: k.hasDst,
		view: k.view})
	k.softirq()
}
