package conntrack

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// State is the word for a packet's relation to its connection.
func (t *Tracker) State(w *world.World, p *packet.Packet) trace.CTState {
	if p.Template != 0 {
		return trace.StateNew // a template looks like a new connection
	}
	if p.CT.Flow == 0 {
		if p.CT.Info == packet.Untracked {
			return trace.StateUntracked
		}
		return trace.StateInvalid
	}
	switch p.CT.Info {
	case packet.New:
		return trace.StateNew
	case packet.Related, packet.RelatedReply:
		return trace.StateRelated
	}
	return trace.StateEstablished
}

// stateBits are the bits of field.CtState, as the conntrack match sees them.
//
// Kernel: net/netfilter/xt_conntrack.c, conntrack_mt.
func (t *Tracker) stateBits(w *world.World, p *packet.Packet) uint64 {
	bits := [...]uint64{
		trace.StateInvalid: field.CtInvalid, trace.StateNew: field.CtNew,
		trace.StateEstablished: field.CtEstablished, trace.StateRelated: field.CtRelated,
		trace.StateUntracked: field.CtUntracked,
	}[t.State(w, p)]
	if f := t.Get(w, p.CT.Flow); f != nil {
		if f.Is(SrcNAT) {
			bits |= field.CtSNAT
		}
		if f.Is(DstNAT) {
			bits |= field.CtDNAT
		}
	}
	return bits
}

// Field returns the value of a field of the packet's connection. Without one all
// but the state are absent. A port that NAT drew is Unknown; FreePorts says what it
// can be.
func (t *Tracker) Field(w *world.World, p *packet.Packet, id field.ID) (field.Value, field.Status) {
	if id == field.CtState {
		return field.U(t.stateBits(w, p)), field.Known
	}
	f := t.Get(w, p.CT.Flow)
	if f == nil {
		return field.Value{}, field.Absent
	}
	if id >= field.CtOrigSrc && id <= field.CtReplDPort {
		return f.tupleField(id)
	}
	return f.field(w, p, id)
}

func (f *Flow) field(w *world.World, p *packet.Packet, id field.ID) (field.Value, field.Status) {
	switch id {
	case field.CtStatus:
		return field.U(uint64(f.Status)), field.Known
	case field.CtMark:
		return field.U(uint64(f.Mark)), field.Known
	case field.CtZone:
		return field.U(uint64(f.Zone.ID)), field.Known
	case field.CtDir:
		return field.U(uint64(DirOf(p.CT.Info))), field.Known
	case field.CtProto:
		return field.U(uint64(f.Proto())), field.Known
	case field.CtExpire:
		return field.U(f.Expires(w.Now)), field.Known
	case field.CtLabel:
		return labelValue(f.Labels), field.Known
	case field.CtHelper:
		return field.U(uint64(f.Helper)), field.Known
	}
	return field.Value{}, field.Absent
}

func (f *Flow) tupleField(id field.ID) (field.Value, field.Status) {
	o, r := &f.Tuples[Original], &f.Tuples[Reply]
	st := field.Known
	switch id {
	case field.CtOrigSrc:
		return field.AddrValue(o.Src), st
	case field.CtOrigDst:
		return field.AddrValue(o.Dst), st
	case field.CtReplSrc:
		return field.AddrValue(r.Src), st
	case field.CtReplDst:
		return field.AddrValue(r.Dst), st
	case field.CtOrigSPort:
		return field.U(uint64(o.SPort)), st
	case field.CtOrigDPort:
		return field.U(uint64(o.DPort)), st
	case field.CtReplSPort:
		if f.Free&packet.FreeDstPort != 0 {
			st = field.Unknown
		}
		return field.U(uint64(r.SPort)), st
	}
	if f.Free&packet.FreeSrcPort != 0 {
		st = field.Unknown
	}
	return field.U(uint64(r.DPort)), st
}

// Expires is how many whole seconds a connection has left; zero for one that is not
// in the table.
//
// Kernel: include/net/netfilter/nf_conntrack.h, nf_ct_expires.
func (f *Flow) Expires(now world.Instant) uint64 {
	if !f.Is(Confirmed) || f.Timeout <= now {
		return 0
	}
	return uint64((f.Timeout - now) / world.Second)
}

// labelValue turns label bits into a number: bit n of the label is bit n.
func labelValue(l [16]byte) field.Value {
	return field.Value{Hi: binary.LittleEndian.Uint64(l[8:]), Lo: binary.LittleEndian.Uint64(l[:])}
}

// FreePorts says what a port that NAT drew for the packet's connection can be.
func (t *Tracker) FreePorts(w *world.World, p *packet.Packet, which packet.Free) (Ports, bool) {
	f := t.Get(w, p.CT.Flow)
	if f == nil || f.Free&which == 0 {
		return Ports{}, false
	}
	if which == packet.FreeSrcPort {
		return f.FreeSrc, true
	}
	return f.FreeDst, true
}
