package link

import (
	"strings"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

type neighKey struct {
	dev  packet.Dev
	addr packet.Addr
}

// learnt is a neighbour in memory.
type learnt struct {
	mac   packet.MAC
	state NeighState
	at    world.Instant
}

// Neighbour returns the entry of an address on a device: what was learnt, else
// what the snapshot has. A nil w knows the snapshot only.
func (t *Table) Neighbour(w *world.World, dev packet.Dev, a packet.Addr) (Neigh, bool) {
	k := neighKey{dev, a}
	if w != nil && w.State != nil && t.cfg.Schema != nil {
		if e, ok := t.learnt.In(w.State).Get(k); ok {
			return Neigh{dev, a, e.mac, e.state}, true
		}
	}
	n, ok := t.neighs[k]
	return n, ok
}

// Asked tells whether a neighbour is being asked for at the moment: its requests are
// not used up. One that the snapshot shows incomplete is.
//
// Kernel: net/core/neighbour.c, neigh_timer_handler; neigh_max_probes.
func (t *Table) Asked(w *world.World, dev packet.Dev, a packet.Addr) bool {
	n, known := t.Neighbour(w, dev, a)
	if !known || n.State != Incomplete {
		return false
	}
	l := t.ByIndex(dev)
	if t.cfg.Schema == nil || l == nil {
		return true
	}
	e, ok := t.learnt.In(w.State).Get(neighKey{dev, a})
	if !ok {
		return true
	}
	probes := t.neighConf(l, "mcast_solicit", 3)
	retrans := t.neighConf(l, "retrans_time_ms", 1000)
	return w.Now < e.at+world.Instant(probes*retrans)*(world.Second/1000)
}

// neighConf is a setting of a device's neighbours, which it was given by "default".
func (t *Table) neighConf(l *Link, key string, def int) int {
	const dir = "net.ipv4.neigh."
	def = t.cfg.Sysctl.Int(dir+"default."+key, def)
	return t.cfg.Sysctl.Int(dir+strings.ReplaceAll(l.Name, ".", "/")+"."+key, def)
}

// Learn puts a neighbour into memory, as an ARP packet does.
func (t *Table) Learn(w *world.World, n Neigh) {
	if t.cfg.Schema == nil {
		return
	}
	t.learnt.In(w.State).Put(neighKey{n.Dev, n.Addr}, learnt{n.MAC, n.State, w.Now})
}

// Resolution is how a next hop's MAC address was found.
type Resolution uint8

// The ways.
const (
	Resolved   Resolution = iota
	Unresolved            // an ARP request leaves and the packet waits
	NoHeaders             // the device's frames have no link header
)

// Resolved is the MAC address of a neighbour that is known. On lo and on links between two
// all next hops are one neighbour, which the tables do not list.
//
// Kernel: include/net/arp.h, __ipv4_neigh_lookup_noref.
func (t *Table) Resolved(w *world.World, dev packet.Dev, hop packet.Addr) (packet.MAC, bool) {
	l := t.ByIndex(dev)
	if l == nil || l.NoHeader || l.Flags&(LoopbackFlag|PointToPoint) != 0 {
		return packet.MAC{}, false
	}
	n, ok := t.Neighbour(w, dev, hop)
	return n.MAC, ok && n.State.IsValid()
}

// Resolve returns the MAC address that a frame to a next hop carries. Kind is
// the type of the next hop's address (multicast and broadcast have a MAC address
// of their own).
//
// Kernel: net/ipv4/arp.c, arp_constructor; net/core/neighbour.c, neigh_resolve_output.
func (t *Table) Resolve(w *world.World, dev packet.Dev, hop packet.Addr,
	kind trace.RouteKind) (packet.MAC, Resolution) {
	l := t.ByIndex(dev)
	switch {
	case l == nil:
		return packet.MAC{}, Unresolved
	case l.NoHeader:
		return packet.MAC{}, NoHeaders
	case kind == trace.MulticastRoute && !l.Is(LoopbackFlag) && !l.Is(PointToPoint):
		return MulticastMAC(hop), Resolved
	case l.Flags&(NoARP|LoopbackFlag) != 0:
		return l.MAC, Resolved
	case kind == trace.BroadcastRoute || l.Is(PointToPoint):
		return broadcastMAC(l), Resolved
	}
	if mac, ok := t.Resolved(w, dev, hop); ok {
		return mac, Resolved
	}
	if t.cfg.OpenNeighs {
		return packet.MAC{}, Resolved
	}
	return packet.MAC{}, Unresolved
}

func broadcastMAC(l *Link) packet.MAC {
	if l.Bcast == (packet.MAC{}) {
		return packet.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	return l.Bcast
}

// MulticastMAC is the Ethernet address of a multicast group.
//
// Kernel: include/net/ip.h, ip_eth_mc_map; include/net/if_inet6.h, ipv6_eth_mc_map.
func MulticastMAC(group packet.Addr) packet.MAC {
	if !group.Is4() {
		return packet.MAC{0x33, 0x33, group[12], group[13], group[14], group[15]}
	}
	return packet.MAC{0x01, 0x00, 0x5e, group[13] & 0x7f, group[14], group[15]}
}
