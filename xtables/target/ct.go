package target

import (
	"fmt"
	"strconv"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// ctZone is what --zone, --zone-orig and --zone-reply say together: the last number
// counts, in all the directions that were named.
//
// iptables: extensions/libxt_CT.c, xt_ct_parse_zone_id.
type ctZone struct {
	id          uint16
	fromMark    bool
	orig, reply bool
}

// dir is the direction that the number counts in.
//
// Kernel: net/netfilter/xt_CT.c, xt_ct_flags_to_dir.
func (z *ctZone) dir() conntrack.ZoneDir {
	switch {
	case z.orig == z.reply:
		return conntrack.ZoneBoth
	case z.orig:
		return conntrack.ZoneOrig
	}
	return conntrack.ZoneReply
}

// zoneForm is one of the three options.
type zoneForm struct {
	z   *ctZone
	dir conntrack.ZoneDir
}

// Parse implements xtables.Value.
func (f *zoneForm) Parse(a *xtables.Args) error {
	f.z.orig = f.z.orig || f.dir == conntrack.ZoneOrig
	f.z.reply = f.z.reply || f.dir == conntrack.ZoneReply
	if a.Word == "mark" {
		f.z.fromMark = true
		return nil
	}
	n, err := xtables.ParseUint(a.Word, 65535)
	f.z.id = uint16(n)
	return err
}

// Append implements xtables.Value.
func (f *zoneForm) Append(b []byte, _ trace.Family) []byte {
	if f.z.fromMark {
		return append(b, "mark"...)
	}
	return strconv.AppendUint(b, uint64(f.z.id), 10)
}

// Unset implements xtables.Value.
func (f *zoneForm) Unset() bool {
	return f.z.id == 0 && !f.z.fromMark || f.dir != f.z.dir()
}

// ct chooses how a packet will be tracked: not at all, in a zone, with a helper.
//
// Kernel: net/netfilter/xt_CT.c, xt_ct_target_v1.
type ct struct {
	Notrack           bool
	Zone              ctZone
	Helper, Timeout   xtables.Bare
	Events, ExpEvents xtables.Bits
	template          uint32
}

func newCT() xtables.Target {
	return &ct{Helper: xtables.Bare{Max: 15}, Timeout: xtables.Bare{Max: 31},
		Events: xtables.Bits{Words: ctEvents}, ExpEvents: xtables.Bits{Words: ctEvents[:1]}}
}

// ctEvents are the events of connections; an expectation has the first alone.
//
// Kernel: include/uapi/linux/netfilter/nf_conntrack_common.h, ip_conntrack_events.
var ctEvents = []xtables.Bit{{Word: "new", N: 1 << 0}, {Word: "related", N: 1 << 1},
	{Word: "destroy", N: 1 << 2}, {Word: "reply", N: 1 << 3}, {Word: "assured", N: 1 << 4},
	{Word: "protoinfo", N: 1 << 5}, {Word: "helper", N: 1 << 6}, {Word: "mark", N: 1 << 7},
	{Word: "natseqinfo", N: 1 << 8}, {Word: "secmark", N: 1 << 9}}

// Options implements xtables.Target.
func (t *ct) Options(s *xtables.Spec) {
	s.Flag("notrack", &t.Notrack)
	s.Var("helper", &t.Helper)
	s.Var("timeout", &t.Timeout)
	s.Var("ctevents", &t.Events)
	s.Var("expevents", &t.ExpEvents)
	s.Var("zone-orig", &zoneForm{&t.Zone, conntrack.ZoneOrig})
	s.Var("zone-reply", &zoneForm{&t.Zone, conntrack.ZoneReply})
	s.Var("zone", &zoneForm{&t.Zone, conntrack.ZoneBoth})
}

// NoTrack tells whether the rule turns tracking off.
func (t *ct) NoTrack() bool { return t.Notrack }

// Effects implements xtables.Target. A packet that has a connection already keeps it.
func (t *ct) Effects() []field.Effect {
	return []field.Effect{{Op: field.Forget, ID: field.CtState}}
}

// Validate implements xtables.Validator.
//
// Kernel: xt_ct_tg_check and xt_ct_set_helper.
func (t *ct) Validate(b *xtables.Build) error {
	if t.Notrack {
		return nil
	}
	if t.Timeout.Given {
		return unsupported("--timeout", "timeout policies are not in a snapshot")
	}
	tm := conntrack.Template{Zone: conntrack.Zone{ID: t.Zone.id, Dir: t.Zone.dir()},
		ZoneMark: t.Zone.fromMark}
	if t.Helper.S != "" {
		h, err := t.helper(b.Rule)
		if err != nil {
			return err
		}
		tm.Helper = h
	}
	t.template = b.Conntrack.Template(tm)
	return nil
}

func (t *ct) helper(r *xtables.Rule) (conntrack.Helper, error) {
	h, ok := conntrack.ParseHelper(t.Helper.S)
	proto := r.IP.Proto
	switch {
	case proto == 0 || r.IP.Not&xtables.NotProto != 0:
		return h, fmt.Errorf("--helper: needs -p, and that not negated")
	case !ok || !helps(h, proto):
		return h, fmt.Errorf("--helper: there is no helper %q for %s", t.Helper.S,
			xtables.ProtoName(proto))
	}
	return h, nil
}

// helps tells whether a helper is for a protocol.
func helps(h conntrack.Helper, proto uint8) bool {
	switch h {
	case conntrack.SIP:
		return proto == packet.TCP || proto == packet.UDP
	case conntrack.TFTP, conntrack.Amanda, conntrack.NetBIOS, conntrack.RAS, conntrack.SNMP:
		return proto == packet.UDP
	}
	return proto == packet.TCP
}

// Do implements xtables.Target.
func (t *ct) Do(e *xtables.Env) trace.Verdict {
	if t.Zone.fromMark { // of 16 bits, in conntrack's own hook
		e.Deps().Note(field.Mark, field.Ones(16))
	}
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
