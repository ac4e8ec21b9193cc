package target

import (
	"fmt"
	"strconv"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/ipset"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// set adds the packet to a set, takes it out of one, or gives it what its entry says.
//
// Kernel: net/netfilter/xt_set.c, set_target_v3.
type set struct {
	Add, Del, Map          xtables.SetRef
	Exist                  bool
	Timeout                setTimeout
	Mark, Prio, Queue      bool
	notAdd, notDel, notMap bool // a ! is accepted and means nothing

	add, del, mapped ipset.Query
}

func newSET() xtables.Target { return &set{} }

// Options implements xtables.Target.
func (t *set) Options(s *xtables.Spec) {
	t.notAdd, t.notDel, t.notMap = false, false, false
	s.Var("add-set", &t.Add).Not(&t.notAdd).PrintAs(printRef("add-set", &t.Add))
	s.Flag("exist", &t.Exist).Needs("add-set")
	s.Var("timeout", &t.Timeout).Needs("add-set")
	s.Var("del-set", &t.Del).Not(&t.notDel).PrintAs(printRef("del-set", &t.Del))
	s.Var("map-set", &t.Map).Not(&t.notMap).PrintAs(printRef("map-set", &t.Map))
	s.Flag("map-mark", &t.Mark).Needs("map-set")
	s.Flag("map-prio", &t.Prio).Needs("map-set")
	s.Flag("map-queue", &t.Queue).Needs("map-set")
	s.Check(t.check)
}

func printRef(option string, r *xtables.SetRef) func([]byte) []byte {
	return func(b []byte) []byte {
		if r.Unset() {
			return b
		}
		return r.Append(append(append(append(b, " --"...), option...), ' '), trace.IPv4)
	}
}

func (t *set) check(*xtables.Context) error {
	switch {
	case !t.Add.Given && !t.Del.Given && !t.Map.Given:
		return fmt.Errorf("one of the options --add-set, --del-set, --map-set is missing")
	case t.Map.Given && !t.Mark && !t.Prio && !t.Queue:
		return fmt.Errorf("option --map-set needs --map-mark, --map-prio or --map-queue")
	}
	return nil
}

// setTimeout is a number of seconds; zero is for ever.
type setTimeout struct {
	n     uint32
	given bool
}

// Parse implements xtables.Value.
func (v *setTimeout) Parse(a *xtables.Args) error {
	n, err := xtables.ParseUint(a.Word, ipset.NoTimeout-1)
	v.n, v.given = uint32(n), true
	return err
}

// Append implements xtables.Value.
func (v *setTimeout) Append(b []byte, _ trace.Family) []byte {
	return strconv.AppendUint(b, uint64(v.n), 10)
}

// Unset implements xtables.Value.
func (v *setTimeout) Unset() bool { return !v.given }

// Validate implements xtables.Validator.
//
// Kernel: net/netfilter/xt_set.c, set_target_v3_checkentry.
func (t *set) Validate(b *xtables.Build) error {
	const late = 1<<trace.Forward | 1<<trace.Output | 1<<trace.Postrouting
	switch {
	case t.Map.Given && b.Table != "mangle":
		return fmt.Errorf("--map-set is only for table mangle, not %s", b.Table)
	case (t.Prio || t.Queue) && b.Hooks&^late != 0:
		return fmt.Errorf("--map-prio and --map-queue are only for FORWARD, OUTPUT and POSTROUTING")
	}
	for _, r := range []*xtables.SetRef{&t.Add, &t.Del, &t.Map} {
		if err := r.Check(b); err != nil {
			return err
		}
	}
	if b.Sets.Open() {
		return nil
	}
	t.add, t.del, t.mapped = t.Add.Query(b), t.Del.Query(b), t.Map.Query(b)
	if t.Exist {
		t.add.Flags |= ipset.Exist
	}
	if t.Timeout.given {
		t.add.Timeout = t.Timeout.n
	}
	t.assume(b)
	return nil
}

// assume says what `ipset save` does not tell of a set that packets are added to.
func (t *set) assume(b *xtables.Build) {
	if !t.Add.Given || b.Assume == nil {
		return
	}
	for _, why := range b.Sets.Unsaid(&t.add) {
		if _, first := xtables.Shared(b, "unsaid", why, func() bool { return true }); first {
			b.Assume(why)
		}
	}
}

// Effects implements xtables.Target.
func (t *set) Effects() (out []field.Effect) {
	if t.Map.Given && t.Mark {
		out = append(out, field.Effect{Op: field.Forget, ID: field.Mark})
	}
	if t.Map.Given && t.Prio {
		out = append(out, field.Effect{Op: field.Forget, ID: field.Priority})
	}
	return out
}

// Do implements xtables.Target.
func (t *set) Do(e *xtables.Env) trace.Verdict {
	if e.Sets.Open() {
		return trace.Continue
	}
	at := e.SetPlace()
	if t.Add.Given {
		e.Sets.Add(e.World, e.Packet, &t.add, &at)
	}
	if t.Del.Given {
		e.Sets.Del(e.World, e.Packet, &t.del, &at)
	}
	if !t.Map.Given {
		return trace.Continue
	}
	in, info := e.Sets.Test(e.World, e.Packet, &t.mapped, &at)
	if !in {
		return trace.Continue
	}
	if t.Mark {
		e.Packet.Mark = e.Packet.Mark&^info.Mask ^ info.Mark
	}
	if t.Prio {
		e.Packet.Priority = info.Prio
	}
	return trace.Continue
}
