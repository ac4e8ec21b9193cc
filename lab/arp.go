package lab

import (
	"slices"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// arpOf reads the ARP packet in a frame.
func arpOf(frame []byte) (link.ARP, bool) {
	p, ok := packet.FromFrame(slices.Clone(frame))
	if !ok || p.EtherType() != packet.EtherARP {
		return link.ARP{}, false
	}
	return link.ParseARP(p.IP())
}

// race lets the dice say which of several ARP answers about one address comes first:
// nothing in a configuration does.
func (j *Journey) race() {
	first, ok := arpOf(j.queue[0].frame)
	if !ok || first.Op != link.ARPReply {
		return
	}
	var at []int
	var who []packet.MAC
	for i, h := range j.queue {
		a, ok := arpOf(h.frame)
		if ok && a.Op == link.ARPReply && a.Sender == first.Sender && h.port == j.queue[0].port {
			at, who = append(at, i), append(who, a.SenderMAC)
		}
	}
	if len(at) < 2 {
		return
	}
	j.dice.Host = j.queue[0].host
	n := j.dice.Take(world.Choice{
		Key: world.Key{What: world.ChoiceAnswer, A: uint64(j.queue[0].dev), B: hash(first.Sender)},
		N:   len(at), Values: func(i int) string { return j.lab.owner(who[i]) }})
	h := j.queue[at[n]]
	j.queue = slices.Insert(slices.Delete(j.queue, at[n], at[n]+1), 0, h)
}

func hash(a packet.Addr) uint64 {
	n := uint64(0)
	for _, b := range a {
		n = n*257 + uint64(b)
	}
	return n
}

// owner is the interface that has a MAC address, as "host:eth0".
func (l *Lab) owner(mac packet.MAC) string {
	for _, h := range l.Hosts {
		for i := range h.Links.All() {
			if dev := &h.Links.All()[i]; dev.MAC == mac {
				return h.Name + ":" + dev.Name
			}
		}
	}
	return mac.String()
}
