package target

import (
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// tee sends a copy of the packet to a gateway.
//
// Kernel: net/netfilter/xt_TEE.c, tee_tg4.
type tee struct {
	nothing
	Gateway gateway
	OIF     xtables.Bare
	out     packet.Dev
}

func newTEE() xtables.Target { return &tee{OIF: xtables.Bare{Min: 1, Max: 15}} }

// Options implements xtables.Target.
func (t *tee) Options(s *xtables.Spec) {
	s.Var("gateway", &t.Gateway).Required()
	s.Var("oif", &t.OIF)
	s.Check(func(*xtables.Context) error {
		if t.Gateway.Addr.IsAny() {
			return fmt.Errorf("--gateway: it can't be %s", t.Gateway.Addr.Netip())
		}
		return nil
	})
}

// gateway is one address, without a mask.
type gateway struct{ xtables.Host }

// Parse implements xtables.Value.
func (v *gateway) Parse(a *xtables.Args) error {
	if strings.Contains(a.Word, "/") {
		return fmt.Errorf("%q is not an IP address", a.Word)
	}
	return v.Host.Parse(a)
}

// Validate implements xtables.Validator. A device that is not there does not count
// for the route.
func (t *tee) Validate(b *xtables.Build) error {
	t.out = 0
	if l := b.Links.ByName(t.OIF.S); t.OIF.Given && l != nil {
		t.out = l.Index
	}
	return nil
}

// Do implements xtables.Target.
func (t *tee) Do(e *xtables.Env) trace.Verdict {
	e.Mover.Tee(e, t.Gateway.Addr, t.out)
	return trace.Continue
}

// TeeCopy is the copy that TEE sends: untracked, with DF, and with one hop less where
// the packet was received, lest two hosts send it to and fro. It has no route yet.
//
// Kernel: net/ipv4/netfilter/nf_dup_ipv4.c, nf_dup_ipv4.
func TeeCopy(p *packet.Packet, hook trace.Hook) *packet.Packet {
	q := p.Clone()
	q.DropLink()
	q.CT, q.Template = packet.CT{Info: packet.Untracked}, 0
	ip := q.IP()
	ip[6] |= 0x40
	if hook == trace.Prerouting || hook == trace.Input {
		ip[8]--
	}
	packet.FixIP4(ip)
	return q
}
