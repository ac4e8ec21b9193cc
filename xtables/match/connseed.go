package match

import (
	ct "github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

// seed is what a connlimit rule takes the connections of a snapshot by, since the
// kernel does not show which of them it has counted: those that the rule's tests on
// addresses and ports let through are taken to have been.
type seed struct {
	pred       field.Pred
	translated bool // the rule sees destinations behind DNAT
	dest       bool
	mask       packet.Addr
	done       world.Slot[*world.Var[bool]]
}

func newSeed(b *xtables.Build, m *connlimit) *seed {
	ps := []field.Pred{ipTests(&b.Rule.IP)}
	for _, use := range b.Rule.Matches {
		switch use.M.(type) {
		case *tcp, *udp, *sctp, *multiport, *iprange:
			ps = append(ps, use.M.Pred(b))
		}
	}
	return &seed{pred: field.And(ps...), translated: b.Hooks != atPrerouting, dest: m.Dest,
		mask: m.Mask.addr(b.Family), done: xtables.Slot(b, false)}
}

// ipTests are the tests of a rule on addresses and protocol.
func ipTests(t *xtables.IPTest) field.Pred {
	var ps []field.Pred
	if !t.Src.Unset() {
		ps = append(ps, field.NotIf(t.Not&xtables.NotSrc != 0, field.Is(field.Src, t.Src.Holds())))
	}
	if !t.Dst.Unset() {
		ps = append(ps, field.NotIf(t.Not&xtables.NotDst != 0, field.Is(field.Dst, t.Dst.Holds())))
	}
	if t.Proto != 0 {
		ps = append(ps, field.NotIf(t.Not&xtables.NotProto != 0, is(field.Proto, uint64(t.Proto))))
	}
	return field.And(ps...)
}

// fill puts the snapshot's connections into the rule's lists, once in a memory. They
// are those that have a number, which this host gives to none.
func (s *seed) fill(e *xtables.Env, table *world.Table[connKey, connList]) {
	done := &s.done.In(e.World.State).V
	if *done {
		return
	}
	*done = true
	for f := range e.Conntrack.All(e.World) {
		if f.ID == 0 || closed(f) {
			continue
		}
		p := flowPacket{f, f.Tuples[ct.Original].Dst, f.Tuples[ct.Original].DPort}
		if s.translated {
			p.dst, p.dport = f.Tuples[ct.Reply].Src, f.Tuples[ct.Reply].SPort
		}
		if s.pred.Eval(&p) != field.Yes {
			continue
		}
		k := connKey{masked(p.side(s.dest), s.mask), f.Zone.ID}
		l, _ := table.Get(k)
		n := len(l.conns)
		l.conns = append(l.conns[:n:n], counted{f.Tuples[ct.Original], f.Zone})
		l.sweptWith = len(l.conns)
		table.Put(k, l)
	}
}

// flowPacket answers what the first packet of a connection was like.
type flowPacket struct {
	f     *ct.Flow
	dst   packet.Addr
	dport uint16
}

func (p *flowPacket) side(dest bool) packet.Addr {
	if dest {
		return p.dst
	}
	return p.f.Tuples[ct.Original].Src
}

// Field implements field.Source.
func (p *flowPacket) Field(id field.ID) (field.Value, field.Status) {
	o := &p.f.Tuples[ct.Original]
	const syn = 2
	switch id {
	case field.Src:
		return field.AddrValue(o.Src), field.Known
	case field.Dst:
		return field.AddrValue(p.dst), field.Known
	case field.Proto:
		return field.U(uint64(o.Proto)), field.Known
	case field.SrcPort:
		return field.U(uint64(o.SPort)), field.Known
	case field.DstPort:
		return field.U(uint64(p.dport)), field.Known
	case field.TCPFlags:
		return field.U(syn), field.Known
	case field.L4:
		return field.U(1), field.Known
	}
	return field.Value{}, field.Unknown
}

// Decide implements field.Source: what is not known is taken to have passed.
func (p *flowPacket) Decide(field.ID, *field.Set) bool { return true }

// Deps implements field.Source.
func (p *flowPacket) Deps() *field.Deps { return nil }
