package conntrack

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// Expect is a connection that a helper foresees: the first packet that agrees with
// the tuple under the mask begins it, RELATED to the master. A zero place in the
// list is free.
//
// Kernel: include/net/netfilter/nf_conntrack_expect.h, nf_conntrack_expect.
type Expect struct {
	Tuple   Tuple
	SrcMask packet.Addr // of the source address alone; ports count as SPortMask says
	// SPortMask is 0 where any source port will do, 0xffff where it must agree.
	SPortMask uint16
	Master    packet.FlowID
	Timeout   world.Instant
	Permanent bool
	Inactive  bool
	Helper    Helper
	// NAT of the expected connection, where the master is translated: the dir that
	// the expected connection has to the master, and the port before it was changed.
	FollowNAT bool
	Dir       Dir
	SavedAddr packet.Addr
	SavedPort uint16
}

func (e *Expect) free() bool { return e.Tuple.Proto == 0 }

// holds tells whether a tuple is the expected one.
//
// Kernel: include/net/netfilter/nf_conntrack_tuple.h, nf_ct_tuple_mask_cmp.
func (e *Expect) holds(tu *Tuple) bool {
	if tu.Dst != e.Tuple.Dst || tu.DPort != e.Tuple.DPort || tu.Proto != e.Tuple.Proto ||
		(tu.SPort^e.Tuple.SPort)&e.SPortMask != 0 {
		return false
	}
	for i := range tu.Src {
		if (tu.Src[i]^e.Tuple.Src[i])&e.SrcMask[i] != 0 {
			return false
		}
	}
	return true
}

// AddExpect foresees a connection, in the place of what its master foresaw before. It
// fails where another connection's helper foresees the same, or the list is full.
//
// Kernel: net/netfilter/nf_conntrack_expect.c, nf_ct_expect_related_report; the helpers
// that are read here may each expect one connection.
func (t *Tracker) AddExpect(w *world.World, e Expect) bool {
	list, v := t.expects.In(w.State), &t.vars.In(w.State).V
	place := -1
	for i := range list.Len() {
		old := list.Get(i)
		switch {
		case old.free():
			place = i
		case old.Timeout <= w.Now:
			*list.Ref(i) = Expect{}
			v.expects--
			place = i
		case old.Master != e.Master && t.clashes(w, &old, &e):
			return false
		}
	}
	t.removeExpects(w, e.Master)
	if v.expects >= t.expectMax {
		return false
	}
	v.expects++
	if place < 0 {
		list.Append(e)
		return true
	}
	*list.Ref(place) = e
	return true
}

// clashes tells whether a packet could be what both expect.
//
// Kernel: net/netfilter/nf_conntrack_expect.c, expect_clash.
func (t *Tracker) clashes(w *world.World, a, b *Expect) bool {
	if t.Ref(w, a.Master).Zone.ID != t.Ref(w, b.Master).Zone.ID {
		return false
	}
	both := *a
	both.SPortMask &= b.SPortMask
	for i := range both.SrcMask {
		both.SrcMask[i] &= b.SrcMask[i]
	}
	return both.holds(&b.Tuple)
}

// Expects lists what is expected now.
func (t *Tracker) Expects(w *world.World) []Expect {
	var out []Expect
	list := t.expects.In(w.State)
	for i := range list.Len() {
		if e := list.Get(i); !e.free() && e.Timeout > w.Now {
			out = append(out, e)
		}
	}
	return out
}

// removeExpects forgets what a connection's helper foresees.
func (t *Tracker) removeExpects(w *world.World, master packet.FlowID) {
	v := &t.vars.In(w.State).V
	if v.expects == 0 {
		return
	}
	list := t.expects.In(w.State)
	for i := range list.Len() {
		if e := list.Get(i); !e.free() && e.Master == master {
			*list.Ref(i) = Expect{}
			v.expects--
		}
	}
}

// expected looks whether a new connection was foreseen.
//
// Kernel: net/netfilter/nf_conntrack_expect.c, nf_ct_find_expectation, and
// nf_conntrack_core.c, init_conntrack.
func (v *visit) expected(f *Flow) {
	vars := &v.t.vars.In(v.w.State).V
	if vars.expects == 0 {
		return
	}
	list := v.t.expects.In(v.w.State)
	for i := range list.Len() {
		e := list.Get(i)
		if e.free() || e.Inactive || e.Timeout <= v.w.Now || !e.holds(&f.Tuples[Original]) {
			continue
		}
		master := v.t.Get(v.w, e.Master)
		if master == nil || master.Zone.ID != f.Zone.ID {
			continue
		}
		if !master.Is(Confirmed) || master.Is(Dying) || master.expired(v.w.Now) {
			return
		}
		v.fulfil(f, &e, master)
		if !e.Permanent {
			*list.Ref(i) = Expect{}
			vars.expects--
		}
		return
	}
}

// fulfil makes a new connection the expected one.
func (v *visit) fulfil(f *Flow, e *Expect, master *Flow) {
	f.Status |= Expected
	f.Master, f.Mark = e.Master, master.Mark
	if h := v.t.helperOf(e, master); h != NoHelper {
		f.Helper = h
		f.Status |= HelperBit
	}
	if e.FollowNAT && v.t.NAT != nil {
		v.t.NAT.Follow(v.w, v.id, e)
	}
}

// helperOf is the helper that an expected connection gets. For some patches of 6.1 an
// expectation's is its master's, unless the master's says otherwise.
//
// Kernel: net/netfilter/nf_conntrack_core.c, init_conntrack; "honor expectation helper
// field" (6.1.168), "restore helper propagation via expectation" (6.1.183).
func (t *Tracker) helperOf(e *Expect, master *Flow) Helper {
	const first, end = 6<<16 | 1<<8 | 168, 6<<16 | 1<<8 | 183
	if e.Helper == NoHelper && t.cfg.Kernel >= first && t.cfg.Kernel < end {
		return master.Helper
	}
	return e.Helper
}
