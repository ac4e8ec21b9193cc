package compare

import (
	"encoding/binary"
	"fmt"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

// parted tells where two walks took other rules or did another thing to the packet;
// nothing where they agree.
func parted(a, b *walk.Walk, qa, qb *kernel.Question) string {
	if (a.Err == nil) != (b.Err == nil) {
		return fmt.Sprintf("%v, and %v", a.Err, b.Err)
	}
	sa, sb := steps(a), steps(b)
	for i := range max(len(sa), len(sb)) {
		switch {
		case i >= len(sa):
			return "one more: " + sb[i]
		case i >= len(sb):
			return "no more: " + sa[i]
		case sa[i] != sb[i]:
			return sa[i] + ", and " + sb[i]
		}
	}
	if d := recipes(a, b, qa, qb); d != "" {
		return d
	}
	return ""
}

// steps are what happened to all packets of a walk, without their bytes.
func steps(k *walk.Walk) []string {
	var out []string
	add := func(e trace.Event, format string, v ...any) {
		out = append(out, fmt.Sprintf("%d ", e.Base().SKB)+fmt.Sprintf(format, v...))
	}
	for _, e := range k.Trace.Events {
		switch e := e.(type) {
		case *trace.HookRun:
			add(e, "%s %s %d out %d", e.Hook, e.Name, e.Priority, e.Out)
		case *trace.Rule:
			p := k.Program(e.Ref.Table)
			add(e, "%s %s rule %d %s %d", p.Name, p.ChainName(e.Ref.Chain), e.Ref.Rule, e.Verdict, e.Chain)
		case *trace.ChainEnd:
			add(e, "end %d %d %s", e.Ref.Table, e.Ref.Chain, e.Verdict)
		case *trace.Neigh:
			add(e, "neigh %d %s %t", e.Dev, e.MAC, e.Found)
		case *trace.Reassemble:
			add(e, "whole of %d", e.Fragments)
		case *trace.Fragment:
			add(e, "cut at %d", e.MTU)
		}
	}
	for _, o := range k.Trace.Outcomes {
		kind := ""
		if !asksICMP(k) {
			kind = answerKind(&o)
		}
		out = append(out, fmt.Sprintf("%d %s %d %s %s%s", o.SKB, o.Result, o.Dev, o.Reason, o.Why, kind))
	}
	return out
}

// asked is the question's packet as it began, its source filled in.
func asked(k *walk.Walk) *trace.Snap {
	for _, e := range k.Trace.Events {
		if s := e.Base().Packet; s != nil && e.Base().SKB == 1 {
			return s
		}
	}
	return nil
}

// asksICMP tells whether the question's packet is ICMP: copies and replies have its code.
func asksICMP(k *walk.Walk) bool {
	s := asked(k)
	return s != nil && s.Proto == packet.ICMP
}

// answerKind says what a packet of the kernel's own is.
func answerKind(o *trace.Outcome) string {
	ip := o.Frame
	if o.Result == trace.Transmitted && len(ip) > packet.EthernetLen {
		ip = ip[packet.EthernetLen:]
	}
	if o.SKB == 1 || len(ip) < 28 || ip[0] != 0x45 || ip[9] != packet.ICMP {
		return ""
	}
	return fmt.Sprintf(" icmp %d %d", ip[20], ip[21])
}

// change is one thing of a packet: what it was, what it became.
type change struct {
	name     string
	was, now uint64
}

// recipes compares what was done to the bytes: each bit was kept in both packets, or
// became the same in both.
func recipes(a, b *walk.Walk, qa, qb *kernel.Question) string {
	ca, cb := changesOf(a, qa), changesOf(b, qb)
	if len(ca) != len(cb) {
		return fmt.Sprintf("%d things done, and %d", len(ca), len(cb))
	}
	for i := range ca {
		x, y := ca[i], cb[i]
		if x.name == "ttl" && x.now-x.was == y.now-y.was {
			continue
		}
		if (x.now^y.now)&(x.now^x.was|y.now^y.was) != 0 {
			return fmt.Sprintf("%s %#x became %#x, and %#x became %#x", x.name, x.was, x.now, y.was, y.now)
		}
	}
	return ""
}

// changesOf lists what became of the question's packet. A mapping to what the packet has
// already leaves no event, so the bytes tell.
func changesOf(k *walk.Walk, q *kernel.Question) []change {
	var out []change
	mark := uint64(q.Mark)
	for _, e := range k.Trace.Events {
		if s := e.Base().Packet; s != nil && e.Base().SKB == 1 {
			mark = uint64(s.Mark)
		}
	}
	out = append(out, change{"mark", uint64(q.Mark), mark})
	for _, o := range k.Trace.Outcomes {
		f := o.Frame
		if o.SKB != 1 || len(f) == 0 {
			continue
		}
		if o.Result == trace.Transmitted {
			out = append(out, change{"to", 0, mac(f)}, change{"from", 0, mac(f[6:])})
			f = f[packet.EthernetLen:]
		}
		out = append(out, headerChanges(ipOf(q), f)...)
	}
	return out
}

func mac(b []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(b))<<32 | uint64(binary.BigEndian.Uint32(b[2:]))
}

func headerChanges(was, now []byte) []change {
	out := []change{{"tos", uint64(was[1]), uint64(now[1])}, {"ttl", uint64(was[8]), uint64(now[8])},
		{"proto", uint64(was[9]), uint64(now[9])}}
	for _, f := range []struct {
		name string
		at   int
	}{{"src", 12}, {"dst", 16}} {
		out = append(out, change{f.name, uint64(binary.BigEndian.Uint32(was[f.at:])),
			uint64(binary.BigEndian.Uint32(now[f.at:]))})
	}
	a, b := was[int(was[0]&15)*4:], now[int(now[0]&15)*4:]
	frag := binary.BigEndian.Uint16(was[6:])&0x3fff != 0
	if frag || !packet.HasPorts(was[9]) || len(a) < 4 || len(b) < 4 {
		return append(out, change{name: "sport"}, change{name: "dport"})
	}
	return append(out, change{"sport", uint64(binary.BigEndian.Uint16(a)),
		uint64(binary.BigEndian.Uint16(b))}, change{"dport", uint64(binary.BigEndian.Uint16(a[2:])),
		uint64(binary.BigEndian.Uint16(b[2:]))})
}

// otherQuestion tells whether a changed packet disagrees in a field that only the walk
// finds out: its relation to the connections that there are.
func (d *depends) otherQuestion(before *world.State, a, b *walk.Walk) bool {
	if a.Trace.Deps[field.CtState].IsZero() {
		return false
	}
	return d.relation(before, a) != d.relation(before, b) || d.meets(before, a, b)
}

// relation is what conntrack first said of a question's packet.
type relation struct {
	state trace.CTState
	known packet.FlowID // the connection, where it was there before
}

func (d *depends) relation(before *world.State, k *walk.Walk) (r relation) {
	for _, e := range k.Trace.Events {
		c, ok := e.(*trace.Conntrack)
		if !ok || c.SKB != 1 {
			continue
		}
		r.state = c.State
		if f := d.host.Conntrack.Get(d.host.NewWorld(before.Fork()), c.Flow); f != nil {
			r.known = c.Flow
		}
		return r
	}
	return r
}

// meets tells whether a changed packet shares an end with a connection that the other one
// does not share: a mapping that it might get can then be taken.
func (d *depends) meets(before *world.State, a, b *walk.Walk) bool {
	p, q := asked(a), asked(b)
	if p == nil || q == nil {
		return false
	}
	for f := range d.host.Conntrack.All(d.host.NewWorld(before.Fork())) {
		for _, tu := range f.Tuples {
			if tu.Proto == q.Proto && (sharesEnd(tu, q.Src, q.SPort) && !sharesEnd(tu, p.Src, p.SPort) ||
				sharesEnd(tu, q.Dst, q.DPort) && !sharesEnd(tu, p.Dst, p.DPort)) {
				return true
			}
		}
	}
	return false
}

func sharesEnd(tu conntrack.Tuple, a packet.Addr, port uint16) bool {
	return tu.Src == a && tu.SPort == port || tu.Dst == a && tu.DPort == port
}
