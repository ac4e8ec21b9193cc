package match

import (
	"fmt"
	"strconv"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/ipset"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// set matches packets that are in a set, and may ask the counters of the entry.
//
// Kernel: net/netfilter/xt_set.c, set_match_v4.
type set struct {
	Ref            xtables.SetRef
	Not            bool
	NoMatch        bool
	Counters       bool
	NoCounters     bool
	Subcounters    bool
	NoSubcounters  bool
	Packets, Bytes setCounter
}

func newSet() xtables.Match { return &set{} }

// Options implements xtables.Match.
func (m *set) Options(s *xtables.Spec) {
	s.Var("match-set", &m.Ref).Not(&m.Not).Alias("set").Required()
	s.Flag("return-nomatch", &m.NoMatch)
	s.Flag("update-counters", &m.Counters).Not(&m.NoCounters).
		PrintAs(onlyNot(&m.NoCounters, "update-counters"))
	s.Flag("update-subcounters", &m.Subcounters).Not(&m.NoSubcounters).
		PrintAs(onlyNot(&m.NoSubcounters, "update-subcounters"))
	m.Packets.declare(s, "packets")
	m.Bytes.declare(s, "bytes")
}

// onlyNot prints a flag that means something only with a !.
func onlyNot(not *bool, name string) func([]byte) []byte {
	return func(b []byte) []byte {
		if *not {
			b = append(append(b, " ! --"...), name...)
		}
		return b
	}
}

// setCounter is one of --packets-eq, -lt, -gt, or of those for bytes.
type setCounter struct {
	EQ, LT, GT counterValue
	NotEQ      bool
}

func (c *setCounter) declare(s *xtables.Spec, what string) {
	s.Var(what+"-eq", &c.EQ).Not(&c.NotEQ)
	s.Var(what+"-lt", &c.LT)
	s.Var(what+"-gt", &c.GT)
	s.OneOf(what+"-eq", what+"-lt", what+"-gt")
}

func (c *setCounter) test() ipset.CounterTest {
	switch {
	case c.EQ.Given && c.NotEQ:
		return ipset.CounterTest{Value: c.EQ.N, Op: ipset.CounterNE}
	case c.EQ.Given:
		return ipset.CounterTest{Value: c.EQ.N, Op: ipset.CounterEQ}
	case c.LT.Given:
		return ipset.CounterTest{Value: c.LT.N, Op: ipset.CounterLT}
	case c.GT.Given:
		return ipset.CounterTest{Value: c.GT.N, Op: ipset.CounterGT}
	}
	return ipset.CounterTest{}
}

// counterValue is a number of 64 bits that may be zero.
type counterValue struct {
	N     uint64
	Given bool
}

// Parse implements xtables.Value.
func (v *counterValue) Parse(a *xtables.Args) (err error) {
	v.N, err = xtables.ParseUint(a.Word, 1<<64-1)
	v.Given = true
	return err
}

// Append implements xtables.Value.
func (v *counterValue) Append(b []byte, _ trace.Family) []byte {
	return strconv.AppendUint(b, v.N, 10)
}

// Unset implements xtables.Value.
func (v *counterValue) Unset() bool { return !v.Given }

// Validate implements xtables.Validator.
func (m *set) Validate(b *xtables.Build) error {
	if err := m.Ref.Check(b); err != nil {
		return fmt.Errorf("--match-set: %w", err)
	}
	return nil
}

// Pred implements xtables.Match.
func (m *set) Pred(b *xtables.Build) field.Pred {
	if b.Sets.Open() {
		return field.NotIf(m.Not, field.Call(&unknownSet{m.Ref}))
	}
	t := &setTest{q: m.Ref.Query(b)}
	t.q.Packets, t.q.Bytes = m.Packets.test(), m.Bytes.test()
	t.q.Flags = m.flags(&t.q)
	t.reads = b.Sets.Reads(&t.q)
	t.changes = b.Sets.Changes(&t.q)
	if t.changes {
		return field.NotIf(m.Not, field.Call(t))
	}
	return field.NotIf(m.Not, field.Derived(t))
}

func (m *set) flags(q *ipset.Query) (f ipset.Flags) {
	if m.NoMatch {
		f |= ipset.ReturnNoMatch
	}
	if m.NoCounters {
		f |= ipset.SkipCounters
	}
	if m.NoSubcounters {
		f |= ipset.SkipSubcounters
	}
	if q.Packets.Op != ipset.CounterAny || q.Bytes.Op != ipset.CounterAny {
		f |= ipset.MatchCounters
	}
	return f
}

// setTest asks a set. Where a port or an address that the set looks at is not known,
// the test decides it.
type setTest struct {
	q       ipset.Query
	reads   []field.ID
	changes bool
}

// Test implements field.Func.
func (t *setTest) Test(s field.Source) field.Result {
	e := s.(*xtables.Env)
	at := e.SetPlace()
	for _, id := range t.reads {
		switch id {
		case field.SrcPort, field.DstPort, field.MACSrc:
			if _, st := e.Field(id); st == field.Unknown && !t.settle(e, &at, id) {
				return field.No
			}
		}
	}
	if in, _ := e.Sets.Test(e.World, e.Packet, &t.q, &at); in {
		return field.Yes
	}
	return field.No
}

// Reads implements field.Func.
func (t *setTest) Reads() []field.ID { return t.reads }
