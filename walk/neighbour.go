package walk

import (
	"strings"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// hop is a neighbour that is being asked for.
type hop struct {
	dev  packet.Dev
	addr packet.Addr
}

// waiting are the packets that a host holds until a neighbour answers, the oldest
// first. They are not written any more.
//
// Kernel: include/net/neighbour.h, arp_queue and arp_queue_len_bytes.
type waiting struct {
	packets []*packet.Packet
	bytes   int
}

// wait keeps the present packet until its next hop answers. Where there is no room the
// oldest go, and all that waited in vain for one that is asked anew.
//
// Kernel: net/core/neighbour.c, __neigh_event_send.
func (k *Walk) wait(out *link.Link, addr packet.Addr, asked bool) {
	const usual = 212992
	name := strings.ReplaceAll(out.Name, ".", "/")
	room := k.Sysctl.Int("net.ipv4.neigh."+name+".unres_qlen_bytes", usual)
	t, key := k.waiting.In(k.World.State), hop{out.Index, addr}
	var old waiting
	if asked {
		old, _ = t.Get(key)
	}
	size := trueSize(k.p.Len())
	for len(old.packets) > 0 && old.bytes+size > room {
		old.bytes -= trueSize(old.packets[0].Len())
		old.packets = old.packets[1:]
	}
	p := k.p.Clone()
	p.CT = packet.CT{} // its connection needs it no longer: POSTROUTING confirmed it
	all := append(append([]*packet.Packet(nil), old.packets...), p)
	t.Put(key, waiting{all, old.bytes + size})
}

// trueSize is about what the kernel counts a packet as; it depends on the driver.
//
// Kernel: include/linux/skbuff.h, SKB_TRUESIZE.
func trueSize(n int) int {
	const headroom, shared, skb = 64, 320, 256
	data := 512
	for data < n+headroom+shared {
		data *= 2
	}
	return data + skb
}

// answered sends what waited for a neighbour that is known now. parent is the packet
// that told.
//
// Kernel: net/core/neighbour.c, __neigh_update.
func (k *Walk) answered(n link.Neigh, parent int) {
	t, key := k.waiting.In(k.World.State), hop{n.Dev, n.Addr}
	out := k.Links.ByIndex(n.Dev)
	w, ok := t.Get(key)
	if !ok || !n.State.IsValid() || out == nil {
		return
	}
	t.Delete(key)
	for _, p := range w.packets {
		k.nested(func() {
			k.p = p.Clone()
			k.number(k.p)
			if k.Trace != nil {
				k.Trace.Add(k.p, &trace.Neigh{Dev: n.Dev, Addr: n.Addr, MAC: n.MAC, Found: true})
			}
			k.p.Partial = false
			k.p.PushLink(n.MAC, out.MAC)
			k.transmitted(parent)
		})
	}
}
