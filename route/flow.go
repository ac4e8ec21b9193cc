package route

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
)

// FlowFlags are flags of a lookup.
//
// Kernel: include/net/flow.h, FLOWI_FLAG_*.
type FlowFlags uint8

// The flags.
const (
	// AnySource lets a source pass that the host does not own (IP_TRANSPARENT,
	// IP_HDRINCL).
	AnySource FlowFlags = 1 << iota
	// IgnoreLinkState is FIB_LOOKUP_IGNORE_LINKSTATE.
	IgnoreLinkState
	l3mdevOut // FLOWI_FLAG_L3MDEV_OIF: L3mdev comes from the device out
)

// Flow is what a lookup asks about. Zero addresses and ports are none. It
// answers the selectors of ip rules.
//
// Kernel: include/net/flow.h, struct flowi4.
type Flow struct {
	Src, Dst     packet.Addr
	SPort, DPort uint16
	Proto        uint8
	TOS          uint8
	Scope        link.Scope
	Flags        FlowFlags
	Mark, UID    uint32
	In, Out      packet.Dev
	L3mdev       packet.Dev

	// Ask answers and decides the fields that are not known (a port that NAT
	// drew, a uid); nil where all are.
	Ask     field.Source
	Unknown field.ID // the one field that Ask is asked for, None for none

	deps *field.Deps
}

// tosMask are the bits of the octet that routing looks at.
//
// Kernel: include/net/route.h, IPTOS_RT_MASK; INET_DSCP_LEGACY_TOS_MASK.
const tosMask = 0x1c

// Field implements field.Source. A field that a packet lacks is zero, as the
// kernel's flow is.
func (f *Flow) Field(id field.ID) (field.Value, field.Status) {
	if f.Ask != nil && id == f.Unknown && id != field.None {
		return f.Ask.Field(id)
	}
	switch id {
	case field.Src:
		return field.AddrValue(or4(f.Src)), field.Known
	case field.Dst:
		return field.AddrValue(or4(f.Dst)), field.Known
	case field.SrcPort:
		return field.U(uint64(f.SPort)), field.Known
	case field.DstPort:
		return field.U(uint64(f.DPort)), field.Known
	case field.Proto:
		return field.U(uint64(f.Proto)), field.Known
	case field.TOS:
		return field.U(uint64(f.TOS)), field.Known
	case field.Mark:
		return field.U(uint64(f.Mark)), field.Known
	case field.UID:
		return field.U(uint64(f.UID)), field.Known
	case field.In:
		return field.U(uint64(f.In)), field.Known
	case field.Out:
		return field.U(uint64(f.Out)), field.Known
	}
	return field.Value{}, field.Absent
}

// Decide implements field.Source.
func (f *Flow) Decide(id field.ID, s *field.Set) bool { return f.Ask.Decide(id, s) }

// Deps implements field.Source.
func (f *Flow) Deps() *field.Deps { return f.deps }

// or4 turns "no address" into 0.0.0.0, which is what the kernel's flow holds.
func or4(a packet.Addr) packet.Addr {
	if a.IsZero() {
		return packet.V4(0)
	}
	return a
}

// role says which fields of the packet a flow's fields are.
type role uint8

const (
	asInput   role = iota
	asReverse      // the way back to the source: ends swapped, no mark
	asReverseMark
	asOutput
)

// forward are the fields that keep their name.
var forward = [...]field.ID{field.Src, field.Dst, field.SrcPort, field.DstPort, field.Proto,
	field.TOS}

// fold notes what a flow's lookup looked at in the names of the packet.
func (f *Flow) fold(to *field.Deps, r role) {
	if to == nil || f.deps == nil {
		return
	}
	for _, id := range forward {
		name := id
		if r == asReverse || r == asReverseMark {
			name = id.Opposite()
		}
		to.Note(name, f.deps[id])
	}
	if !f.deps[field.SrcPort].Or(f.deps[field.DstPort]).IsZero() { // who has ports at all
		to.Note(field.Proto, field.Ones(field.Proto.Bits()))
	}
	if r != asReverse {
		to.Note(field.Mark, f.deps[field.Mark])
	}
	switch r {
	case asInput:
		to.Note(field.In, f.deps[field.In])
	case asOutput:
		to.Note(field.UID, f.deps[field.UID])
	}
}
