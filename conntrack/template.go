package conntrack

import "github.com/hookpath/hookpath/packet"

// Template is what a CT target says of a packet before it is tracked.
//
// Kernel: net/netfilter/xt_CT.c.
type Template struct {
	Zone     Zone
	ZoneMark bool // the zone is the packet's mark
	Helper   Helper
}

// Template registers what a CT target says, while the host is built, and returns
// the number that packet.Meta.Template takes.
func (t *Tracker) Template(tm Template) uint32 {
	for i, old := range t.templates[1:] {
		if old == tm {
			return uint32(i + 1)
		}
	}
	t.templates = append(t.templates, tm)
	return uint32(len(t.templates) - 1)
}

// Attach gives a packet a template, zero for NOTRACK. Packets that have a connection
// or a template already, or are not tracked, keep what they have.
//
// Kernel: net/netfilter/xt_CT.c, xt_ct_target.
func (t *Tracker) Attach(p *packet.Packet, template uint32) {
	if p.CT.Flow != 0 || p.CT.Info == packet.Untracked || p.Template != 0 {
		return
	}
	if template == 0 {
		p.CT.Info = packet.Untracked
		return
	}
	p.Template = template
}

// takeTemplate uses up the packet's template.
//
// Kernel: include/net/netfilter/nf_conntrack_zones.h, nf_ct_zone_tmpl.
func (v *visit) takeTemplate() {
	n := v.p.Template
	if n == 0 || int(n) >= len(v.t.templates) {
		return
	}
	v.p.Template = 0
	v.tmpl = &v.t.templates[n]
	v.zone = v.tmpl.Zone
	if v.tmpl.ZoneMark {
		v.zone.ID = uint16(v.p.Mark)
	}
}
