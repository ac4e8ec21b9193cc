package walk

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/trace"
)

// needs notes that the way hung on all bits of some fields of the present packet.
func (k *Walk) needs(ids ...field.ID) {
	deps := k.Trace.Notes()
	if deps == nil {
		return
	}
	for _, id := range ids {
		deps.Note(id, field.Ones(id.Bits()))
	}
}

// needsRoom notes that the way hung on whether the packet fits into an MTU, and, where it
// does not, on whether it may be cut.
func (k *Walk) needsRoom(mtu int) {
	deps := k.Trace.Notes()
	if deps == nil {
		return
	}
	fits := field.Between(0, uint64(max(mtu, 0)))
	n := field.U(uint64(k.p.Len()))
	deps.Note(field.Len, fits.Looked(n, field.Len.Bits()))
	if !fits.Holds(n) {
		k.needs(field.DontFrag)
	}
}

// view says whose fields those of the present packet are. The zero view is the
// question's packet itself, or a copy.
type view struct {
	answer  bool // a packet of the kernel's own: what it does not take from the other is constant
	swapped bool // its source is the other's destination
}

// answering is the view of an answer to a packet that is seen so.
func (v view) answering() view { return view{true, !v.swapped} }

// seen runs f, which walks a packet that the present one sees so, and translates what
// that packet's way hung on.
func (k *Walk) seen(v view, f func()) {
	k.seenAs(view{k.view.answer || v.answer, k.view.swapped != v.swapped}, f)
}

// seenAs is seen for a packet whose view is of the question's packet: one that waited, and
// may find any other at work.
func (k *Walk) seenAs(v view, f func()) {
	if k.Trace == nil || v == k.view {
		f()
		return
	}
	own, was := k.Trace.Deps, k.view
	k.Trace.Deps, k.view = field.Deps{}, v
	f()
	got := k.Trace.Deps
	k.Trace.Deps, k.view = own, was
	for id := range got {
		if to := v.field(field.ID(id)); to != field.None {
			k.settled.Note(to, v.bits(to, got[id]))
		}
	}
	if was == (view{}) {
		k.Trace.Deps.Add(&k.settled)
		k.settled = field.Deps{}
	}
}

// field is the field of the other packet that one of an answer comes from, None for what
// the kernel chose.
func (v view) field(id field.ID) field.ID {
	if v == (view{}) {
		return id
	}
	switch id {
	case field.In, field.Out, field.PhysIn, field.PhysOut, field.MACSrc, field.MACDst,
		field.EtherType, field.PktType, field.InGroup, field.OutGroup, field.Proto, field.TTL,
		field.FragOff, field.FragMF, field.DontFrag, field.L4, field.ICMPType, field.UID,
		field.GID, field.HasSock, field.CGroup:
		return field.None
	}
	if v.swapped {
		return id.Opposite()
	}
	return id
}

// bits are those of the other packet's field: an answer is longer or shorter than it.
func (v view) bits(id field.ID, looked field.Value) field.Value {
	if v.answer && id == field.Len && !looked.IsZero() {
		return field.Ones(id.Bits())
	}
	return looked
}

// lookup asks for a route without telling of it; what it hung on is noted.
func (k *Walk) lookup(f *route.Flow) route.Decision {
	if k.Trace == nil {
		return k.Routes.Output(k.World, nil, f)
	}
	var quiet trace.Trace
	d := k.Routes.Output(k.World, &quiet, f)
	k.Trace.Deps.Add(&quiet.Deps)
	return d
}

// lookupBack is lookup for the answer to the present packet.
func (k *Walk) lookupBack(f *route.Flow) (d route.Decision) {
	k.seen(view{}.answering(), func() { d = k.lookup(f) })
	return d
}

// answer sends the present packet, which was made of another.
func (k *Walk) answer(d route.Decision, to *packet.Packet) {
	k.seen(view{}.answering(), func() { k.send(d, to.SKB) })
}

// needsSocket notes what the search for a socket goes by: the peer only where some
// socket of that port has one.
func (k *Walk) needsSocket(proto uint8, dport uint16) {
	if k.Trace == nil {
		return
	}
	k.needs(field.Proto)
	if !packet.HasPorts(proto) {
		return
	}
	k.needs(field.Dst, field.DstPort)
	if k.Sockets.Connected(k.World, proto, dport) {
		k.needs(field.Src, field.SrcPort)
	}
}

// needsWritten notes the fields that rules wrote since an event: whether that changed
// anything, and so whether OUTPUT routes anew, hung on what they were.
func (k *Walk) needsWritten(since int) {
	if k.Trace == nil {
		return
	}
	for _, e := range k.Trace.Events[since:] {
		r, ok := e.(*trace.Rule)
		if !ok || e.Base().SKB != k.p.SKB {
			continue
		}
		rule := k.programs[r.Ref.Table].RuleAt(r.Ref)
		if t, ok := rule.Target.(interface{ Effects() []field.Effect }); ok {
			for _, eff := range t.Effects() {
				k.needs(eff.ID)
			}
		}
	}
}

// events is how many there are so far.
func (k *Walk) events() int {
	if k.Trace == nil {
		return 0
	}
	return len(k.Trace.Events)
}
