package walk

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// narrowing is one answer that a test on an unknown field got on this path.
type narrowing struct {
	set field.Set
	in  bool
}

// narrow answers a test on an unknown field: by what earlier tests on this path
// imply, else by a choice that is remembered.
func (k *Walk) narrow(id field.ID, s *field.Set) bool {
	known := append(k.drawn(id), k.narrowed[id]...)
	if in, sure := implied(known, s, id.Bits()); sure {
		return in
	}
	n := len(k.narrowed[id])
	taken := k.World.Dice.Take(world.Choice{
		Key: world.Key{What: world.ChoiceField, A: uint64(id), B: uint64(n)}, N: 2,
		Values: func(i int) string {
			if i == 0 {
				return id.String() + " matches"
			}
			return id.String() + " does not match"
		}})
	if k.narrowed == nil {
		k.narrowed = map[field.ID][]narrowing{}
	}
	k.narrowed[id] = append(k.narrowed[id], narrowing{*s, taken == 0})
	return taken == 0
}

// drawn is what is known of a port that NAT drew: the range.
func (k *Walk) drawn(id field.ID) []narrowing {
	which := packet.FreeDstPort
	if id == field.SrcPort {
		which = packet.FreeSrcPort
	}
	if id != field.SrcPort && id != field.DstPort || k.p.Free&which == 0 {
		return nil
	}
	ports, ok := k.Conntrack.FreePorts(k.World, k.p, which)
	if !ok {
		return nil
	}
	return []narrowing{{field.Between(uint64(ports.Min), uint64(ports.Max)), true}}
}

// implied tells what is known of a test from earlier answers.
func implied(known []narrowing, s *field.Set, width int) (in, sure bool) {
	for i := range known {
		n := &known[i]
		switch {
		case n.in && field.Covers(s, &n.set, width):
			return true, true
		case n.in && field.Disjoint(s, &n.set, width):
			return false, true
		case !n.in && field.Covers(&n.set, s, width):
			return false, true
		}
	}
	return false, false
}
