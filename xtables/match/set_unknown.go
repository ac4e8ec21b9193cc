package match

import (
	"encoding/binary"
	"hash/fnv"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/ipset"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

// settle decides an unknown field as far as the set tells its values apart, and puts
// a value of the kind decided on into at. It is false when the answer is no.
func (t *setTest) settle(e *xtables.Env, at *ipset.Place, id field.ID) bool {
	if id == field.MACSrc {
		t.settleMAC(e, at)
		return true
	}
	hits := t.portsIn(e, *at, id)
	if len(hits) == 0 {
		return false
	}
	all := field.OneOf(hits...)
	if !e.Decide(id, &all) {
		return false
	}
	port := hits[0]
	if t.changes { // which entry counts hangs on the port
		for _, port = range hits {
			one := field.Num(port)
			if e.Decide(id, &one) {
				break
			}
		}
	}
	setPort(at, id, uint16(port))
	return true
}

// portsIn lists the ports with which the packet is in the set.
func (t *setTest) portsIn(e *xtables.Env, at ipset.Place, id field.ID) (hits []uint64) {
	q := t.q
	q.Flags |= ipset.Peek
	for port := range uint64(1 << 16) {
		setPort(&at, id, uint16(port))
		if in, _ := e.Sets.Test(e.World, e.Packet, &q, &at); in {
			hits = append(hits, port)
		}
	}
	return hits
}

func setPort(at *ipset.Place, id field.ID, port uint16) {
	if id == field.SrcPort {
		at.SPort, at.Ports = port, at.Ports|packet.FreeSrcPort
		return
	}
	at.DPort, at.Ports = port, at.Ports|packet.FreeDstPort
}

// settleMAC asks for each address of the set whether it is the packet's.
func (t *setTest) settleMAC(e *xtables.Env, at *ipset.Place) {
	at.HasSource = true
	var found bool
	known := map[packet.MAC]bool{}
	e.Sets.EachMAC(e.World, t.q.Set, func(m packet.MAC) bool {
		if known[m] {
			return true
		}
		known[m] = true
		one := field.Num(field.MACNumber(m))
		at.Source, found = m, e.Decide(field.MACSrc, &one)
		return !found
	})
	for n := byte(1); !found; n++ { // an address that the set does not have
		at.Source = packet.MAC{2, 0, 0, 0, 0, n}
		found = !known[at.Source]
	}
}

// unknownSet is a test on a set of which nothing is known: both answers are walked.
type unknownSet struct{ ref xtables.SetRef }

// Test implements field.Func.
func (t *unknownSet) Test(s field.Source) field.Result {
	e := s.(*xtables.Env)
	for _, id := range t.Reads() {
		e.Deps().Note(id, field.Ones(id.Bits()))
	}
	name, el := fnv.New64a(), fnv.New64a()
	_, _ = name.Write([]byte(t.ref.Name))
	sport, dport, _ := e.Packet.Ports()
	src, dst := e.Packet.Src(), e.Packet.Dst()
	b := binary.BigEndian.AppendUint16(append(src[:], dst[:]...), sport)
	b = append(binary.BigEndian.AppendUint16(b, dport), e.Packet.Protocol(), t.ref.Src, t.ref.Dims)
	_, _ = el.Write(b)
	c := world.Choice{Key: world.Key{What: world.ChoiceField, A: name.Sum64(), B: el.Sum64()},
		N: 2, Values: func(i int) string {
			return [...]string{"in set ", "not in set "}[i] + t.ref.Name
		}}
	if e.World.Dice.Take(c) == 0 {
		return field.Yes
	}
	return field.No
}

// Reads implements field.Func.
func (t *unknownSet) Reads() []field.ID {
	return []field.ID{field.Src, field.Dst, field.Proto, field.SrcPort, field.DstPort}
}
