package route

import (
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// tries collects the rules that were consulted; a nil one collects nothing.
type tries struct{ list []trace.RuleTry }

func (t *tries) add(rule int, why trace.RuleWhy) {
	if t != nil {
		t.list = append(t.list, trace.RuleTry{Rule: rule, Why: why})
	}
}

// lookup asks the rules and their tables. With an error the result holds what
// made it: a route, or a rule alone.
//
// Kernel: include/net/ip_fib.h, fib_lookup; net/ipv4/fib_rules.c, __fib_lookup.
func (f *FIB) lookup(fl *Flow, tr *tries) (result, Errno) {
	if f.merged {
		return f.lookupMerged(fl, tr)
	}
	f.updateL3mdev(fl)
	r, err := f.lookupRules(fl, tr)
	if r.rule >= 0 {
		r.realm = f.rules[r.rule].Realms
	}
	return r, err
}

// Places of the three rules that a namespace begins with.
const (
	ruleLocal = iota
	ruleMain
	ruleDefault
)

// lookupMerged is the way past the rules while there are only the first three.
func (f *FIB) lookupMerged(fl *Flow, tr *tries) (result, Errno) {
	r, err := f.main.lookup(fl)
	if err != EAGAIN {
		r.rule = ruleMain
		if r.a.table == TableLocal {
			r.rule = ruleLocal
			return r, err
		}
		tr.add(ruleLocal, trace.NoRoute)
		return r, err
	}
	tr.add(ruleLocal, trace.NoRoute)
	tr.add(ruleMain, noRouteWhy(r))
	r, err = f.def.lookup(fl)
	if err == EAGAIN {
		tr.add(ruleDefault, noRouteWhy(r))
		return result{rule: -1}, ENETUNREACH
	}
	r.rule = ruleDefault
	return r, err
}

// noRouteWhy tells a throw route from no route.
func noRouteWhy(r result) trace.RuleWhy {
	if r.a != nil {
		return trace.Throw
	}
	return trace.NoRoute
}

// updateL3mdev gives a flow the VRF of its device.
//
// Kernel: net/l3mdev/l3mdev.c, l3mdev_update_flow.
func (f *FIB) updateL3mdev(fl *Flow) {
	if l := f.links.ByIndex(fl.Out); l != nil && fl.Out != 0 {
		if fl.L3mdev == 0 {
			if fl.L3mdev = f.links.L3Master(fl.Out); fl.L3mdev != 0 {
				fl.Flags |= l3mdevOut
			}
		}
		if l.IsVRF() {
			fl.Out = 0
		}
		return
	}
	if fl.In > link.Loopback && fl.L3mdev == 0 {
		fl.L3mdev = f.links.L3Master(fl.In)
	}
}

// lookupRules walks the rules.
//
// Kernel: net/core/fib_rules.c, fib_rules_lookup.
func (f *FIB) lookupRules(fl *Flow, tr *tries) (result, Errno) {
	for i := 0; i < len(f.rules); i++ {
		r := &f.rules[i]
		if !r.matches(fl) {
			tr.add(i, trace.NoMatch)
			continue
		}
		switch r.Action {
		case Nop:
			tr.add(i, trace.Nop)
			continue
		case Goto:
			tr.add(i, trace.Went)
			if r.target >= 0 {
				i = r.target - 1
			}
			continue
		}
		res, err := f.act(r, fl)
		if err == 0 && f.suppressed(r, &res) {
			tr.add(i, trace.Suppressed)
			continue
		}
		if err == EAGAIN {
			tr.add(i, noRouteWhy(res))
			continue
		}
		res.rule = i
		return res, err
	}
	return result{rule: -1}, ENETUNREACH
}

// act does what a rule says.
//
// Kernel: net/ipv4/fib_rules.c, fib4_rule_action.
func (f *FIB) act(r *rule, fl *Flow) (result, Errno) {
	switch r.Action {
	case UnreachableAction:
		return result{}, ENETUNREACH
	case ProhibitAction:
		return result{}, EACCES
	case BlackholeAction:
		return result{}, EINVAL
	}
	if r.L3mdev {
		return f.tables[f.links.VRFTable(fl.L3mdev)].lookup(fl)
	}
	return r.table.lookup(fl)
}

// suppressed tells whether a rule refuses what its table gave.
//
// Kernel: net/ipv4/fib_rules.c, fib4_rule_suppress.
func (f *FIB) suppressed(r *rule, res *result) bool {
	if r.SuppressPrefix.Set && uint32(res.a.bits) <= r.SuppressPrefix.N {
		return true
	}
	if !r.SuppressGroup.Set || len(res.a.hops) == 0 {
		return false
	}
	l := f.links.ByIndex(res.a.hops[0].dev)
	return l != nil && l.Group == r.SuppressGroup.N
}

// usesDevice tells whether one of a route's ways on leads through a device.
//
// Kernel: net/ipv4/fib_frontend.c, fib_info_nh_uses_dev.
func (f *FIB) usesDevice(a *alias, dev packet.Dev) bool {
	for i := range a.hops {
		if a.hops[i].dev == dev || f.links.L3Master(a.hops[i].dev) == dev {
			return true
		}
	}
	return false
}

// preferredSource is the source that a route gives to what has none.
//
// Kernel: net/ipv4/fib_semantics.c, fib_result_prefsrc.
func (r *result) preferredSource() packet.Addr {
	if !r.a.src.IsZero() {
		return r.a.src
	}
	return r.hop.saddr
}
