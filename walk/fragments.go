package walk

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet/frag"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// fragments is the host's memory of packets that are not whole yet.
type fragments struct {
	collector *frag.Collector
	queues    world.Slot[*world.Table[frag.Key, frag.Queue]]
	peers     world.Slot[*world.Table[frag.Peer, uint32]]
}

func newFragments(s *world.Schema, sys link.Sysctl) fragments {
	return fragments{frag.New(sys), world.Add(s, world.NewTable[frag.Key, frag.Queue]),
		world.Add(s, world.NewTable[frag.Peer, uint32])}
}

// reassemble keeps the present fragment until its packet is whole, and then goes on
// with that one. Stolen says that it waits, DropIt that the kernel refuses it.
//
// Kernel: net/ipv4/ip_fragment.c, ip_defrag.
func (k *Walk) reassemble(user frag.User) trace.Verdict {
	w := k.World
	k.needs(field.Src, field.Dst, field.Proto)
	whole, n, res := k.fragments.collector.Add(k.fragments.queues.In(w.State),
		k.fragments.peers.In(w.State), frag.Arrival{Packet: k.p, User: user,
			VRF: k.Links.L3Master(k.p.In), Now: int64(w.Now)})
	switch res {
	case frag.Complete:
	case frag.Waiting:
		return trace.Stolen
	default:
		return trace.DropIt
	}
	meta := k.p.Meta
	whole.SKB, whole.In, whole.Out, whole.CT = meta.SKB, meta.In, meta.Out, meta.CT
	k.p = whole
	if k.Trace != nil {
		k.Trace.Changed(k.p, &trace.Reassemble{Fragments: n})
	}
	return trace.Accept
}

// cut sends a packet that does not fit in pieces, or tells its sender why not.
//
// Kernel: net/ipv4/ip_output.c, ip_fragment.
func (k *Walk) cut(mtu int) {
	p := k.p
	pieces, res := frag.Fragment(p.Clone(), mtu, p.FragMax != 0 || p.IgnoreDF)
	switch res {
	case frag.TooBig:
		k.nested(func() { k.sendICMP(3, 4, uint32(mtu)) })
		k.drop("PKT_TOO_BIG", "mtu")
		return
	case frag.NoRoom:
		k.drop("PKT_TOO_BIG", "mtu")
		return
	}
	if k.Trace != nil {
		k.Trace.Add(p, &trace.Fragment{MTU: mtu, Pieces: len(pieces)})
	}
	for i, piece := range pieces {
		if i > 0 {
			k.number(piece)
		} else {
			piece.SKB = p.SKB
		}
		k.p = piece
		k.Conntrack.Hold(k.World, piece)
		k.transmit()
	}
	k.Conntrack.Release(k.World, p)
}

// defragUser is who collects at the present hook.
func (k *Walk) defragUser() frag.User {
	if k.hook == trace.Output {
		return frag.ConntrackOut(0)
	}
	return frag.ConntrackIn(0)
}
