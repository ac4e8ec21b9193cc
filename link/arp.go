package link

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// ARP operations.
const (
	ARPRequest uint16 = 1
	ARPReply   uint16 = 2
)

// ARPLen is the length of an ARP packet for IPv4 over Ethernet.
const ARPLen = 28

// ARP is an ARP packet for IPv4 over Ethernet.
//
// Kernel: include/uapi/linux/if_arp.h, struct arphdr.
type ARP struct {
	Op                   uint16
	SenderMAC, TargetMAC packet.MAC
	Sender, Target       packet.Addr
}

// ParseARP reads an ARP packet. It is false for what the kernel does not take for
// IPv4 over Ethernet.
//
// Kernel: net/ipv4/arp.c, arp_rcv, arp_process.
func ParseARP(b []byte) (ARP, bool) {
	if len(b) < ARPLen {
		return ARP{}, false
	}
	hrd := binary.BigEndian.Uint16(b)
	if hrd != 1 && hrd != 6 || binary.BigEndian.Uint16(b[2:]) != packet.EtherIPv4 ||
		b[4] != 6 || b[5] != 4 {
		return ARP{}, false
	}
	a := ARP{Op: binary.BigEndian.Uint16(b[6:]), SenderMAC: packet.MAC(b[8:14]),
		Sender: packet.AddrFrom4(b[14:]), TargetMAC: packet.MAC(b[18:24]),
		Target: packet.AddrFrom4(b[24:])}
	return a, a.Op == ARPRequest || a.Op == ARPReply
}

// Bytes is the packet as it stands behind the Ethernet header.
//
// Kernel: net/ipv4/arp.c, arp_create.
func (a *ARP) Bytes() []byte {
	b := make([]byte, 8, ARPLen)
	b[1], b[2], b[4], b[5] = 1, 8, 6, 4
	binary.BigEndian.PutUint16(b[6:], a.Op)
	b = append(b, a.SenderMAC[:]...)
	b = append(b, a.Sender[12:]...)
	b = append(b, a.TargetMAC[:]...)
	return append(b, a.Target[12:]...)
}

// Router is what ARP asks of routing; a route.FIB is one.
type Router interface {
	// ARPRoute routes an ARP request as if it were a packet; false where the
	// kernel's lookup fails.
	ARPRoute(w *world.World, sender, target packet.Addr, in packet.Dev) (trace.RouteKind,
		packet.Dev, bool)
	// DeviceTo is the device by which a packet to dst from src leaves.
	DeviceTo(w *world.World, dst, src packet.Addr, vrf packet.Dev) (packet.Dev, bool)
	// AddrTypeTable is the type of an address in the table of a device's VRF.
	AddrTypeTable(a packet.Addr, dev packet.Dev) trace.RouteKind
}

// ARPAnswer is what comes of an ARP packet.
type ARPAnswer struct {
	Reply   ARP
	Replies bool
	// Delayed is a proxy's answer that waits up to proxy_delay.
	Delayed bool
	// Learnt is the neighbour that was made or changed; its Dev is zero for none.
	Learnt Neigh
	// Why says why nothing was answered: a word of a closed list.
	Why trace.Why
}

// Why an ARP request was not answered.
const (
	WhyARPNotOurs trace.Why = "arp-not-ours"
	WhyARPIgnore  trace.Why = "arp-ignore"
	WhyARPFilter  trace.Why = "arp-filter"
	WhyARPInvalid trace.Why = "arp-invalid"
)

// arpRun is one packet on its way through arp_process.
type arpRun struct {
	t  *Table
	w  *world.World
	r  Router
	l  *Link
	a  ARP
	to packet.Type
}

// ARP answers an ARP packet that a device got and learns from it.
//
// Kernel: net/ipv4/arp.c, arp_process.
func (t *Table) ARP(w *world.World, r Router, dev packet.Dev, to packet.Type, a ARP) ARPAnswer {
	l := t.ByIndex(dev)
	if l == nil || !l.HasIP() || l.Is(NoARP) || to == packet.OtherHost || to == packet.Loopback {
		return ARPAnswer{Why: WhyARPInvalid}
	}
	c := &l.Conf
	if isMulticast(a.Target) || !c.RouteLocalnet && a.Target[12] == 127 ||
		a.Sender == a.Target && c.DropGratuitousARP {
		return ARPAnswer{Why: WhyARPInvalid}
	}
	x := &arpRun{t, w, r, l, a, to}
	if a.Sender.IsAny() {
		return x.probe()
	}
	if a.Op == ARPRequest {
		if out, done := x.request(); done {
			return out
		}
	}
	return x.update()
}

func isMulticast(a packet.Addr) bool { return a[12]&0xf0 == 0xe0 }

// probe answers a duplicate address detection.
func (x *arpRun) probe() ARPAnswer {
	if x.a.Op != ARPRequest || x.r.AddrTypeTable(x.a.Target, x.l.Index) != trace.Local {
		return ARPAnswer{Why: WhyARPNotOurs}
	}
	if x.ignored() {
		return ARPAnswer{Why: WhyARPIgnore}
	}
	return x.reply()
}

func (x *arpRun) reply() ARPAnswer {
	return ARPAnswer{Replies: true, Reply: ARP{Op: ARPReply, SenderMAC: x.l.MAC,
		Sender: x.a.Target, TargetMAC: x.a.SenderMAC, Target: x.a.Sender}}
}

// request answers a request for an address that this host has or stands for.
func (x *arpRun) request() (ARPAnswer, bool) {
	kind, out, ok := x.r.ARPRoute(x.w, x.a.Sender, x.a.Target, x.l.Index)
	switch {
	case !ok:
		return ARPAnswer{}, false
	case kind == trace.Local:
		return x.ours(), true
	case !x.l.Conf.Forwarding || kind != trace.Unicast || !x.proxies(out):
		return ARPAnswer{}, false
	}
	ans := x.reply()
	ans.Learnt = x.learn(Stale, true)
	ans.Delayed = x.to != packet.Host
	return ans, true
}

// ours answers for an own address, where arp_ignore and arp_filter let it.
func (x *arpRun) ours() ARPAnswer {
	if x.ignored() {
		return ARPAnswer{Why: WhyARPIgnore}
	}
	if x.l.Conf.ARPFilter {
		dev, ok := x.r.DeviceTo(x.w, x.a.Sender, x.a.Target, x.t.L3Master(x.l.Index))
		if !ok || dev != x.l.Index {
			return ARPAnswer{Why: WhyARPFilter}
		}
	}
	ans := x.reply()
	ans.Learnt = x.learn(Stale, true)
	return ans
}

// ignored follows arp_ignore.
func (x *arpRun) ignored() bool {
	t, dev, sip, tip := x.t, x.l.Index, x.a.Sender, x.a.Target
	var any packet.Addr
	switch x.l.Conf.ARPIgnore {
	case 1: // only for an address of the device
		return t.Confirm(dev, any, tip, ScopeHost).IsZero()
	case 2: // and only where the sender is in its subnet
		return t.Confirm(dev, sip, tip, ScopeHost).IsZero()
	case 3: // not for addresses of scope host
		return t.Confirm(0, any, tip, ScopeLink).IsZero()
	case 8:
		return true
	}
	return false
}

// proxies tells whether this host answers for an address behind another device.
//
// Kernel: net/ipv4/arp.c, arp_fwd_proxy, arp_fwd_pvlan.
func (x *arpRun) proxies(out packet.Dev) bool {
	c := &x.l.Conf
	if out == x.l.Index {
		return c.ProxyARPPVLAN && x.a.Sender != x.a.Target
	}
	if x.t.proxy[Proxy{x.l.Index, x.a.Target}] || x.t.proxy[Proxy{0, x.a.Target}] {
		return true
	}
	switch {
	case !c.ProxyARP, c.MediumID == -1:
		return false
	case c.MediumID == 0:
		return true
	}
	o := x.t.ByIndex(out)
	return o != nil && o.Conf.MediumID != c.MediumID && o.Conf.MediumID != -1
}

// update learns from what was not answered.
func (x *arpRun) update() ARPAnswer {
	ans := ARPAnswer{}
	if x.a.Op == ARPRequest {
		ans.Why = WhyARPNotOurs
	}
	_, known := x.t.Neighbour(x.w, x.l.Index, x.a.Sender)
	accept := x.accepts()
	if !known && !accept {
		return ans
	}
	garp := x.gratuitous()
	unicast := x.r.AddrTypeTable(x.a.Sender, x.l.Index) == trace.Unicast
	if !known && !garp && !(x.a.Op == ARPReply && unicast) {
		return ans
	}
	state := Reachable
	if x.a.Op != ARPReply || x.to != packet.Host {
		state = Stale
	}
	ans.Learnt = x.learn(state, garp)
	return ans
}

// accepts follows arp_accept.
func (x *arpRun) accepts() bool {
	switch x.l.Conf.ARPAccept {
	case 1:
		return true
	case 2:
		return !x.t.Confirm(x.l.Index, x.a.Sender, packet.Addr{}, ScopeLink).IsZero()
	}
	return false
}

// gratuitous follows arp_is_garp.
func (x *arpRun) gratuitous() bool {
	return x.a.Sender == x.a.Target && (x.a.Op != ARPReply || x.a.TargetMAC == x.a.SenderMAC) &&
		x.r.AddrTypeTable(x.a.Sender, x.l.Index) == trace.Unicast
}

// lockTime is how long a neighbour's address can't be changed by another answer.
const lockTime = world.Second

// learn follows neigh_update: static entries stay, and an address that was just
// learnt is not overwritten unless override is set.
func (x *arpRun) learn(state NeighState, override bool) Neigh {
	n := Neigh{Dev: x.l.Index, Addr: x.a.Sender, MAC: x.a.SenderMAC, State: state}
	old, known := x.t.Neighbour(x.w, n.Dev, n.Addr)
	kind := x.r.AddrTypeTable(n.Addr, n.Dev)
	switch {
	case !known && (kind == trace.BroadcastRoute || kind == trace.MulticastRoute):
		return Neigh{} // made with an address of its own: arp_constructor
	case known && old.State&(Permanent|NoARPState) != 0:
		return Neigh{}
	case known && old.State.IsValid() && old.MAC == n.MAC && state == Stale:
		n.State = old.State
	case known && old.State.IsValid() && old.MAC != n.MAC && !override && x.locked():
		return Neigh{}
	}
	x.t.Learn(x.w, n)
	return n
}

// locked tells whether the entry was learnt less than locktime ago.
func (x *arpRun) locked() bool {
	if x.t.cfg.Schema == nil {
		return false
	}
	e, ok := x.t.learnt.In(x.w.State).Get(neighKey{x.l.Index, x.a.Sender})
	return ok && x.w.Now <= e.at+lockTime
}

// Solicit is the request that asks for a next hop, for a packet from src, and
// remembers that it was asked.
//
// Kernel: net/ipv4/arp.c, arp_solicit.
func (t *Table) Solicit(w *world.World, r Router, dev packet.Dev, target,
	src packet.Addr) (ARP, bool) {
	l := t.ByIndex(dev)
	if l == nil || !l.HasIP() || l.Is(NoARP) {
		return ARP{}, false
	}
	sender := packet.Addr{}
	if c := l.Conf.ARPAnnounce; c < 2 && r.AddrTypeTable(src, dev) == trace.Local {
		if c != 1 || t.OnLink(dev, target, src) {
			sender = src
		}
	}
	if sender.IsAny() {
		sender = t.Select(dev, target, ScopeLink)
	}
	if sender.IsZero() {
		sender = packet.V4(0)
	}
	if n, known := t.Neighbour(w, dev, target); !known || !n.State.IsValid() {
		t.Learn(w, Neigh{Dev: dev, Addr: target, State: Incomplete})
	}
	return ARP{Op: ARPRequest, SenderMAC: l.MAC, Sender: sender, Target: target}, true
}
