package route

import (
	"net/netip"
	"slices"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
)

// DefaultRules are the three rules that a namespace begins with.
//
// Kernel: net/ipv4/fib_rules.c, fib_default_rules_init.
func DefaultRules() []Rule {
	return []Rule{
		{Priority: 0, Table: TableLocal, Protocol: ProtoKernel},
		{Priority: 32766, Table: TableMain, Protocol: ProtoKernel},
		{Priority: 32767, Table: TableDefault, Protocol: ProtoKernel},
	}
}

// rule is a Rule made ready.
type rule struct {
	Rule
	pred   field.Pred
	target int // of a goto, -1 for none
	table  *table
	// inVRF and outVRF are VRFs that the rule names; they select by the flow's
	// L3 master, as its In and Out are the enslaved devices.
	inVRF, outVRF packet.Dev
}

// nowhere is a device index that no packet has.
const nowhere = 1 << 33

// newRules sorts and compiles the rules. Rules of equal priority stay in order.
func newRules(rs []Rule, links *link.Table) []rule {
	out := make([]rule, len(rs))
	for i, r := range rs {
		out[i] = rule{Rule: r, pred: rulePred(&r, links), target: -1, inVRF: vrf(links, r.In),
			outVRF: vrf(links, r.Out)}
	}
	slices.SortStableFunc(out, func(a, b rule) int { return int(a.Priority) - int(b.Priority) })
	for i := range out {
		if out[i].Action == Goto {
			out[i].target = gotoTarget(out, i)
		}
	}
	return out
}

// gotoTarget finds the first rule of the priority that a goto names. A jump
// backwards, which the kernel refuses, would not end.
func gotoTarget(rs []rule, i int) int {
	if rs[i].Goto <= rs[i].Priority {
		return -1
	}
	return slices.IndexFunc(rs, func(r rule) bool { return r.Priority == rs[i].Goto })
}

// rulePred is the predicate of a rule's selectors.
//
// Kernel: net/core/fib_rules.c, fib_rule_match; net/ipv4/fib_rules.c, fib4_rule_match.
func rulePred(r *Rule, links *link.Table) field.Pred {
	var ps []field.Pred
	add := func(id field.ID, s field.Set) { ps = append(ps, field.Is(id, s)) }
	if r.In != "" && vrf(links, r.In) == 0 {
		add(field.In, devSet(links, r.In))
	}
	if r.Out != "" && vrf(links, r.Out) == 0 {
		add(field.Out, devSet(links, r.Out))
	}
	if r.MarkMask != 0 {
		add(field.Mark, field.Masked(field.U(uint64(r.Mark)), field.U(uint64(r.MarkMask))))
	}
	if r.UID.Set {
		add(field.UID, field.Between(uint64(r.UID.Lo), uint64(r.UID.Hi)))
	}
	for _, e := range []struct {
		id field.ID
		p  netip.Prefix
	}{{field.Src, r.Src}, {field.Dst, r.Dst}} {
		if e.p.IsValid() && e.p.Bits() > 0 {
			add(e.id, field.AddrPrefix(packet.AddrFrom(e.p.Addr()), e.p.Bits()))
		}
	}
	if s, ok := tosSet(r); ok {
		add(field.TOS, s)
	}
	if r.Proto != 0 {
		add(field.Proto, field.Num(uint64(r.Proto)))
	}
	if !r.SPort.IsZero() {
		add(field.SrcPort, r.SPort.set())
	}
	if !r.DPort.IsZero() {
		add(field.DstPort, r.DPort.set())
	}
	return field.And(ps...)
}

// tosSet is what a rule asks of the octet: tos compares the bits that routing
// always looked at, dscp all six.
func tosSet(r *Rule) (field.Set, bool) {
	switch {
	case r.DSCP.Set && r.DSCPMask != 0:
		return field.Masked(field.U(uint64(r.DSCP.N)<<2), field.U(uint64(r.DSCPMask)<<2)), true
	case r.DSCP.Set:
		return field.Masked(field.U(uint64(r.DSCP.N)<<2), field.U(0xfc)), true
	case r.TOS&^tosMask != 0:
		return field.Ranges(), true // no packet's masked octet has these bits
	case r.TOS != 0:
		return field.Masked(field.U(uint64(r.TOS)), field.U(tosMask)), true
	}
	return field.Set{}, false
}

func (p Ports) set() field.Set {
	if p.Mask != 0 && p.Mask != 0xffff {
		return field.Masked(field.U(uint64(p.Lo)), field.U(uint64(p.Mask)))
	}
	return field.Between(uint64(p.Lo), uint64(max(p.Lo, p.Hi)))
}

// devSet is the set of one device; a name that is not there is in no packet.
func devSet(links *link.Table, name string) field.Set {
	if l := links.ByName(name); l != nil {
		return field.Num(uint64(l.Index))
	}
	return field.Num(nowhere)
}

// vrf is the index of a VRF of this name, zero for none.
func vrf(links *link.Table, name string) packet.Dev {
	if l := links.ByName(name); l != nil && l.IsVRF() {
		return l.Index
	}
	return 0
}

// matches answers the rule's selectors.
//
// Kernel: net/core/fib_rules.c, fib_rule_match.
func (r *rule) matches(fl *Flow) bool {
	ok := fl.answers(&r.pred)
	if r.inVRF != 0 && (fl.Flags&l3mdevOut != 0 || fl.L3mdev != r.inVRF) {
		ok = false
	}
	if r.outVRF != 0 && (fl.Flags&l3mdevOut == 0 || fl.L3mdev != r.outVRF) {
		ok = false
	}
	if r.L3mdev && fl.L3mdev == 0 {
		ok = false
	}
	return ok != r.Not
}

// answers is r.pred.Eval for a flow. It asks the flow itself and not an interface,
// which would put each flow on the heap.
func (fl *Flow) answers(p *field.Pred) bool {
	switch p.Op {
	case field.OpTrue:
		return true
	case field.OpAnd:
		for i := range p.Kids {
			if !fl.answers(&p.Kids[i]) {
				return false
			}
		}
		return true
	}
	v, st := fl.Field(p.ID)
	if st == field.Unknown && !p.Set.IsFull() {
		return fl.Decide(p.ID, &p.Set)
	}
	if fl.deps != nil {
		fl.deps.Note(p.ID, p.Set.Looked(v, p.ID.Bits()))
	}
	return st == field.Known && p.Set.Holds(v)
}

// needsPorts tells whether a rule makes the kernel look into the packet's
// transport header before it routes.
//
// Kernel: include/net/fib_rules.h, fib_rule_requires_fldissect.
func (r *rule) needsPorts() bool {
	return r.In != "lo" && (r.Proto != 0 || !r.SPort.IsZero() || !r.DPort.IsZero())
}

// isDefault tells whether the rules are those that a namespace begins with.
func isDefault(rs []rule) bool {
	def := DefaultRules()
	if len(rs) != len(def) {
		return false
	}
	for i := range def {
		r := rs[i].Rule
		r.Protocol = def[i].Protocol
		r.Src, r.Dst = dropAll(r.Src), dropAll(r.Dst)
		if r != def[i] {
			return false
		}
	}
	return true
}

// dropAll turns a prefix of length 0 into the invalid one: both select all.
func dropAll(p netip.Prefix) netip.Prefix {
	if p.Bits() == 0 {
		return netip.Prefix{}
	}
	return p
}
