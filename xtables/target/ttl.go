package target

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// ttl sets, raises or lowers the time to live (TTL), or the hop limit (HL).
//
// Kernel: net/netfilter/xt_HL.c, ttl_tg and hl_tg.
type ttl struct {
	prefix        string // ttl or hl
	Set, Dec, Inc xtables.Number
}

func newTTL() xtables.Target { return newHops("ttl") }
func newHL() xtables.Target  { return newHops("hl") }

func newHops(prefix string) xtables.Target {
	step := xtables.Number{Min: 1, Max: 255}
	return &ttl{prefix: prefix, Set: xtables.Number{Max: 255}, Dec: step, Inc: step}
}

// Options implements xtables.Target.
func (t *ttl) Options(s *xtables.Spec) {
	s.Var(t.prefix+"-set", &t.Set)
	s.Var(t.prefix+"-dec", &t.Dec)
	s.Var(t.prefix+"-inc", &t.Inc)
	s.ExactlyOne(t.prefix+"-set", t.prefix+"-dec", t.prefix+"-inc")
}

// Effects implements xtables.Target.
func (t *ttl) Effects() []field.Effect {
	if t.Set.Given {
		return []field.Effect{{Op: field.SetTo, ID: field.TTL, Val: field.U(t.Set.N)}}
	}
	return []field.Effect{{Op: field.Forget, ID: field.TTL}}
}

// Validate implements xtables.Validator.
func (t *ttl) Validate(*xtables.Build) error {
	if t.prefix == "hl" {
		return unsupported("-j HL", "packets of IPv6 are not rewritten")
	}
	return nil
}

// Do implements xtables.Target.
func (t *ttl) Do(e *xtables.Env) trace.Verdict {
	old := int(e.Packet.TTL())
	now := int(t.Set.N)
	switch {
	case t.Dec.Given:
		now = max(old-int(t.Dec.N), 0)
	case t.Inc.Given:
		now = min(old+int(t.Inc.N), 255)
	}
	if !t.Set.Given {
		e.Deps().Note(field.TTL, field.Ones(8))
	}
	if now != old {
		e.Packet.SetTTL(uint8(now))
	}
	return trace.Continue
}
