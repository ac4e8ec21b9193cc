package walk

import (
	"encoding/binary"
	"fmt"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// Receive walks a frame that arrives on a device, and all that comes of it.
//
// Kernel: net/core/dev.c, netif_receive_skb.
func (h *Host) Receive(k *Walk, dev packet.Dev, frame []byte) {
	p, ok := k.load(frame)
	if !ok {
		k.Err = fmt.Errorf("a frame of %d bytes has no Ethernet header", len(frame))
		return
	}
	k.number(p)
	k.needs(field.In, field.PktType)
	k.receive(dev, p, 0)
	k.drain()
}

// load makes a packet of a frame. Where nobody observes, all walks of k share one: what
// holds on to a packet beyond its walk holds its bytes alone.
func (k *Walk) load(frame []byte) (*packet.Packet, bool) {
	if k.Trace != nil {
		return packet.FromFrame(frame)
	}
	return &k.spare, k.spare.Load(frame)
}

// receive takes a frame from a device to its protocol. parent is the packet that it is
// a copy of, zero for none.
func (k *Walk) receive(dev packet.Dev, p *packet.Packet, parent int) {
	k.p = p
	p.In, p.Out, p.PhysIn, p.PhysOut = dev, 0, 0, 0
	p.Options = packet.IPOptions{}
	l := k.Links.ByIndex(dev)
	if l == nil {
		k.Err = fmt.Errorf("host %s has no interface with index %d", k.Name, dev)
		return
	}
	if k.Trace != nil {
		k.Trace.Changed(p, &trace.Receive{Dev: dev, Frame: clone(p.Frame()), Parent: parent})
	}
	if !l.Is(link.Up) {
		k.drop("DEV_READY", "link-down")
		return
	}
	if err := k.unsupportedDevice(l); err != nil {
		k.Err = err
		return
	}
	if p.HasLink() { // else the host's own copy, a PACKET_LOOPBACK
		p.Type = packetType(p, l)
	}
	switch p.EtherType() {
	case packet.EtherIPv4:
		k.receiveIP(l)
	case packet.EtherARP:
		k.receiveARP(l)
	default:
		k.drop("UNHANDLED_PROTO", "no-protocol")
	}
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }

// unsupportedDevice names what stands between a device and IP that is not walked.
func (k *Walk) unsupportedDevice(l *link.Link) error {
	if l.Master == 0 {
		return nil
	}
	m := k.Links.ByIndex(l.Master)
	if m == nil {
		return nil
	}
	return &link.UnsupportedError{What: fmt.Sprintf("interface %s is a port of %s %s: its way "+
		"through that device", l.Name, m.Kind, m.Name)}
}

// packetType tells to whom a frame is addressed.
//
// Kernel: net/ethernet/eth.c, eth_type_trans.
func packetType(p *packet.Packet, l *link.Link) packet.Type {
	dst, ok := p.LinkDst()
	switch {
	case !ok || l.Is(link.LoopbackFlag) && dst == (packet.MAC{}):
		return packet.Host
	case dst.IsBroadcast():
		return packet.Broadcast
	case dst.IsMulticast():
		return packet.Multicast
	case dst != l.MAC:
		return packet.OtherHost
	}
	return packet.Host
}

// receiveIP checks an IPv4 packet and takes it through PREROUTING.
//
// Kernel: net/ipv4/ip_input.c, ip_rcv.
func (k *Walk) receiveIP(l *link.Link) {
	if k.p.Type == packet.OtherHost {
		k.drop("OTHERHOST", "other-host")
		return
	}
	if reason, why := checkHeader(k.p); why != "" {
		k.drop(reason, why)
		return
	}
	k.p.FindTransport()
	if !l.HasIP() {
		k.drop("IP_INADDRERRORS", "no-ip-on-device")
		return
	}
	if k.runHook(trace.Prerouting) != trace.Accept {
		return
	}
	k.routeInput()
}

// checkHeader refuses packets with a broken header and cuts off padding.
//
// Kernel: net/ipv4/ip_input.c, ip_rcv_core.
func checkHeader(p *packet.Packet) (trace.Reason, trace.Why) {
	ip := p.IP()
	if len(ip) < 20 {
		return "PKT_TOO_SMALL", "header-truncated"
	}
	n := int(ip[0]&0xf) * 4
	if ip[0]>>4 != 4 || n < 20 {
		return "IP_INHDR", "bad-header"
	}
	if len(ip) < n {
		return "IP_INHDR", "header-truncated"
	}
	if packet.Fold(packet.Sum16(ip[:n], 0)) != 0 {
		return "IP_CSUM", "bad-checksum"
	}
	total := int(binary.BigEndian.Uint16(ip[2:]))
	if total < n {
		return "IP_INHDR", "bad-header"
	}
	if len(ip) < total {
		return "PKT_TOO_SMALL", "packet-truncated"
	}
	p.Trim(total)
	return "", ""
}

// defrag collects fragments until a packet is whole.
//
// Kernel: net/ipv4/netfilter/nf_defrag_ipv4.c, ipv4_conntrack_defrag.
func (k *Walk) defrag(*stage) trace.Verdict {
	k.needs(field.FragOff, field.FragMF)
	if !k.p.IsFragment() {
		return trace.Accept
	}
	return k.reassemble(k.defragUser())
}
