package walk

import (
	"fmt"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

// maxSteps bounds the packets that one question can set in motion. TEE can keep a kernel
// busy for ever: it takes one from the time to live without a look at zero.
const maxSteps = 600

// Walk is one question on its way through a host: the packet that was asked about
// and all that came of it. It is not safe for concurrent use.
type Walk struct {
	*Host
	World *world.World
	Trace *trace.Trace
	// End, when set, gets each packet's end; a trace gets it anyway. Outcome and frame
	// are good until it returns.
	End func(*trace.Outcome)
	// Err is the first thing on the way that can't be walked.
	Err error

	env   xtables.Env
	queue []queued
	first int // the number of the first packet, zero for the next one
	skbs  int
	steps int
	// dst is the routing decision that the present packet carries (skb_dst).
	dst      route.Decision
	hasDst   bool
	p        *packet.Packet
	hook     trace.Hook
	narrowed map[field.ID][]narrowing
	view     view
	// settled is what was noted of packets of other views, in the question's fields.
	settled field.Deps
	teeing  bool // the present packet is a copy: it is not copied again
	// process tells that a program's system call is running, and not the softirq.
	process bool
	// tables are the legacy tables being asked, which hold the softirq back.
	tables int
	// why is what a stage that is no table says of its drop.
	why trace.Why
	// inICMP tells that the kernel's ICMP socket is sending.
	inICMP bool

	outcome trace.Outcome // what End is shown
	spare   packet.Packet // the first packet of a walk that nobody observes
}

// queued is a frame that a device will receive when the present work is done.
type queued struct {
	dev packet.Dev
	p   *packet.Packet
	// dst is the route that a packet keeps over lo (loopback_xmit).
	dst    route.Decision
	hasDst bool
	parent int // of a copy, zero for none
	view   view
}

// NewWalk begins a question. A nil trace records nothing.
func (h *Host) NewWalk(w *world.World, tr *trace.Trace) *Walk {
	k := &Walk{Host: h, World: w, Trace: tr}
	k.env = xtables.Env{Rooms: &h.Rooms, World: w, Trace: tr, Mover: k, Family: trace.IPv4,
		Narrow: k.narrow}
	if tr != nil && w.Dice != nil {
		w.Dice.Watch = k.chose
	}
	return k
}

// Number lets the walk go on with the numbers of another one that its packets come
// from: the first packet is the other's first, zero for a new one, and last is the
// highest number there.
func (k *Walk) Number(first, last int) { k.first, k.skbs = first, last }

// Numbered is the highest number that a packet has.
func (k *Walk) Numbered() int { return k.skbs }

// chose records an answer of the dice.
func (k *Walk) chose(t *world.Taken) {
	e := &trace.Choice{Taken: *t}
	if k.p != nil {
		e.SKB = k.p.SKB
	}
	k.Trace.Events = append(k.Trace.Events, e)
}

// Reset makes a walk without trace ready for another question in the same world. It
// keeps its buffers, so that a packet on a known way costs no memory.
func (k *Walk) Reset() {
	k.Err, k.env.Unknown, k.narrowed = nil, nil, nil
	k.queue, k.first, k.skbs = k.queue[:0], 0, 0
	k.steps, k.hasDst = 0, false
}

// Unknown says that a field lies outside of what the question tells: a test on it
// forks the walk.
func (k *Walk) Unknown(id field.ID) {
	if k.env.Unknown == nil {
		k.env.Unknown = map[field.ID]bool{}
	}
	k.env.Unknown[id] = true
}

// saved is what a nested packet must not disturb.
type saved struct {
	dst    route.Decision
	hasDst bool
	p      *packet.Packet
	hook   trace.Hook
	env    xtables.Env
}

func (k *Walk) save() saved {
	return saved{k.dst, k.hasDst, k.p, k.hook, k.env}
}

func (k *Walk) restore(s saved) {
	k.dst, k.hasDst, k.p, k.hook, k.env = s.dst, s.hasDst, s.p, s.hook, s.env
}

// number gives a packet the next number of the trace.
func (k *Walk) number(p *packet.Packet) {
	if k.first != 0 {
		p.SKB, k.first = k.first, 0
		return
	}
	k.skbs++
	p.SKB = k.skbs
}

// runHook takes the present packet through a hook's stages.
//
// Kernel: net/netfilter/core.c, nf_hook_slow.
func (k *Walk) runHook(hook trace.Hook) trace.Verdict {
	k.hook = hook
	stages := k.hooks[hook]
	for i := range stages {
		st := &stages[i]
		if k.Trace != nil {
			k.Trace.Add(k.p, &trace.HookRun{Family: trace.IPv4, Hook: hook,
				Priority: st.priority, Name: st.name, In: k.p.In, Out: k.p.Out,
				PhysIn: k.p.PhysIn, PhysOut: k.p.PhysOut})
		}
		k.env.By, k.why = trace.RuleRef{Table: -1}, ""
		if v := st.run(k, st); v != trace.Accept {
			if v != gone {
				k.stopped(v, st)
			}
			return v
		}
	}
	return trace.Accept
}

// stopped ends the packet that a hook did not let through.
func (k *Walk) stopped(v trace.Verdict, st *stage) {
	if v == trace.Stolen || v == trace.Queue {
		k.end(&trace.Outcome{Result: trace.Absorbed, Why: absorbedWhy(v, st)})
		return
	}
	by := k.env.By
	o := &trace.Outcome{Result: trace.Dropped, Reason: "NETFILTER_DROP", Why: "rule-drop"}
	switch {
	case k.why != "":
		o.Why = k.why
	case by.Table < 0:
		o.Why = trace.Why(st.name + "-drop")
	case by.Rule == 0:
		o.Why, o.By = "policy-drop", &by
	default:
		o.By = &by
		if k.rejected(by) {
			o.Result, o.Why = trace.Rejected, "reject"
		}
	}
	k.end(o)
}

func absorbedWhy(v trace.Verdict, st *stage) trace.Why {
	switch {
	case v == trace.Queue:
		return "queue"
	case st.name == "defrag":
		return "waiting-for-fragments"
	}
	return "stolen"
}

func (k *Walk) rejected(by trace.RuleRef) bool {
	r := k.programs[by.Table].RuleAt(by)
	return r != nil && r.Ext != nil && r.Ext.Name == "REJECT"
}

// end records how the present packet ended.
func (k *Walk) end(o *trace.Outcome) {
	o.SKB, o.Free = k.p.SKB, k.p.Free
	if k.Trace != nil {
		if o.Result == trace.Dropped || o.Result == trace.Rejected {
			k.Trace.Add(k.p, &trace.Drop{Reason: o.Reason, Why: o.Why, By: o.By})
		}
		k.Trace.Outcomes = append(k.Trace.Outcomes, *o)
	}
	if k.End != nil {
		k.outcome = *o
		k.End(&k.outcome)
	}
	k.Conntrack.Release(k.World, k.p)
}

// drop ends the present packet with a reason.
func (k *Walk) drop(reason trace.Reason, why trace.Why) {
	k.end(&trace.Outcome{Result: trace.Dropped, Reason: reason, Why: why})
}

// softirq works off what devices handed over, where a program sends and nothing holds
// the softirq back: the kernel runs it as soon as bottom halves are enabled again.
//
// Kernel: kernel/softirq.c, __local_bh_enable_ip.
func (k *Walk) softirq() {
	if !k.process || k.inICMP || k.teeing || k.tables > 0 || len(k.queue) == 0 {
		return
	}
	k.process = false
	k.nested(k.drain)
	k.process = true
}

// drain works off what devices hand over, first in, first out.
func (k *Walk) drain() {
	for len(k.queue) > 0 && k.Err == nil {
		q := k.queue[0]
		k.queue = k.queue[1:]
		if !k.step() {
			return
		}
		k.dst, k.hasDst = q.dst, q.hasDst
		k.seenAs(q.view, func() { k.receive(q.dev, q.p, q.parent) })
	}
}

// step counts a packet that was set in motion. It is false when there were too many.
func (k *Walk) step() bool {
	if k.steps++; k.steps > maxSteps && k.Err == nil {
		k.Err = fmt.Errorf("the packet goes round: %d packets came of it, and still more would",
			maxSteps)
	}
	return k.Err == nil
}

// table asks one table's rules.
func (k *Walk) table(st *stage) trace.Verdict {
	k.env.Packet, k.env.Hook = k.p, k.hook
	k.env.Nexthop, k.env.MTU = k.dst.Nexthop(k.p.Dst()), k.mtu()
	if st.program.Backend == xtables.NFT {
		return st.program.Run(&k.env)
	}
	k.tables++ // ipt_do_table disables bottom halves
	v := st.program.Run(&k.env)
	k.tables--
	k.softirq()
	return v
}

// track gives the packet its connection.
func (k *Walk) track(*stage) trace.Verdict {
	return k.Conntrack.In(k.World, k.Trace, k.p, k.hook)
}

// confirm enters a new connection into the table.
func (k *Walk) confirm(*stage) trace.Verdict {
	k.needs(field.CtState) // one that clashes is dropped
	if h := k.Conntrack.Unread(k.World, k.p); h != conntrack.NoHelper {
		k.Err = &link.UnsupportedError{What: "what the helper " + h.String() + " reads in a payload"}
		return trace.DropIt
	}
	return k.Conntrack.Confirm(k.World, k.Trace, k.p)
}

// natPrerouting translates the packet, which loses the route that it kept over lo when
// its destination changes.
//
// Kernel: net/netfilter/nf_nat_proto.c, nf_nat_ipv4_pre_routing.
func (k *Walk) natPrerouting(st *stage) trace.Verdict {
	dst := k.p.Dst()
	v := k.nat(st)
	if v == trace.Accept && k.p.Dst() != dst {
		k.hasDst = false
	}
	return v
}

// nat translates the packet, asking the nat table for a new connection.
func (k *Walk) nat(st *stage) trace.Verdict {
	k.needs(field.CtState)
	return k.NAT.Hook(k.World, k.Trace, k.p, k.hook, func() trace.Verdict {
		if st.program == nil {
			return trace.Accept
		}
		return k.table(st)
	})
}
