package match

import (
	"encoding/binary"
	"fmt"
	"strconv"

	ct "github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

// connlimit matches while more (or not more) than a number of the connections that
// asked the rule are alive, for each source or destination under a mask.
//
// Kernel: net/netfilter/xt_connlimit.c, connlimit_mt; nf_conncount.c.
type connlimit struct {
	Limit     number
	Above     bool
	Mask      connMask
	Dest      bool
	not, from bool
}

func newConnlimit() xtables.Match { return &connlimit{} }

// Options implements xtables.Match.
func (m *connlimit) Options(s *xtables.Spec) {
	s.Var("connlimit-upto", &m.Limit).Not(&m.not).PrintAs(m.print)
	s.Var("connlimit-above", &connAbove{&m.Limit, &m.Above}).Not(&m.not).Hidden()
	s.Var("connlimit-mask", &m.Mask).Always()
	s.Flag("connlimit-saddr", &m.from).PrintAs(m.side)
	s.Flag("connlimit-daddr", &m.Dest).PrintAs(func(b []byte) []byte { return b })
	s.ExactlyOne("connlimit-upto", "connlimit-above")
	s.OneOf("connlimit-saddr", "connlimit-daddr")
	s.Check(func(*xtables.Context) error {
		m.Above, m.not = m.Above != m.not, false
		return nil
	})
}

func (m *connlimit) print(b []byte) []byte {
	if m.Above {
		b = append(b, " --connlimit-above "...)
	} else {
		b = append(b, " --connlimit-upto "...)
	}
	return strconv.AppendUint(b, m.Limit.n, 10)
}

func (m *connlimit) side(b []byte) []byte {
	if m.Dest {
		return append(b, " --connlimit-daddr"...)
	}
	return append(b, " --connlimit-saddr"...)
}

// connKey is an address under the mask, in a zone.
type connKey struct {
	addr packet.Addr
	zone uint16
}

// counted is a connection that a list holds.
type counted struct {
	tuple ct.Tuple
	zone  ct.Zone
}

// connList is what is counted under one key. Its connections are replaced, never
// changed, since frozen memory shares them.
type connList struct {
	conns     []counted
	swept     world.Instant
	sweptWith int
}

// counter is the memory of one rule: struct nf_conncount_data.
type counter = world.Slot[*world.Table[connKey, connList]]

// Pred implements xtables.Match.
func (m *connlimit) Pred(b *xtables.Build) field.Pred {
	slot := world.Add(b.Schema, world.NewTable[connKey, connList])
	mask := m.Mask.addr(b.Family)
	id := field.Src
	if m.Dest {
		id = field.Dst
	}
	s := newSeed(b, m)
	assume(b, "-m connlimit is taken to have counted the snapshot's connections whose "+
		"addresses and ports pass the rule")
	return call(func(e *xtables.Env) field.Result {
		v, _ := e.Field(id)
		s.fill(e, slot.In(e.World.State))
		c := newCounting(e, slot, masked(v.Addr(), mask))
		n := c.run()
		if n == 0 {
			return field.Drop
		}
		return result(uint64(n) > m.Limit.n == m.Above)
	}, id, field.CtState, field.TCPFlags, field.Bytes) // one that the packet ends does not count
}

// counting is one packet at a counter.
type counting struct {
	e     *xtables.Env
	table *world.Table[connKey, connList]
	key   connKey
	tuple ct.Tuple
	zone  ct.Zone
	flow  *ct.Flow // the packet's connection, nil for none
	ok    bool     // the packet has a tuple
	now   world.Instant
	rule  int
}

// newCounting mirrors get_ct_or_tuple_from_skb.
func newCounting(e *xtables.Env, slot counter, addr packet.Addr) *counting {
	w := e.World
	c := &counting{e: e, table: slot.In(w.State), now: w.Now, rule: e.Rule, ok: true}
	if f := e.Conntrack.Get(w, e.Packet.CT.Flow); f != nil {
		c.flow, c.zone, c.tuple = f, f.Zone, f.Tuples[ct.Original]
	} else if c.tuple, c.ok = tupleOf(e.Packet); c.ok {
		if id, _ := e.Conntrack.Find(w, c.zone, c.tuple); id != 0 {
			c.flow = e.Conntrack.Get(w, id)
		}
	}
	c.key = connKey{addr, c.zone.ID}
	return c
}

// run counts the packet and returns how many connections there are with it; zero
// drops the packet.
//
// Kernel: net/netfilter/nf_conncount.c, count_tree, __nf_conncount_add.
func (c *counting) run() int {
	if !c.ok {
		return 0
	}
	l, found := c.table.Get(c.key)
	switch {
	case !found:
		l = connList{conns: []counted{{c.tuple, c.zone}}, swept: c.now}
	case c.flow != nil && c.flow.Is(c.settled()):
		if c.later(&l) {
			c.sweep(&l, false)
		}
	case c.flow != nil && c.flow.Is(ct.Confirmed) || len(l.conns)-l.sweptWith >= collectMost ||
		c.later(&l):
		if c.sweep(&l, true) {
			break
		}
		fallthrough
	default:
		l.conns = append(l.conns[:len(l.conns):len(l.conns)], counted{c.tuple, c.zone})
	}
	c.table.Put(c.key, l)
	return len(l.conns)
}

// settled is the status of connections that are not looked for: they were counted when
// they were new. For some patches of 6.1 that were all confirmed ones, so that a list of
// nothing else runs empty and drops them.
//
// Kernel: net/netfilter/nf_conncount.c, __nf_conncount_add ("prevent connlimit drops for
// early confirmed ct", 6.1.178).
func (c *counting) settled() ct.Status {
	k := c.e.Kernel
	local := c.e.Packet.In == link.Loopback
	if k.Patched(6, 1, 160, 165) || k.Patched(6, 1, 165, 178) && !local {
		return ct.Confirmed
	}
	return ct.Confirmed | ct.Assured
}

// later tells whether a tick of the clock has passed since a list was swept: within one
// tick it is not swept again. When the kernel ticks is not known, so of two moments that
// are less than a tick apart only a probability is.
func (c *counting) later(l *connList) bool {
	w, tick := c.e.World, world.Second/world.Instant(c.e.World.HZ)
	past := c.now - l.swept
	if w.Dice.Oracle != nil { // a kernel takes some time for the packets of a question
		past, tick = past+1, 8*tick
	}
	if past <= 0 || past >= tick {
		return past != 0
	}
	return w.Dice.Take(world.Choice{
		Key: world.Key{What: world.ChoiceLimit, A: uint64(c.rule), B: uint64(c.e.Packet.SKB)},
		N:   2, Anew: true, Weights: []uint64{uint64(past), uint64(tick - past)},
		Values: laterOrNot}) == 0
}

func laterOrNot(i int) string {
	return [...]string{"the clock ticked in between", "within one tick of the clock"}[i]
}

const collectMost = 64 // CONNCOUNT_GC_MAX_COLLECT

// sweep forgets the connections of a list that are over. It stops, and returns true,
// at the packet's own when that is looked for.
//
// Kernel: the loop of __nf_conncount_add, and __nf_conncount_gc_list.
func (c *counting) sweep(l *connList, own bool) bool {
	out := make([]counted, 0, len(l.conns)+1)
	for i := range l.conns {
		n := &l.conns[i]
		id, _ := c.e.Conntrack.Find(c.e.World, n.zone, n.tuple)
		f := c.e.Conntrack.Get(c.e.World, id)
		if f != nil && own && c.isOwn(n) {
			l.conns = append(out, l.conns[i:]...)
			return true
		}
		if f != nil && !closed(f) {
			out = append(out, *n)
		}
		if len(out) < i+1-collectMost {
			out = append(out, l.conns[i+1:]...)
			break
		}
	}
	l.conns, l.swept, l.sweptWith = out, c.now, len(out)
	return false
}

// isOwn tells whether a counted connection is the packet's.
func (c *counting) isOwn(n *counted) bool {
	return n.tuple == c.tuple && n.zone.In(ct.Original) == c.zone.In(ct.Original)
}

// closed mirrors already_closed.
func closed(f *ct.Flow) bool {
	s := f.TCP.State
	return f.Proto() == packet.TCP && (s == ct.TCPTimeWait || s == ct.TCPClose)
}

// tupleOf reads the tuple of a packet that has no connection.
func tupleOf(p *packet.Packet) (t ct.Tuple, ok bool) {
	t = ct.Tuple{Src: p.Src(), Dst: p.Dst(), Proto: p.Protocol()}
	l4 := p.L4()
	switch {
	case p.FragOff() != 0:
		return t, false
	case packet.HasPorts(t.Proto):
		if len(l4) < 4 {
			return t, false
		}
		t.SPort, t.DPort = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	case t.Proto == packet.ICMP || t.Proto == packet.ICMPv6:
		if len(l4) < 8 {
			return t, false
		}
		t.SPort, t.DPort = binary.BigEndian.Uint16(l4[4:]), binary.BigEndian.Uint16(l4)
	}
	return t, true
}

// connAbove is --connlimit-above: the same number, asked the other way round.
type connAbove struct {
	*number
	above *bool
}

// Parse implements xtables.Value.
func (v *connAbove) Parse(a *xtables.Args) error {
	*v.above = true
	return v.number.Parse(a)
}

// connMask is a prefix length, or a mask; the whole address unless given.
type connMask struct {
	n     int
	given bool
}

// Parse implements xtables.Value.
func (v *connMask) Parse(a *xtables.Args) error {
	p, err := xtables.ParsePrefix(zeroOf(a.Family)+"/"+a.Word, a.Family)
	if err != nil {
		return err
	}
	n, ok := xtables.PrefixLen(p.Mask, a.Family)
	if !ok {
		return fmt.Errorf("%q is no prefix", a.Word)
	}
	v.n, v.given = n, true
	return nil
}

func zeroOf(f trace.Family) string {
	if f == trace.IPv4 {
		return "0.0.0.0"
	}
	return "::"
}

func (v *connMask) len(f trace.Family) int {
	switch {
	case v.given:
		return v.n
	case f == trace.IPv4:
		return 32
	}
	return 128
}

func (v *connMask) addr(f trace.Family) packet.Addr { return xtables.MaskOf(v.len(f), f) }

// Append implements xtables.Value.
func (v *connMask) Append(b []byte, f trace.Family) []byte {
	return strconv.AppendInt(b, int64(v.len(f)), 10)
}

// Unset implements xtables.Value.
func (v *connMask) Unset() bool { return !v.given }
