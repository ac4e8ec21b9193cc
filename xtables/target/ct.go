package target

import (
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// zone is the argument of --zone: a number, or "mark" for the packet's mark.
type zone struct {
	n        uint16
	fromMark bool
	given    bool
}

// Parse implements xtables.Value.
func (z *zone) Parse(a *xtables.Args) error {
	z.given = true
	if a.Word == "mark" {
		z.fromMark = true
		return nil
	}
	n, err := xtables.ParseUint(a.Word, 65535)
	z.n = uint16(n)
	return err
}

// Append implements xtables.Value.
func (z *zone) Append(b []byte, _ trace.Family) []byte {
	if z.fromMark {
		return append(b, "mark"...)
	}
	return fmt.Appendf(b, "%d", z.n)
}

// Unset implements xtables.Value.
func (z *zone) Unset() bool { return !z.given }

// ct chooses how a packet will be tracked: not at all, in a zone, with a helper.
//
// Kernel: net/netfilter/xt_CT.c, xt_ct_target_v1.
type ct struct {
	Off               xtables.Text
	Notrack           bool
	Zone, Orig, Reply zone
	Helper, Timeout   xtables.Text
	Events, ExpEvents events
	template          uint32
}

func newCT() xtables.Target { return &ct{} }

// Options implements xtables.Target.
func (t *ct) Options(s *xtables.Spec) {
	s.Flag("notrack", &t.Notrack)
	s.Var("helper", &t.Helper)
	s.Var("timeout", &t.Timeout)
	s.Var("ctevents", &t.Events)
	s.Var("expevents", &t.ExpEvents)
	s.Var("zone-orig", &t.Orig)
	s.Var("zone-reply", &t.Reply)
	s.Var("zone", &t.Zone)
	s.OneOf("zone", "zone-orig", "zone-reply")
	s.OneOf("notrack", "helper", "timeout")
	s.Check(func(*xtables.Context) error { return checkEvents(t.Events.s) })
}

// events is a list of words, printed as it was given.
type events struct{ s string }

// Parse implements xtables.Value.
func (v *events) Parse(a *xtables.Args) error {
	v.s = a.Word
	return nil
}

// Append implements xtables.Value.
func (v *events) Append(b []byte, _ trace.Family) []byte { return append(b, v.s...) }

// Unset implements xtables.Value.
func (v *events) Unset() bool { return v.s == "" }

const ctEvents = "new related destroy reply assured protoinfo helper mark natseqinfo secmark"

func checkEvents(list string) error {
	for _, e := range strings.Split(list, ",") {
		if e != "" && !strings.Contains(" "+ctEvents+" ", " "+e+" ") {
			return fmt.Errorf("unknown event %q", e)
		}
	}
	return nil
}

// NoTrack tells whether the rule turns tracking off.
func (t *ct) NoTrack() bool { return t.Notrack }

// Effects implements xtables.Target.
func (t *ct) Effects() []field.Effect {
	if t.Notrack {
		return []field.Effect{{Op: field.SetTo, ID: field.CtState,
			Val: field.U(field.CtUntracked)}}
	}
	return []field.Effect{{Op: field.Forget, ID: field.CtZone}}
}

// Validate implements xtables.Validator.
func (t *ct) Validate(b *xtables.Build) error {
	if t.Notrack {
		return nil
	}
	if t.Timeout.S != "" {
		return &link.UnsupportedError{What: "--timeout: policies are not in a snapshot"}
	}
	tm := conntrack.Template{Zone: t.zone(), ZoneMark: t.Zone.fromMark || t.Orig.fromMark ||
		t.Reply.fromMark}
	if t.Helper.S != "" {
		h, ok := conntrack.ParseHelper(t.Helper.S)
		if !ok || !h.Supported() {
			return &link.UnsupportedError{What: "--helper " + t.Helper.S}
		}
		tm.Helper = h
	}
	t.template = b.Conntrack.Template(tm)
	return nil
}

func (t *ct) zone() conntrack.Zone {
	switch {
	case t.Orig.given:
		return conntrack.Zone{ID: t.Orig.n, Dir: conntrack.ZoneOrig}
	case t.Reply.given:
		return conntrack.Zone{ID: t.Reply.n, Dir: conntrack.ZoneReply}
	}
	return conntrack.Zone{ID: t.Zone.n}
}

// Do implements xtables.Target.
func (t *ct) Do(e *xtables.Env) trace.Verdict {
	if t.Notrack {
		return untrack(e)
	}
	e.Conntrack.Attach(e.Packet, t.template)
	return trace.Continue
}

// notrack is the old name of CT --notrack.
//
// Kernel: net/netfilter/xt_CT.c, notrack_tg.
type notrack struct{ ct }

func newNotrack() xtables.Target { return &notrack{ct{Notrack: true}} }

// Options implements xtables.Target.
func (t *notrack) Options(*xtables.Spec) {}

func untrack(e *xtables.Env) trace.Verdict {
	e.Conntrack.Attach(e.Packet, 0)
	return trace.Continue
}
